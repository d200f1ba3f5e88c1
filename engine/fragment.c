// SPDX-License-Identifier: Apache-2.0
/* Which packets are fragments, as nf_ct_frag6_gather() (nf_conntrack_reasm.c) and ip_is_fragment() see them. */
#include "defrag.h"
#include "octets.h"
#include "protocols.h"

/* How much of its transport header a first IPv6 fragment must hold (ipv6frag_thdr_truncated; RFC 8200, 4.5). */
static enum step is_transport_cut(struct bytes ip, uint32_t at, bool *cut)
{
	int kind = FRAGMENT;
	uint32_t least = 1;

	*cut = false;
	while (is_extension(kind)) {
		uint32_t needed = kind == FRAGMENT ? 4 : 2;
		int following;

		if (kind == NO_NEXT || ip.length < at + needed)
			return GO_ON;
		if (ip.seen < at + needed)
			return ODD;
		if (kind == FRAGMENT && (be16(ip.at + at + 2) & 0xfff8))
			return GO_ON;
		following = ip.at[at];
		at += extension_length(kind, ip.at[at + 1]);
		kind = following;
	}
	if (kind == TCP)
		least = 20;
	else if (kind == UDP || kind == ICMPV6)
		least = 8;
	*cut = at + least > ip.length;
	return GO_ON;
}

static enum step find_fragment6(const struct packet *p, struct fragment *found)
{
	const struct bytes ip = p->ip;
	int kind = p->protocol;
	uint32_t at = 40, pointer_at = 6;
	uint16_t field;
	bool cut;

	if (!p->total) /* a jumbogram cannot be fragmented */
		return GO_ON;
	while (kind != FRAGMENT) { /* find_prev_fhdr() */
		int following;

		if (!is_extension(kind) || kind == NO_NEXT || ip.length < at + 2)
			return GO_ON;
		if (ip.seen < at + 2)
			return ODD;
		following = ip.at[at];
		pointer_at = at;
		at += extension_length(kind, ip.at[at + 1]);
		kind = following;
	}
	if (at > ip.length)
		return GO_ON;
	if (is_transport_cut(ip, at, &cut) == ODD)
		return ODD;
	if (cut)
		return GO_ON;
	found->is_cut = ip.length < at + 8;
	if (found->is_cut)
		return ENDED;
	if (ip.seen < at + 8)
		return ODD;
	field = be16(ip.at + at + 2);
	found->at = at;
	found->pointer_at = pointer_at;
	found->next_header = ip.at[at];
	found->offset = field & 0xfff8;
	found->more = field & 1;
	found->ident = be32(ip.at + at + 4);
	found->data = bytes_from(ip, at + 8);
	found->ecn = (be16(ip.at) >> 4) & 3;
	return ENDED;
}

/* ENDED: the packet is a fragment that defragmentation takes. ODD: the capture cut what decides. */
enum step find_fragment(const struct packet *p, struct fragment *found)
{
	const uint8_t *ip = p->ip.at;
	uint16_t field;

	*found = (struct fragment){0};
	if (p->version == 6)
		return find_fragment6(p, found);
	field = be16(ip + 6);
	if (!(field & 0x3fff))
		return GO_ON;
	found->offset = (field & 0x1fff) * 8;
	found->more = field & 0x2000;
	found->unfragmentable = field & 0x4000;
	found->ident = be16(ip + 4);
	found->next_header = ip[9];
	found->at = p->header;
	found->data = bytes_from(p->ip, p->header);
	found->ecn = ip[1] & 3;
	return ENDED;
}
