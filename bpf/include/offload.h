/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/*
 * What xdp_offload.bpf.c shares with enforcer/backends/xdp/offload.py: keys and values of its maps.
 *
 * Integers are in host byte order unless their type or name says otherwise (__be16, __be32); the
 * kernel and the card's firmware convert none of them. A key and its value have at most 64 bytes
 * together, the limit of the known cards.
 */
#ifndef OFFLOAD_H
#define OFFLOAD_H

#include <linux/types.h>

/*
 * lengths4, lengths6: the prefix lengths that occur in deny4 and deny6, longest first, one element
 * each; one element of length 0 if there are none.
 */
#define MAX_LENGTHS4 33 /* all possible lengths: 0 to 32 */
#define MAX_LENGTHS6 32

struct length4 {
	__u32 length;
	__be32 mask;
};

_Static_assert(sizeof(struct length4) == 8, "4 + 4, no padding");

struct length6 {
	__u32 length;
	__be32 mask[4];
};

_Static_assert(sizeof(struct length6) == 20, "4 + 16, no padding");

/*
 * deny4, deny6: source prefix -> number of the first entry that drops it or a prefix that contains
 * it.
 */
struct net4 {
	__u32 length;
	__be32 address;
};

_Static_assert(sizeof(struct net4) == 8, "4 + 4, no padding");

struct net6 {
	__u32 length;
	__be32 address[4];
};

_Static_assert(sizeof(struct net6) == 20, "4 + 16, no padding");

/*
 * failsafe: a set; the value has no meaning. Besides the ports it contains, with side PORT_ANY and
 * port 0, each protocol that has a failsafe port, and ANY_PROTOCOL if there is any failsafe port:
 * these are looked up if a packet's ports, or even its protocol, are unknown.
 */
enum port_side {
	PORT_INBOUND = 0, /* port is the destination's: traffic to this host */
	PORT_RETURN = 1,  /* port is the source's: replies to traffic of this host */
	PORT_ANY = 2,
};

#define ANY_PROTOCOL 0 /* IPPROTO_HOPOPTS: never the protocol of a transport */

struct failsafe_port {
	__be16 port_be;
	__u8 protocol;
	__u8 side; /* enum port_side */
};

_Static_assert(sizeof(struct failsafe_port) == 4, "2 + 1 + 1, no padding");

/* settings: one element. */
struct offload_settings {
	/* The interface's MAC address: its first 4 bytes and its last 2, in memory order. */
	__u32 own_address_first;
	__u32 own_address_last;
};

#endif
