// SPDX-License-Identifier: Apache-2.0
/*
 * Defragmentation at -400: which fragments become a datagram, which are dropped, which go on as they are.
 * net/ipv4/ip_fragment.c (ip_frag_queue, ip_frag_reasm), net/ipv6/netfilter/nf_conntrack_reasm.c
 * (nf_ct_frag6_gather, nf_ct_frag6_queue) and net/ipv4/inet_fragment.c (inet_frag_queue_insert) of Linux 6.x, on a host
 * where no queue is abandoned for memory or distance and a whole capture arrives within the timeout.
 */
#include "reassembly.h"

#include <stdlib.h>

#include "octets.h"
#include "protocols.h"

bool defrag_init(struct defrag *defrag, uint64_t seed, uint64_t most_bytes,
		 const struct defrag_user *on)
{
	defrag->open = (struct keyset){.seed = seed};
	defrag->on = *on;
	return queues_init(&defrag->queues, seed, most_bytes);
}

void defrag_free(struct defrag *defrag)
{
	queues_free(&defrag->queues);
	keyset_free(&defrag->open);
}

/* Drop a queue with all it holds; the next fragment of the datagram opens a new one. */
static void kill(struct defrag *defrag, struct queue *queue, enum reason reason)
{
	struct piece *pieces = defrag->queues.pieces;

	for (uint32_t i = queue->last; i != NO_INDEX; i = pieces[i].before)
		defrag->on.lose(defrag->on.user, &pieces[i], reason);
	queues_remove(&defrag->queues, queue);
}

/* -- datagrams that a packet may belong to of which nobody knows -- */

static void set_pair(const uint64_t datagram[KEY_WIDTH], uint64_t pair[KEY_WIDTH])
{
	memcpy(pair, datagram, 4 * sizeof *pair);
	pair[4] = UINT64_MAX;
}

static bool is_open(const struct defrag *defrag, const uint64_t key[KEY_WIDTH])
{
	bool is4 = !key[4];
	uint64_t pair[KEY_WIDTH];

	if (defrag->all_open || (is4 ? defrag->open4 : defrag->open6))
		return true;
	if (!defrag->open.count)
		return false;
	if (keyset_has(&defrag->open, key))
		return true;
	set_pair(key, pair);
	return !is4 && keyset_has(&defrag->open, pair);
}

/* Those that were queued last are at the head of the list: pieces are told in the order of arrival. */
static void open_queue(struct defrag *defrag, struct queue *queue, enum reason reason)
{
	struct piece *pieces = defrag->queues.pieces;
	uint32_t before = NO_INDEX;

	while (queue->last != NO_INDEX) {
		uint32_t next = pieces[queue->last].before;

		pieces[queue->last].before = before;
		before = queue->last;
		queue->last = next;
	}
	queue->last = before;
	for (uint32_t i = queue->last; i != NO_INDEX; i = pieces[i].before)
		defrag->on.open(defrag->on.user, &pieces[i], reason);
	queues_remove(&defrag->queues, queue);
}

static void open_queues(struct defrag *defrag)
{
	struct queue *queue;

	for (uint32_t index = 0; (queue = queues_at(&defrag->queues, index)); index++)
		if (queue->waits && is_open(defrag, queue->key))
			open_queue(defrag, queue, FRAG_OPEN);
}

/* Those of IPv6 with these addresses. */
static void open_pair(struct defrag *defrag, const uint64_t key[KEY_WIDTH])
{
	struct queue *queue = queues_of_pair(&defrag->queues, key, NULL);

	while (queue) {
		struct queue *next = queues_of_pair(&defrag->queues, key, queue);

		open_queue(defrag, queue, FRAG_OPEN);
		queue = next;
	}
}

/* If there are too many, all are. */
static void add_open(struct defrag *defrag, const uint64_t key[KEY_WIDTH])
{
	if (keyset_add(&defrag->open, key))
		return;
	defrag->all_open = true;
	open_queues(defrag);
}

