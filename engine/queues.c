// SPDX-License-Identifier: Apache-2.0
#include "queues.h"

#include <stdlib.h>
#include <string.h>

enum { QUEUES_A_CHUNK = 1024, FIRST_BUCKETS = 1024, FIRST_PIECES = 256 };

/* Of a key: its addresses. */
enum { PAIR_WIDTH = 4 };

static bool new_buckets(uint32_t size, uint32_t **buckets, uint32_t **pairs)
{
	*buckets = malloc(size * sizeof **buckets);
	*pairs = malloc(size * sizeof **pairs);
	if (!*buckets || !*pairs) {
		free(*buckets);
		free(*pairs);
		*buckets = *pairs = NULL;
		return false;
	}
	memset(*buckets, 0xff, size * sizeof **buckets);
	memset(*pairs, 0xff, size * sizeof **pairs);
	return true;
}

static uint32_t *pair_bucket(const struct queues *queues, const uint64_t key[KEY_WIDTH])
{
	return &queues->pairs[(uint32_t)key_hash(key, PAIR_WIDTH, queues->seed) &
			      queues->bucket_mask];
}

bool queues_init(struct queues *queues, uint64_t seed, uint64_t most_bytes)
{
	*queues = (struct queues){
		.seed = seed,
		.most_bytes = most_bytes,
		.free = NO_INDEX,
		.free_piece = NO_INDEX,
		.new_pieces = NO_INDEX,
		.bucket_mask = FIRST_BUCKETS - 1,
	};
	return new_buckets(FIRST_BUCKETS, &queues->buckets, &queues->pairs);
}

static struct queue *at(const struct queues *queues, uint32_t index)
{
	return &queues->chunks[index / QUEUES_A_CHUNK][index % QUEUES_A_CHUNK];
}

void queues_free(struct queues *queues)
{
	for (uint32_t index = 0; index < queues->used; index++)
		free(at(queues, index)->runs);
	for (uint32_t index = 0; index < queues->piece_count; index++)
		if (queues->pieces[index].is_kept)
			free((void *)queues->pieces[index].frame);
	for (uint32_t chunk = 0; chunk < queues->chunk_count; chunk++)
		free(queues->chunks[chunk]);
	free(queues->chunks);
	free(queues->buckets);
	free(queues->pairs);
	free(queues->pieces);
}

uint32_t queues_hash(const struct queues *queues, const uint64_t key[KEY_WIDTH])
{
	return (uint32_t)key_hash(key, key[4] ? KEY_WIDTH : 2, queues->seed);
}

void queues_ask(const struct queues *queues, struct fragment *fragment)
{
	fragment->hash = queues_hash(queues, fragment->key);
	__builtin_prefetch(&queues->buckets[fragment->hash & queues->bucket_mask]);
}

static void link_queue(struct queues *queues, uint32_t index)
{
	struct queue *queue = at(queues, index);
	uint32_t *bucket = &queues->buckets[queue->hash & queues->bucket_mask];

	queue->next = *bucket;
	*bucket = index;
	if (queue->version == 4)
		return;
	bucket = pair_bucket(queues, queue->key);
	queue->before_pair = NO_INDEX;
	queue->after_pair = *bucket;
	if (*bucket != NO_INDEX)
		at(queues, *bucket)->before_pair = index;
	*bucket = index;
}

static bool grow(struct queues *queues)
{
	uint32_t size = 2 * (queues->bucket_mask + 1), *buckets, *pairs;

	if (!new_buckets(size, &buckets, &pairs))
		return false;
	free(queues->buckets);
	free(queues->pairs);
	queues->buckets = buckets;
	queues->pairs = pairs;
	queues->bucket_mask = size - 1;
	for (uint32_t index = 0; index < queues->used; index++)
		if (at(queues, index)->waits)
			link_queue(queues, index);
	return true;
}

