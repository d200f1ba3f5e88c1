// SPDX-License-Identifier: Apache-2.0
/* From a frame to what rules match on. Nothing is judged here. */
#include "octets.h"
#include "predict.h"
#include "protocols.h"

static bool is_vlan(uint16_t type)
{
	return type == 0x8100 || type == 0x88a8;
}

/*
 * The Ethernet header with all its tags. Tags without a VLAN carry a priority only and are taken off one after the
 * other (skb_vlan_untag, which wants two bytes after each); the first with one makes the frame another host's.
 */
enum step parse_link(struct packet *p)
{
	const uint8_t *frame = p->frame.at;
	uint32_t at = 14;
	uint16_t type;
	bool done = false;

	if (p->frame.seen < 14)
		return ODD;
	type = be16(frame + 12);
	p->group = frame[0] & 1;
	p->broadcast = !memcmp(frame, "\xff\xff\xff\xff\xff\xff", 6);
	while (is_vlan(type) && p->frame.length >= at + 4) {
		bool named;

		if (p->frame.seen < at + 4)
			return ODD;
		named = (be16(frame + at) & 0xfff) != 0;
		type = be16(frame + at + 2);
		p->tags += p->tags < 3;
		p->named |= named;
		if (!done && p->frame.length < at + 6) {
			p->truncated = done = true;
		} else if (!done && named) {
			p->other_host = done = true;
			p->other_type = type;
		}
		at += 4;
	}
	p->type = type;
	p->start = at;
	p->ip = (struct bytes){
		.at = frame + at,
		.length = p->frame.length - at,
		.seen = p->frame.seen > at ? p->frame.seen - at : 0,
	};
	return GO_ON;
}

static const uint8_t least[256] = {[TCP] = 20, [UDP] = 8, [SCTP] = 12};

static bool has_ports(int protocol)
{
	return protocol == TCP || protocol == UDP || protocol == DCCP || protocol == SCTP ||
	       protocol == UDPLITE;
}

/* What rules match on, of a transport; protocol NONE: unknown, CUT: the capture cut it. */
void set_transport(struct flow *flow, int protocol, struct bytes transport,
		   uint32_t fragment_offset)
{
	flow->protocol = (int16_t)protocol;
	flow->sport = flow->dport = NONE;
	flow->icmp_type = flow->icmp_code = NONE;
	flow->later_fragment = fragment_offset != 0;
	flow->whole_header = protocol >= 0 && least[protocol] && !fragment_offset &&
			     transport.length >= least[protocol];
	if (fragment_offset)
		return;
	if (has_ports(protocol) && transport.length >= 4) {
		bool seen = transport.seen >= 4;

		flow->sport = seen ? be16(transport.at) : CUT;
		flow->dport = seen ? be16(transport.at + 2) : CUT;
	} else if ((protocol == ICMP || protocol == ICMPV6) && transport.length >= 8) {
		bool seen = transport.seen >= 2;

		flow->icmp_type = seen ? transport.at[0] : CUT;
		flow->icmp_code = seen ? transport.at[1] : CUT;
	}
}

/*
 * The transport of an IPv6 packet as ip6tables finds it: ipv6_find_hdr() with target -1 (net/ipv6/exthdrs_core.c).
 * nftables stops at an authentication header of which two bytes are there. A header must be present only as far as it
 * is read, so the transport may begin beyond the end of the packet. Protocol NONE: the headers are truncated.
 */
enum step find_transport6(const struct packet *p, bool skips_authentication, int *protocol,
			  uint32_t *at, uint32_t *fragment_offset)
{
	const struct bytes ip = p->ip;
	int kind = ip.at[6];
	uint32_t here = 40;

	*fragment_offset = 0;
	*protocol = NONE;
	while (is_extension(kind) && kind != NO_NEXT) {
		uint32_t needed = kind == ROUTING || kind == FRAGMENT ? 4 : 2;
		int following;

		if (kind == AUTHENTICATION && !skips_authentication && ip.length >= here + 2)
			break;
		if (ip.length < here + needed)
			return GO_ON;
		if (ip.seen < here + (kind == FRAGMENT ? 4 : 2))
			return ODD;
		following = ip.at[here];
		if (kind == FRAGMENT && (be16(ip.at + here + 2) & 0xfff8)) {
			/* More headers may follow, but in another fragment. */
			if (is_extension(following) && following != NO_NEXT)
				return GO_ON;
			*fragment_offset = be16(ip.at + here + 2) & 0xfff8;
			*protocol = following;
			*at = here;
			return GO_ON;
		}
		here += extension_length(kind, ip.at[here + 1]);
		kind = following;
	}
	*protocol = kind;
	*at = here;
	return GO_ON;
}
