/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets through all stages in the order of their arrival, each by itself (predict.h) and then where those before it
 * matter: defragmentation and connection tracking. Where they end is counted, and shown to those who ask for columns.
 */
#ifndef FOLLOW_H
#define FOLLOW_H

#include "conntrack.h"
#include "new_flows.h"
#include "outcomes.h"
#include "reassembly.h"

/* A packet that conntrack may give several states, with different ends; first: the state whose end the columns have. */
struct several {
	int64_t number;
	int32_t entry[SEEN_STATES];
	uint16_t reason[SEEN_STATES];
	uint8_t fate[SEEN_STATES], stage[SEEN_STATES];
	uint8_t states; /* a bit for each that is possible */
	uint8_t is_set; /* the ends are all that is known; else the packet is undetermined */
};

/* A packet of an earlier batch, whose end is known now. */
struct late {
	int64_t number;
	int32_t entry;
	uint16_t reason, said;
	uint8_t fate, stage, untracked, states;
	uint32_t pad;
};

/* The lengths that the reason of a packet tells: those of another one, the first fragment of its datagram. */
struct told {
	int64_t number;
	int32_t captured, wire;
};

/* The outcomes that a verdict has, and why there are several. */
struct saying {
	struct conn_outcome outcomes[WORLDS];
	uint8_t count, coin;
	uint8_t pad[6];
};

/* What is said of a packet that was cut. */
enum { SAYS_NOTHING, SAYS_CUT, FIRST_SAYING };

/* Policy after conntrack, or none. */
struct way_setup {
	const struct after *after; /* NULL: none */
	const struct rules *sends_outside, *sends_inside;
	const uint16_t *tcp_ports;
	uint32_t tcp_count;
	uint8_t tracks; /* packets are followed through conntrack */
	uint8_t pad[3];
};

enum { MOST_WAYS = 2 };

struct follower_setup {
	const struct world *world;
	const struct way_setup *ways; /* in the place of each other, at most MOST_WAYS */
	uint64_t way_count;
	struct new_flows *new_flows; /* NULL: those of the first way are not counted */
	uint64_t seed;
	uint64_t most_flow_bytes,
		most_fragment_bytes; /* what the flows of each way and fragments that wait may take */
	/* Not 0: the packets are not all of a capture, and fragments are undetermined for this reason. */
	uint16_t alone;
	uint8_t pad[6];
};

/* One row for each packet of a batch, by one way. */
struct way_columns {
	uint8_t *fate, *stage;
	int32_t *entry;
	uint16_t *reason;
	uint8_t *untracked;
	uint8_t *states; /* a bit for each enum conn_state; 0: nothing is known */
	uint16_t *said;
};

/* The fate in columns of a fragment, of whose datagram others are awaited. */
enum { WAITS = 254 };

/* Reasons from REASONS on are the caller's. */
struct follow_batch {
	const struct capture *capture;
	const struct way_columns *columns; /* of each way; NULL: nobody wants to see packets */
	const int64_t *times;		   /* NULL: all arrive at one instant */
	const struct doubt *doubt;	   /* NULL: none */
	/* Those that cannot be sent, in order, each with its reason. */
	const int64_t *refused;
	const uint16_t *refused_reasons;
	int64_t refused_count;
	/*
	 * NULL: of no packet. Those that are as if they were cut, which is why they are undetermined, if they are; and
	 * how much was captured of each packet of the batch.
	 */
	const uint8_t *shortened;
	const int32_t *whole_length;
	int64_t count;
	uint16_t shortened_reason;
	uint8_t is_last;
	uint8_t stops; /* before the first packet that hardware may not have completed (enum artefact) */
	uint8_t pad[4];
	/* The packets that were taken; of them, if it stops: sent by the host itself; of which the capture has not all bytes. */
	int64_t taken, from_host, cut;
};

/* What grew, of one way, if packets are shown; each until the next call. */
struct followed {
	const struct several *several;
	const struct late *late;
	const struct told *told;
	const struct saying *sayings; /* all there ever were, from FIRST_SAYING on */
	uint64_t several_count, late_count, told_count, saying_count;
};

/* Packets that are undetermined because so much of them, or of another one of their datagram, was captured; -1: not told. */
struct cut_count {
	uint32_t code; /* of outcomes */
	int32_t captured, wire;
	uint32_t pad;
	int64_t packets;
};

/* All packets that one way has ended. */
struct counted {
	const struct outcome *outcomes;
	const int64_t *
		packets; /* of the first outcomes, without those of cuts; of the others there are none */
	const struct cut_count *cuts;
	uint64_t outcome_count, packet_count, cut_count;
	/* With several possible ends; those of them of which one is a drop by policy after conntrack. */
	int64_t several, several_after;
	int64_t open_here; /* undetermined, and not so by the first way */
};

struct follower;
struct left;
struct sweep;

/* NULL: no memory. */
ENGINE_API struct follower *engine_follower(const struct follower_setup *setup);
ENGINE_API void engine_unfollow(struct follower *follower);
/* The next packets; followed: of each way. Returns as engine_predict(); if not ALL_PREDICTED, it is of no more use. */
ENGINE_API int64_t engine_follow(struct follower *follower, struct follow_batch *batch,
				 struct followed *followed);
ENGINE_API void engine_followed(const struct follower *follower, uint32_t way,
				struct counted *counted);

/* Whether it needs what a sweep says of packets that are left (left.h). */
bool wants_more(const struct follower *follower);
/* Where a packet is counted that leaves an entry by its end without conntrack; NULL: nowhere, or policy after it decides. */
const struct new_flows *flows_by_end(const struct follower *follower);
/*
 * The next packets are those that a sweep has left of a piece, with nobody who wants to see them. They are taken before
 * the first that Python has to look at: how many; or OUT_OF_MEMORY. The sweep counts them.
 */
int64_t follow_left(struct follower *follower, struct sweep *sweep, const struct capture *piece,
		    const struct left *left, int64_t count);

/* What becomes of a packet. */
struct result {
	struct end end;
	uint16_t said;
	uint8_t states;
	bool untracked;
	/* It has one state, as each packet like it of a flow that conntrack knows nothing of. */
	bool is_usual;
	/* enum conn_state: the last hook passes it; it is delivered, and its answer gets to conntrack. */
	uint8_t passed, delivered;
	const struct several *several; /* NULL: one end */
	const struct piece *told;      /* NULL: the packet itself */
};

#endif