static uint32_t new_index(struct queues *queues)
{
	uint32_t index = queues->free;

	if (index != NO_INDEX) {
		queues->free = at(queues, index)->next;
		return index;
	}
	if (queues->used == queues->chunk_count * QUEUES_A_CHUNK) {
		struct queue **chunks =
			realloc(queues->chunks, (queues->chunk_count + 1) * sizeof *queues->chunks);

		if (!chunks)
			return NO_INDEX;
		queues->chunks = chunks;
		chunks[queues->chunk_count] = malloc(QUEUES_A_CHUNK * sizeof **chunks);
		if (!chunks[queues->chunk_count])
			return NO_INDEX;
		queues->chunk_count++;
	}
	return queues->used++;
}

struct queue *queues_find(const struct queues *queues, const uint64_t key[KEY_WIDTH], uint32_t hash)
{
	uint32_t index = queues->buckets[hash & queues->bucket_mask];

	while (index != NO_INDEX) {
		struct queue *queue = at(queues, index);

		if (queue->hash == hash && !memcmp(queue->key, key, sizeof queue->key))
			return queue;
		index = queue->next;
	}
	return NULL;
}

struct queue *queues_at(const struct queues *queues, uint32_t index)
{
	return index < queues->used ? at(queues, index) : NULL;
}

struct queue *queues_of_pair(const struct queues *queues, const uint64_t key[KEY_WIDTH],
			     const struct queue *after)
{
	uint32_t index = after ? after->after_pair : *pair_bucket(queues, key);

	while (index != NO_INDEX) {
		struct queue *queue = at(queues, index);

		if (!memcmp(queue->key, key, PAIR_WIDTH * sizeof *key))
			return queue;
		index = queue->after_pair;
	}
	return NULL;
}

struct queue *queues_add(struct queues *queues, const struct fragment *fragment)
{
	struct queue *queue;
	uint32_t index;

	if (queues->bytes > queues->most_bytes ||
	    (queues->waiting > queues->bucket_mask && !grow(queues)))
		return NULL;
	index = new_index(queues);
	if (index == NO_INDEX)
		return NULL;
	queue = at(queues, index);
	*queue = (struct queue){
		.hash = fragment->hash,
		.last = NO_INDEX,
		.version = fragment->version,
		.waits = true,
	};
	memcpy(queue->key, fragment->key, sizeof queue->key);
	link_queue(queues, index);
	queues->waiting++;
	queues->bytes += sizeof *queue;
	return queue;
}

static uint64_t size_of(const struct piece *piece)
{
	return piece->captured + sizeof *piece;
}

/* The frame of a piece that waited in a queue is not needed any more. */
static uint32_t drop_piece(struct queues *queues, uint32_t index)
{
	struct piece *piece = &queues->pieces[index];
	uint32_t before = piece->before;

	queues->bytes -= size_of(piece);
	if (piece->is_kept)
		free((void *)piece->frame);
	piece->frame = NULL;
	piece->is_kept = false;
	piece->before = queues->free_piece;
	queues->free_piece = index;
	return before;
}

struct piece *queue_add(struct queues *queues, struct queue *queue, uint32_t captured)
{
	uint32_t index = queues->free_piece;
	struct piece *found;

	if (queues->bytes > 2 * queues->most_bytes)
		return NULL;
	if (index != NO_INDEX) {
		queues->free_piece = queues->pieces[index].before;
	} else {
		if (queues->piece_count == queues->piece_capacity) {
			uint32_t capacity =
				queues->piece_capacity ? 2 * queues->piece_capacity : FIRST_PIECES;
			struct piece *more =
				realloc(queues->pieces, capacity * sizeof *queues->pieces);

			if (!more)
				return NULL;
			queues->pieces = more;
			queues->piece_capacity = capacity;
		}
		index = queues->piece_count++;
		queues->pieces[index].is_new = false;
	}
	found = &queues->pieces[index];
	if (!found->is_new) {
		found->next_new = queues->new_pieces;
		queues->new_pieces = index;
	}
	found->captured = captured;
	found->is_kept = false;
	found->is_new = true;
	found->before = queue->last;
	queue->last = index;
	queues->bytes += size_of(found);
	return found;
}

