/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/*
 * Parses a frame from its Ethernet header to its transport: functions without maps, for all XDP
 * programs.
 *
 * If the kernel would refuse the IP header before raw (cut short, wrong version, impossible
 * length), parsing ends and the frame passes. docs/packet-fates.md has a row for each case.
 */
#ifndef PARSE_H
#define PARSE_H

#include "wire.h"

#define MAX_VLAN_TAGS 2
#define NO_LIMIT 0xffffffff

/*
 * The position in the frame. `left`: the bytes that remain of the packet by the length in its IP
 * header; the frame may end earlier.
 */
struct cursor {
	void *at;
	void *end;
	__u32 left;
};

/* What is known about a packet's transport. */
enum transport_kind {
	TRANSPORT_PORTLESS, /* the protocol has neither ports nor types */
	TRANSPORT_PORTS,    /* source and destination port are known */
	TRANSPORT_NO_PORTS, /* the protocol has ports, but they cannot be read in this packet */
	TRANSPORT_ICMP,	    /* type and code are known */
	TRANSPORT_NO_ICMP,
};

struct transport {
	__u32 protocol;
	__u32 kind;   /* enum transport_kind */
	__u16 source; /* of ICMP: type << 8 | code */
	__u16 destination;
};

/*
 * Whether the interface receives a frame with this destination, as in eth_type_trans(): broadcast,
 * multicast, or its own MAC address. `first`: the first 4 bytes of that address; `last`: the other
 * 2, in memory order.
 */
static __always_inline int is_received(const struct ethernet_header *ethernet, __u32 first,
				       __u32 last)
{
	if (ethernet->h_dest[0] & 1)
		return 1;
	return *(const __u32 *)ethernet->h_dest == first &&
	       *(const __u16 *)(ethernet->h_dest + 4) == last;
}

/*
 * Moves past the Ethernet header and its VLAN tags. Returns the EtherType of the payload (host
 * order). 0 to pass the frame: it is cut short, or it has a VLAN id, so that raw sees its packet as
 * received by the VLAN interface or, without one, not at all.
 */
static __always_inline __u16 parse_link(struct cursor *cursor)
{
	struct ethernet_header *ethernet = cursor->at;
	__u16 type;
	int i;

	if ((void *)(ethernet + 1) > cursor->end)
		return 0;
	type = bpf_ntohs(ethernet->h_proto);
	cursor->at = ethernet + 1;
	for (i = 0; i < MAX_VLAN_TAGS; i++) {
		struct vlan_hdr *tag = cursor->at;

		if (type != ETH_P_8021Q && type != ETH_P_8021AD)
			break;
		if ((void *)(tag + 1) > cursor->end)
			return 0;
		if (bpf_ntohs(tag->h_vlan_TCI) & VLAN_VID_MASK)
			return 0;
		type = bpf_ntohs(tag->h_vlan_encapsulated_proto);
		cursor->at = tag + 1;
	}
	return type;
}

/*
 * Moves past an IPv4 header. Returns the length of the packet including the header, in bytes; 0 if
 * the header is invalid.
 */
static __always_inline __u32 parse_ipv4(struct cursor *cursor)
{
	struct iphdr *ip = cursor->at;
	__u32 header_length, total_length;

	if ((void *)(ip + 1) > cursor->end)
		return 0;
	header_length = ip->ihl * 4;
	total_length = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header_length < sizeof(*ip) || total_length < header_length)
		return 0;
	if (cursor->at + header_length > cursor->end)
		return 0;
	cursor->at += header_length;
	cursor->left = total_length - header_length;
	if (bpf_ntohs(ip->frag_off) & IP_MF)
		cursor->left &= ~7U; /* ip_frag_queue() cuts the rest off: raw may never see it */
	return total_length;
}

/*
 * Like parse_ipv4(). A jumbogram has length 0 in its header, and its length in its hop-by-hop
 * header: it is parsed without a limit.
 */
static __always_inline __u32 parse_ipv6(struct cursor *cursor)
{
	struct ipv6hdr *ip = cursor->at;

	if ((void *)(ip + 1) > cursor->end || ip->version != 6)
		return 0;
	cursor->at = ip + 1;
	cursor->left = bpf_ntohs(ip->payload_len);
	if (!cursor->left && ip->nexthdr == IPPROTO_HOPOPTS)
		cursor->left = NO_LIMIT - sizeof(*ip);
	return cursor->left + sizeof(*ip);
}

static __always_inline int is_extension(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_FRAGMENT ||
	       next == IPPROTO_AH || next == IPPROTO_DSTOPTS;
}

/* The bytes of header that are needed to know ports or ICMP type; 0: the protocol has neither. */
static __always_inline __u32 transport_length(__u8 protocol, __u8 icmp)
{
	if (protocol == icmp)
		return ICMP_HEADER_LENGTH;
	switch (protocol) {
	case IPPROTO_TCP:
		return sizeof(struct tcphdr);
	case IPPROTO_UDP:
		return sizeof(struct udphdr);
	case IPPROTO_SCTP:
		return SCTP_HEADER_LENGTH;
	default:
		return 0;
	}
}

/*
 * `icmp`: the protocol number of ICMP in this family. A later fragment has no transport header.
 * xt_tcp, xt_udp and xt_sctp need the whole header too, and hotdrop a packet without it.
 */
static __always_inline void parse_transport(struct cursor *cursor, __u8 icmp, int later,
					    struct transport *transport)
{
	__u32 length = transport_length(transport->protocol, icmp);
	int is_icmp = transport->protocol == icmp;
	struct port_pair *ports = cursor->at;

	transport->kind = TRANSPORT_PORTLESS;
	if (!length)
		return;
	transport->kind = is_icmp ? TRANSPORT_NO_ICMP : TRANSPORT_NO_PORTS;
	if (later || length > cursor->left || cursor->at + length > cursor->end)
		return;
	if ((void *)(ports + 1) > cursor->end) /* implied, but the verifier does not know */
		return;
	transport->kind = is_icmp ? TRANSPORT_ICMP : TRANSPORT_PORTS;
	transport->source = bpf_ntohs(ports->source);
	transport->destination = bpf_ntohs(ports->dest);
}

static __always_inline __u32 smaller(__u32 a, __u32 b)
{
	return a < b ? a : b;
}

#endif
