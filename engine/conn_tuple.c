// SPDX-License-Identifier: Apache-2.0
/*
 * The tuple of a packet: nf_ct_get_tuple(), nf_ct_invert_tuple() and get_l4proto() of nf_conntrack_core.c;
 * gre_pkt_to_tuple(); icmp_pkt_to_tuple() and the invmap of both versions of ICMP.
 */
#include "conntrack.h"
#include "octets.h"
#include "protocols.h"

enum { GRE_VERSION_1 = 1, GRE_PPP = 0x880b };

/* ipv6_skip_exthdr(), of the packet whose header is at an offset: its payload may begin beyond the end. */
static enum read skip_headers(struct bytes buf, uint32_t at, int *protocol, uint32_t *begin)
{
	uint32_t here = at + 40;
	int kind;

	if (buf.length < at + 7)
		return ABSENT;
	kind = buf.at[at + 6];
	while (is_extension(kind)) {
		uint32_t needed = kind == FRAGMENT ? 4 : 2;
		int following;

		if (kind == NO_NEXT || buf.length < here + needed)
			return ABSENT;
		if (buf.seen < here + needed)
			return HIDDEN;
		if (kind == FRAGMENT && (be16(buf.at + here + 2) & 0xfff8))
			return ABSENT;
		following = buf.at[here];
		here += extension_length(kind, buf.at[here + 1]);
		kind = following;
	}
	*protocol = kind;
	*begin = here;
	return READ;
}

static enum read find_payload(const struct packet *p, int *protocol, uint32_t *at)
{
	if (p->version == 6)
		return skip_headers(p->ip, 0, protocol, at);
	if (be16(p->ip.at + 6) & 0x1fff)
		return ABSENT;
	*protocol = p->ip.at[9];
	*at = (p->ip.at[0] & 15) * 4;
	return READ;
}

/* ABSENT: there are none where they have to be. */
static enum read read_keys(int protocol, struct bytes payload, struct tuple *found)
{
	const uint8_t *at = payload.at;

	switch (protocol) {
	case TCP:
	case UDP:
	case UDPLITE:
	case SCTP:
		if (payload.length < 4)
			return ABSENT;
		if (payload.seen < 4)
			return HIDDEN;
		found->source_key = be16(at);
		found->destination_key = be16(at + 2);
		return READ;
	case ICMP:
	case ICMPV6:
		if (payload.length < 8)
			return ABSENT;
		if (payload.seen < 6)
			return HIDDEN;
		found->source_key = be16(at + 4);
		found->destination_key = be16(at);
		return READ;
	case GRE: /* only version 1, PPTP's, has a key */
		if (payload.length < 4)
			return READ;
		if (payload.seen < 2)
			return HIDDEN;
		if ((be16(at) & 7) != GRE_VERSION_1 || payload.length < 8)
			return READ;
		if (payload.seen < 4)
			return HIDDEN;
		if (be16(at + 2) != GRE_PPP)
			return ABSENT;
		if (payload.seen < 8)
			return HIDDEN;
		found->destination_key = be16(at + 6);
	}
	return READ;
}

static enum read make_tuple(const uint64_t source[2], const uint64_t destination[2],
			    uint8_t version, int protocol, struct bytes payload,
			    struct tuple *found)
{
	*found = (struct tuple){
		.source = {source[0], source[1]},
		.destination = {destination[0], destination[1]},
		.protocol = (uint8_t)protocol,
		.version = version,
	};
	return read_keys(protocol, payload, found);
}

/* The tuple of the packet at an offset that an ICMP error quotes; all of buf was captured. */
enum read find_quoted(struct bytes buf, uint32_t at, uint8_t version, struct tuple *found)
{
	uint64_t source[2] = {0}, destination[2] = {0};
	uint32_t begin = 0;
	int protocol = 0;

