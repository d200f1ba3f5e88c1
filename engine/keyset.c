// SPDX-License-Identifier: Apache-2.0
#include "keyset.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_SIZE = 64, MOST_KEYS = 1 << 20 };

void keyset_free(struct keyset *set)
{
	free(set->keys);
	free(set->taken);
}

/* Where the key is, or belongs. */
static uint32_t slot_of(const struct keyset *set, const uint64_t key[KEY_WIDTH])
{
	uint32_t at = (uint32_t)key_hash(key, KEY_WIDTH, set->seed) & set->mask;

	while (set->taken[at] && memcmp(set->keys[at], key, sizeof *set->keys))
		at = (at + 1) & set->mask;
	return at;
}

bool keyset_has(const struct keyset *set, const uint64_t key[KEY_WIDTH])
{
	return set->count && set->taken[slot_of(set, key)];
}

static bool grow(struct keyset *set)
{
	uint32_t size = set->keys ? 2 * (set->mask + 1) : FIRST_SIZE;
	struct keyset larger = {
		.keys = malloc(size * sizeof *larger.keys),
		.taken = calloc(size, 1),
		.mask = size - 1,
		.count = set->count,
		.seed = set->seed,
	};

	if (!larger.keys || !larger.taken) {
		keyset_free(&larger);
		return false;
	}
	for (uint32_t old = 0; set->keys && old <= set->mask; old++) {
		uint32_t at;

		if (!set->taken[old])
			continue;
		at = slot_of(&larger, set->keys[old]);
		memcpy(larger.keys[at], set->keys[old], sizeof *larger.keys);
		larger.taken[at] = 1;
	}
	keyset_free(set);
	*set = larger;
	return true;
}

bool keyset_add(struct keyset *set, const uint64_t key[KEY_WIDTH])
{
	uint32_t at;

	if (keyset_has(set, key))
		return true;
	if (set->count == MOST_KEYS)
		return false;
	if ((!set->keys || 2 * set->count > set->mask) && !grow(set))
		return false;
	at = slot_of(set, key);
	memcpy(set->keys[at], key, sizeof *set->keys);
	set->taken[at] = 1;
	set->count++;
	return true;
}
