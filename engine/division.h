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

/* For the segments from one on, up to another; without its table. beyond: as add_node() has it. */
static struct NAME(node)
	NAME(node_of)(const struct NAME(trie) * trie, uint32_t from, uint32_t to, uint32_t beyond)
{
	bool is_first = !trie->node_count;
	struct NAME(node) node = {.before = from - 1 + beyond, .after = to - 1 + beyond};
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

/* Keep four bytes of those starts, if that is enough. beyond: what is to be added to the number of one of them. */
static bool NAME(add_narrow)(struct NAME(trie) * trie, uint32_t from, uint32_t to, uint32_t *beyond)
{
	uint32_t at = trie->narrow_count, needed = at + 1 + to - from + MOST_SEARCHED, behind = 0;
	KEY set = 0, differing = trie->segments[from].start ^ trie->segments[to - 1].start;

	for (uint32_t i = from; i < to; i++)
		set |= trie->segments[i].start;
	while ((unsigned __int128)differing >> 8 * behind > UINT32_MAX)
		behind++;
	if (set & (((KEY)1 << 8 * behind) - 1) || needed > MOST_SEGMENTS)
		return true;
	if (!grow((void **)&trie->narrow, needed, &trie->narrow_room, sizeof *trie->narrow))
		return false;
	trie->narrow[at] = (struct segment4){0, trie->segments[from - 1].class};
	for (uint32_t i = from; i < to; i++)
		trie->narrow[++at] = (struct segment4){
			(uint32_t)(trie->segments[i].start >> 8 * behind), trie->segments[i].class};
	for (int i = 0; i < MOST_SEARCHED; i++)
		trie->narrow[++at] = (struct segment4){UINT32_MAX, trie->segments[to - 1].class};
	*beyond = ((behind + 1) << SEGMENT_BITS) + trie->narrow_count - (from - 1);
	trie->narrow_count = needed;
	return true;
}

/*
 * A node for those segments, which start in one block. beyond: what is to be added to their numbers, because they are in
 * a narrow node as well; else 0.
 */
static bool NAME(add_node)(struct NAME(trie) * trie, uint32_t from, uint32_t to, uint32_t beyond)
{
	struct NAME(node) node = NAME(node_of)(trie, from, to, beyond);
	uint32_t next = from;

	if (sizeof(KEY) > 4 && !beyond && !NAME(add_narrow)(trie, from, to, &beyond))
		return false;
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
			*at = first - 1 + beyond;
		} else {
			*at = trie->node_count | IS_NODE;
			if (!NAME(add_node)(trie, first, next, beyond))
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
	return NAME(add_node)(trie, 1, count, 0);
}
