/* SPDX-License-Identifier: Apache-2.0 */
/* Packets are looked at in batches, so that what is known of their classes is asked for before it is needed. */
#ifndef BATCH_H
#define BATCH_H

#include "ordinary.h"

enum { BATCH = 32 };

struct batch {
	struct bytes frames[BATCH];
	struct ordinary ordinary[BATCH];
	uint32_t count;
};

/*
 * The packets from one on, as many as a batch has. False if one of them is not within the data: those before it are
 * there.
 */
bool take_batch(const struct world *world, const struct capture *capture, int64_t from,
		int64_t count, struct batch *batch);

/* The frames of a batch are there: find out which are ordinary. */
void look_at(const struct world *world, struct batch *batch);

/* The code of the packet at this place in the batch; NO_CODE: it is a fragment, or run->no_memory is set. odd:
 * what it means for those after it. */
uint32_t end_one(struct run *run, const struct batch *batch, uint32_t at, struct flow *flow,
		 enum odd *odd);

/* The same of a packet in doubt, its code, flow and odd as they are without: predict.c. row: its place in the doubt. */
uint32_t end_in_doubt(struct run *run, const struct doubt *doubt, int64_t row, uint32_t code,
		      struct flow *flow, enum odd *odd);

#endif
