// SPDX-License-Identifier: Apache-2.0
#include "ordinary.h"

#include <stdlib.h>

#include "transport.h"

enum { TPID = 0x0081, PROVIDER_TPID = 0xa888, MOST_EARLY_TAGS = 2 }; /* in memory order */

/* How long the transport must be for all that rules match on to be there; 0: no ordinary one. */
static inline uint32_t least_of(uint8_t version, uint8_t protocol)
{
	switch (protocol) {
	case TCP:
		return 20;
	case UDP:
		return 8;
	case ICMP:
		return version == 4 ? 8 : 0;
	case ICMPV6:
		return version == 6 ? 8 : 0;
	}
	return 0;
}

/* seen: bytes that were captured from the IP header on. */
static inline bool is_ordinary4(const struct world *world, uint32_t seen, struct ordinary *it)
{
	const uint8_t *ip = it->ip;
	uint32_t least;

	if (seen < 20 || ip[0] >> 4 != 4)
		return false;
	it->version = 4;
	it->segment = (ip[0] & 15) * 4;
	it->has_extra = it->segment != 20;
	it->total = be16(ip + 2);
	it->protocol = ip[9];
	least = least_of(4, it->protocol);
	/* Netdev ingress sees no ports after options. */
	if (it->has_extra && (it->segment < 20 || world->early == EARLY_NETDEV))
		return false;
	return least && !(be16(ip + 6) & 0x3fff) && it->segment + least <= it->total &&
	       it->total <= seen;
}

/* One header of options is ordinary, where the early stage reads it as raw does. */
static inline bool is_ordinary6(const struct world *world, uint32_t seen, struct ordinary *it)
{
	const uint8_t *ip = it->ip;
	uint32_t payload, least;

	if (seen < 40 || ip[0] >> 4 != 6 || ip[8] == 0xff ||
	    (ip[24] == 0xff && (ip[25] & 15) <= 1) || (!be64(ip + 8) && be64(ip + 16) == 1) ||
	    (!be64(ip + 24) && be64(ip + 32) == 1))
		return false;
	payload = be16(ip + 4);
	it->version = 6;
	it->segment = 40;
	it->total = 40 + payload;
	it->protocol = ip[6];
	it->has_extra = it->protocol == HOP_BY_HOP || it->protocol == OPTIONS;
	if (!payload || it->total > seen)
		return false;
	if (it->has_extra) {
		if (payload < 8 || (world->early && world->early != EARLY_XDP))
			return false;
		it->segment += (ip[41] + 1u) * 8;
		it->protocol = ip[40];
	}
	least = least_of(6, it->protocol);
	return least && it->segment + least <= it->total;
}

bool is_ordinary(const struct world *world, struct bytes frame, struct ordinary *it)
{
	uint32_t at = 14;
	uint16_t type;

	if (frame.seen < 34)
		return false;
	memcpy(&type, frame.at + 12, sizeof type);
	it->tags = 0;
	while (type == TPID || type == PROVIDER_TPID) {
		if (frame.seen < at + 4 || (be16(frame.at + at) & 0xfff) || it->tags == 255)
			return false;
		memcpy(&type, frame.at + at + 2, sizeof type);
		at += 4;
		it->tags++;
	}
	if (frame.seen < at)
		return false;
	it->ip = frame.at + at;
	it->largest = 0;
	it->start = (uint16_t)at;
	it->group = frame.at[0] & 1;
	if (type == __builtin_bswap16(TYPE_IPV4))
		return is_ordinary4(world, frame.seen - at, it);
	return type == __builtin_bswap16(TYPE_IPV6) && is_ordinary6(world, frame.seen - at, it);
}

/* Most packets of an attack have one destination. */
static inline uint64_t destination_class(struct run *run, const struct ordinary *it)
{
	const struct classes *classes = run->world->classes;
	uint64_t high = 0, low;

	if (it->version == 4) {
		low = be32(it->ip + 16);
	} else {
		high = be64(it->ip + 24);
		low = be64(it->ip + 32);
	}
	if (low != run->destination[1] || high != run->destination[0] ||
	    it->version != run->version) {
		run->destination[0] = high;
		run->destination[1] = low;
		run->version = it->version;
		run->destination_class = it->version == 4
						 ? class_of4(&classes->four, (uint32_t)low)
						 : class_of6(&classes->six, key6(high, low));
	}
	return run->destination_class;
}

