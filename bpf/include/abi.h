/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/*
 * What xdp_untracked.bpf.c and enforcer/backends/xdp/render.py share: keys and values of its maps.
 *
 * Integers are in the machine's byte order unless their type or name says otherwise (__be16, __be32). Any change here
 * is a new version of the pin directory: ABI_VERSION in enforcer/backends/xdp/layout.py.
 */
#ifndef ABI_H
#define ABI_H

#include <linux/types.h>

/* deny4, deny6: source prefix -> index of the first entry that drops it. prefix_length comes first (lpm_trie.c). */
struct lpm4_key {
	__u32 prefix_length;
	__be32 address;
};

_Static_assert(sizeof(struct lpm4_key) == 8, "4 + 4, no padding");

struct lpm6_key {
	__u32 prefix_length;
	__be32 address[4];
};

_Static_assert(sizeof(struct lpm6_key) == 20, "4 + 16, no padding");

/*
 * failsafe: a set; the value means nothing. Besides the ports themselves it holds, with side FAILSAFE_ANY and port 0,
 * each protocol that has a port, and protocol FAILSAFE_ANY_PROTOCOL when there is any port at all: the questions that
 * are left to ask when a packet's ports, or even its protocol, cannot be known.
 */
enum failsafe_side {
	FAILSAFE_INBOUND = 0, /* port is the destination's: traffic to this host */
	FAILSAFE_RETURN = 1,  /* port is the source's: answers to traffic of this host */
	FAILSAFE_ANY = 2,
};

#define FAILSAFE_ANY_PROTOCOL 0 /* IPPROTO_HOPOPTS: never the protocol of a transport */

struct failsafe_key {
	__be16 port_be;
	__u8 protocol;
	__u8 side; /* enum failsafe_side */
};

_Static_assert(sizeof(struct failsafe_key) == 4, "2 + 1 + 1, no padding");

/* entry_counters: index of an entry -> what it dropped, per CPU. Bytes are those of IP packets, as iptables counts. */
struct entry_count {
	__u64 packets;
	__u64 bytes;
};

_Static_assert(sizeof(struct entry_count) == 16, "8 + 8, no padding");

#endif
