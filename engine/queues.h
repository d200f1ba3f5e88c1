/* SPDX-License-Identifier: Apache-2.0 */
/* The datagrams of which fragments wait, found by what identifies one. */
#ifndef QUEUES_H
#define QUEUES_H

#include "keyset.h"
#include "predict.h"

#define NO_INDEX UINT32_MAX

/*
 * A queued fragment: a packet of the capture, by its number, and its frame, of which the first bytes were captured. Its
 * data begins at a position in the frame, and so many bytes of it were captured.
 */
struct piece {
	int64_t number;
	const uint8_t *frame;
	uint32_t captured, wire;
	uint32_t at, offset, length, seen;
	uint32_t before; /* the one that was queued before it; of those that are free */
	bool is_kept;	 /* the frame is a copy */
};

struct span {
	uint32_t start, end;
};

/*
 * struct inet_frag_queue. Runs are disjoint and ascending; the first few need no memory of their own. length is that of
 * the datagram as far as it is known.
 */
struct queue {
	uint64_t key[KEY_WIDTH];
	uint32_t next; /* of those with the same hash; of those that are free */
	uint32_t last; /* piece */
	uint32_t head; /* the piece with offset 0 */
	uint32_t length, meat, largest, largest_unfragmentable;
	uint32_t at, pointer_at; /* struct fragment, of the first */
	uint8_t next_header, ecn;
	bool has_first, has_last, waits;
	struct span few[2];
	struct span *runs; /* NULL: few */
	uint32_t run_count, run_capacity;
};

struct queues {
	struct piece *pieces;
	struct queue **chunks; /* of QUEUES_A_CHUNK */
	uint32_t *buckets;
	uint32_t bucket_mask, chunk_count, used, free, waiting;
	uint32_t piece_count, piece_capacity, free_piece;
	uint64_t bytes, most_bytes; /* of what waits */
	uint64_t seed;
};

bool queues_init(struct queues *queues, uint64_t seed, uint64_t most_bytes);
void queues_free(struct queues *queues);
void queue_key(const struct packet *p, uint32_t ident, uint64_t key[KEY_WIDTH]);
/* NULL: nothing of that datagram waits. */
struct queue *queues_find(const struct queues *queues, const uint64_t key[KEY_WIDTH]);
/* One that does not wait yet; NULL: no memory, or too much waits. It stays where it is until it is removed. */
struct queue *queues_add(struct queues *queues, const uint64_t key[KEY_WIDTH]);
void queues_remove(struct queues *queues, struct queue *queue);
/* Those that wait are some of these; NULL at the end. */
struct queue *queues_at(const struct queues *queues, uint32_t index);
/* Puts a piece into a queue. False: no memory. */
bool queue_add(struct queues *queues, struct queue *queue, const struct piece *piece);
/* Copies what is not a copy yet. False: no memory. */
bool queues_keep(struct queues *queues);
enum reason queue_insert(struct queue *queue, uint32_t start, uint32_t end);

#endif
