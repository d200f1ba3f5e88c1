// SPDX-License-Identifier: Apache-2.0
/*
 * Dynamic programming on the binary trie of the keys (Soldo, Argyraki, Markopoulou: Optimal source-based filtering of
 * malicious traffic, IEEE/ACM Transactions on Networking, 2012).
 *
 * f_v(b) is the least cost below node v with at most b prefixes: f_v(0) is all attack below v; for b > 0 either the
 * prefix of v itself, which costs all collateral below it, or the best split of b between the children, which is the
 * min-plus convolution of their curves. Nodes with one child are left out (the prefix of a node is the longest common
 * one of its keys), a subtree without collateral is one leaf, and a curve ends where it falls no more, so that most
 * curves are short.
 *
 * Nodes are visited children first. Curves live on a stack until their parent has used them; what stays of each node
 * is how every budget is split, to name the prefixes in the end.
 */
#include "cover.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "convolve.h"

#define NO_NODE UINT32_MAX /* nothing below is ever covered */
#define DEPTH_MAX 256	   /* of the walk down: 64 bits, and the groups above them */

struct node {
	uint64_t splits; /* of budget 1, 2, ...: what the left child gets, or COVER_WHOLE */
	uint64_t key;	 /* the first one below */
	uint32_t left, right;
	uint8_t length; /* of the prefix */
	uint8_t group;
};

struct cover {
	struct node *nodes;
	uint16_t *splits;
	int64_t *curves; /* a stack */
	uint64_t splits_used, splits_room, curves_used, curves_room, nodes_used, nodes_room;
	uint32_t budget, top, longest; /* 'longest' of the curve of 'top' */
};

/* A subtree whose curve is on top of the stack. */
struct below {
	int64_t collateral;
	uint32_t node;
	uint32_t longest; /* the last budget of its curve */
};

struct work {
	struct cover *cover;
	const struct cover_group *group;
	uint32_t number;	      /* of the group */
	uint32_t *attacked, *charged; /* how many keys before each have attack, collateral */
	int64_t *curve;		      /* of one node, while it is made */
	uint16_t *split;
	struct hull hulls[2];
};

static bool room(void **block, uint64_t *have, uint64_t want, size_t size)
{
	if (want <= *have)
		return true;
	uint64_t more = want + want / 2 + 1024;
	void *grown = realloc(*block, more * size);

	if (!grown)
		return false;
	*block = grown;
	*have = more;
	return true;
}

static int64_t sum(int64_t one, int64_t other)
{
	int64_t both = one + other; /* neither is above COVER_NEVER */

	return both < COVER_NEVER ? both : COVER_NEVER;
}

static int64_t total(const int64_t *costs, uint32_t first, uint32_t after)
{
	int64_t found = 0;

	for (uint32_t at = first; at < after; at++)
		found = sum(found, costs[at]);
	return found;
}

static int64_t *push(struct work *work, uint32_t values)
{
	struct cover *cover = work->cover;

	if (!room((void **)&cover->curves, &cover->curves_room, cover->curves_used + values,
		  sizeof(*cover->curves)))
		return NULL;
	cover->curves_used += values;
	return cover->curves + cover->curves_used - values;
}

/* Keeps how a node splits each budget; NO_NODE without memory. */
static uint32_t keep(struct work *work, struct node node, const uint16_t *split, uint32_t longest)
{
	struct cover *cover = work->cover;

	if (!room((void **)&cover->nodes, &cover->nodes_room, cover->nodes_used + 1,
		  sizeof(*cover->nodes)) ||
	    !room((void **)&cover->splits, &cover->splits_room, cover->splits_used + longest,
		  sizeof(*cover->splits)))
		return NO_NODE;
	node.splits = cover->splits_used;
	memcpy(cover->splits + cover->splits_used, split, longest * sizeof(*split));
	cover->splits_used += longest;
	cover->nodes[cover->nodes_used] = node;
	return cover->nodes_used++;
}

