/* SPDX-License-Identifier: Apache-2.0 */
/* Fills in a trie of trie.h: included after it, once for each KEY. */

static bool NAME(add_segment)(struct NAME(trie) * trie, KEY start, uint16_t class)
{
	uint32_t at = trie->segment_count;

	if (!grow((void **)&trie->segments, at + 1, &trie->segment_room, sizeof *trie->segments))
		return false;
	trie->segments[at] = (struct NAME(segment)){start, class};
	trie->segment_count++;
	return true;
}

/* For the segments from one on, up to another; without its table. */
static struct NAME(node) NAME(node_of)(const struct NAME(trie) * trie, uint32_t from, uint32_t to)
{
	bool is_first = !trie->node_count;
	struct NAME(node) node = {.before = from - 1, .after = to - 1};
	KEY differing = ~(KEY)0;
	uint32_t width = 0, bits = 1;

	if (!is_first) {
		node.first = trie->segments[from].start;
		node.last = trie->segments[to - 1].start;
		differing = node.first ^ node.last;
	}
	while (width < 8 * sizeof(KEY) && differing >> width)
		width++;
	/* Some three times as many blocks as starts: so few blocks have more than are searched. */
	while (bits < MOST_BITS && bits < width && (1u << bits) <= 2 * (to - from))
		bits++;
	node.shift = width - bits;
	node.mask = (1u << bits) - 1;
	return node;
}

/* A node for those segments, which start in one block. */
static bool NAME(add_node)(struct NAME(trie) * trie, uint32_t from, uint32_t to)
{
	struct NAME(node) node = NAME(node_of)(trie, from, to);
	uint32_t next = from;

	node.table = trie->table_count;
	if (!grow((void **)&trie->table, node.table + node.mask + 1, &trie->table_room,
		  sizeof *trie->table) ||
	    !grow((void **)&trie->nodes, trie->node_count + 1, &trie->node_room,
		  sizeof *trie->nodes))
		return false;
	trie->table_count += node.mask + 1;
	trie->nodes[trie->node_count++] = node;
	for (uint32_t slot = 0; slot <= node.mask; slot++) {
		uint32_t first = next, *at = &trie->table[node.table + slot];

		while (next < to &&
		       ((uint32_t)(trie->segments[next].start >> node.shift) & node.mask) == slot)
			next++;
		if (next - first <= MOST_SEARCHED) {
			*at = first - 1;
		} else {
			*at = trie->node_count | IS_NODE;
			if (!NAME(add_node)(trie, first, next))
				return false;
		}
	}
	return true;
}

/* Nodes for all segments. */
static bool NAME(divide)(struct NAME(trie) * trie)
{
	uint32_t count = trie->segment_count, last = trie->segments[count - 1].class;

	if (count >= MOST_SEGMENTS)
		return false;
	for (int i = 0; i < MOST_SEARCHED; i++)
		if (!NAME(add_segment)(trie, ~(KEY)0, last))
			return false;
	return NAME(add_node)(trie, 1, count);
}