/* The protocol and the classes as one number; never 0. Those of ports have at most 12 bits (classes.c). */
static inline uint64_t key_of(struct run *run, const struct ordinary *it)
{
	const struct classes *classes = run->world->classes;
	const uint8_t *ip = it->ip, *segment = ip + it->segment;
	uint64_t source, ports;

	if (it->version == 4)
		source = class_in4(&classes->four, it->source, be32(ip + 12));
	else
		source = class_in6(&classes->six, it->source, key6(be64(ip + 8), be64(ip + 16)));
	if (it->protocol == TCP || it->protocol == UDP)
		ports = (uint64_t)classes->ports[be16(segment)] << 12 |
			classes->ports[be16(segment + 2)];
	else
		ports = (uint64_t)segment[0] << 12 | segment[1];
	return source << 48 | destination_class(run, it) << 32 | (uint64_t)it->protocol << 24 |
	       ports;
}

static inline void fill(const struct ordinary *it, struct packet *p)
{
	const uint8_t *ip = it->ip;

	*p = (struct packet){.ip = {ip, it->total, it->total},
			     .start = it->start,
			     .tags = it->tags,
			     .group = it->group,
			     .version = it->version,
			     .largest = it->largest};
	addresses_of(it, p->source, p->destination);
	if (it->version == 4) {
		p->protocol = ip[9];
		p->header = (uint16_t)it->segment;
		p->total = (uint16_t)it->total;
	} else {
		p->protocol = p->received = ip[6];
		p->total = (uint16_t)(it->total - 40);
	}
}

struct run *run_of(const struct world *world)
{
	struct run *run = calloc(1, sizeof *run);

	if (run && outcomes_init(&run->outcomes)) {
		run->world = world;
		return run;
	}
	run_free(run);
	return NULL;
}

void run_free(struct run *run)
{
	if (run)
		outcomes_free(&run->outcomes);
	free(run);
}

uint32_t code_of(struct run *run, const struct end *end, bool untracked)
{
	uint32_t code = outcome_of(&run->outcomes, end, untracked);

	run->no_memory |= code == NO_CODE;
	return code;
}

/* What rules and routes say, by one packet. */
static __attribute__((noinline)) struct known learn(struct run *run, uint64_t key,
						    const struct ordinary *it)
{
	const struct world *world = run->world;
	struct known found = {.key = key};
	struct flow flow = {0};
	enum way way = NOWHERE;
	enum verdict verdict;
	struct bytes segment;
	struct packet p;
	struct end end;
	int32_t by;

	fill(it, &p);
	flow_in_raw(&p, world->skips_authentication, &flow, &segment);
	if (world->early) {
		by = early_drops(&world->raw, world->held, world->early == EARLY_DEVICE, &flow);
		if (by >= 0) {
			drop_by(&end, world->early_stage, by);
			found.early = code_of(run, &end, false);
		}
	}
	verdict = decide(&world->raw, &flow, &by);
	if (judge(verdict, by, &p, &end) == ENDED)
		found.raw = code_of(run, &end, false);
	found.untracked = p.untracked;
	if (find_way(world, &p, &end, &way) == ENDED)
		found.lost = code_of(run, &end, p.untracked);
	found.is_from_host = nets_contain(&world->own, p.version, p.source);
	found.way = way;
	found.for_group = p.for_group;
	found.multicast = p.multicast;
	deliver(&end, NO_REASON);
	found.delivered = code_of(run, &end, p.untracked);
	return found;
}

/* NO_CODE: its options are good, those of IPv4 or those of its one extension header. */
static __attribute__((noinline)) uint32_t bad_extra(struct run *run, const struct ordinary *it,
						    enum stage stage, bool untracked)
{
	enum reason why;
	struct end end;

	if (it->version == 4) {
		bad_options4((struct bytes){it->ip + 20, it->segment - 20, it->segment - 20}, &why);
	} else {
		struct packet p; /* of which no more is read */

		p.ip = (struct bytes){it->ip, it->total, it->total};
		p.total = (uint16_t)(it->total - 40);
		bad_options6(&p, 40, it->ip[6] == HOP_BY_HOP, &why);
	}
	if (!why)
		return NO_CODE;
	drop(&end, stage, why);
	return code_of(run, &end, untracked);
}

/* After raw: stage by stage, as for any packet. */
static void go_through(const struct world *world, const struct ordinary *it,
		       const struct known *known, struct packet *p, enum way *way, struct end *end)
{
	fill(it, p);
	p->untracked = known->untracked;
	p->for_group = known->for_group;
	p->multicast = known->multicast;
	*way = known->way;
	if (!known->lost && take_way(world, p, end, way) == GO_ON)
		transport(world, p, end);
}

