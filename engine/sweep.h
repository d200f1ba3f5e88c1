/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Windows of a capture: packets that are dropped before connection tracking, by themselves and for sure, are counted by where
 * that is, in one pass and without columns. All others are left. dossim/engine/sweep.py declares the structures again.
 */
#ifndef SWEEP_H
#define SWEEP_H

#include "batch.h"

struct swept {
	int64_t *left; /* the numbers of those that are left, in order; room for all */
	int64_t left_count;
	/* Of the others: sent by the host itself; of which the capture has not all bytes. */
	int64_t from_host, cut;
};

/* What is remembered and counted from window to window, by one thread. NULL: no memory. */
ENGINE_API struct run *engine_run(const struct world *world);
ENGINE_API void engine_run_free(struct run *run);

/* All packets of a window; returns as engine_predict(). */
ENGINE_API int64_t engine_sweep(struct run *run, const struct capture *capture, int64_t count,
				struct swept *swept);

/* How many outcomes there are; the list, of which the first is none. */
ENGINE_API uint32_t engine_outcomes(const struct run *run, const struct outcome **list);

#endif
