// SPDX-License-Identifier: Apache-2.0
/* The packets that a sweep leaves of a piece of a capture, in the order of their arrival. */
#include "follow_look.h"
#include "known.h"
#include "left.h"
#include "sweep.h"

/* Those of one piece. */
struct task {
	struct follower *follower;
	struct sweep *sweep;
	const struct capture *piece;
	const struct left *left;
	int64_t count;
	struct follow_batch batch;
};

/* The code of the follower's of an end that the sweep found. */
static inline uint32_t code_here(const struct task *task, uint32_t code)
{
	struct outcome *outcome = &task->sweep->run->outcomes.list[code];

	if (outcome->elsewhere == NO_CODE)
		outcome->elsewhere =
			code_of(task->follower->run, &outcome->end, outcome->untracked);
	return outcome->elsewhere;
}

/* Of which the sweep says the end. */
static inline bool is_ended(const struct left *left)
{
	return left->key && left->code != NO_CODE;
}

/* -- where conntrack knows nothing, and most packets are like the one before -- */

/* All that is said of them is the same, but for their flows. */
static inline bool are_alike(const struct left *one, const struct left *other)
{
	return one->key == other->key && one->code == other->code && one->flags == other->flags &&
	       one->marking == other->marking && one->is_from_host == other->is_from_host &&
	       one->is_cut == other->is_cut;
}

/* So many that are alike, from this one on. */
static inline void count_captured(struct task *task, const struct left *left, int64_t count)
{
	task->batch.from_host += left->is_from_host * count;
	task->batch.cut += left->is_cut * count;
}

static void begin_flows(const struct task *task, const struct left *left, int64_t count)
{
	struct new_flows *flows = task->follower->new_flows;
	struct ordinary it;
	struct bytes frame;

	if (left->marking == MARKED) {
		count_marks(flows, left, count);
		return;
	}
	for (int64_t i = 0; left->marking == NOT_MARKED && i < count; i++)
		if (frame_of(task->piece, left[i].row, &frame) &&
		    is_ordinary(&task->follower->world, frame, &it)) /* it is */
			count_ordinary(flows, &it);
}

/* As many of these as end as one that was followed, and leave nothing at conntrack; how many. */
static int64_t take_alike(struct task *task, const struct left *left, int64_t count)
{
	struct follower *follower = task->follower;
	int64_t taken = 0;

	if (!knows_nothing(follower))
		return 0;
	while (taken < count && is_ended(&left[taken])) {
		const struct left *first = &left[taken];
		const struct usual *usual = find_usual(follower, first->key,
						       code_here(task, first->code), first->flags);
		int64_t alike = 1;

		if (!usual || usual->leaves)
			break;
		while (taken + alike < count && are_alike(&first[alike], first))
			alike++;
		if (usual->begins)
			begin_flows(task, first, alike);
		count_usual(follower, usual, alike);
		count_captured(task, first, alike);
		taken += alike;
	}
	return taken;
}

/* -- fragments that the sweep has looked at -- */

/* False: it is none. */
static bool look_at_fragment(struct task *task, const struct left *left, struct looked *it)
{
	if (!left->key || left->code != NO_CODE || task->follower->alone ||
	    !frame_of(task->piece, left->row, &it->frame))
		return false;
	it->ordinary = NULL;
	it->key = 0;
	it->odd = ODD_FRAGMENT;
	set_plain_fragment(it->frame.at + LINK, &it->fragment);
	it->fragment.classes = left->key & ~(uint64_t)NO_PORTS;
	queues_ask(&task->follower->defrag.queues, &it->fragment);
	count_captured(task, left, 1);
	return true;
}

/* Those up to the first that is none, at most as many as a batch has; how many. */
static int64_t take_fragments(struct task *task, const struct left *left, int64_t count)
{
	struct follower *follower = task->follower;
	int64_t found = 0;

	while (found < BATCH && found < count &&
	       look_at_fragment(task, &left[found], &follower->looked[found]))
		found++;
	for (int64_t at = 0; at < found; at++)
		take_one(follower, left[at].row, &follower->looked[at]);
	return found;
}

/* -- all others -- */

/* What the sweep says of a packet, as look() would. */
static void look_at_left(struct task *task, const struct left *left, const struct batch *batch,
			 uint32_t at, struct looked *it)
{
	uint32_t code = code_here(task, left->code);
	const struct outcome *outcome = &task->follower->run->outcomes.list[code];

	it->frame = batch->frames[at];
	it->ordinary = &batch->ordinary[at];
	it->key = left->key;
	it->code = code;
	it->flags = left->flags;
	it->odd = NOT_ODD;
	it->end = outcome->end;
	it->untracked = outcome->untracked;
	it->reaches = true;
	it->is_packet = false;
	it->flow.version = 0;
	count_captured(task, left, 1);
	ask_conntrack(task->follower, it);
}

/* The first of them, at most as many as a batch has; how many. */
static uint32_t take_some(struct task *task, const struct left *left, int64_t count)
{
	struct follower *follower = task->follower;
	struct batch batch = {.count = (uint32_t)(count < BATCH ? count : BATCH)};
	uint32_t found = 0;

	for (uint32_t at = 0; at < batch.count; at++)
		if (!frame_of(task->piece, left[at].row, &batch.frames[at]))
			return 0;
	look_at(&follower->world, &batch);
	for (; found < batch.count; found++) {
		struct looked *it = &follower->looked[found];

		if (is_ended(&left[found]))
			look_at_left(task, &left[found], &batch, found, it);
		else if (!is_sendable(batch.frames[found]) ||
			 !look(follower, left[found].row, &batch, found, it))
			break;
	}
	if (follower->run->no_memory)
		return 0;
	for (uint32_t at = 0; at < found; at++)
		take_one(follower, left[at].row, &follower->looked[at]);
	return found;
}

static int64_t take_left(struct task *task)
{
	int64_t taken = 0;

	while (taken < task->count) {
		int64_t before = taken;
		uint32_t found;

		taken += take_alike(task, task->left + taken, task->count - taken);
		taken += take_fragments(task, task->left + taken, task->count - taken);
		if (taken > before)
			continue;
		found = take_some(task, task->left + taken, task->count - taken);
		taken += found;
		if (found < BATCH)
			break;
	}
	return taken;
}

int64_t follow_left(struct follower *follower, struct sweep *sweep, const struct capture *piece,
		    const struct left *left, int64_t count)
{
	struct task task = {follower, sweep, piece, left, count, {.capture = piece, .stops = true}};
	int64_t taken;

	follower->batch = &task.batch;
	follower->doubted = follower->refused = 0;
	taken = take_left(&task);
	if (taken)
		follower->first += left[taken - 1].row + 1;
	if (!queues_keep(&follower->defrag.queues) || follower->no_memory ||
	    follower->run->no_memory)
		return OUT_OF_MEMORY;
	sweep->packets += taken;
	sweep->from_host += task.batch.from_host;
	sweep->cut += task.batch.cut;
	return taken;
}
