// SPDX-License-Identifier: Apache-2.0
/*
 * Divides addresses and ports into classes: the ranges of all sets are merged in the order of their ends, and between
 * two ends all addresses are in the same sets.
 */
#include "classes.h"

#include <stdlib.h>
#include <string.h>

enum {
	MOST_SETS = 4095,
	MOST_CLASSES = 65535,
	MOST_PORT_CLASSES = 4094, /* and one more with another meaning: NO_PORTS of known.h */
	MOST_SEGMENTS = 1 << SEGMENT_BITS,
	MOST_BITS = 20, /* by which a node divides */
	MOST_WORDS = MOST_SETS / 64 + 1
};

/* False: no memory. */
static bool grow(void **array, uint32_t needed, uint32_t *room, size_t size)
{
	uint32_t wanted = *room ? *room : 16;
	void *grown;

	if (needed <= *room)
		return true;
	while (wanted < needed)
		wanted *= 2;
	grown = realloc(*array, wanted * size);
	if (!grown)
		return false;
	*array = grown;
	*room = wanted;
	return true;
}

#define KEY uint32_t
#define NAME(name) name##4
#include "division.h"
#undef KEY
#undef NAME
#define KEY unsigned __int128
#define NAME(name) name##6
#include "division.h"
#undef KEY
#undef NAME

/* -- the sets -- */

struct sets {
	const struct nets *all[MOST_SETS];
	struct nets single[MOST_SETS]; /* of one range each */
	struct range4 four[MOST_SETS];
	struct range6 six[MOST_SETS];
	uint32_t count, singles;
	bool full;
};

static void add(struct sets *sets, const struct nets *nets)
{
	for (uint32_t i = 0; i < sets->count; i++)
		if (sets->all[i] == nets)
			return;
	if (sets->count == MOST_SETS)
		sets->full = true;
	else
		sets->all[sets->count++] = nets;
}

static void add_range4(struct sets *sets, uint32_t first, uint32_t last)
{
	uint32_t at = sets->singles;

	if (at == MOST_SETS) {
		sets->full = true;
		return;
	}
	sets->four[at] = (struct range4){first, last};
	sets->single[at] = (struct nets){.four = &sets->four[at], .count4 = 1};
	add(sets, &sets->single[sets->singles++]);
}

static void add_range6(struct sets *sets, const uint64_t first[2], const uint64_t last[2])
{
	uint32_t at = sets->singles;

	if (at == MOST_SETS) {
		sets->full = true;
		return;
	}
	sets->six[at] = (struct range6){{first[0], first[1]}, {last[0], last[1]}};
	sets->single[at] = (struct nets){.six = &sets->six[at], .count6 = 1};
	add(sets, &sets->single[sets->singles++]);
}

/* Addresses that the kernel treats in a way of their own (route.c). */
static void add_special(struct sets *sets)
{
	static const struct range4 four[] = {{0, 0},
					     {0x7f000000, 0x7fffffff},
					     {0x7f000001, 0x7f000001},
					     {0xe0000000, 0xefffffff},
					     {0xe0000001, 0xe0000001},
					     {0xffffffff, 0xffffffff}};
	static const struct range6 six[] = {
		{{0, 0}, {0, 0}},
		{{0, 1}, {0, 1}},
		{{0xfe80000000000000, 0}, {0xfebfffffffffffff, UINT64_MAX}},
		{{0xff00000000000000, 0}, {UINT64_MAX, UINT64_MAX}}};

	for (size_t i = 0; i < sizeof four / sizeof *four; i++)
		add_range4(sets, four[i].first, four[i].last);
	for (size_t i = 0; i < sizeof six / sizeof *six; i++)
		add_range6(sets, six[i].first, six[i].last);
}

