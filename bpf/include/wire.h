/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/*
 * Protocol headers: the kernel's uapi headers, and what they lack, with the names of the kernel's
 * internal headers. IP headers are aligned to 4 bytes, or the CPU supports unaligned loads (drivers
 * align them where it does not: NET_IP_ALIGN).
 */
#ifndef WIRE_H
#define WIRE_H

#include "toolchain.h"

#ifdef TOOLCHAIN_BCC
/* Without `uapi/` these would be the kernel's internal headers. */
#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/in6.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/tcp.h>
#include <uapi/linux/udp.h>
#else
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#endif

/* struct ethhdr without __attribute__((packed)), with which clang loads byte by byte. */
struct ethernet_header {
	__u8 h_dest[ETH_ALEN];
	__u8 h_source[ETH_ALEN];
	__be16 h_proto;
};

_Static_assert(sizeof(struct ethernet_header) == ETH_HLEN, "RFC 894");

/* include/linux/if_vlan.h */
#define VLAN_VID_MASK 0x0fff

struct vlan_hdr {
	__be16 h_vlan_TCI; /* priority, drop eligible, id */
	__be16 h_vlan_encapsulated_proto;
};

_Static_assert(sizeof(struct vlan_hdr) == 4, "802.1Q");

/* include/net/ip.h, include/net/ipv6.h */
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff
#define IP6_MF 0x0001
#define IP6_OFFSET 0xfff8

/*
 * The first 8 bytes of every extension header; frag_off is that of a fragment header. hdrlen counts
 * units of 8 bytes after the first 8 bytes; in an authentication header, units of 4 bytes.
 */
struct extension_hdr {
	__u8 nexthdr;
	__u8 hdrlen;
	__be16 frag_off;
	__be32 rest;
};

_Static_assert(sizeof(struct extension_hdr) == 8, "the least an extension header has");

/* include/linux/sctp.h: struct sctphdr; linux/icmp.h: struct icmphdr, which wants the C library. */
#define SCTP_HEADER_LENGTH 12
#define ICMP_HEADER_LENGTH 8

/* The first bytes of TCP, UDP and SCTP. */
struct port_pair {
	__be16 source;
	__be16 dest;
};

_Static_assert(sizeof(struct port_pair) == 4, "RFC 768, 9293, 9260");

#endif
