// SPDX-License-Identifier: Apache-2.0
#include "outcomes.h"

#include <stdlib.h>

enum { ROOM = 256 };

static uint64_t hash(const struct end *end, bool untracked)
{
	uint64_t key = (uint64_t)end->fate << 56 | (uint64_t)end->stage << 48 |
		       (uint64_t)end->reason << 32 | (uint32_t)end->entry;

	key = (key ^ untracked) * 0x9e3779b97f4a7c15;
	return key ^ key >> 32;
}

static bool is_same(const struct outcome *outcome, const struct end *end, bool untracked)
{
	return outcome->end.fate == end->fate && outcome->end.stage == end->stage &&
	       outcome->end.reason == end->reason && outcome->end.entry == end->entry &&
	       outcome->untracked == untracked;
}

/* The slot of an end, or the free one for it. There are twice as many slots as there is room. */
static uint32_t *slot_of(const struct outcomes *outcomes, const struct end *end, bool untracked)
{
	uint64_t at = hash(end, untracked);

	for (;; at++) {
		uint32_t *slot = &outcomes->slots[at & (2 * outcomes->room - 1)];

		if (!*slot || is_same(&outcomes->list[*slot - 1], end, untracked))
			return slot;
	}
}

static bool resize(struct outcomes *outcomes, uint32_t room)
{
	struct outcome *list = realloc(outcomes->list, room * sizeof *list);
	uint32_t *slots = calloc(2 * (size_t)room, sizeof *slots);

	if (list)
		outcomes->list = list;
	if (!list || !slots) {
		free(slots);
		return false;
	}
	free(outcomes->slots);
	outcomes->slots = slots;
	outcomes->room = room;
	for (uint32_t code = 1; code < outcomes->count; code++)
		*slot_of(outcomes, &list[code].end, list[code].untracked) = code + 1;
	return true;
}

bool outcomes_init(struct outcomes *outcomes)
{
	*outcomes = (struct outcomes){.count = 1};
	if (!resize(outcomes, ROOM))
		return false;
	outcomes->list[NO_CODE] = (struct outcome){0};
	return true;
}

void outcomes_free(struct outcomes *outcomes)
{
	free(outcomes->list);
	free(outcomes->slots);
}

uint32_t outcome_of(struct outcomes *outcomes, const struct end *end, bool untracked)
{
	uint32_t *slot = slot_of(outcomes, end, untracked);

	if (*slot)
		return *slot - 1;
	if (outcomes->count == outcomes->room) {
		if (outcomes->room > UINT32_MAX / 8 || !resize(outcomes, 2 * outcomes->room))
			return NO_CODE;
		slot = slot_of(outcomes, end, untracked);
	}
	outcomes->list[outcomes->count] = (struct outcome){.end = *end, .untracked = untracked};
	*slot = outcomes->count + 1;
	return outcomes->count++;
}
