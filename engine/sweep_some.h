/* SPDX-License-Identifier: Apache-2.0 */
/* The packets that a sweep looks at together: sweep.c, and sweep_left.c for those that it leaves. */
#ifndef SWEEP_SOME_H
#define SWEEP_SOME_H

#include "known.h"
#include "sweep.h"

enum { AT_ONCE = 64, IN_FRAGMENT = 1 };

/* Of an ordinary packet or a plain fragment, where it is in its frame; version 0: it is neither. */
struct place {
	uint16_t segment; /* from the IP header on; of a fragment IN_FRAGMENT */
	uint8_t version, tags;
};

/*
 * Packets that are looked at in steps, each for all of them: so what one asks for is there for the next. Each step is
 * compiled by itself, so that more of what it uses is in registers.
 */
struct some {
	const struct capture *capture;
	int64_t from; /* the number of the first */
	uint32_t count;
	struct place place[AT_ONCE];
	const uint8_t *ip[AT_ONCE];
	uint32_t source[AT_ONCE]; /* as struct ordinary has it */
	uint64_t key[AT_ONCE];	  /* of struct known; 0: of a fragment, or an odd one */
	uint32_t code[AT_ONCE];	  /* where they end, NO_CODE if they are left */
	uint8_t is_odd
		[AT_ONCE]; /* not ordinary, of a bad header, or perhaps incomplete: the code is not known yet */
	uint32_t is_from_host[AT_ONCE];
};

/* That of most: IPv4 without options and tags. */
static const struct place USUAL = {.segment = 20, .version = 4};

static inline bool is_usual(struct place place)
{
	return !memcmp(&place, &USUAL, sizeof place);
}

/* What their bytes say. version: a number that is known where it is inlined. */
ALWAYS_INLINE struct ordinary ordinary_of(const struct some *some, uint32_t at, uint8_t version)
{
	const uint8_t *ip = some->ip[at];
	struct place place = some->place[at];
	bool has_extra = place.segment != (version == 4 ? 20 : 40);

	return (struct ordinary){
		.ip = ip,
		.total = version == 4 ? be16(ip + 2) : 40u + be16(ip + 4),
		.segment = place.segment,
		.source = some->source[at],
		.version = version,
		.protocol = version == 4 ? ip[9]
			    : has_extra	 ? ip[40]
					 : ip[6],
		.tags = place.tags,
		.has_extra = has_extra,
	};
}

/* sweep_left.c: what is known of those of them that are left. */
void tell(const struct sweep *sweep, const struct some *some, struct left *left, int64_t count);

#endif
