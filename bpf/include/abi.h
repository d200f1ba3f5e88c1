/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/*
 * What xdp_untracked.bpf.c shares with enforcer/backends/xdp: keys and values of its maps. Python
 * reads it as enforcer/model/abi.py, which tools/abi.py writes.
 *
 * Integers are in the machine's byte order unless their type or name says otherwise (__be16,
 * __be32). Structures have no padding that they do not name.
 */
#ifndef ABI_H
#define ABI_H

#include <linux/types.h>

/* The version of the pin directory: incremented if the format of maps or manifests changes. */
#define ABI_VERSION 2

/*
 * Bit vectors. Every entry of an interface's table has one bit, in evaluation order, failsafes
 * first; a row states for which of them one condition holds. Bit n is bit n % 64 of word n / 64.
 */
#define MAX_BITS 512
#define MAX_SKIPS 16 /* Pass entries that one packet may meet */
#define ROW_WORDS (MAX_BITS / 64)

struct row {
	__u64 word[ROW_WORDS];
};

_Static_assert(sizeof(struct row) == 64, "one cache line");

/*
 * Two levels from a 16-bit number to the index of its port_rows element. For each high byte, a
 * directory has that index, or NEXT_IS_PAGE and the index of a page in port_pages; a page has the
 * index for each low byte. For ICMP the high byte is the type, the low byte the code.
 */
enum {
	PORTS_SOURCE = 0,
	PORTS_DESTINATION = 1,
	PORTS_ICMP = 2,	  /* type and code of ICMP */
	PORTS_ICMPV6 = 3, /* type and code of ICMPv6 */
	PORT_DIRECTORIES = 4,
};

#define NEXT_IS_PAGE (1U << 31)
#define PORT_PAGE_ENTRIES 256

struct port_directory {
	__u32 next[PORT_PAGE_ENTRIES];
};

struct port_page {
	__u16 next[PORT_PAGE_ENTRIES];
};

/* policy: one element; what each bit does, and what it matches on. */
struct policy {
	struct row deny;	   /* drops */
	struct row skip;	   /* Pass: the rest of its tier is skipped */
	struct row match_protocol; /* matches on the protocol, or anything after it (ports, ICMP) */
	struct row match_ports;	   /* matches on ports, by number or name, negated or not */
	struct row match_icmp;	   /* matches on the ICMP type */
	struct row portless;	   /* may hold for a protocol that has no ports */
	struct port_directory ports[PORT_DIRECTORIES];
};

_Static_assert(sizeof(struct policy) == 384 + 4096, "six rows, four directories");

/*
 * tiers: number of a bit of policy.skip -> the bits that are still evaluated after it matched:
 * those of other tiers.
 */
/* (value: struct row) */

/* address_rows: address class -> the bits whose condition on that side holds, by family. */
struct address_rows {
	struct row source4;
	struct row destination4;
	struct row source6;
	struct row destination6;
};

/* protocols: protocol number -> the bits whose protocol condition holds; PROTOCOL_UNKNOWN: all. */
#define PROTOCOL_UNKNOWN 256
#define PROTOCOLS (PROTOCOL_UNKNOWN + 1)

/*
 * port_rows, and named (which adds to it for the address at that side): the port condition of a
 * side holds for (wanted | named.wanted) & ~(unwanted | named.unwanted). For an entry without named
 * ports, wanted alone is the result.
 */
struct port_rows {
	struct row wanted;
	struct row unwanted;
};

/* named: the members of named ports. */
enum side {
	SIDE_SOURCE = 0,
	SIDE_DESTINATION = 1,
};

struct named_key {
	__be32 address[4]; /* IPv4: the first word; the others are 0 */
	__be16 port_be;
	__u8 protocol;
	__u8 side;   /* enum side */
	__u8 family; /* 4 or 6 */
	__u8 pad[3];
};

_Static_assert(sizeof(struct named_key) == 24, "16 + 2 + 1 + 1 + 1 + 3");

