// SPDX-License-Identifier: Apache-2.0
/* What a sweep says of the packets that it leaves (left.h). */
#include "sweep_some.h"

#include "follow_settle.h"

/* The flow that it begins. flows: as flows_by_end() says. */
static inline void mark(const struct new_flows *flows, const struct outcome *outcome,
			const struct ordinary *it, struct left *left)
{
	left->marking = NOT_MARKED;
	if (flows && leaves_entry(&outcome->end, outcome->untracked))
		left->marking = mark_ordinary(flows, it, &left->mark) ? MARKED : BEGINS_NONE;
}

static __attribute__((noinline)) void end_in_steps(struct run *run, const struct some *some,
						   struct left *left, const struct known *known,
						   const struct new_flows *flows)
{
	uint32_t at = (uint32_t)(left->row - some->from);
	struct place place = some->place[at];
	struct ordinary it = ordinary_of(some, at, place.version);

	left->code = NO_CODE;
	if (place.segment == IN_FRAGMENT)
		return;
	it.start = (uint16_t)(14 + 4 * place.tags);
	it.group = (it.ip - it.start)[0] & 1;
	left->code = end_after_raw(run, &it, known);
	left->flags = it.protocol == TCP ? it.ip[it.segment + 13] : 0;
	if (left->code == NO_CODE || !is_sound(&it, known, left->code))
		left->key = 0;
	else
		mark(flows, &run->outcomes.list[left->code], &it, left);
}

/* TCP in a usual place, with a sound header and a good checksum: as tcp() says. */
ALWAYS_INLINE bool is_good_tcp(const uint8_t *ip)
{
	const uint8_t *segment = ip + 20;
	uint32_t length = be16(ip + 2) - 20u, data_offset = (segment[12] & 0xf0) >> 2;

	return data_offset >= 20 && data_offset <= length &&
	       folds_to_ones(sum_halves(sum_some(ip + 12, 8 + length)) + number(length + TCP));
}

/* Of an ordinary packet, unless what is known of its classes gave way to others since. True: mark_tcp4() marks it. */
static inline bool end_left(struct run *run, const struct some *some, uint32_t at,
			    struct left *left, const struct new_flows *flows)
{
	const struct known *known = slot_of(run, left->key);
	const uint8_t *ip = some->ip[at];

	if (known->key != left->key && some->place[at].segment != IN_FRAGMENT) {
		left->key = 0;
	} else if (is_usual(some->place[at]) && known->is_tcp_here && !(ip[-14] & 1) &&
		   is_good_tcp(ip)) { /* as of most: what end_in_steps() finds as well */
		left->code = known->delivered;
		left->flags = ip[33];
		left->marking = NOT_MARKED;
		return flows && !known->untracked;
	} else {
		end_in_steps(run, some, left, known, flows);
	}
	return false;
}

void tell(const struct sweep *sweep, const struct some *some, struct left *left, int64_t count)
{
	bool is_wanted = sweep->follower && wants_more(sweep->follower);
	const struct new_flows *flows = is_wanted ? flows_by_end(sweep->follower) : NULL;
	struct unmarked unmarked[AT_ONCE];
	uint32_t unmarked_count = 0;

	for (int64_t i = 0; i < count; i++) {
		uint32_t at = (uint32_t)(left[i].row - some->from);

		if (!is_wanted)
			left[i].key = 0;
		else if (left[i].key && end_left(sweep->run, some, at, &left[i], flows))
			unmarked[unmarked_count++] = (struct unmarked){some->ip[at], &left[i]};
	}
	if (unmarked_count)
		mark_tcp4(flows, unmarked, unmarked_count);
}
