/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cheapest ways to cover sources of an attack with at most 0, 1, 2, ... prefixes, exactly.
 *
 * A group is a sorted list of distinct keys (IPv4 addresses, or the upper halves of IPv6 addresses), each with what it
 * costs while it is not covered (attack) and what it costs once it is (collateral). Groups are covered apart from each
 * other and share one budget. All costs are integers, so that sums are exact and equal on every machine.
 */
#ifndef COVER_H
#define COVER_H

#include "engine.h"

/* No sum of costs grows beyond it: what costs as much is never covered. The attack of all groups must stay below. */
#define COVER_NEVER ((int64_t)1 << 52)
/* A split of a budget is stored in 16 bits, of which the last value means the prefix as a whole. */
#define COVER_BUDGET_MAX 65534

struct cover_group {
	const uint64_t *keys; /* ascending; the key's bits are the upper ones */
	const int64_t *attack;
	const int64_t *collateral; /* COVER_NEVER: protected */
	int64_t most;		   /* collateral of one prefix */
	int64_t everything; /* cost of covering the group as a whole, once; COVER_NEVER: impossible */
	int64_t space; /* collateral of all addresses together, spread evenly; 0 if only the keys count */
	uint32_t count;
	uint32_t bits;	 /* of a key, at most 64 */
	uint32_t widest; /* no prefix is shorter */
};

#define COVER_EVERYTHING 255 /* as a length: the group as a whole, not by a prefix */

/* One prefix of a group. */
struct cover_prefix {
	uint64_t key;
	uint32_t group;
	uint32_t length;
};

struct cover;

/* NULL without memory. The groups are not used afterwards. */
ENGINE_API struct cover *cover_solve(const struct cover_group *groups, uint32_t count,
				     uint32_t budget);

/* The least cost with at most 0, 1, ... prefixes; more prefixes than it is long improve nothing. */
ENGINE_API const int64_t *cover_curve(const struct cover *cover, uint32_t *length);

/* The prefixes of the cheapest cover with at most this many; their number. 'found' has room for as many. */
ENGINE_API uint32_t cover_prefixes(const struct cover *cover, uint32_t budget,
				   struct cover_prefix *found);

ENGINE_API void cover_free(struct cover *cover);

#endif