static void add_routes(struct sets *sets, const struct route *routes, uint32_t count)
{
	for (const struct route *one = routes; one < routes + count; one++) {
		uint64_t last[2] = {one->net[0] | ~one->mask[0], one->net[1] | ~one->mask[1]};

		if (one->version == 4)
			add_range4(sets, (uint32_t)one->net[1], (uint32_t)last[1]);
		else
			add_range6(sets, one->net, last);
	}
}

static void add_member(struct sets *sets, const struct port_member *member)
{
	for (uint32_t i = 0; i < sets->singles; i++) {
		const struct nets *one = &sets->single[i];

		if (member->version == 4
			    ? one->count4 && one->four->first == member->address[1] &&
				      one->four->last == member->address[1]
			    : one->count6 && !memcmp(one->six->first, member->address, 16) &&
				      !memcmp(one->six->last, member->address, 16))
			return;
	}
	if (member->version == 4)
		add_range4(sets, (uint32_t)member->address[1], (uint32_t)member->address[1]);
	else
		add_range6(sets, member->address, member->address);
}

#define EACH_CONDITION(on, rules, entry)                                              \
	for (const struct entry *entry = (rules)->entries;                            \
	     entry < (rules)->entries + (rules)->entry_count; entry++)                \
		for (const struct condition *on = (rules)->conditions + entry->first; \
		     on < (rules)->conditions + entry->first + entry->count; on++)

#define EACH_MEMBER(member, rules, on)                                                 \
	for (int32_t name = (on)->c; name < (on)->c + (on)->d; name++)                 \
		for (const struct port_member *member =                                \
			     (rules)->port_members +                                   \
			     (rules)->port_sets[(rules)->names[name]].first;           \
		     member < (rules)->port_members +                                  \
				      (rules)->port_sets[(rules)->names[name]].first + \
				      (rules)->port_sets[(rules)->names[name]].count;  \
		     member++)

static void add_rules(struct sets *sets, const struct rules *rules)
{
	EACH_CONDITION(on, rules, entry)
	{
		if (on->kind == ON_NETS)
			add(sets, &rules->nets[on->a]);
		if (on->kind == ON_PORTS)
			EACH_MEMBER(member, rules, on)
		add_member(sets, member);
	}
	for (uint32_t i = 0; i < rules->own_count; i++)
		if (rules->own[i].nets >= 0)
			add(sets, &rules->nets[rules->own[i].nets]);
	for (uint32_t i = 0; i < rules->other_count; i++)
		if (rules->other[i].nets >= 0)
			add(sets, &rules->nets[rules->other[i].nets]);
}

static void add_world(struct sets *sets, const struct world *world)
{
	add_rules(sets, &world->raw);
	add(sets, &world->own);
	add(sets, &world->broadcasts);
	add(sets, &world->anycasts);
	add(sets, &world->joined);
	add(sets, &world->routed);
	add_routes(sets, world->inside, world->inside_count);
	add_routes(sets, world->outside, world->outside_count);
	add_special(sets);
}

/* -- the merge -- */

/* Where a set begins or ends next. */
struct cursor {
	unsigned __int128 next;
	const struct nets *nets;
	uint32_t at, bit;
	bool inside;
};

struct merge {
	struct cursor heap[MOST_SETS];
	uint32_t count, words;
	uint64_t inside[MOST_WORDS]; /* bit 0: IPv6, the others: sets */
	/* The classes: what is in them, and by that, a slot each. */
	uint64_t *vectors;
	uint32_t *slots;
	uint32_t classes, vector_room, slot_count;
};

/* False: there is no other end. */
static bool advance(struct cursor *cursor, uint8_t version)
{
	const struct nets *nets = cursor->nets;
	unsigned __int128 last;

	if (!cursor->inside) {
		if (cursor->at == (version == 4 ? nets->count4 : nets->count6))
			return false;
		cursor->next = version == 4 ? nets->four[cursor->at].first
					    : key6(nets->six[cursor->at].first[0],
						   nets->six[cursor->at].first[1]);
		return true;
	}
	last = version == 4 ? nets->four[cursor->at].last
			    : key6(nets->six[cursor->at].last[0], nets->six[cursor->at].last[1]);
	cursor->at++;
	cursor->next = last + 1;
	return last != (version == 4 ? UINT32_MAX : ~(unsigned __int128)0);
}

