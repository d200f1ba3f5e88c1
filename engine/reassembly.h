/* SPDX-License-Identifier: Apache-2.0 */
/* Fragments, in the order of their arrival. */
#ifndef REASSEMBLY_H
#define REASSEMBLY_H

#include "defrag.h"
#include "queues.h"

enum {
	MOST_DATAGRAM = 65535, /* IPv4: the whole datagram; IPv6: the payload */
	LINK = 14,	       /* an Ethernet header */
};

/* A packet that may be a fragment of any datagram; of one of IPv4; of IPv6; between two addresses; of one datagram. */
enum reach { OF_NONE, OF_ANY, OF_IPV4, OF_IPV6, OF_PAIR, OF_DATAGRAM };

/* Who is told what becomes of packets: of a piece, which is still in its queue, or (NULL) of the fragment just taken. */
struct defrag_user {
	void (*lose)(void *user, const struct piece *piece, enum reason reason); /* dropped */
	void (*open)(void *user, const struct piece *piece, enum reason reason); /* not known */
	/* frame: the datagram, without tags and without a checksum of its header */
	void (*complete)(void *user, const struct queue *queue, struct bytes frame);
	void (*leave)(void *user); /* to the stack, as it is */
	void *user;
};

struct defrag {
	struct queues queues;
	struct keyset open; /* datagrams and address pairs of packets that may be fragments */
	bool all_open, open4, open6;
	bool forgets; /* more fragments have waited than are kept: unknown datagrams are open */
	struct defrag_user on;
	uint8_t buf[LINK + 40 + MOST_DATAGRAM];
};

bool defrag_init(struct defrag *defrag, uint64_t seed, uint64_t most_bytes,
		 const struct defrag_user *on);
void defrag_free(struct defrag *defrag);
/* A fragment, for which queues_ask() was called; piece: its number and its frame. */
void defrag_take(struct defrag *defrag, const struct fragment *fragment, const struct piece *piece);
/* A datagram that is complete, as a packet. */
void datagram_of(const struct defrag *defrag, const struct queue *queue, struct bytes frame,
		 struct packet *p);
/* A packet that may or may not be a fragment, of the datagram with this key. */
void defrag_leave_open(struct defrag *defrag, enum reach reach, const uint64_t key[KEY_WIDTH]);
/* The timeout: all that waits is dropped. */
void defrag_finish(struct defrag *defrag);

#endif