/*
 * Addresses to classes. A word is a step of the look-up: its highest 4 bits are its kind. The root
 * has one for each value of the first 16 bits, as tbl24 of DIR-24-8 has for the first 24.
 *   WORD_LEAF            the class, in the lowest 16 bits
 *   1 ... 14             a list of 2 << kind segments; the lowest 28 bits are its offset, for IPv4
 *                        in units of 16 bytes, for IPv6 of 64 bytes
 *   WORD_NODE (IPv6)     the node with the number in the lowest 28 bits
 * A list is sorted by start and padded to its size by repeating its last start and value, so that a
 * search for the last segment whose start is not above the key gives the right value in the padding
 * too. Its first start is not above any key that leads to it. No list crosses a table page.
 *
 * IPv4: bit (address >> 10) % 32 of sieve4[address >> 15] is 0 if all addresses of that /22 have
 * class 0. Then the look-up ends, so most misses of large lists read nothing but this bit.
 * root4[address >> 16] is a word; the segments of a list are SEGMENT4(start, class) for the lower
 * 16 bits of the address.
 *
 * IPv6: root6[first 16 bits] is a word; key = the first 64 bits. A node spreads a range of keys
 * over buckets: buckets6[base + min((key - low) >> shift, last)] is the next word, for key >= low;
 * below it: `below`, a word. A list is 2 << kind starts (__u64), then as many words (__u32). A word
 * *found in a list* is either the class, or leads on with the last 64 bits of the address as the
 * key (nodes and lists as before; there a list's words are classes). At most MAX_STEPS6 nodes and
 * lists are visited; beyond that the class is 0.
 */
#define WORD_KIND_SHIFT 28
#define WORD_KIND(word) ((word) >> WORD_KIND_SHIFT)
#define WORD_REST(word) ((word) & ((1U << WORD_KIND_SHIFT) - 1))
#define WORD_LEAF 0
#define WORD_NODE 15
#define UNIT_SHIFT4 4 /* units of list offsets */
#define UNIT_SHIFT6 6
#define SEGMENT_SHIFT4 16
#define SEGMENT4(start, class) ((__u32)(start) << SEGMENT_SHIFT4 | (class))
#define TABLE_PAGE_SHIFT 18
#define TABLE_PAGE_BYTES (1 << TABLE_PAGE_SHIFT) /* of lists4, buckets6, lists6: a map element */
#define LARGEST_KIND4 15			 /* 65,536 segments of 4 bytes: a table page */
#define LARGEST_KIND6 13			 /* 16,384 segments of 12 bytes */
#define MAX_STEPS6 12
#define ROOT_WORDS (1 << 16)
#define ROOT_SHIFT4 (32 - 16) /* from an address, or its first 64 bits, to its word of the root */
#define ROOT_SHIFT6 (64 - 16)

struct root {
	__u32 word[ROOT_WORDS];
};

struct sieve {
	__u32 word[2 * ROOT_WORDS];
};

/* Not "page": the kernel headers, which bcc includes, define that name. */
struct table_page {
	__u8 byte[TABLE_PAGE_BYTES];
};

struct node6 {
	__u64 low;
	__u32 below;
	__u32 base; /* number of the first bucket; buckets are __u32 words, 65,536 to a table page */
	__u32 last; /* number of buckets - 1 */
	__u32 shift;
	__u32 pad[2];
};

_Static_assert(sizeof(struct node6) == 32, "half a cache line");

/*
 * entry_counters: number of a bit -> what it dropped, per CPU. Bytes are those of IP packets, as
 * iptables counts.
 */
struct entry_count {
	__u64 packets;
	__u64 bytes;
};

_Static_assert(sizeof(struct entry_count) == 16, "8 + 8, no padding");

/* device_look.bpf.c: the bits of its return value. */
#define LOOK_RX_OWNER 1
#define LOOK_VLANS 2

#endif
