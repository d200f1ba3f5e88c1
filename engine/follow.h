/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets in the order of their arrival, where those before them matter: defragmentation and connection tracking.
 * engine_predict() has decided all others, and left ODD_FRAGMENT and ODD_OPEN.
 */
#ifndef FOLLOW_H
#define FOLLOW_H

#include "conntrack.h"
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

struct follower_setup {
	const struct world *world;
	const struct after *after; /* NULL: no policy after conntrack */
	const struct rules *sends_outside, *sends_inside;
	const uint16_t *tcp_ports;
	uint32_t tcp_count;
	uint8_t tracks; /* packets are followed through conntrack */
	uint8_t pad[3];
	uint64_t seed;
	uint64_t most_flow_bytes,
		most_fragment_bytes; /* what flows and fragments that wait may take */
};

/* A batch of packets, and their columns; ends are those that engine_predict() found, and become the final ones. */
struct follow_batch {
	const struct capture *capture;
	struct columns *columns;
	const int64_t *times; /* NULL: all arrive at one instant */
	uint8_t *states;      /* a bit for each enum conn_state; 0: nothing is known */
	uint16_t *said;
	int64_t first, count; /* the number of the first packet among those of all batches */
	uint8_t is_last;
	uint8_t pad[7];
};

/* What grew; each until the next call. */
struct followed {
	const struct several *several;
	const struct late *late;
	const struct told *told;
	const struct saying *sayings; /* all there ever were, from FIRST_SAYING on */
	uint64_t several_count, late_count, told_count, saying_count;
};

struct follower;

ENGINE_API struct follower *engine_follower(const struct follower_setup *setup);
ENGINE_API void engine_unfollow(struct follower *follower);
ENGINE_API int64_t engine_follow(struct follower *follower, const struct follow_batch *batch,
				 struct followed *followed);

/* What becomes of a packet. */
struct result {
	struct end end;
	uint16_t said;
	uint8_t states;
	bool untracked;
	const struct several *several; /* NULL: one end */
	const struct piece *told;      /* NULL: the packet itself */
};

#endif
