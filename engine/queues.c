// SPDX-License-Identifier: Apache-2.0
#include "queues.h"

#include <stdlib.h>
#include <string.h>

enum { QUEUES_A_CHUNK = 1024, FIRST_BUCKETS = 1024, FIRST_PIECES = 256 };

bool queues_init(struct queues *queues, uint64_t seed, uint64_t most_bytes)
{
	*queues = (struct queues){
		.seed = seed,
		.most_bytes = most_bytes,
		.free = NO_INDEX,
		.free_piece = NO_INDEX,
		.bucket_mask = FIRST_BUCKETS - 1,
	};
	queues->buckets = malloc(FIRST_BUCKETS * sizeof *queues->buckets);
	if (!queues->buckets)
		return false;
	memset(queues->buckets, 0xff, FIRST_BUCKETS * sizeof *queues->buckets);
	return true;
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
	free(queues->pieces);
}

static uint32_t hash(const struct queues *queues, const uint64_t key[KEY_WIDTH])
{
	return (uint32_t)key_hash(key, KEY_WIDTH, queues->seed);
}

static bool grow(struct queues *queues)
{
	uint32_t mask = queues->bucket_mask * 2 + 1;
	uint32_t *buckets = malloc(((size_t)mask + 1) * sizeof *buckets);

	if (!buckets)
		return false;
	memset(buckets, 0xff, ((size_t)mask + 1) * sizeof *buckets);
	for (uint32_t old = 0; old <= queues->bucket_mask; old++) {
		uint32_t index = queues->buckets[old];

		while (index != NO_INDEX) {
			struct queue *queue = at(queues, index);
			uint32_t next = queue->next,
				 *bucket = &buckets[hash(queues, queue->key) & mask];

			queue->next = *bucket;
			*bucket = index;
			index = next;
		}
	}
	free(queues->buckets);
	queues->buckets = buckets;
	queues->bucket_mask = mask;
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

void queue_key(const struct packet *p, uint32_t ident, uint64_t key[KEY_WIDTH])
{
	memcpy(key, p->source, sizeof p->source);
	memcpy(key + 2, p->destination, sizeof p->destination);
	key[4] = (uint64_t)ident << 16 | (p->version == 4 ? p->protocol : 0) << 8 | p->version;
}

struct queue *queues_find(const struct queues *queues, const uint64_t key[KEY_WIDTH])
{
	uint32_t index = queues->buckets[hash(queues, key) & queues->bucket_mask];

	while (index != NO_INDEX) {
		struct queue *queue = at(queues, index);

		if (!memcmp(queue->key, key, sizeof queue->key))
			return queue;
		index = queue->next;
	}
	return NULL;
}

struct queue *queues_at(const struct queues *queues, uint32_t index)
{
	return index < queues->used ? at(queues, index) : NULL;
}

struct queue *queues_add(struct queues *queues, const uint64_t key[KEY_WIDTH])
{
	uint32_t index, *bucket;
	struct queue *queue;

	if (queues->bytes > queues->most_bytes ||
	    (queues->waiting > queues->bucket_mask && !grow(queues)))
		return NULL;
	index = new_index(queues);
	if (index == NO_INDEX)
		return NULL;
	queue = at(queues, index);
	bucket = &queues->buckets[hash(queues, key) & queues->bucket_mask];
	*queue = (struct queue){.next = *bucket, .last = NO_INDEX, .waits = true};
	memcpy(queue->key, key, sizeof queue->key);
	*bucket = index;
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
	*piece = (struct piece){.before = queues->free_piece};
	queues->free_piece = index;
	return before;
}

bool queue_add(struct queues *queues, struct queue *queue, const struct piece *piece)
{
	uint32_t index = queues->free_piece;

	if (queues->bytes > 2 * queues->most_bytes)
		return false;
	if (index != NO_INDEX) {
		queues->free_piece = queues->pieces[index].before;
	} else {
		if (queues->piece_count == queues->piece_capacity) {
			uint32_t capacity =
				queues->piece_capacity ? 2 * queues->piece_capacity : FIRST_PIECES;
			struct piece *more =
				realloc(queues->pieces, capacity * sizeof *queues->pieces);

			if (!more)
				return false;
			queues->pieces = more;
			queues->piece_capacity = capacity;
		}
		index = queues->piece_count++;
	}
	queues->pieces[index] = *piece;
	queues->pieces[index].before = queue->last;
	queue->last = index;
	queues->bytes += size_of(piece);
	return true;
}

bool queues_keep(struct queues *queues)
{
	for (uint32_t index = 0; index < queues->piece_count; index++) {
		struct piece *piece = &queues->pieces[index];
		uint8_t *copy;

		if (!piece->frame || piece->is_kept)
			continue;
		copy = malloc(piece->captured + 1);
		if (!copy)
			return false;
		memcpy(copy, piece->frame, piece->captured);
		piece->frame = copy;
		piece->is_kept = true;
	}
	return true;
}

void queues_remove(struct queues *queues, struct queue *queue)
{
	uint32_t *link = &queues->buckets[hash(queues, queue->key) & queues->bucket_mask], index;

	while (at(queues, *link) != queue)
		link = &at(queues, *link)->next;
	index = *link;
	*link = queue->next;
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
