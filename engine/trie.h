/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Classes of addresses, included once for each KEY (an unsigned type) with NAME() for what it defines.
 *
 * The address space is divided into segments. The first node divides it into blocks by its first bits. Each other node
 * divides what lies between the first and the last start of its segments, by the bits after those that these share: so a
 * list far down in one prefix is found as fast as one all over the address space.
 */

struct NAME(node) {
	KEY first, last; /* the first and the last start of its segments; not of the first node */
	uint32_t before, after; /* the segments with what is before first, and from last on */
	uint32_t table, mask;
	uint32_t shift;
};

/* Packed: those of a block are in few lines of the cache, and more of them fit into it. */
struct __attribute__((packed)) NAME(segment) {
	KEY start;
	uint16_t class;
};

struct NAME(trie) {
	/* And MOST_SEARCHED more, that start after all addresses. */
	struct NAME(segment) * segments;
	struct NAME(node) * nodes;
	/*
	 * Of IPv6, those of nodes whose segments start at addresses that differ in four bytes only, and have zeros behind
	 * these: the four bytes of each, behind one with what is before the node, and before MOST_SEARCHED that start last.
	 */
	struct segment4 *narrow;
	/*
	 * A slot for each block: a node, with IS_NODE, or the last segment that starts before or with the block. One of
	 * narrow has above its SEGMENT_BITS the number of bytes behind the four, and one more.
	 */
	uint32_t *table;
	uint32_t segment_count, segment_room, narrow_count, narrow_room;
	uint32_t node_count, node_room, table_count, table_room;
};

/* A place is that of a slot in the table. */
static inline uint32_t NAME(place_in)(const struct NAME(node) * node, KEY key)
{
	return node->table + ((uint32_t)(key >> node->shift) & node->mask);
}

/* The first node divides all addresses, by some of their first 32 bits. */
static inline uint32_t NAME(first_place)(const struct NAME(trie) * trie, KEY key)
{
	enum { OTHER_BITS = 8 * (sizeof(KEY) - sizeof(uint32_t)) };

	return (uint32_t)(key >> OTHER_BITS) >> (trie->nodes->shift - OTHER_BITS);
}

/* The one in the node that is there, if that divides what the address is in; else the same. */
static inline uint32_t NAME(next_place)(const struct NAME(trie) * trie, uint32_t place, KEY key)
{
	uint32_t slot = trie->table[place];

	if (slot & IS_NODE) {
		const struct NAME(node) *node = &trie->nodes[slot & ~IS_NODE];

		if (key >= node->first && key < node->last)
			return NAME(place_in)(node, key);
	}
	return place;
}

/* The segment from which on to search, as slots have it; from a slot on that is on the way to it. */
static inline uint32_t NAME(segment_from)(const struct NAME(trie) * trie, uint32_t slot, KEY key)
{
	while (slot & IS_NODE) {
		const struct NAME(node) *node = &trie->nodes[slot & ~IS_NODE];

		if (key < node->first)
			slot = node->before;
		else if (key >= node->last)
			slot = node->after;
		else
			slot = trie->table[NAME(place_in)(node, key)];
	}
	return slot;
}

static inline uint32_t NAME(segment_of)(const struct NAME(trie) * trie, KEY key)
{
	return NAME(segment_from)(trie, trie->table[NAME(first_place)(trie, key)], key);
}

/* Without branches that depend on the address: half of them would be predicted wrong. */
static inline uint32_t NAME(class_from)(const struct NAME(segment) * first, KEY key)
{
	uint32_t after = 0;

	for (int i = 1; i <= MOST_SEARCHED; i++)
		after += first[i].start <= key;
	return first[after].class;
}
