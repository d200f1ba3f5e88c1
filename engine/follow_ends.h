/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of packets at conntrack and after it. */
#ifndef FOLLOW_ENDS_H
#define FOLLOW_ENDS_H

#include "follow.h"

struct ends {
	const struct world *world;
	const struct after *after;
	bool tracks;
	struct conntrack conntrack;
	struct several *several;
	struct several one; /* of the packet whose turn it is */
	struct saying *sayings;
	/* that of each single outcome, by state, reason and remark; 0: not said yet */
	uint16_t *single;
	size_t several_count, several_capacity, saying_count, saying_capacity;
};

bool ends_init(struct ends *ends, const struct world *world, const struct way_setup *setup,
	       uint64_t seed, uint64_t most_flow_bytes);
void ends_free(struct ends *ends);
/* The packet goes through conntrack; result has its end without policy after that, and becomes the final one. */
void track(struct ends *ends, struct conn_packet *packet, const struct flow *flow,
	   struct result *result);
/* The same once conntrack has seen it, which could read it. */
void end_flow(struct ends *ends, struct conn_packet *packet, const struct flow *flow,
	      struct conn_verdict *verdict, struct result *result);
/* The code of what is said of it. */
uint16_t say(struct ends *ends, const struct conn_verdict *verdict);
bool keep_several(struct ends *ends, int64_t number, const struct several *several);
/* One more row of an array, which is NULL at first; NULL: no memory. */
void *append(void *array, size_t *count, size_t *capacity, size_t size);

#endif
