// SPDX-License-Identifier: Apache-2.0
#include "flowset.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "keyset.h"

enum { WIDTH = 6, FIRST_SIZE = 1024, AHEAD = 16 };

/* Zeros: nothing is there. */
struct mark {
	uint64_t one, two;
};

struct flowset {
	struct mark *marks;
	uint64_t mask, count, most;
	uint64_t seeds[2];
	bool is_more;
};

struct flowset *engine_flowset(uint64_t seed, uint64_t other_seed, uint64_t most)
{
	struct flowset *set = malloc(sizeof *set);

	if (!set)
		return NULL;
	*set = (struct flowset){
		.marks = calloc(FIRST_SIZE, sizeof *set->marks),
		.mask = FIRST_SIZE - 1,
		.most = most,
		.seeds = {seed, other_seed},
	};
	if (!set->marks) {
		free(set);
		return NULL;
	}
	return set;
}

void engine_flowset_free(struct flowset *set)
{
	free(set->marks);
	free(set);
}

static bool is_free(const struct mark *mark)
{
	return !mark->one && !mark->two;
}

/* Where a flow is, or belongs. */
static struct mark *slot_of(struct mark *marks, uint64_t mask, struct mark mark)
{
	uint64_t at = mark.one & mask;

	while (!is_free(&marks[at]) && (marks[at].one != mark.one || marks[at].two != mark.two))
		at = (at + 1) & mask;
	return &marks[at];
}

static bool grow(struct flowset *set)
{
	uint64_t mask = 2 * set->mask + 1;
	struct mark *marks = calloc(mask + 1, sizeof *marks);

	if (!marks)
		return false;
	for (uint64_t old = 0; old <= set->mask; old++)
		if (!is_free(&set->marks[old]))
			*slot_of(marks, mask, set->marks[old]) = set->marks[old];
	free(set->marks);
	set->marks = marks;
	set->mask = mask;
	return true;
}

static struct mark mark_of(const struct flowset *set, const uint64_t *key)
{
	struct mark mark = {key_hash(key, WIDTH, set->seeds[0]),
			    key_hash(key, WIDTH, set->seeds[1])};

	mark.two |= is_free(&mark);
	return mark;
}

static bool add(struct flowset *set, struct mark mark)
{
	struct mark *slot = slot_of(set->marks, set->mask, mark);

	if (!is_free(slot))
		return false;
	if (set->count == set->most || (2 * set->count > set->mask && !grow(set))) {
		set->is_more = true;
		return false;
	}
	*slot_of(set->marks, set->mask, mark) = mark;
	set->count++;
	return true;
}

uint32_t engine_flowset_add(struct flowset *set, const uint64_t *keys, const uint8_t *kinds,
			    int64_t count, int64_t *counts)
{
	struct mark marks[AHEAD];

	for (int64_t row = 0; row < count + AHEAD; row++) {
		if (row >= AHEAD)
			counts[kinds[row - AHEAD]] += add(set, marks[row % AHEAD]);
		if (row < count) {
			marks[row % AHEAD] = mark_of(set, keys + row * WIDTH);
			__builtin_prefetch(&set->marks[marks[row % AHEAD].one & set->mask]);
		}
	}
	return set->is_more;
}
