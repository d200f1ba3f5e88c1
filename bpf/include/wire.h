/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/*
 * Headers as they are on the wire: only what the XDP programs read. Fields named _be are big
 * endian. None is packed: IP headers lie at a multiple of 4 octets, or the machine does not mind
 * (where it does, drivers align them: NET_IP_ALIGN).
 */
#ifndef WIRE_H
#define WIRE_H

#include <linux/types.h>

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define BE16(value) __builtin_bswap16(value)
#define BE32(value) __builtin_bswap32(value)
#else
#define BE16(value) (value)
#define BE32(value) (value)
#endif

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_VLAN 0x8100 /* 802.1Q */
#define ETHERTYPE_QINQ 0x88a8 /* 802.1ad */

struct ethernet_header {
	__u8 destination[6];
	__u8 source[6];
	__be16 type_be;
};

_Static_assert(sizeof(struct ethernet_header) == 14, "RFC 894");

#define VLAN_ID_MASK 0x0fff

struct vlan_tag {
	__be16 control_be; /* priority, drop eligible, id */
	__be16 type_be;
};

_Static_assert(sizeof(struct vlan_tag) == 4, "802.1Q");

#define IPV4_FRAGMENT_OFFSET_MASK 0x1fff
#define IPV4_MORE_FRAGMENTS 0x2000

struct ipv4_header {
	__u8 version_and_length; /* 4 bits each; the length in 4 bytes */
	__u8 service;
	__be16 total_length_be;
	__be16 id_be;
	__be16 fragment_be;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum_be;
	__be32 source_be;
	__be32 destination_be;
};

_Static_assert(sizeof(struct ipv4_header) == 20, "RFC 791");

struct ipv6_header {
	__u8 version_and_class;
	__u8 class_and_flow[3];
	__be16 payload_length_be;
	__u8 next;
	__u8 hop_limit;
	__be32 source_be[4];
	__be32 destination_be[4];
};

_Static_assert(sizeof(struct ipv6_header) == 40, "RFC 8200");

/* The extension headers ipv6_ext_hdr() knows (net/ipv6/exthdrs_core.c). */
#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_AUTHENTICATION 51
#define NEXT_DESTINATION 60

#define IPV6_FRAGMENT_OFFSET_MASK 0xfff8
#define IPV6_MORE_FRAGMENTS 1

struct ipv6_extension {
	__u8 next;
	/* in 8 bytes without the first 8; authentication: in 4 bytes without the first 8 */
	__u8 length;
	__be16 fragment_be;
	__be32 rest_be;
};

_Static_assert(sizeof(struct ipv6_extension) == 8, "the least an extension header has");

#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_ICMPV6 58
#define PROTOCOL_SCTP 132

#define ICMP_HEADER_LENGTH 8 /* as xt_icmp wants to see */
#define TCP_HEADER_LENGTH 20
#define UDP_HEADER_LENGTH 8
#define SCTP_HEADER_LENGTH 12

/* The first bytes of TCP, UDP and SCTP alike. */
struct port_pair {
	__be16 source_be;
	__be16 destination_be;
};

_Static_assert(sizeof(struct port_pair) == 4, "RFC 768, 9293, 9260");

#endif
