// SPDX-License-Identifier: Apache-2.0
/*
 * How the transport treats a packet for this host; the result does not depend on a listener. net/ipv4/tcp_ipv4.c
 * (tcp_v4_rcv), udp.c (__udp4_lib_rcv), icmp.c (icmp_rcv); net/ipv6/udp.c, icmp.c, ip6_input.c
 * (ip6_protocol_deliver_rcu), exthdrs.c (ipv6_rthdr_rcv), reassembly.c (ipv6_frag_rcv).
 */
#include "transport.h"

/* Up to this length a checksum is verified at once, not only when the data is read (CHECKSUM_BREAK, skbuff.h). */
enum { CHECKSUM_BREAK = 76 };

/*
 * udplite_checksum_init() (include/net/udplite.h): a checksum over the stated part, 0 meaning all. There is no UDP-Lite
 * socket. Except for IPv4 unicast, the kernel finds that before it verifies the checksum of a longer datagram.
 */
static enum step udplite(const struct packet *p, struct bytes segment, struct end *end)
{
	uint32_t covered;
	bool is_verified;

	if (segment.length < 8)
		return drop(end, AT_SOCKET, UDPLITE_MALFORMED);
	if (segment.seen < 6)
		return ODD;
	covered = be16(segment.at + 4);
	if (!covered)
		covered = segment.length;
	if (covered < 8 || covered > segment.length)
		return drop(end, AT_SOCKET, UDPLITE_MALFORMED);
	if (segment.seen < 8)
		return ODD;
	if (!be16(segment.at + 6))
		return drop(end, AT_SOCKET, UDPLITE_NO_CHECKSUM);
	if (segment.seen < covered)
		return ODD;
	is_verified = (covered == segment.length && covered <= CHECKSUM_BREAK) ||
		      (p->version == 4 && !p->for_group);
	if (is_verified && !is_sum_good(p, segment.at, covered, segment.length, UDPLITE))
		return drop(end, AT_SOCKET, UDPLITE_CHECKSUM);
	return deliver(end, NO_REASON);
}

static enum step routing(const struct packet *p, uint32_t at, struct end *end)
{
	const struct bytes ip = p->ip;
	uint8_t kind, left;

	if (ip.length < at + 8)
		return drop(end, AT_SOCKET, EXT_ROUTING_LONGER);
	if (ip.seen < at + 2)
		return ODD;
	if (ip.length < at + extension_length(ROUTING, ip.at[at + 1]))
		return drop(end, AT_SOCKET, EXT_ROUTING_LONGER);
	if (p->multicast || p->group)
		return drop(end, AT_SOCKET, EXT_ROUTING_GROUP);
	if (ip.seen < at + 4)
		return ODD;
	kind = ip.at[at + 2];
	left = ip.at[at + 3];
	/* Only a header with no segments left is skipped (ipv6_rthdr_rcv); segment routing is refused (rpl, seg6). */
	if (kind == 3 || kind == 4 || left)
		return drop(end, AT_SOCKET, EXT_ROUTING_TYPE);
	return GO_ON;
}

/* ipv6_frag_rcv(): a fragment that defragmentation left to the stack; only one that is the whole datagram passes. */
static enum step fragment(const struct packet *p, uint32_t at, bool is_second, struct end *end)
{
	if (is_second || !p->total || p->ip.length < at + 8)
		return drop(end, AT_SOCKET, EXT_FRAGMENT);
	if (p->ip.seen < at + 4)
		return ODD;
	if (be16(p->ip.at + at + 2) & 0xfff9)
		return drop(end, AT_SOCKET, EXT_MALFORMED);
	return GO_ON;
}

/* GO_ON at the transport, or at a header without a handler: authentication, or hop-by-hop that is not the first. */
static enum step pass_headers(const struct packet *p, int *protocol, uint32_t *start,
			      struct end *end)
{
	const struct bytes ip = p->ip;
	bool had_fragment = p->transport_at;
	uint32_t at = 40;
	int kind = p->protocol;

	if (p->received == HOP_BY_HOP) { /* handled at ip-input */
		if (ip.seen < at + 2)
			return ODD;
		kind = ip.at[at];
		at += extension_length(HOP_BY_HOP, ip.at[at + 1]);
	}
	/* nf_ct_frag6_reasm() moves the transport there, whatever headers were before the fragment header. */
	if (p->transport_at)
		at = p->transport_at;
	while (kind == OPTIONS || kind == ROUTING || kind == FRAGMENT) {
		enum step step = GO_ON;
		enum reason why = NO_REASON;
		int following;

		if (kind == OPTIONS) {
			step = bad_options6(p, at, false, &why);
			if (step == GO_ON && why)
				step = drop(end, AT_SOCKET, why);
		} else if (kind == ROUTING) {
			step = routing(p, at, end);
		} else {
			step = fragment(p, at, had_fragment, end);
			had_fragment = true;
		}
		if (step != GO_ON)
			return step;
		if (ip.seen < at + 2)
			return ODD;
		following = ip.at[at];
		at += extension_length(kind, ip.at[at + 1]);
		kind = following;
	}
	*protocol = kind;
	*start = at;
	return kind == NO_NEXT ? drop(end, AT_SOCKET, EXT_NO_NEXT) : GO_ON;
}

static enum step end_of(const struct world *world, struct packet *p, struct end *end)
{
	uint32_t at = p->header;
	int protocol = p->protocol;
	struct bytes segment;

	if (p->version == 6 && is_extension(protocol)) {
		enum step step = pass_headers(p, &protocol, &at, end);

		if (step != GO_ON)
			return step;
		if (is_extension(protocol))
			return deliver(end, NO_REASON);
	} else if (p->version == 6) {
		at = 40;
	}
	segment = bytes_from(p->ip, at);
	switch (protocol) {
	case TCP:
		return tcp(p, segment, end);
	case UDP:
		return udp(world, p, segment, end);
	case UDPLITE:
		return udplite(p, segment, end);
	case ICMP:
		return p->version == 4 ? icmp(p, segment, end) : deliver(end, NO_REASON);
	case ICMPV6:
		return p->version == 6 ? icmp6(p, segment, end) : deliver(end, NO_REASON);
	}
	return deliver(end, NO_REASON);
}

bool sum_is_good(const struct packet *p, const uint8_t *at, uint32_t covered, uint32_t length,
		 uint8_t protocol)
{
	return is_sum_good(p, at, covered, length, protocol);
}

/* What is missing of a transport: its header, or what its checksum covers. */
static enum reason missing(const struct packet *p)
{
	uint32_t at = p->header, offset;
	int protocol = p->protocol;
	uint32_t seen;

	if (p->version == 6 && find_transport6(p, true, &protocol, &at, &offset) == ODD)
		return EXT_CUT;
	seen = bytes_from(p->ip, at).seen;
	switch (protocol) {
	case TCP:
		return seen < 20 ? TCP_CUT : TCP_UNKNOWN;
	case UDP:
		return seen < 8 ? UDP_CUT : UDP_UNKNOWN;
	case UDPLITE:
		return seen < 8 ? UDPLITE_CUT : UDPLITE_UNKNOWN;
	case ICMP:
		return seen < 8 ? ICMP_CUT : ICMP_UNKNOWN;
	case ICMPV6:
		return seen < 8 ? ICMP6_CUT : ICMP6_UNKNOWN;
	}
	return PAYLOAD_CUT;
}

enum step transport(const struct world *world, struct packet *p, struct end *end)
{
	enum step step = end_of(world, p, end);

	return step == ODD ? leave_open(end, AT_SOCKET, missing(p)) : step;
}
