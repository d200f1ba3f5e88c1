/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flows by marks: 72 bits of a keyed hash, and a class. Each counts once, by the class of its first mark, up to as many
 * as are told apart.
 */
#ifndef FLOW_SET_H
#define FLOW_SET_H

#include <stdbool.h>
#include <stdint.h>

enum { FLOW_PARTS = 4096, CLASS_BITS = 4 };
enum { LINE_BITS = 3, LINE = 1 << LINE_BITS }; /* marks of 64 bytes */

/* part: 12 bits of the hash. mark: 60 others, and the class in the last 4 bits, from 1 on. */
struct flow_mark {
	uint64_t mark;
	uint32_t part;
};

/*
 * A part keeps marks as they come. Only where it has no room for another, it is looked through for those of flows that it
 * has: once for many of them, in the cache. In memory the first lines of all parts come first, then all second ones, and
 * so on: so what comes in goes to few pages, and a part that gets larger stays where it is.
 */
struct flow_set {
	uint64_t *marks;
	uint64_t room;		    /* before so many have come there cannot be too many flows */
	uint32_t size, most_size;   /* marks that a part has room for, a power of 2; at most */
	uint32_t next[FLOW_PARTS];  /* marks of each part */
	uint32_t known[FLOW_PARTS]; /* so many of them, the first ones, are of different flows */
	uint64_t count, most;	    /* flows that are known; that are told apart */
	int64_t flows[1 << CLASS_BITS]; /* by class */
	uint64_t *list, *table;		/* the part that is looked through */
	bool is_table[FLOW_PARTS];	/* where it is looked for each mark at once */
	bool is_late;			/* in all parts from now on */
	bool is_more;			/* there were flows that are not counted */
};

/* False: no memory. */
bool flow_set_init(struct flow_set *set, uint64_t most);
void flow_set_free(struct flow_set *set);
/* All that came are counted. */
void flow_set_settle(struct flow_set *set);

/* Called by flow_set_add(). */
void flow_set_settle_part(struct flow_set *set, uint32_t part);
void flow_set_add_late(struct flow_set *set, struct flow_mark it);

static inline uint64_t *flow_slot(const struct flow_set *set, uint32_t part, uint32_t at)
{
	uint64_t line = (uint64_t)(at >> LINE_BITS) * FLOW_PARTS + part;

	return set->marks + (line << LINE_BITS) + at % LINE;
}

/* No mark counts any more. Also for a thread that adds none: from then on it need not find out marks. */
static inline bool flow_set_is_over(const struct flow_set *set)
{
	return __atomic_load_n(&set->is_more, __ATOMIC_RELAXED);
}

/* It is added soon. */
static inline void flow_set_ask(const struct flow_set *set, struct flow_mark it)
{
	__builtin_prefetch(flow_slot(set, it.part, set->next[it.part]), 1);
}

static inline void flow_set_add(struct flow_set *set, struct flow_mark it)
{
	uint32_t at;

	if (__builtin_expect(!set->room, 0)) {
		flow_set_add_late(set, it);
		return;
	}
	set->room--;
	at = set->next[it.part]++;
	*flow_slot(set, it.part, at) = it.mark;
	if (__builtin_expect(at + 1 == set->size, 0))
		flow_set_settle_part(set, it.part);
}

#endif