static __attribute__((noinline)) uint32_t end_in_full(struct run *run, const struct ordinary *it,
						      const struct known *known)
{
	struct packet p;
	struct end end;
	enum way way;

	go_through(run->world, it, known, &p, &way, &end);
	return code_of(run, &end, p.untracked);
}

/* For this host. All here is inlined, so that the packet is in registers. */
ALWAYS_INLINE uint32_t end_at_host(struct run *run, const struct ordinary *it,
				   const struct known *known)
{
	uint32_t length = it->total - it->segment;
	struct bytes segment = {it->ip + it->segment, length, length};
	struct packet p = {.ip = {it->ip, it->total, it->total},
			   .group = it->group,
			   .version = it->version,
			   .untracked = known->untracked,
			   .for_group = known->for_group};
	struct end end;

	switch (it->protocol) {
	case TCP:
		tcp(&p, segment, &end);
		break;
	case UDP:
		udp(run->world, &p, segment, &end);
		break;
	case ICMP:
		icmp(&p, segment, &end);
		break;
	default:
		icmp6(&p, segment, &end);
	}
	return end.fate == DELIVERED
		       ? known->delivered
		       : code_of(run, &(struct end){end.fate, end.stage, end.reason, end.entry},
				 known->untracked);
}

/* NO_CODE: what ip_input() checks of its header is good. */
static inline uint32_t bad_header(struct run *run, const struct ordinary *it)
{
	static const struct end bad_sum = {DROPPED, AT_IP_INPUT, IP4_CHECKSUM, NONE};

	if (it->version == 4) {
		/* Of a length that is known here it is summed without a loop. */
		uint64_t sum =
			it->has_extra ? sum_words(it->ip, it->segment) : sum_words(it->ip, 20);

		return all_ones(sum) ? NO_CODE : code_of(run, &bad_sum, false);
	}
	if (it->has_extra && it->ip[6] == HOP_BY_HOP)
		return bad_extra(run, it, AT_IP_INPUT, false);
	return NO_CODE;
}

static inline const struct known *known_of(struct run *run, const struct ordinary *it)
{
	uint64_t key = key_of(run, it);
	struct known *known = &run->known[key * 0x9e3779b97f4a7c15 >> (64 - KNOWN_BITS)];

	if (__builtin_expect(known->key != key, 0))
		*known = learn(run, key, it);
	return known;
}

uint32_t end_ordinary(struct run *run, const struct ordinary *it)
{
	const struct world *world = run->world;
	const struct known *known = known_of(run, it);
	uint32_t code;

	run->last = NULL;
	run->is_from_host = known->is_from_host;
	if (known->early && !it->largest &&
	    it->tags <= (world->early == EARLY_NETDEV ? 0 : MOST_EARLY_TAGS))
		return known->early;
	if (!it->largest && (code = bad_header(run, it)) != NO_CODE)
		return code;
	if (known->raw)
		return known->raw;
	if (run->ends_at_conntrack)
		return NO_CODE;
	run->last = known;
	if (known->lost)
		return known->lost;
	if (known->way != TO_HOST)
		return end_in_full(run, it, known);
	if (it->has_extra && (it->version == 4 || it->ip[6] == OPTIONS)) {
		code = bad_extra(run, it, it->version == 4 ? AT_ROUTE : AT_SOCKET,
				 known->untracked);
		if (code != NO_CODE)
			return code;
	}
	return end_at_host(run, it, known);
}

void flow_of(struct run *run, const struct ordinary *it, struct flow *flow)
{
	const struct world *world = run->world;
	const struct known *known = known_of(run, it);
	struct bytes segment;
	struct packet p;
	struct end end;
	enum way way;

	go_through(world, it, known, &p, &way, &end);
	*flow = (struct flow){0};
	flow_in_raw(&p, world->skips_authentication, flow, &segment);
	complete_flow(&p, way, flow);
	flow->at += it->start;
}

/* Where headers were before that of its fragments, Linux reads others than are there. */
uint32_t end_datagram(struct run *run, struct bytes frame, uint32_t largest)
{
	const struct world *world = run->world;
	struct ordinary it;

	if (!world->classes || !is_ordinary(world, frame, &it) || (it.version == 6 && it.has_extra))
		return NO_CODE;
	it.largest = largest;
	ask_second(world->classes, &it);
	return end_ordinary(run, &it);
}