/* All of it or nothing: one key, or keys of which none but the attack counts. */
static bool leaf(struct work *work, uint32_t first, uint32_t after, uint32_t length,
		 int64_t collateral, struct below *found)
{
	static const uint16_t whole = COVER_WHOLE;
	int64_t attack = total(work->group->attack, first, after);
	uint32_t longest = collateral < attack;
	int64_t *curve = push(work, longest + 1);

	if (!curve)
		return false;
	curve[0] = attack;
	*found = (struct below){.node = NO_NODE, .longest = longest};
	if (!longest)
		return true;
	curve[1] = collateral;
	found->node = keep(work,
			   (struct node){.key = work->group->keys[first],
					 .left = NO_NODE,
					 .right = NO_NODE,
					 .length = length,
					 .group = work->number},
			   &whole, 1);
	return found->node != NO_NODE;
}

/*
 * Replaces the two curves on top of the stack, 'left' below 'right', by that of their parent, whose prefix costs
 * 'whole'.
 */
static bool join(struct work *work, const struct below *left, const struct below *right,
		 struct node node, int64_t whole, struct below *found)
{
	struct cover *cover = work->cover;
	int64_t *after = cover->curves + cover->curves_used;
	int64_t *second = after - right->longest - 1, *first = second - left->longest - 1;
	uint32_t longest = left->longest + right->longest;

	if (longest > cover->budget)
		longest = cover->budget;
	convolve((struct curve){first, left->longest}, (struct curve){second, right->longest},
		 longest, work->hulls, work->curve, work->split);
	bool chosen = false;

	/* Where no part is worth a prefix, all of it may be. */
	if (!longest && cover->budget && whole < work->curve[0])
		work->curve[++longest] = work->curve[0];
	for (uint32_t budget = 1; budget <= longest && whole < work->curve[budget]; budget++) {
		work->curve[budget] = whole;
		work->split[budget - 1] = COVER_WHOLE;
		chosen = true;
	}
	while (longest && work->curve[longest] == work->curve[longest - 1])
		longest--;
	memcpy(first, work->curve, (longest + 1) * sizeof(*first));
	cover->curves_used -= left->longest + right->longest + 1 - longest;
	found->longest = longest;
	if (!longest) {
		found->node = NO_NODE;
	} else if (!chosen && !right->longest) {
		found->node = left->node;
	} else if (!chosen && !left->longest) {
		found->node = right->node;
	} else {
		node.left = left->node;
		node.right = right->node;
		found->node = keep(work, node, work->split, longest);
		return found->node != NO_NODE;
	}
	return true;
}

/* The first key of the range whose bit is set: both sides have keys, and agree in all bits before it. */
static uint32_t parting(const uint64_t *keys, uint32_t first, uint32_t after, uint32_t bit)
{
	uint64_t least = keys[after - 1] >> bit << bit;

	while (first < after) {
		uint32_t middle = first + (after - first) / 2;

		if (keys[middle] < least)
			first = middle + 1;
		else
			after = middle;
	}
	return first;
}

/* What a prefix costs; more than is left uncovered ever does, where it may not be used. */
static int64_t price(const struct cover_group *group, uint32_t length, int64_t collateral)
{
	int64_t space = length < 63 ? group->space >> length : 0;
	int64_t whole = sum(collateral, space);

	return length < group->widest || whole > group->most ? COVER_NEVER : whole;
}

/* Pushes the curve of the keys first to after, of which there is at least one. */
static bool solve(struct work *work, uint32_t first, uint32_t after, struct below *found)
{
	const struct cover_group *group = work->group;
	uint64_t differing = group->keys[first] ^ group->keys[after - 1];
	uint32_t length = differing ? (uint32_t)__builtin_clzll(differing) : group->bits;
	bool attacked = work->attacked[first] != work->attacked[after];
	bool charged = work->charged[first] != work->charged[after] || price(group, length, 0);

	if (!differing || !attacked || !charged) {
		int64_t collateral = total(group->collateral, first, after);

		if (!leaf(work, first, after, length, price(group, length, collateral), found))
			return false;
		found->collateral = collateral;
		return true;
	}
	uint32_t middle =
		parting(group->keys, first, after, 63 - (uint32_t)__builtin_clzll(differing));
	struct below left, right;

	if (!solve(work, first, middle, &left) || !solve(work, middle, after, &right))
		return false;
	struct node node = {.key = group->keys[first], .length = length, .group = work->number};

	found->collateral = sum(left.collateral, right.collateral);
	return join(work, &left, &right, node, price(group, length, found->collateral), found);
}

