/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOTALS_H
#define TOTALS_H

#include "predict.h"

/* Packets that end alike, which key tells: entry, reason, stage and fate, from its low bits on. */
struct total {
	uint64_t key;
	int64_t packets;
};

/*
 * Count the ends of all rows. totals has room for a power of two, all zero. Returns false if there are too many kinds
 * for it.
 */
ENGINE_API uint32_t engine_totals(const struct columns *columns, int64_t count,
				  struct total *totals, uint32_t room);

#endif
