/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pieces of a capture: packets that are dropped before connection tracking, by themselves and for sure, are counted by where
 * that is. All others are left, for a follower if there is one. dossim/engine/sweep.py declares the structures again.
 */
#ifndef SWEEP_H
#define SWEEP_H

#include "batch.h"
#include "left.h"

/* What is remembered and counted from piece to piece, by one thread. */
struct sweep {
	struct run *run;
	struct follower *follower; /* NULL: nobody wants to know anything of what is left */
	/*
	 * That were counted, here or by the follower; of them: sent by the host itself; of which the capture has not all
	 * bytes.
	 */
	int64_t packets, from_host, cut;
	int64_t earliest_ns, latest_ns; /* of all */
};

/* NULL: no memory. */
ENGINE_API struct run *engine_run(const struct world *world);
ENGINE_API void engine_run_free(struct run *run);

/* All packets of a piece, with their times; those that are left, in order: with room for all. Returns as engine_predict(). */
ENGINE_API int64_t engine_sweep(struct sweep *sweep, const struct capture *capture,
				const int64_t *times, int64_t count, struct left *left,
				int64_t *left_count);

/* The same of packets that are within the data. False: no memory. */
bool sweep_rows(struct sweep *sweep, const struct capture *capture, const int64_t *times,
		int64_t count, struct left *left, int64_t *left_count);

/* How many outcomes there are; the list, of which the first is none: that of what is left. */
ENGINE_API uint32_t engine_outcomes(const struct run *run, const struct outcome **list);

#endif
