// SPDX-License-Identifier: Apache-2.0
/* Which packets are fragments, as nf_ct_frag6_gather() (nf_conntrack_reasm.c) and ip_is_fragment() see them. */
#include "defrag.h"
#include "octets.h"
#include "protocols.h"

/* The last number is 0 for IPv4 alone. */
static inline void key4(uint64_t key[KEY_WIDTH], uint64_t source, uint64_t destination,
			uint32_t ident, uint8_t protocol)
{
	key[0] = source << 32 | destination;
	key[1] = ident << 8 | protocol;
	key[2] = key[3] = key[4] = 0;
}

void datagram_key(const struct packet *p, uint32_t ident, uint64_t key[KEY_WIDTH])
{
	if (p->version == 4) {
		key4(key, p->source[1], p->destination[1], ident, p->protocol);
		return;
	}
	memcpy(key, p->source, sizeof p->source);
	memcpy(key + 2, p->destination, sizeof p->destination);
	key[4] = (uint64_t)ident << 16 | 6;
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

/* data: all that is behind the header, of header bytes. False: it is none. */
static inline bool find_fragment4(const uint8_t *ip, uint32_t header, struct bytes data,
				  struct fragment *found)
{
	uint16_t field = be16(ip + 6);

	if (!(field & 0x3fff))
		return false;
	found->more = field & 0x2000;
	found->data = found->more ? bytes_to(data, data.length & ~7u) : data;
	found->offset = (field & 0x1fff) * 8;
	found->size = header + found->data.length;
	found->at = header;
	found->pointer_at = 0;
	found->version = 4;
	found->unfragmentable = field & 0x4000;
	found->is_cut = false;
	found->next_header = ip[9];
	found->ecn = ip[1] & 3;
	found->classes = 0;
	key4(found->key, be32(ip + 12), be32(ip + 16), be16(ip + 4), ip[9]);
	return true;
}

enum step find_fragment(const struct packet *p, struct fragment *found)
{
	if (p->version == 6)
		return find_fragment6(p, found);
	return find_fragment4(p->ip.at, p->header, bytes_from(p->ip, p->header), found) ? ENDED
											: GO_ON;
}

void set_plain_fragment(const uint8_t *ip, struct fragment *found)
{
	uint32_t total = be16(ip + 2);

	find_fragment4(ip, 20, (struct bytes){ip + 20, total - 20, total - 20}, found);
}
