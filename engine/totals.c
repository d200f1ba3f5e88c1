// SPDX-License-Identifier: Apache-2.0
#include "totals.h"

static uint64_t key_of(const struct columns *columns, int64_t row)
{
	return (uint64_t)columns->fate[row] << 56 | (uint64_t)columns->stage[row] << 48 |
	       (uint64_t)columns->reason[row] << 32 | (uint32_t)columns->entry[row];
}

/* Its place; NULL if there are too many. An unused one counts nothing yet. */
static struct total *place(struct total *totals, uint32_t room, uint32_t *used, uint64_t key)
{
	uint64_t at = (key ^ key >> 29) * 0x9e3779b97f4a7c15;

	for (at >>= 32;; at++) {
		struct total *found = &totals[at & (room - 1)];

		if (found->packets && found->key == key)
			return found;
		if (!found->packets) {
			if (4 * ++*used > 3 * room)
				return NULL;
			found->key = key;
			return found;
		}
	}
}

uint32_t engine_totals(const struct columns *columns, int64_t count, struct total *totals,
		       uint32_t room)
{
	struct total *last = NULL;
	uint32_t used = 0;

	for (int64_t row = 0; row < count; row++) {
		uint64_t key = key_of(columns, row);

		if (!last || last->key != key)
			last = place(totals, room, &used, key);
		if (!last)
			return false;
		last->packets++;
	}
	return true;
}
