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

/* Packed: those of a block are in one or two lines of the cache, and more of them fit into it. */
struct __attribute__((packed)) NAME(segment) {
	KEY start;
	uint16_t class;
};

struct NAME(trie) {
	/* And MOST_SEARCHED more, that start after all addresses. */
	struct NAME(segment) * segments;
	struct NAME(node) * nodes;
	/* A slot for each block: a node, with IS_NODE, or the last segment that starts before or with the block. */
	uint32_t *table;
	uint32_t segment_count, segment_room, node_count, node_room, table_count, table_room;
};

static inline const uint32_t *NAME(slot_in)(const struct NAME(trie) * trie,
					    const struct NAME(node) * node, KEY key)
{
	return &trie->table[node->table + ((uint32_t)(key >> node->shift) & node->mask)];
}

/* The slots of the first node, by an address without the bits that it shifts: it divides all addresses. */
static inline const uint32_t *NAME(first_table)(const struct NAME(trie) * trie)
{
	return trie->table + trie->nodes->table;
}

/* The segment from which on class_in() searches. */
static inline uint32_t NAME(segment_of)(const struct NAME(trie) * trie, KEY key)
{
	uint32_t slot = *NAME(slot_in)(trie, trie->nodes, key);

	while (slot & IS_NODE) {
		const struct NAME(node) *node = &trie->nodes[slot & ~IS_NODE];

		if (key < node->first)
			slot = node->before;
		else if (key >= node->last)
			slot = node->after;
		else
			slot = *NAME(slot_in)(trie, node, key);
	}
	return slot;
}

/* Without branches that depend on the address: half of them would be predicted wrong. */
static inline uint32_t NAME(class_in)(const struct NAME(trie) * trie, uint32_t segment, KEY key)
{
	const struct NAME(segment) *first = &trie->segments[segment];
	uint32_t after = 0;

	for (int i = 1; i <= MOST_SEARCHED; i++)
		after += first[i].start <= key;
	return first[after].class;
}

static inline uint32_t NAME(class_of)(const struct NAME(trie) * trie, KEY key)
{
	return NAME(class_in)(trie, NAME(segment_of)(trie, key), key);
}