static void count(const int64_t *costs, uint32_t keys, uint32_t *before)
{
	before[0] = 0;
	for (uint32_t at = 0; at < keys; at++)
		before[at + 1] = before[at] + (costs[at] != 0);
}

static bool solve_group(struct work *work, struct below *found)
{
	const struct cover_group *group = work->group;
	size_t size = ((size_t)group->count + 1) * sizeof(uint32_t);
	bool done = false;

	work->attacked = malloc(size);
	work->charged = malloc(size);
	if (work->attacked && work->charged) {
		count(group->attack, group->count, work->attacked);
		count(group->collateral, group->count, work->charged);
		done = solve(work, 0, group->count, found);
	}
	free(work->attacked);
	free(work->charged);
	return done;
}

/* A curve of nothing: neither attack nor prefixes. */
static bool push_nothing(struct work *work, struct below *found)
{
	int64_t *curve = push(work, 1);

	if (!curve)
		return false;
	curve[0] = 0;
	*found = (struct below){.node = NO_NODE};
	return true;
}

static bool solve_all(struct work *work, const struct cover_group *groups, uint32_t count)
{
	struct below all;

	if (!push_nothing(work, &all))
		return false;
	for (uint32_t number = 0; number < count; number++) {
		struct below none, keys, one, both;
		struct node whole = {.length = COVER_EVERYTHING, .group = number};

		if (!groups[number].count)
			continue;
		work->group = groups + number;
		work->number = number;
		if (!push_nothing(work, &none) || !solve_group(work, &keys) ||
		    !join(work, &none, &keys, whole, groups[number].everything, &one) ||
		    !join(work, &all, &one, (struct node){0}, COVER_NEVER, &both))
			return false;
		all = both;
	}
	work->cover->top = all.node;
	work->cover->longest = all.longest;
	return true;
}

struct cover *cover_solve(const struct cover_group *groups, uint32_t count, uint32_t budget)
{
	struct cover *cover = calloc(1, sizeof(*cover));
	bool done = false;

	if (!cover)
		return NULL;
	cover->budget = budget < COVER_BUDGET_MAX ? budget : COVER_BUDGET_MAX;
	struct work work = {
		.cover = cover,
		.curve = malloc(((size_t)cover->budget + 1) * sizeof(*work.curve)),
		.split = malloc(((size_t)cover->budget + 1) * sizeof(*work.split)),
	};
	bool hulls = hull_alloc(work.hulls, cover->budget);

	hulls &= hull_alloc(work.hulls + 1, cover->budget);
	if (work.curve && work.split && hulls)
		done = solve_all(&work, groups, count);
	free(work.curve);
	free(work.split);
	hull_free(work.hulls);
	hull_free(work.hulls + 1);
	if (!done) {
		cover_free(cover);
		return NULL;
	}
	return cover;
}

const int64_t *cover_curve(const struct cover *cover, uint32_t *length)
{
	*length = cover->longest + 1;
	return cover->curves;
}

uint32_t cover_prefixes(const struct cover *cover, uint32_t budget, struct cover_prefix *found)
{
	struct {
		uint32_t node, budget;
	} open[DEPTH_MAX + UINT8_MAX];
	uint32_t used = 0, prefixes = 0;

	if (budget > cover->longest)
		budget = cover->longest;
	open[used].node = cover->top;
	open[used++].budget = budget;
	while (used) {
		uint32_t here = open[--used].budget;

		if (!here || open[used].node == NO_NODE)
			continue;
		const struct node *node = cover->nodes + open[used].node;
		uint32_t split = cover->splits[node->splits + here - 1];

		if (split == COVER_WHOLE) {
			found[prefixes++] =
				(struct cover_prefix){node->key, node->group, node->length};
			continue;
		}
		open[used].node = node->right;
		open[used++].budget = here - split;
		open[used].node = node->left;
		open[used++].budget = split;
	}
	return prefixes;
}

void cover_free(struct cover *cover)
{
	if (!cover)
		return;
	free(cover->nodes);
	free(cover->splits);
	free(cover->curves);
	free(cover);
}