void defrag_leave_open(struct defrag *defrag, enum reach reach, const uint64_t key[KEY_WIDTH])
{
	uint64_t pair[KEY_WIDTH];
	struct queue *queue;

	if (reach == OF_NONE || defrag->all_open)
		return;
	if (reach >= OF_PAIR && is_open(defrag, key))
		return;
	switch (reach) {
	case OF_ANY:
		defrag->all_open = true;
		break;
	case OF_IPV4:
		if (defrag->open4)
			return;
		defrag->open4 = true;
		break;
	case OF_IPV6:
		if (defrag->open6)
			return;
		defrag->open6 = true;
		break;
	case OF_PAIR:
		open_pair(defrag, key);
		set_pair(key, pair);
		add_open(defrag, pair);
		return;
	default:
		queue = queues_find(&defrag->queues, key, queues_hash(&defrag->queues, key));
		if (queue)
			open_queue(defrag, queue, FRAG_OPEN);
		add_open(defrag, key);
		return;
	}
	open_queues(defrag);
}

/* -- datagrams -- */

/* Linux's ip_frag_ecn_table: fragments without ECN cannot be combined with others. */
static bool is_ecn_valid(const struct queue *queue)
{
	return !((queue->ecn & 1) && (queue->ecn & ~1));
}

/* A frame of the datagram: the beginning of that of its first fragment, and all data. */
static struct bytes join(struct defrag *defrag, const struct queue *queue)
{
	const struct piece *pieces = defrag->queues.pieces, *head = &pieces[queue->head];
	uint32_t start = LINK + queue->at, length = start + queue->length, seen = length;
	uint32_t fragment_header = queue->version == 4 ? 0 : 8;
	uint8_t *buf = defrag->buf, *ip = buf + LINK;

	memcpy(buf, head->frame, LINK);
	memcpy(ip, head->frame + head->at - fragment_header - queue->at, queue->at);
	for (uint32_t i = queue->last; i != NO_INDEX; i = pieces[i].before) {
		const struct piece *piece = &pieces[i];

		memcpy(buf + start + piece->offset, piece->frame + piece->at, piece->seen);
		if (piece->seen < piece->length && start + piece->offset + piece->seen < seen)
			seen = start + piece->offset + piece->seen;
	}
	if (queue->version == 4) {
		set_be16(buf + LINK - 2, TYPE_IPV4);
		set_be16(ip + 2, length - LINK);
		set_be16(ip + 6, queue->largest_unfragmentable == queue->largest ? 0x4000 : 0);
	} else {
		set_be16(buf + LINK - 2, TYPE_IPV6);
		set_be16(ip + 4, length - LINK - 40);
		ip[queue->pointer_at] = queue->next_header;
	}
	/* the first byte that the capture cut hides all after it */
	return (struct bytes){buf, length, seen};
}

void datagram_of(const struct defrag *defrag, const struct queue *queue, struct bytes frame,
		 struct packet *p)
{
	const struct piece *head = &defrag->queues.pieces[queue->head];
	struct end end;

	receive(head->frame, head->captured, head->wire, p, &end);
	p->ip = bytes_from(frame, LINK);
	p->largest = queue->largest;
	p->total = (uint16_t)p->ip.length;
	if (p->version == 6) {
		p->total -= 40;
		p->protocol = p->ip.at[6];
		p->transport_at = queue->at;
	}
}

/* All fragments of a datagram end as it does. */
static void complete(struct defrag *defrag, struct queue *queue)
{
	uint32_t headers = queue->version == 4 ? queue->at : queue->at - 40;

	if (headers + queue->length > MOST_DATAGRAM) {
		kill(defrag, queue, FRAG_TOO_LONG);
	} else if (!is_ecn_valid(queue)) {
		kill(defrag, queue, FRAG_ECN);
	} else {
		defrag->on.complete(defrag->on.user, queue, join(defrag, queue));
		queues_remove(&defrag->queues, queue);
	}
}

/* Where the datagram ends, as far as it is known; false if that contradicts the queued fragments. */
static bool announce(struct queue *queue, uint32_t end, bool more)
{
	if (more) {
		if (end <= queue->length)
			return true;
		if (queue->has_last)
			return false;
	} else {
		if (end < queue->length || (queue->has_last && end != queue->length))
			return false;
		queue->has_last = true;
	}
	queue->length = end;
	return true;
}

