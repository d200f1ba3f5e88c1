// SPDX-License-Identifier: Apache-2.0
#include "sweep.h"

#include "artefacts.h"

enum { LEAST_SENT = 14, MOST_SENT = 65549 };

struct run *engine_run(const struct world *world)
{
	struct run *run = run_of(world);

	if (run)
		run->ends_at_conntrack = true;
	return run;
}

void engine_run_free(struct run *run)
{
	run_free(run);
}

uint32_t engine_outcomes(const struct run *run, const struct outcome **list)
{
	*list = run->outcomes.list;
	return run->outcomes.count;
}

/* What Python tells apart by its first bytes is left to it (dossim/packet/cut.py). */
static inline bool is_sendable(const struct bytes *frame)
{
	return frame->length >= LEAST_SENT && frame->length <= MOST_SENT;
}

/* Its code, NO_CODE if it is left; of one that is not ordinary or may have artefacts. */
static uint32_t sweep_other(struct run *run, const struct batch *batch, uint32_t at)
{
	uint8_t artefacts = artefacts_of(batch->frames[at], &run->world->own);
	struct flow flow = {0};
	enum odd odd = NOT_ODD;
	uint32_t code;

	if (artefacts & INCOMPLETE || !is_sendable(&batch->frames[at]))
		return NO_CODE;
	code = end_one(run, batch, at, &flow, &odd);
	run->is_from_host = artefacts & SENT_BY_HOST;
	return odd || run->outcomes.list[code].end.fate != DROPPED || flow.version ? NO_CODE : code;
}

static inline uint32_t sweep_one(struct run *run, const struct batch *batch, uint32_t at)
{
	const struct ordinary *it = &batch->ordinary[at];

	if (it->version && is_sendable(&batch->frames[at])) {
		uint32_t code = end_ordinary(run, it);

		if (code == NO_CODE || !may_be_incomplete(it))
			return code;
	}
	return sweep_other(run, batch, at);
}

/* Whether it was counted. */
static inline bool count_one(struct sweep *sweep, const struct batch *batch, uint32_t at)
{
	struct run *run = sweep->run;
	uint32_t code = sweep_one(run, batch, at);

	if (code == NO_CODE)
		return false;
	run->outcomes.list[code].packets++;
	sweep->packets++;
	sweep->from_host += run->is_from_host;
	sweep->cut += batch->frames[at].length > batch->frames[at].seen;
	return true;
}

int64_t engine_sweep(struct sweep *sweep, const struct capture *capture, int64_t count,
		     int64_t *left, int64_t *left_count)
{
	struct run *run = sweep->run;
	struct batch batch;

	*left_count = 0;
	for (int64_t from = 0; from < count && !run->no_memory; from += batch.count) {
		bool good = take_batch(run->world, capture, from, count, &batch);

		for (uint32_t at = 0; at < batch.count; at++)
			if (!count_one(sweep, &batch, at))
				left[(*left_count)++] = from + at;
		if (!good)
			return from + batch.count;
	}
	sweep->no_memory = run->no_memory;
	return run->no_memory ? OUT_OF_MEMORY : ALL_PREDICTED;
}

static inline void note_time(struct sweep *sweep, int64_t ns)
{
	sweep->earliest_ns = ns < sweep->earliest_ns ? ns : sweep->earliest_ns;
	sweep->latest_ns = ns > sweep->latest_ns ? ns : sweep->latest_ns;
}

static void move_row(const struct rows *rows, int64_t from, int64_t to)
{
	rows->offset[to] = rows->offset[from];
	rows->length[to] = rows->length[from];
	rows->wire_length[to] = rows->wire_length[from];
	rows->timestamp_ns[to] = rows->timestamp_ns[from];
	rows->number[to] = rows->number[from];
	if (!rows->link)
		return;
	rows->link[to] = rows->link[from];
	rows->fcs[to] = rows->fcs[from];
	rows->cause[to] = rows->cause[from];
}

int64_t sift(struct sweep *sweep, const uint8_t *data, const struct rows *rows, int64_t from,
	     int64_t to)
{
	struct batch batch;
	int64_t kept = from;

	if (!sweep)
		return to;
	batch.count = 0;
	for (int64_t row = from; row < to; row++)
		batch.frames[batch.count++] =
			(struct bytes){data + rows->offset[row], (uint32_t)rows->wire_length[row],
				       (uint32_t)rows->length[row]};
	look_at(sweep->run->world, &batch);
	for (uint32_t at = 0; at < batch.count; at++) {
		if (count_one(sweep, &batch, at))
			note_time(sweep, rows->timestamp_ns[from + at]);
		else
			move_row(rows, from + at, kept++);
	}
	sweep->no_memory = sweep->run->no_memory;
	return kept;
}
