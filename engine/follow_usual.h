/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets for which policy need not be asked again: of a flow of which connection tracking knows nothing, and sound by
 * themselves. All that have the same classes, the same end before conntrack and, of TCP, the same flags end alike: as the
 * first of them did, which was followed. Conntrack sees those that leave something there.
 */
#ifndef FOLLOW_USUAL_H
#define FOLLOW_USUAL_H

#include "follow.h"
#include "ordinary.h"

enum { USUAL_BITS = 10, DECIDED_BITS = 8 };

struct usual {
	uint64_t key;  /* of struct known; 0: nothing is known */
	uint32_t code; /* of the end before conntrack */
	uint8_t flags; /* of TCP */
	bool leaves;   /* something at conntrack, by one of the ways */
	bool begins;   /* a flow that is counted */
	uint8_t states[MOST_WAYS], passed[MOST_WAYS],
		delivered[MOST_WAYS]; /* as struct result has them */
	uint16_t said[MOST_WAYS];
	uint32_t ends[MOST_WAYS]; /* codes */
};

/* What policy says of all with the same classes, the same end before conntrack, and one state. */
struct decided {
	uint64_t key; /* as above */
	uint32_t code, end;
	uint8_t state, passed, delivered;
};

struct follower;
struct looked;
struct one_way;

/* What all rules after raw say of packets with one key is the same. */
bool are_told_apart(const struct classes *classes, const struct way_setup *way);
/* Whether the packet may be one: nothing is wrong with it that conntrack looks at. known: of its classes; code: its end. */
bool is_sound(const struct ordinary *it, const struct known *known, uint32_t code);
/* It as conntrack sees it: of a sound one the headers need not be read again. */
void set_usual(struct looked *it);
/* Conntrack knows nothing of any flow, in any of the ways. */
bool knows_nothing(const struct follower *follower);
/* What is known of such packets; NULL: nothing. */
const struct usual *find_usual(struct follower *follower, uint64_t key, uint32_t code,
			       uint8_t flags);
/* So many have ended so; nobody wants to see them. */
void count_usual(struct follower *follower, const struct usual *usual, int64_t packets);
/* False: it has to be followed. */
bool take_usual(struct follower *follower, struct looked *it);
/* A sound one through conntrack, by one way; returns the code of its end, or NO_CODE if it is not known. */
uint32_t follow_sound(struct follower *follower, struct one_way *way, struct looked *it,
		      struct result *result);
/* It was followed, with these results. */
void note_usual(struct follower *follower, const struct looked *it,
		const struct result results[MOST_WAYS]);

#endif