static void sift_down(struct merge *merge, uint32_t at)
{
	struct cursor moving = merge->heap[at];

	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child + 1 < merge->count &&
		    merge->heap[child + 1].next < merge->heap[child].next)
			child++;
		if (child >= merge->count || moving.next <= merge->heap[child].next)
			break;
		merge->heap[at] = merge->heap[child];
		at = child;
	}
	merge->heap[at] = moving;
}

static void start(struct merge *merge, const struct sets *sets, uint8_t version)
{
	merge->count = 0;
	memset(merge->inside, 0, sizeof merge->inside);
	merge->inside[0] = version == 6;
	for (uint32_t i = 0; i < sets->count; i++) {
		struct cursor cursor = {.nets = sets->all[i], .bit = i + 1};

		if (advance(&cursor, version))
			merge->heap[merge->count++] = cursor;
	}
	for (uint32_t at = merge->count / 2; at-- > 0;)
		sift_down(merge, at);
}

/* Take all ends at one address; which sets contain what follows is in inside. */
static void pass(struct merge *merge, unsigned __int128 key, uint8_t version)
{
	while (merge->count && merge->heap[0].next == key) {
		struct cursor *top = &merge->heap[0];

		top->inside = !top->inside;
		merge->inside[top->bit / 64] ^= (uint64_t)1 << top->bit % 64;
		if (!advance(top, version))
			*top = merge->heap[--merge->count];
		if (merge->count)
			sift_down(merge, 0);
	}
}

static uint64_t hash(const uint64_t *vector, uint32_t words)
{
	uint64_t found = 0;

	for (uint32_t i = 0; i < words; i++) {
		found = (found ^ vector[i]) * 0x9e3779b97f4a7c15;
		found ^= found >> 29;
	}
	return found;
}

static void put_slot(struct merge *merge, uint32_t class)
{
	const uint64_t *vector = merge->vectors + (size_t)class * merge->words;
	uint64_t at = hash(vector, merge->words);

	while (merge->slots[at &= merge->slot_count - 1])
		at++;
	merge->slots[at] = class + 1;
}

static bool more_slots(struct merge *merge)
{
	uint32_t wanted = merge->slot_count ? 2 * merge->slot_count : 64;
	uint32_t *slots = calloc(wanted, sizeof *slots);

	if (!slots)
		return false;
	free(merge->slots);
	merge->slots = slots;
	merge->slot_count = wanted;
	for (uint32_t class = 0; class < merge->classes; class++)
		put_slot(merge, class);
	return true;
}

/* The class of the addresses that are in these sets. False: no memory, or there are too many. */
static bool class_inside(struct merge *merge, uint32_t *class)
{
	size_t size = merge->words * sizeof *merge->vectors;
	uint64_t at;

	if (2 * merge->classes >= merge->slot_count && !more_slots(merge))
		return false;
	at = hash(merge->inside, merge->words);
	while (merge->slots[at &= merge->slot_count - 1]) {
		*class = merge->slots[at] - 1;
		if (!memcmp(merge->vectors + (size_t)*class * merge->words, merge->inside, size))
			return true;
		at++;
	}
	if (merge->classes == MOST_CLASSES ||
	    !grow((void **)&merge->vectors, merge->classes + 1, &merge->vector_room, size))
		return false;
	memcpy(merge->vectors + (size_t)merge->classes * merge->words, merge->inside, size);
	*class = merge->classes++;
	merge->slots[at] = *class + 1;
	return true;
}

static bool add_to(struct classes *classes, uint8_t version, unsigned __int128 key, uint32_t class)
{
	return version == 4 ? add_segment4(&classes->four, (uint32_t)key, (uint16_t)class)
			    : add_segment6(&classes->six, key, (uint16_t)class);
}

