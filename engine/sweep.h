/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Windows of a capture: packets that are dropped before connection tracking, by themselves and for sure, are counted by where
 * that is, in one pass and without columns. All others are left. dossim/engine/sweep.py declares the structures again.
 */
#ifndef SWEEP_H
#define SWEEP_H

#include "batch.h"
#include "records.h"

/* What is remembered and counted from window to window, by one thread. */
struct sweep {
	struct run *run;
	/* That were counted; of them: sent by the host itself; of which the capture has not all bytes. */
	int64_t packets, from_host, cut;
	int64_t earliest_ns, latest_ns; /* of those that were rows of a walk */
	uint32_t no_memory;		/* so that not all was counted */
};

/* NULL: no memory. */
ENGINE_API struct run *engine_run(const struct world *world);
ENGINE_API void engine_run_free(struct run *run);

/*
 * All packets of a window; the numbers of those that are left go to left, in order, with room for all. Returns as
 * engine_predict().
 */
ENGINE_API int64_t engine_sweep(struct sweep *sweep, const struct capture *capture, int64_t count,
				int64_t *left, int64_t *left_count);

/*
 * At most BATCH rows of a walk, of Ethernet frames: those that are left become the first ones. Where they end; without a
 * sweep all are left.
 */
int64_t sift(struct sweep *sweep, const uint8_t *data, const struct rows *rows, int64_t from,
	     int64_t to);

/* How many outcomes there are; the list, of which the first is none. */
ENGINE_API uint32_t engine_outcomes(const struct run *run, const struct outcome **list);

#endif
