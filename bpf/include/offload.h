/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/*
 * What xdp_offload.bpf.c shares with enforcer/backends/xdp/offload.py: keys and values of its maps.
 *
 * Integers are in the machine's byte order unless their type or name says otherwise (__be16,
 * __be32); the kernel and the card's firmware translate none of them. No key with its value is
 * longer than 64 bytes, the most that is known of a card.
 */
#ifndef OFFLOAD_H
#define OFFLOAD_H

#include <linux/types.h>

/*
 * lengths4, lengths6: the prefix lengths that occur in deny4 and deny6, the longest first; as many
 * elements as lengths, but one of length 0 where there is none.
 */
#define MAX_LENGTHS4 33 /* all there can be: 0 to 32 */
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
 * deny4, deny6: source prefix -> number of the first entry that drops it, the prefixes that cover
 * it included.
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
 * failsafe: a set; the value means nothing. Besides the ports themselves it holds, with side
 * PORT_ANY and port 0, each protocol that has a port, and protocol ANY_PROTOCOL when there is any
 * port at all: the questions that are left to ask when a packet's ports, or even its protocol,
 * cannot be known.
 */
enum port_side {
	PORT_INBOUND = 0, /* port is the destination's: traffic to this host */
	PORT_RETURN = 1,  /* port is the source's: answers to traffic of this host */
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
	/* The interface's own address: its first 4 bytes and the other 2, as they lie in memory. */
	__u32 own_address_first;
	__u32 own_address_last;
};

#endif