static bool merge_all(struct classes *classes, struct merge *merge, const struct sets *sets,
		      uint8_t version)
{
	unsigned __int128 key = 0;
	uint32_t class, before;

	start(merge, sets, version);
	pass(merge, key, version);
	if (!class_inside(merge, &before) || !add_to(classes, version, key, before))
		return false;
	while (merge->count) {
		key = merge->heap[0].next;
		pass(merge, key, version);
		if (!class_inside(merge, &class))
			return false;
		if (class != before && !add_to(classes, version, key, class))
			return false;
		before = class;
	}
	return version == 4 ? divide4(&classes->four) : divide6(&classes->six);
}

static bool divide_addresses(struct classes *classes, const struct world *world)
{
	struct sets *sets = calloc(1, sizeof *sets);
	struct merge *merge = calloc(1, sizeof *merge);
	bool good = sets && merge;

	if (good) {
		for (uint32_t i = 0; i < classes->other_count; i++)
			add_rules(sets, classes->other[i]);
		add_world(sets, world);
		merge->words = (sets->count + 1 + 63) / 64;
		good = !sets->full && merge_all(classes, merge, sets, 4) &&
		       merge_all(classes, merge, sets, 6);
	}
	if (merge) {
		free(merge->vectors);
		free(merge->slots);
	}
	free(merge);
	free(sets);
	return good;
}

/* -- ports -- */

/* begins: whether a class begins at a port. */
static void mark(uint8_t *begins, uint32_t first, uint32_t last)
{
	begins[first] = 1;
	if (last < 65535)
		begins[last + 1] = 1;
}

static void mark_all(uint8_t *begins, const struct rules *rules)
{
	EACH_CONDITION(on, rules, entry)
	{
		if (on->kind != ON_PORTS)
			continue;
		for (int32_t i = on->a; i < on->a + on->b; i++)
			mark(begins, rules->ranges[i].first, rules->ranges[i].last);
		EACH_MEMBER(member, rules, on)
		mark(begins, member->port, member->port);
	}
	for (uint32_t i = 0; i < rules->own_count; i++)
		mark(begins, rules->own[i].port & 0xffff, rules->own[i].port & 0xffff);
	for (uint32_t i = 0; i < rules->other_count; i++)
		mark(begins, rules->other[i].port & 0xffff, rules->other[i].port & 0xffff);
}

static bool divide_ports(struct classes *classes, const struct world *world)
{
	uint8_t begins[65536] = {0};
	uint32_t class = 0;

	mark_all(begins, &world->raw);
	for (uint32_t i = 0; i < classes->other_count; i++)
		mark_all(begins, classes->other[i]);
	for (uint32_t port = 0; port < 65536; port++) {
		class += begins[port];
		if (class > MOST_PORT_CLASSES)
			return false;
		classes->ports[port] = class;
	}
	return true;
}

struct classes *engine_classes(const struct world *world, const struct rules *const *other,
			       uint32_t count)
{
	struct classes *classes = calloc(1, sizeof *classes);

	if (classes && count <= MOST_OTHER) {
		for (uint32_t i = 0; i < count; i++)
			classes->other[i] = other[i];
		classes->other_count = count;
		if (divide_addresses(classes, world) && divide_ports(classes, world))
			return classes;
	}
	engine_classes_free(classes);
	return count ? engine_classes(world, NULL, 0) : NULL;
}

bool tells_apart(const struct classes *classes, const struct rules *rules)
{
	for (uint32_t i = 0; i < classes->other_count; i++)
		if (classes->other[i] == rules)
			return true;
	return false;
}

void engine_classes_free(struct classes *classes)
{
	if (!classes)
		return;
	free(classes->four.segments);
	free(classes->four.nodes);
	free(classes->four.table);
	free(classes->six.segments);
	free(classes->six.narrow);
	free(classes->six.nodes);
	free(classes->six.table);
	free(classes);
}
