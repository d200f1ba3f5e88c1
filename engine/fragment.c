// SPDX-License-Identifier: Apache-2.0
/* Which packets are fragments, as nf_ct_frag6_gather() (nf_conntrack_reasm.c) and ip_is_fragment() see them. */
#include "defrag.h"
#include "octets.h"
#include "protocols.h"

void datagram_key(const struct packet *p, uint32_t ident, uint64_t key[KEY_WIDTH])
{
	memcpy(key, p->source, sizeof p->source);
	memcpy(key + 2, p->destination, sizeof p->destination);
	key[4] = (uint64_t)ident << 16 | (p->version == 4 ? p->protocol : 0) << 8 | p->version;
}

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
	if (ip.length < at + 8) {
		*found = (struct fragment){.version = 6, .is_cut = true};
		return ENDED;
	}
	if (ip.seen < at + 8)
		return ODD;
	field = be16(ip.at + at + 2);
	*found = (struct fragment){
		.offset = field & 0xfff8,
		.data = bytes_from(ip, at + 8),
		.size = ip.length,
		.at = at,
		.pointer_at = pointer_at,
		.version = 6,
		.more = field & 1,
		.next_header = ip.at[at],
		.ecn = (be16(ip.at) >> 4) & 3,
	};
	datagram_key(p, be32(ip.at + at + 4), found->key);
	return ENDED;
}

enum step find_fragment(const struct packet *p, struct fragment *found)
{
	const uint8_t *ip = p->ip.at;
	uint16_t field;

	if (p->version == 6)
		return find_fragment6(p, found);
	field = be16(ip + 6);
	if (!(field & 0x3fff))
		return GO_ON;
	*found = (struct fragment){
		.offset = (field & 0x1fff) * 8,
		.data = bytes_from(p->ip, p->header),
		.at = p->header,
		.version = 4,
		.more = field & 0x2000,
		.unfragmentable = field & 0x4000,
		.next_header = ip[9],
		.ecn = ip[1] & 3,
	};
	if (found->more)
		found->data = bytes_to(found->data, found->data.length & ~7u);
	found->size = found->at + found->data.length;
	datagram_key(p, be16(ip + 4), found->key);
	return ENDED;
}
