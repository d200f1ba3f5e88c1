// SPDX-License-Identifier: Apache-2.0
/* The flows that conntrack knows, by their tuple. */
#include "conntrack.h"

#include <stdlib.h>
#include <string.h>

enum { CONNS_A_CHUNK = 1024, FIRST_SLOTS = 1024 };

#define NO_CONN UINT32_MAX

bool conns_init(struct conns *conns, uint64_t seed, uint64_t most_bytes)
{
	*conns = (struct conns){
		.seed = seed,
		.most_bytes = most_bytes,
		.free = NO_CONN,
		.slot_mask = FIRST_SLOTS - 1,
		.slots = calloc(FIRST_SLOTS, sizeof *conns->slots),
	};
	return conns->slots;
}

static struct conn *at(const struct conns *conns, uint32_t index)
{
	return &conns->chunks[index / CONNS_A_CHUNK][index % CONNS_A_CHUNK];
}

void conns_free(struct conns *conns)
{
	for (uint32_t index = 0; index < conns->used; index++)
		conn_clear(conns, at(conns, index));
	for (uint32_t chunk = 0; chunk < conns->chunk_count; chunk++)
		free(conns->chunks[chunk]);
	free(conns->chunks);
	free(conns->slots);
}

static uint32_t hash_of(const struct conns *conns, const struct tuple *key)
{
	uint64_t words[sizeof *key / sizeof(uint64_t)];

	memcpy(words, key, sizeof words);
	return (uint32_t)key_hash(words, sizeof words / sizeof *words, conns->seed);
}

void conns_prefetch(const struct conns *conns, const struct tuple *key)
{
	if (conns->count)
		__builtin_prefetch(&conns->slots[hash_of(conns, key) & conns->slot_mask]);
}

static struct conn *conn_in(const struct conns *conns, uint64_t slot)
{
	return at(conns, (uint32_t)slot - 1);
}

struct conn *conns_find(const struct conns *conns, const struct tuple *key)
{
	uint32_t hash, here;

	if (!conns->count)
		return NULL;
	hash = hash_of(conns, key);
	for (here = hash & conns->slot_mask; conns->slots[here];
	     here = (here + 1) & conns->slot_mask) {
		struct conn *conn;

		if (conns->slots[here] >> 32 != hash)
			continue;
		conn = conn_in(conns, conns->slots[here]);
		if (!memcmp(&conn->key, key, sizeof *key))
			return conn;
	}
	return NULL;
}

static void set_slot(struct conns *conns, uint64_t slot)
{
	uint32_t here = (uint32_t)(slot >> 32) & conns->slot_mask;

	while (conns->slots[here])
		here = (here + 1) & conns->slot_mask;
	conns->slots[here] = slot;
}

static bool grow(struct conns *conns)
{
	struct conns larger = *conns;

	larger.slot_mask = conns->slot_mask * 2 + 1;
	larger.slots = calloc((size_t)larger.slot_mask + 1, sizeof *larger.slots);
	if (!larger.slots)
		return false;
	for (uint32_t old = 0; old <= conns->slot_mask; old++)
		if (conns->slots[old])
			set_slot(&larger, conns->slots[old]);
	free(conns->slots);
	*conns = larger;
	return true;
}

/* Those that follow move up, as far as they may: so no search ends too early. */
static void clear_slot(struct conns *conns, uint32_t here)
{
	for (uint32_t next = (here + 1) & conns->slot_mask; conns->slots[next];
	     next = (next + 1) & conns->slot_mask) {
		uint32_t home = (uint32_t)(conns->slots[next] >> 32) & conns->slot_mask;

		if (((next - home) & conns->slot_mask) < ((next - here) & conns->slot_mask))
			continue;
		conns->slots[here] = conns->slots[next];
		here = next;
	}
	conns->slots[here] = 0;
}

static uint32_t new_index(struct conns *conns)
{
	uint32_t index = conns->free;

	if (index != NO_CONN) {
		conns->free = at(conns, index)->next;
		return index;
	}
	if (conns->bytes + sizeof(struct conn) > conns->most_bytes)
		return NO_CONN;
	if (conns->used == conns->chunk_count * CONNS_A_CHUNK) {
		struct conn **chunks =
			realloc(conns->chunks, (conns->chunk_count + 1) * sizeof *conns->chunks);

		if (!chunks)
			return NO_CONN;
		conns->chunks = chunks;
		chunks[conns->chunk_count] = malloc(CONNS_A_CHUNK * sizeof **chunks);
		if (!chunks[conns->chunk_count])
			return NO_CONN;
		conns->chunk_count++;
	}
	conns->bytes += sizeof(struct conn);
	return conns->used++;
}

