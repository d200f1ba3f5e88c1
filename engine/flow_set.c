// SPDX-License-Identifier: Apache-2.0
#define _DEFAULT_SOURCE /* madvise() */
#include "flow_set.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { FIRST_SIZE = 16, FEW = 64, LEAST_SIZE = 256 }; /* marks of a part */
enum { SPARSE = 4 }; /* slots of a table for each mark, so that most are where they belong */
enum { LATE = 32 };  /* a share of all flows that are told apart */

static size_t bytes_of(uint32_t size)
{
	return (size_t)FLOW_PARTS * size * sizeof(uint64_t);
}

static bool is_same(uint64_t one, uint64_t other)
{
	return !((one ^ other) >> CLASS_BITS);
}

static uint32_t table_bits(uint32_t marks)
{
	uint32_t bits = 4;

	while (SPARSE * marks > 1u << bits)
		bits++;
	return bits;
}

static void stop(struct flow_set *set)
{
	__atomic_store_n(&set->is_more, true, __ATOMIC_RELAXED);
	set->room = 0;
}

/* The marks of a part, one behind the other. */
static const uint64_t *list_of(struct flow_set *set, uint32_t part)
{
	uint32_t count = set->next[part];

	for (uint32_t at = 0; at < count; at += LINE)
		__builtin_prefetch(flow_slot(set, part, at), 1);
	for (uint32_t at = 0; at < count; at += LINE)
		memcpy(set->list + at, flow_slot(set, part, at), LINE * sizeof *set->list);
	return set->list;
}

static void count_one(struct flow_set *set, uint64_t mark)
{
	set->flows[mark & ((1 << CLASS_BITS) - 1)]++;
	set->count++;
}

/* The marks of a part, without those of flows that it had; how many. */
static uint32_t look_through(struct flow_set *set, uint32_t part)
{
	uint32_t known = set->known[part], next = set->next[part], count = known;
	uint32_t bits = table_bits(next), mask = (1u << bits) - 1, at;
	const uint64_t *list = list_of(set, part);
	uint64_t *table = set->table;

	memset(table, 0, sizeof *table << bits);
	for (uint32_t i = 0; i < known; i++) {
		for (at = (uint32_t)(list[i] >> (64 - bits)); table[at];)
			at = (at + 1) & mask;
		table[at] = list[i];
	}
	for (uint32_t i = known; i < next; i++) {
		at = (uint32_t)(list[i] >> (64 - bits));
		while (table[at] && !is_same(table[at], list[i]))
			at = (at + 1) & mask;
		if (table[at])
			continue;
		table[at] = list[i];
		count_one(set, list[i]);
		if (count != i)
			*flow_slot(set, part, count) = list[i];
		count++;
	}
	return count;
}

void flow_set_settle_part(struct flow_set *set, uint32_t part)
{
	uint32_t next = set->next[part], count;

	if (set->known[part] == next)
		return;
	count = look_through(set, part);
	set->known[part] = set->next[part] = count;
	if (!set->is_more)
		set->room += next - count;
	if (4 * count <= 3 * set->size) /* there is room for many */
		return;
	if (set->size < set->most_size)
		set->size *= 2;
	else
		stop(set);
}

void flow_set_settle(struct flow_set *set)
{
	for (uint32_t part = 0; part < FLOW_PARTS; part++)
		flow_set_settle_part(set, part);
}

/* Where a flow is in a part that is a table, or belongs; 0: nothing is there. */
static uint64_t *slot_of(const struct flow_set *set, uint32_t part, uint64_t mark)
{
	uint32_t at = (uint32_t)((mark >> 32) * set->size >> 32);
	uint64_t *slot = flow_slot(set, part, at);

	while (*slot && !is_same(*slot, mark)) {
		at = at + 1 == set->size ? 0 : at + 1;
		slot = flow_slot(set, part, at);
	}
	return slot;
}

static void make_table(struct flow_set *set, uint32_t part)
{
	const uint64_t *list = list_of(set, part);

	for (uint32_t at = 0; at < set->size; at += LINE)
		memset(flow_slot(set, part, at), 0, LINE * sizeof *list);
	for (uint32_t i = 0; i < set->known[part]; i++)
		*slot_of(set, part, list[i]) = list[i];
	set->is_table[part] = true;
}

static void add_at_once(struct flow_set *set, struct flow_mark it)
{
	uint64_t *slot;

	if (!set->is_table[it.part])
		make_table(set, it.part);
	slot = slot_of(set, it.part, it.mark);
	if (*slot)
		return;
	if (set->count == set->most || 8 * (set->known[it.part] + 1) > 7 * set->size) {
		stop(set);
		return;
	}
	*slot = it.mark;
	set->next[it.part] = ++set->known[it.part];
	count_one(set, it.mark);
}

/* Those that come first are told apart: where there may soon be too many, none waits. */
void flow_set_add_late(struct flow_set *set, struct flow_mark it)
{
	if (!set->is_late && !set->is_more) {
		flow_set_settle(set);
		if (set->room > set->most / LATE) {
			flow_set_add(set, it);
			return;
		}
		set->is_late = true;
		set->room = 0;
	}
	if (!set->is_more)
		add_at_once(set, it);
}

bool flow_set_init(struct flow_set *set, uint64_t most)
{
	uint32_t most_size = LEAST_SIZE; /* and twice as large as a part is likely to need */

	while (2 * most > (uint64_t)FLOW_PARTS * most_size)
		most_size *= 2;
	*set = (struct flow_set){
		.size = FIRST_SIZE, .most_size = most_size, .room = most, .most = most};
	set->list = malloc(most_size * sizeof *set->list);
	set->table = malloc(sizeof *set->table << table_bits(most_size));
	/* Of what is not used yet the system gives no memory. */
	set->marks = mmap(NULL, bytes_of(most_size), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (set->list && set->table && set->marks != MAP_FAILED) {
		/* Where many flows are, in large pages: else much of the time goes into finding small ones. */
		madvise(flow_slot(set, 0, FEW), bytes_of(most_size - FEW), MADV_HUGEPAGE);
		return true;
	}
	flow_set_free(set);
	return false;
}

void flow_set_free(struct flow_set *set)
{
	if (set->marks != MAP_FAILED)
		munmap(set->marks, bytes_of(set->most_size));
	free(set->list);
	free(set->table);
}
