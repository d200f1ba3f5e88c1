/* SPDX-License-Identifier: Apache-2.0 */
/* The datagrams of which fragments wait, found by what identifies one. */
#ifndef QUEUES_H
#define QUEUES_H

#include "defrag.h"

#define NO_INDEX UINT32_MAX

/*
 * A queued fragment: a packet of the capture, by its number, and its frame, of which the first bytes were captured. Its
 * data begins at a position in the frame, and so many bytes of it were captured.
 */
struct piece {
	int64_t number;
	const uint8_t *frame; /* NULL: none is queued here */
	uint32_t captured, wire;
	uint32_t at;
	uint16_t offset, length, seen;
	bool is_kept;	 /* the frame is a copy */
	bool is_new;	 /* on the list of what queues_keep() looks at, though it may have left */
	uint32_t before; /* the one that was queued before it; of those that are free */
	uint32_t next_new;
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
	uint32_t hash;
	uint32_t next; /* of those with the same hash; of those that are free */
	uint32_t last; /* piece */
	uint32_t head; /* the piece with offset 0 */
	uint32_t length, meat;
	uint32_t largest, largest_unfragmentable;
	uint32_t at, pointer_at; /* struct fragment, of the first */
	uint8_t version, next_header, ecn;
	bool has_first, has_last, waits;
	uint16_t run_count, run_capacity;
	struct span few[2];
	struct span *runs; /* NULL: few */
	uint32_t before_pair,
		after_pair; /* IPv6: neighbours among those with the same hash of their addresses */
};

_Static_assert(sizeof(struct queue) == 128,
	       "two cache lines, the first of which is what a search reads");

struct queues {
	struct piece *pieces;
	struct queue **chunks;	   /* of QUEUES_A_CHUNK */
	uint32_t *buckets, *pairs; /* all; those of IPv6, by their addresses */
	uint32_t bucket_mask, chunk_count, used, free, waiting;
	uint32_t piece_count, piece_capacity, free_piece, new_pieces;
	uint64_t bytes, most_bytes; /* of what waits */
	uint64_t seed;
};

bool queues_init(struct queues *queues, uint64_t seed, uint64_t most_bytes);
void queues_free(struct queues *queues);
uint32_t queues_hash(const struct queues *queues, const uint64_t key[KEY_WIDTH]);
/* Sets the fragment's hash, and asks for where its datagram is found. */
void queues_ask(const struct queues *queues, struct fragment *fragment);
/* NULL: nothing of that datagram waits. */
struct queue *queues_find(const struct queues *queues, const uint64_t key[KEY_WIDTH],
			  uint32_t hash);
/* One that does not wait yet; NULL: no memory, or too much waits. It stays where it is until it is removed. */
struct queue *queues_add(struct queues *queues, const struct fragment *fragment);
void queues_remove(struct queues *queues, struct queue *queue);
/* Those that wait are some of these; NULL at the end. */
struct queue *queues_at(const struct queues *queues, uint32_t index);
/* Of those of IPv6 with these addresses, the one after another or, of NULL, the first; NULL at the end. */
struct queue *queues_of_pair(const struct queues *queues, const uint64_t key[KEY_WIDTH],
			     const struct queue *after);
/* A new piece of a queue, of which the rest is to be filled in. NULL: no memory, or too much waits. */
struct piece *queue_add(struct queues *queues, struct queue *queue, uint32_t captured);
/* Copies what was added since the last time and still waits. False: no memory. */
bool queues_keep(struct queues *queues);
enum reason queue_insert(struct queue *queue, uint32_t start, uint32_t end);

#endif