bool queues_keep(struct queues *queues)
{
	while (queues->new_pieces != NO_INDEX) {
		struct piece *piece = &queues->pieces[queues->new_pieces];
		uint8_t *copy;

		if (piece->frame) {
			copy = malloc(piece->captured + 1);
			if (!copy)
				return false;
			memcpy(copy, piece->frame, piece->captured);
			piece->frame = copy;
			piece->is_kept = true;
		}
		piece->is_new = false;
		queues->new_pieces = piece->next_new;
	}
	return true;
}

/* Out of the list of those with the same hash of their addresses. */
static void leave_pair(struct queues *queues, const struct queue *queue)
{
	if (queue->after_pair != NO_INDEX)
		at(queues, queue->after_pair)->before_pair = queue->before_pair;
	if (queue->before_pair != NO_INDEX)
		at(queues, queue->before_pair)->after_pair = queue->after_pair;
	else
		*pair_bucket(queues, queue->key) = queue->after_pair;
}

void queues_remove(struct queues *queues, struct queue *queue)
{
	uint32_t *link = &queues->buckets[queue->hash & queues->bucket_mask], index;

	while (at(queues, *link) != queue)
		link = &at(queues, *link)->next;
	index = *link;
	*link = queue->next;
	if (queue->version == 6)
		leave_pair(queues, queue);
	while (queue->last != NO_INDEX)
		queue->last = drop_piece(queues, queue->last);
	free(queue->runs);
	queue->runs = NULL;
	queue->waits = false;
	queues->bytes -= sizeof *queue;
	queue->next = queues->free;
	queues->free = index;
	queues->waiting--;
}

static struct span *runs_of(struct queue *queue)
{
	return queue->runs ? queue->runs : queue->few;
}

static bool add_run(struct queue *queue, uint32_t where, uint32_t start, uint32_t end)
{
	struct span *runs = runs_of(queue);
	uint32_t capacity =
		queue->runs ? queue->run_capacity : sizeof queue->few / sizeof *queue->few;

	if (queue->run_count == capacity) {
		struct span *more = realloc(queue->runs, 2 * capacity * sizeof *more);

		if (!more)
			return false;
		if (!queue->runs)
			memcpy(more, queue->few, sizeof queue->few);
		runs = queue->runs = more;
		queue->run_capacity = 2 * capacity;
	}
	memmove(&runs[where + 1], &runs[where], (queue->run_count - where) * sizeof *runs);
	runs[where] = (struct span){start, end};
	queue->run_count++;
	return true;
}

/*
 * inet_frag_queue_insert(). A fragment that lies within one run of fragments that arrived in order is a duplicate,
 * whatever its bounds. One that fills a hole never joins a run (fragrun_append_to_last knows only the last).
 */
enum reason queue_insert(struct queue *queue, uint32_t start, uint32_t end)
{
	struct span *runs = runs_of(queue);
	uint32_t count = queue->run_count, low = 0, high = count;

	if (!count || end > runs[count - 1].end) {
		if (count && start < runs[count - 1].end)
			return FRAG_OVERLAP;
		if (count && start == runs[count - 1].end) {
			runs[count - 1].end = end;
			return NO_REASON;
		}
		return add_run(queue, count, start, end) ? NO_REASON : NO_MEMORY;
	}
	while (low <
	       high) { /* the first run that ends after its start is the first that it can overlap */
		uint32_t middle = low + (high - low) / 2;

		if (runs[middle].end <= start)
			low = middle + 1;
		else
			high = middle;
	}
	if (end > runs[low].start)
		return start >= runs[low].start && end <= runs[low].end ? FRAG_DUPLICATE
									: FRAG_OVERLAP;
	return add_run(queue, low, start, end) ? NO_REASON : NO_MEMORY;
}
