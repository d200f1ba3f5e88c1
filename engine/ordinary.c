// SPDX-License-Identifier: Apache-2.0
#include "ordinary.h"

#include <stdlib.h>

#include "known.h"
#include "transport.h"

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

/* What the early stage says of a fragment that shows no ports. */
static struct known learn_other(struct run *run, uint64_t key, const struct ordinary *it)
{
	struct known found = {.key = key};
	struct packet p;
	struct end end;

	fill(it, &p);
	p.type = TYPE_IPV4;
	if (run->world->early && early_stage(run->world, &p, &end) == ENDED)
		found.dropped = code_of(run, &end, false);
	found.is_from_host = nets_contain(&run->world->own, p.version, p.source);
	return found;
}

struct known learn(struct run *run, uint64_t key, const struct ordinary *it)
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

	if (it->fragment == OTHER_FRAGMENT)
		return learn_other(run, key, it);
	fill(it, &p);
	flow_in_raw(&p, world->skips_authentication, &flow, &segment);
	if (world->early) {
		by = early_drops(&world->raw, world->held, world->early == EARLY_DEVICE, &flow);
		if (by >= 0) {
			drop_by(&end, world->early_stage, by);
			found.dropped = code_of(run, &end, false);
		}
	}
	verdict = decide(&world->raw, &flow, &by);
	if (judge(verdict, by, &p, &end) == ENDED)
		found.raw = code_of(run, &end, false);
	if (found.dropped == NO_CODE)
		found.dropped = found.raw;
	found.untracked = p.untracked;
	if (find_way(world, &p, &end, &way) == ENDED)
		found.lost = code_of(run, &end, p.untracked);
	found.is_from_host = nets_contain(&world->own, p.version, p.source);
	found.way = way;
	found.is_tcp_here = it->protocol == TCP && way == TO_HOST && !found.lost;
	found.for_group = p.for_group;
	found.multicast = p.multicast;
	deliver(&end, NO_REASON);
	found.delivered = code_of(run, &end, p.untracked);
	return found;
}

uint32_t bad_extra(struct run *run, const struct ordinary *it, enum stage stage, bool untracked)
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

uint32_t end_after_raw(struct run *run, const struct ordinary *it, const struct known *known)
{
	uint32_t code;

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

uint32_t end_ordinary(struct run *run, const struct ordinary *it)
{
	const struct known *known = known_of(run, it);
	uint32_t code = end_in_raw(run, it, known);

	run->last = code == NO_CODE ? known : NULL;
	return code == NO_CODE ? end_after_raw(run, it, known) : code;
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
uint32_t end_datagram(struct run *run, struct bytes frame, uint32_t largest, uint64_t classes,
		      struct ordinary *it)
{
	const struct world *world = run->world;

	if (!world->classes || !is_ordinary(world, frame, it) ||
	    (it->version == 6 && it->has_extra))
		return NO_CODE;
	it->largest = largest;
	it->classes = classes;
	if (!classes)
		find_source(world->classes, it);
	return end_ordinary(run, it);
}

uint32_t end_fragment(struct run *run, const struct ordinary *it, struct fragment *found)
{
	const struct known *known = known_of(run, it);

	run->last = NULL;
	run->is_from_host = known->is_from_host;
	if (early_of(known) != NO_CODE)
		return early_of(known);
	set_plain_fragment(it->ip, found);
	found->classes = known->key & ~(uint64_t)NO_PORTS;
	return NO_CODE;
}
