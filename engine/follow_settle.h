/* SPDX-License-Identifier: Apache-2.0 */
/* The follower, and what is done with the ends of packets: they are counted, and shown. */
#ifndef FOLLOW_SETTLE_H
#define FOLLOW_SETTLE_H

#include "batch.h"
#include "follow_counts.h"
#include "follow_ends.h"
#include "follow_usual.h"

struct one_way {
	struct ends ends;
	struct counts counts;
	struct late *late;
	struct told *told;
	size_t late_count, late_capacity, told_count, told_capacity;
	/* The end before, and its code. */
	struct end last;
	uint32_t last_code;
	bool last_untracked;
	struct decided decided[1 << DECIDED_BITS];
};

/* What is known of a packet by itself. */
struct looked {
	struct bytes frame;
	const struct ordinary *ordinary; /* NULL: it is not, or as if it was not */
	uint64_t key;			 /* if it may be usual (follow_usual.h); else 0 */
	struct end end;
	uint32_t code;
	enum odd odd;
	uint8_t flags; /* of TCP */
	bool untracked, is_packet;
	bool reaches;	  /* it gets to conntrack */
	struct flow flow; /* of one that does; an ordinary one has none yet where version is 0 */
	struct conn_packet packet; /* if is_packet */
	struct fragment fragment;  /* if odd is ODD_FRAGMENT */
};

struct follower {
	struct world world;
	struct run *run;
	struct one_way ways[MOST_WAYS];
	uint32_t way_count;
	bool tracks;   /* in one of the ways */
	bool is_usual; /* packets may be */
	uint16_t alone;
	struct new_flows *new_flows;
	struct defrag defrag;
	struct follow_batch *batch;
	int64_t first; /* the number of the first packet of the batch, among those of all batches */
	int64_t doubted, refused; /* those that come next */
	struct looked looked[BATCH], datagram;
	struct usual usual[1 << USUAL_BITS];
	/* The packet whose turn it is: its place in the batch, what is known of it, and its frame (set_mine()). */
	int64_t at;
	const struct looked *it;
	struct piece mine;
	bool no_memory;
};

/* When the packet whose turn it is arrives. */
static inline int64_t now_ns(const struct follower *follower)
{
	return follower->batch->times ? follower->batch->times[follower->at] : 0;
}

/* follow.c: the turn of a packet that was looked at. row: its place in the batch. */
void take_one(struct follower *follower, int64_t row, struct looked *it);

/* Whether it is as if it was cut; row: its place in the batch. */
bool is_shortened(const struct follower *follower, int64_t row);

/* The packet whose turn it is, as a piece: before it is settled. */
void set_mine(struct follower *follower);

/* Whether a packet that ends so leaves an entry. */
static inline bool leaves_entry(const struct end *end, bool untracked)
{
	return (end->fate == DELIVERED || end->fate == FORWARDED) && !untracked;
}

/* And it is counted. */
static inline bool begins(const struct follower *follower, const struct end *end, bool untracked)
{
	return follower->new_flows && leaves_entry(end, untracked);
}

/* The end of a packet, by each way. codes: those of the ends, NO_CODE where they are not known. */
void settle(struct follower *follower, const struct piece *piece,
	    const struct result results[MOST_WAYS], const uint32_t codes[MOST_WAYS]);
/* The same of the packet whose turn it is, which may begin a flow. */
void settle_mine(struct follower *follower, const struct result results[MOST_WAYS],
		 const uint32_t codes[MOST_WAYS]);
/* The same by all ways; piece NULL: the packet whose turn it is. */
void settle_alike(struct follower *follower, const struct piece *piece, const struct result *result,
		  uint32_t code);

#endif
