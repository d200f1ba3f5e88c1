// SPDX-License-Identifier: Apache-2.0
#include "follow_counts.h"

#include <stdlib.h>
#include <string.h>

/* There is room for one more of each code than are told apart. */
enum { MOST_LENGTHS = 4096, CUT_ROOM = 2 * MOST_LENGTHS, CUT_SLOTS = 4 * MOST_LENGTHS };

void counts_free(struct counts *counts)
{
	free(counts->packets);
	free(counts->cuts);
	free(counts->slots);
}

bool count_ends(struct counts *counts, uint32_t code, uint32_t codes, int64_t packets)
{
	if (code >= counts->room) {
		uint32_t room = 2 * codes;
		int64_t *more = realloc(counts->packets, room * sizeof *more);

		if (!more)
			return false;
		memset(more + counts->room, 0, (room - counts->room) * sizeof *more);
		counts->packets = more;
		counts->room = room;
	}
	counts->packets[code] += packets;
	return true;
}

static uint32_t *slot_of(const struct counts *counts, uint32_t code, int32_t captured, int32_t wire)
{
	uint64_t at = (uint64_t)(uint32_t)captured << 32 | (uint32_t)wire;

	at = (at ^ (uint64_t)code << 20) * 0x9e3779b97f4a7c15 >> 32;
	for (;; at++) {
		uint32_t *slot = &counts->slots[at % CUT_SLOTS];
		const struct cut_count *cut = *slot ? &counts->cuts[*slot - 1] : NULL;

		if (!cut || (cut->code == code && cut->captured == captured && cut->wire == wire))
			return slot;
	}
}

bool count_cut(struct counts *counts, uint32_t code, int32_t captured, int32_t wire)
{
	uint32_t *slot;

	if (!counts->cuts) {
		counts->cuts = malloc(CUT_ROOM * sizeof *counts->cuts);
		counts->slots = calloc(CUT_SLOTS, sizeof *counts->slots);
		if (!counts->cuts || !counts->slots)
			return false;
	}
	slot = slot_of(counts, code, captured, wire);
	if (!*slot && counts->cut_count >= MOST_LENGTHS) {
		captured = wire = -1;
		slot = slot_of(counts, code, captured, wire);
		if (!*slot && counts->cut_count == CUT_ROOM)
			return false;
	}
	if (!*slot) {
		counts->cuts[counts->cut_count] =
			(struct cut_count){.code = code, .captured = captured, .wire = wire};
		*slot = ++counts->cut_count;
	}
	counts->cuts[*slot - 1].packets++;
	return true;
}

static bool is_after(uint8_t stage)
{
	return stage == AT_MANGLE || stage == AT_FILTER_INPUT || stage == AT_FILTER_FORWARD;
}

void count_several(struct counts *counts, const struct several *several)
{
	bool may_be_after = false;

	for (uint32_t state = 0; state < SEEN_STATES; state++)
		if (several->states >> state & 1)
			may_be_after |=
				several->fate[state] == DROPPED && is_after(several->stage[state]);
	counts->several++;
	counts->several_after += may_be_after;
}
