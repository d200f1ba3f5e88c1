// SPDX-License-Identifier: Apache-2.0
/*
 * Of convex curves the convolution is a merge of their steps, the largest first. Most curves are nearly convex: what one
 * prefix saves by taking a subtree as a whole makes a few dents. So the steps of the hulls are merged instead, which
 * gives for each budget a lower bound and the split that reaches it. From there splits are tried in both directions,
 * until the bound, which grows with the distance, is no lower than the best one found.
 */
#include "convolve.h"

#include <stdlib.h>

#define FEW 128 /* pairs of budgets: to try all is faster than to look for hulls */

__extension__ typedef __int128 wide;

bool hull_alloc(struct hull *hull, uint32_t longest)
{
	hull->value = malloc(((size_t)longest + 1) * sizeof(*hull->value));
	hull->vertices = malloc(((size_t)longest + 1) * sizeof(*hull->vertices));
	return hull->value && hull->vertices;
}

void hull_free(struct hull *hull)
{
	free(hull->value);
	free(hull->vertices);
}

static void every_pair(struct curve left, struct curve right, uint32_t longest, int64_t *cost,
		       uint16_t *split)
{
	for (uint32_t at = 0; at <= longest; at++)
		cost[at] = INT64_MAX;
	for (uint32_t first = 0; first <= left.longest && first <= longest; first++) {
		uint32_t seconds = longest - first;

		if (seconds > right.longest)
			seconds = right.longest;
		for (uint32_t second = 0; second <= seconds; second++) {
			int64_t both = left.cost[first] + right.cost[second];

			if (both < cost[first + second]) {
				cost[first + second] = both;
				if (first + second)
					split[first + second - 1] = first;
			}
		}
	}
}

/* Whether the step from one budget to another saves no more for each than the step from there to a third one. */
static bool bends_up(const int64_t *cost, uint32_t one, uint32_t other, uint32_t third)
{
	return (wide)(cost[one] - cost[other]) * (third - other) <=
	       (wide)(cost[other] - cost[third]) * (other - one);
}

static void find_hull(struct curve curve, struct hull *hull)
{
	uint32_t *vertices = hull->vertices, used = 1;

	vertices[0] = 0;
	for (uint32_t at = 1; at <= curve.longest; at++) {
		while (used > 1 && bends_up(curve.cost, vertices[used - 2], vertices[used - 1], at))
			used--;
		vertices[used++] = at;
	}
	hull->segments = used - 1;
	hull->value[0] = curve.cost[0];
	for (uint32_t number = 0; number < hull->segments; number++) {
		uint32_t first = vertices[number], length = vertices[number + 1] - first;
		uint64_t saved = curve.cost[first] - curve.cost[first + length], rest = 0;
		int64_t value = curve.cost[first];

		/* value - saved * step / length, rounded down, without a product that may be too large */
		for (uint32_t step = 1; step <= length; step++) {
			value -= saved / length;
			rest += saved % length;
			if (rest >= length) {
				rest -= length;
				value--;
			}
			hull->value[first + step] = value - (rest != 0);
		}
	}
}

/* Where the merge of the steps of a hull is. */
struct front {
	struct curve curve;
	const struct hull *hull;
	uint32_t at, segment;
};

static void advance(struct front *front)
{
	front->at++;
	if (front->at == front->hull->vertices[front->segment + 1])
		front->segment++;
}

/* Whether the next step of one saves at least as much as that of the other. */
static bool is_steeper(const struct front *one, const struct front *other)
{
	if (one->segment == one->hull->segments || other->segment == other->hull->segments)
		return other->segment == other->hull->segments;
	const uint32_t *mine = one->hull->vertices + one->segment;
	const uint32_t *its = other->hull->vertices + other->segment;

	return (wide)(one->curve.cost[mine[0]] - one->curve.cost[mine[1]]) * (its[1] - its[0]) >=
	       (wide)(other->curve.cost[its[0]] - other->curve.cost[its[1]]) * (mine[1] - mine[0]);
}

struct best {
	int64_t cost;
	uint32_t first;
};

/* Improves the best split of a budget by those on one side of 'from', up to 'last'; 'step' is 1 or -1. */
static void try_side(const struct front *left, const struct front *right, uint32_t budget,
		     uint32_t from, uint32_t last, uint32_t step, struct best *best)
{
	while (from != last) {
		from += step;
		if (left->hull->value[from] + right->hull->value[budget - from] >= best->cost)
			return;
		int64_t both = left->curve.cost[from] + right->curve.cost[budget - from];

		if (both < best->cost)
			*best = (struct best){both, from};
	}
}

void convolve(struct curve left, struct curve right, uint32_t longest, struct hull hulls[2],
	      int64_t *cost, uint16_t *split)
{
	if ((left.longest + 1) * (uint64_t)(right.longest + 1) <= FEW || !left.longest ||
	    !right.longest) {
		every_pair(left, right, longest, cost, split);
		return;
	}
	find_hull(left, hulls);
	find_hull(right, hulls + 1);
	struct front one = {.curve = left, .hull = hulls};
	struct front other = {.curve = right, .hull = hulls + 1};

	cost[0] = left.cost[0] + right.cost[0];
	for (uint32_t budget = 1; budget <= longest; budget++) {
		advance(is_steeper(&one, &other) ? &one : &other);
		uint32_t least = budget > right.longest ? budget - right.longest : 0;
		uint32_t most = budget < left.longest ? budget : left.longest;
		struct best best = {left.cost[one.at] + right.cost[other.at], one.at};

		try_side(&one, &other, budget, one.at, least, -1u, &best);
		try_side(&one, &other, budget, one.at, most, 1, &best);
		cost[budget] = best.cost;
		split[budget - 1] = best.first;
	}
}
