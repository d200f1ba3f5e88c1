// SPDX-License-Identifier: Apache-2.0
#include "batch.h"

#include "known.h"

/* Most frames are one behind the other: so many bytes before their turn. */
enum { AHEAD = 2048 };

void look_at(const struct world *world, struct batch *batch)
{
	for (uint32_t i = 0; i < batch->count; i++) {
		struct ordinary *it = &batch->ordinary[i];

		__builtin_prefetch((const void *)((uintptr_t)batch->frames[i].at + AHEAD));
		if (world->classes && has_classes(world, batch->frames[i], it))
			ask_first(world->classes, it);
		else
			it->version = 0;
	}
	for (uint32_t i = 0; i < batch->count; i++)
		if (batch->ordinary[i].version)
			ask_second(world->classes, &batch->ordinary[i]);
}

bool take_batch(const struct world *world, const struct capture *capture, int64_t from,
		int64_t count, struct batch *batch)
{
	int64_t most = count - from < BATCH ? count - from : BATCH;
	uint32_t found = 0;

	while (found < most && frame_of(capture, from + found, &batch->frames[found]))
		found++;
	batch->count = found;
	look_at(world, batch);
	return found == most;
}

static uint32_t end_other(struct run *run, struct bytes frame, struct flow *flow, enum odd *odd)
{
	struct packet p = {.frame = frame};
	struct end end;

	*flow = (struct flow){0};
	one_packet(run->world, &p, flow, &end, odd, &run->fragment);
	if (*odd == ODD_FRAGMENT)
		return NO_CODE;
	flow->at += p.start;
	return code_of(run, &end, p.untracked);
}

uint32_t end_one(struct run *run, const struct batch *batch, uint32_t at, struct flow *flow,
		 enum odd *odd)
{
	const struct ordinary *it = &batch->ordinary[at];
	uint32_t code;

	*odd = NOT_ODD;
	if (!it->version)
		return end_other(run, batch->frames[at], flow, odd);
	if (it->fragment) {
		flow->version = 0;
		code = end_fragment(run, it, &run->fragment);
		*odd = code == NO_CODE ? ODD_FRAGMENT : NOT_ODD;
		return code;
	}
	code = end_ordinary(run, it);
	if (run->world->records_flows && run->last)
		flow_of(run, it, flow);
	return code;
}