/* NO_REASON: it was taken. NO_MEMORY: there is none. */
static enum reason take_fragment(struct defrag *defrag, struct queue *queue,
				 const struct fragment *fragment, const struct piece *known)
{
	uint32_t length = fragment->data.length, end = fragment->offset + length;
	struct piece *piece;
	enum reason why;

	if (!announce(queue, end, fragment->more))
		return FRAG_BEYOND;
	if (!length)
		return FRAG_EMPTY;
	why = queue_insert(queue, fragment->offset, end);
	if (why)
		return why;
	piece = queue_add(&defrag->queues, queue, known->captured);
	if (!piece)
		return NO_MEMORY;
	piece->number = known->number;
	piece->frame = known->frame;
	piece->wire = known->wire;
	piece->at = (uint32_t)(fragment->data.at - known->frame);
	piece->offset = (uint16_t)fragment->offset;
	piece->length = (uint16_t)length;
	piece->seen = (uint16_t)fragment->data.seen;
	queue->meat += length;
	queue->ecn |= 1 << fragment->ecn;
	if (fragment->size > queue->largest)
		queue->largest = fragment->size;
	if (fragment->unfragmentable && fragment->size > queue->largest_unfragmentable)
		queue->largest_unfragmentable = fragment->size;
	if (!fragment->offset) {
		queue->has_first = true;
		queue->head = queue->last;
		queue->at = fragment->at;
		queue->pointer_at = fragment->pointer_at;
		queue->next_header = fragment->next_header;
	}
	return NO_REASON;
}

/* What cannot be kept, and what may belong to it, is open. */
static void give_up(struct defrag *defrag, struct queue *queue)
{
	defrag->forgets = true;
	if (queue)
		open_queue(defrag, queue, FRAG_MANY);
	defrag->on.open(defrag->on.user, NULL, FRAG_MANY);
}

static void queue_fragment(struct defrag *defrag, struct queue *queue,
			   const struct fragment *fragment, const struct piece *piece)
{
	enum reason why;

	if (queue->version == 6 && fragment->offset + fragment->data.length > MOST_DATAGRAM) {
		defrag->on.lose(defrag->on.user, NULL, FRAG_OVER6);
		return;
	}
	why = take_fragment(defrag, queue, fragment, piece);
	if (why == NO_MEMORY) {
		give_up(defrag, queue);
	} else if (why) {
		defrag->on.lose(defrag->on.user, NULL, why);
		/* Other contradictions of IPv6 drop only the fragment that causes them. */
		if (why == FRAG_OVERLAP || (queue->version == 4 && why != FRAG_DUPLICATE))
			kill(defrag, queue, why);
	} else if (queue->has_first && queue->has_last && queue->meat == queue->length) {
		complete(defrag, queue);
	}
}

void defrag_take(struct defrag *defrag, const struct fragment *fragment, const struct piece *piece)
{
	struct queue *queue;

	if (fragment->is_cut) {
		defrag->on.lose(defrag->on.user, NULL, FRAG_HEADER_CUT);
		return;
	}
	if (is_open(defrag, fragment->key)) {
		defrag->on.open(defrag->on.user, NULL, FRAG_OPEN);
		return;
	}
	queue = queues_find(&defrag->queues, fragment->key, fragment->hash);
	if (fragment->version == 6 && fragment->more && fragment->data.length % 8 &&
	    fragment->offset + fragment->data.length <= MOST_DATAGRAM) {
		/* left to the stack (RFC 8200, 4.5) */
		if (queue)
			kill(defrag, queue, FRAG_LENGTH6);
		defrag->on.leave(defrag->on.user);
		return;
	}
	if (!queue)
		queue = defrag->forgets ? NULL : queues_add(&defrag->queues, fragment);
	if (queue)
		queue_fragment(defrag, queue, fragment, piece);
	else
		give_up(defrag, NULL);
}

void defrag_finish(struct defrag *defrag)
{
	struct queue *queue;

	for (uint32_t index = 0; (queue = queues_at(&defrag->queues, index)); index++)
		if (queue->waits)
			kill(defrag, queue, FRAG_TIMEOUT);
}