	if (version == 4) { /* neither its version nor a shortest header length is asked for */
		if (buf.length < at + 20 || (be16(buf.at + at + 6) & 0x1fff))
			return ABSENT;
		begin = at + (buf.at[at] & 15) * 4;
		protocol = buf.at[at + 9];
		if (begin > buf.length)
			return ABSENT;
		source[1] = be32(buf.at + at + 12);
		destination[1] = be32(buf.at + at + 16);
	} else {
		if (skip_headers(buf, at, &protocol, &begin) != READ || buf.length < at + 40)
			return ABSENT;
		for (int i = 0; i < 2; i++) {
			source[i] = be64(buf.at + at + 8 + 8 * i);
			destination[i] = be64(buf.at + at + 24 + 8 * i);
		}
	}
	return make_tuple(source, destination, version, protocol, bytes_from(buf, begin), found);
}

/* Request and reply, both ways; NONE for what has no inverse. */
static int inverse_type(uint8_t protocol, uint8_t type)
{
	if (protocol == ICMPV6) {
		bool is_pair = type == 128 || type == 139;

		return is_pair ? type + 1 : type == 129 || type == 140 ? type - 1 : NONE;
	}
	switch (type) {
	case 8:
		return 0;
	case 0:
		return 8;
	case 13:
	case 15:
	case 17:
		return type + 1;
	case 14:
	case 16:
	case 18:
		return type - 1;
	}
	return NONE;
}

bool invert_tuple(const struct tuple *tuple, struct tuple *inverse)
{
	*inverse = *tuple;
	memcpy(inverse->source, tuple->destination, sizeof inverse->source);
	memcpy(inverse->destination, tuple->source, sizeof inverse->destination);
	if (tuple->protocol == ICMP || tuple->protocol == ICMPV6) {
		int type = inverse_type(tuple->protocol, tuple->destination_key >> 8);

		if (type < 0)
			return false;
		inverse->destination_key = (uint16_t)(type << 8 | (tuple->destination_key & 0xff));
	} else {
		inverse->source_key = tuple->destination_key;
		inverse->destination_key = tuple->source_key;
	}
	return true;
}

/* More than 0: the inverse is the key. Any order does, as long as it is one. */
static int order_of(const struct tuple *tuple, uint16_t source_key, uint16_t destination_key)
{
	for (int i = 0; i < 2; i++)
		if (tuple->source[i] != tuple->destination[i])
			return tuple->source[i] < tuple->destination[i] ? -1 : 1;
	return (source_key > destination_key) - (source_key < destination_key);
}

bool tuple_key(const struct tuple *tuple, struct tuple *key, bool *flipped, bool *is_own_inverse)
{
	uint16_t source_key = tuple->source_key, destination_key = tuple->destination_key;
	int order;

	if (tuple->protocol == ICMP || tuple->protocol == ICMPV6) {
		struct tuple inverse;

		if (!invert_tuple(tuple, &inverse))
			return false;
		source_key = tuple->destination_key;
		destination_key = inverse.destination_key;
	}
	order = order_of(tuple, source_key, destination_key);
	*flipped = order > 0;
	*is_own_inverse = order == 0;
	if (order > 0)
		invert_tuple(tuple, key);
	else
		*key = *tuple;
	return true;
}

void set_payload(struct conn_packet *packet, struct bytes payload)
{
	packet->buf = payload;
	packet->payload = READ;
	packet->ports = make_tuple(packet->source, packet->destination, packet->version,
				   packet->protocol, payload, &packet->tuple);
	packet->has_key =
		packet->ports == READ &&
		tuple_key(&packet->tuple, &packet->key, &packet->flipped, &packet->is_own_inverse);
}

void set_packet(struct conn_packet *packet, const struct packet *p)
{
	int protocol = 0;
	uint32_t at = 0;

	packet->p = p;
	packet->version = p->version;
	memcpy(packet->source, p->source, sizeof packet->source);
	memcpy(packet->destination, p->destination, sizeof packet->destination);
	packet->is_cut = p->ip.seen < p->ip.length;
	packet->untracked = p->untracked;
	packet->payload = find_payload(p, &protocol, &at);
	packet->protocol = (uint8_t)protocol;
	if (packet->payload == READ)
		set_payload(packet, bytes_from(p->ip, at));
}
