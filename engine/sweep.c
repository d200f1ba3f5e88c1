// SPDX-License-Identifier: Apache-2.0
#include "sweep.h"

#include "transport.h"

enum { LEAST_SENT = 14, MOST_SENT = 65549 };
enum { INCOMPLETE = NOT_SUMMED | HEADER_NOT_SUMMED | LENGTH_MISSING };

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

/*
 * False: the packet has none of these artefacts. Else artefacts_of() has to look: a checksum is 0, or that of the pseudo
 * header.
 */
static inline bool may_be_incomplete(const struct ordinary *it)
{
	const uint8_t *ip = it->ip, *segment = ip + it->segment;
	uint32_t length = it->total - it->segment;
	uint64_t sum;
	uint16_t stored;

	if (it->version == 4 && !(ip[10] | ip[11]))
		return true;
	if (it->protocol != TCP && it->protocol != UDP)
		return false;
	memcpy(&stored, segment + (it->protocol == TCP ? 16 : 6), sizeof stored);
	if (!stored)
		return it->version == 6 || it->protocol == TCP;
	sum = it->version == 4 ? sum_words(ip + 12, 8) : sum_words(ip + 8, 32);
	sum += word(it->protocol) + word(length & 0xffff) + word(length >> 16);
	return all_ones(sum + (stored ^ 0xffff));
}

static uint8_t artefacts_in(struct run *run, const struct batch *batch, uint32_t at)
{
	struct packet p = {.frame = batch->frames[at]};

	p.frame.length = p.frame.seen;
	return artefacts_of(&p, &run->world->own);
}

/* What Python tells apart by its first bytes is left to it (dossim/packet/cut.py). */
static inline bool is_sendable(const struct bytes *frame)
{
	return frame->length >= LEAST_SENT && frame->length <= MOST_SENT;
}

/* Its code, NO_CODE if it is left; of one that is not ordinary or may have artefacts. */
static uint32_t sweep_other(struct run *run, const struct batch *batch, uint32_t at)
{
	uint8_t artefacts = artefacts_in(run, batch, at);
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
		uint32_t code = end_ordinary(run, it, NULL);

		if (code == NO_CODE || !may_be_incomplete(it))
			return code;
	}
	return sweep_other(run, batch, at);
}

static void sweep_batch(struct run *run, int64_t from, const struct batch *batch,
			struct swept *swept)
{
	for (uint32_t at = 0; at < batch->count; at++) {
		uint32_t code = sweep_one(run, batch, at);

		if (code == NO_CODE) {
			swept->left[swept->left_count++] = from + at;
			continue;
		}
		run->outcomes.list[code].packets++;
		swept->from_host += run->is_from_host;
		swept->cut += batch->frames[at].length > batch->frames[at].seen;
	}
}

int64_t engine_sweep(struct run *run, const struct capture *capture, int64_t count,
		     struct swept *swept)
{
	struct batch batch;

	for (int64_t from = 0; from < count && !run->no_memory; from += batch.count) {
		bool good = take_batch(run->world, capture, from, count, &batch);

		sweep_batch(run, from, &batch, swept);
		if (!good)
			return from + batch.count;
	}
	return run->no_memory ? OUT_OF_MEMORY : ALL_PREDICTED;
}
