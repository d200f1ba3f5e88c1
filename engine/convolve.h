/* SPDX-License-Identifier: Apache-2.0 */
/* The min-plus convolution of two curves: the least cost of every budget, split between them. */
#ifndef CONVOLVE_H
#define CONVOLVE_H

#include <stdbool.h>
#include <stdint.h>

#define COVER_WHOLE 0xffffu /* no split: never what convolve() stores */

/* The costs of budgets 0 to longest, none more than the one before it. */
struct curve {
	const int64_t *cost;
	uint32_t longest;
};

/* The largest convex curve that is nowhere above another one. */
struct hull {
	int64_t *value; /* rounded down between vertices */
	uint32_t *
		vertices; /* budgets at which both are the same: the first, the last, and where the slope changes */
	uint32_t segments;
};

/* For curves up to 'longest'; false without memory. */
bool hull_alloc(struct hull *hull, uint32_t longest);
void hull_free(struct hull *hull);

/*
 * cost[b] = min of left[i] + right[j] with i + j = b, for b from 0 to 'longest', which is at most the sum of both;
 * split[b - 1] = that i, for b from 1. 'hulls' has room for one of each.
 */
void convolve(struct curve left, struct curve right, uint32_t longest, struct hull hulls[2],
	      int64_t *cost, uint16_t *split);

#endif