struct conn *conns_add(struct conns *conns, const struct tuple *key, bool is_own_inverse)
{
	struct conn *conn;
	uint32_t index;

	if (2 * (uint64_t)conns->count > conns->slot_mask && !grow(conns)) {
		conns->forgets = true;
		return NULL;
	}
	index = new_index(conns);
	if (index == NO_CONN) {
		conns->forgets = true;
		return NULL;
	}
	conn = at(conns, index);
	*conn = (struct conn){.key = *key, .is_own_inverse = is_own_inverse};
	set_slot(conns, (uint64_t)hash_of(conns, key) << 32 | (index + 1));
	conns->count++;
	return conn;
}

void conns_remove(struct conns *conns, struct conn *conn)
{
	uint32_t here = hash_of(conns, &conn->key) & conns->slot_mask, index;

	while (conn_in(conns, conns->slots[here]) != conn)
		here = (here + 1) & conns->slot_mask;
	index = (uint32_t)conns->slots[here] - 1;
	clear_slot(conns, here);
	conn_clear(conns, conn);
	conn->next = conns->free;
	conns->free = index;
	conns->count--;
}

void conn_clear(struct conns *conns, struct conn *conn)
{
	if (conn->holds == HOLDS_ENTRY) {
		free(conn->entry);
		conns->bytes -= sizeof *conn->entry;
	} else if (conn->holds == HOLDS_WORLDS) {
		free(conn->worlds);
		conns->bytes -= WORLDS * sizeof *conn->worlds;
	}
	conn->holds = HOLDS_NOTHING;
}

/* False: there is none. Not of a flow with several worlds. */
bool conn_load(const struct conn *conn, struct conn_entry *entry)
{
	if (conn->holds == HOLDS_BRIEF)
		entry->brief = conn->brief;
	else if (conn->holds == HOLDS_ENTRY)
		*entry = *conn->entry;
	return conn->holds == HOLDS_BRIEF || conn->holds == HOLDS_ENTRY;
}

static void *allocated(struct conns *conns, struct conn *conn, size_t size)
{
	void *found = conns->bytes + size > conns->most_bytes ? NULL : malloc(size);

	if (!found) {
		conn->open = COIN_FORGOTTEN;
		conns->forgets = true;
		return NULL;
	}
	conns->bytes += size;
	return found;
}

/* The entry of a flow with one world; NULL: none. A flow whose entry cannot be kept is open from then on. */
void conn_store(struct conns *conns, struct conn *conn, const struct conn_entry *entry)
{
	bool is_brief = conn->key.protocol != 6 && conn->key.protocol != 132;
	struct conn_entry *kept;

	if (!entry) {
		conn_clear(conns, conn);
	} else if (is_brief) {
		conn->holds = HOLDS_BRIEF;
		conn->brief = entry->brief;
	} else if (conn->holds == HOLDS_ENTRY) {
		*conn->entry = *entry;
	} else if ((kept = allocated(conns, conn, sizeof *kept))) {
		*kept = *entry;
		conn->holds = HOLDS_ENTRY;
		conn->entry = kept;
	}
}

/* A flow has from now on one world for each ISN, all as it was; NULL: they cannot be kept, and it is open. */
struct conn_world *conn_split(struct conns *conns, struct conn *conn)
{
	struct conn_world *worlds;
	struct conn_entry entry = {0};
	bool has_entry;

	if (conn->holds == HOLDS_WORLDS)
		return conn->worlds;
	worlds = allocated(conns, conn, WORLDS * sizeof *worlds);
	if (!worlds)
		return NULL;
	has_entry = conn_load(conn, &entry);
	for (uint32_t part = 0; part < WORLDS; part++)
		worlds[part] = (struct conn_world){
			.entry = entry,
			.has_entry = has_entry,
			/* Of any acknowledgment number, half of them are before and half after. */
			.isn = 0x0ace5eed + (part << 29),
		};
	conn_clear(conns, conn);
	conn->holds = HOLDS_WORLDS;
	conn->worlds = worlds;
	return worlds;
}
