/* SPDX-License-Identifier: Apache-2.0 */
/* What defragmentation knows of a packet by itself. */
#ifndef DEFRAG_H
#define DEFRAG_H

#include "keyset.h"
#include "predict.h"

struct fragment {
	uint64_t key[KEY_WIDTH]; /* of its datagram; of IPv4 the last one is 0 */
	uint64_t classes;	 /* of IPv4, as struct ordinary has them; 0: not known */
	uint32_t hash;		 /* of the key: queues_ask() */
	uint32_t offset;
	struct bytes
		data;  /* IPv4, not the last: trimmed to a multiple of eight, as the kernel does */
	uint32_t size; /* with the header of IP */
	/* IPv6: where the fragment header is, and the byte that announces it. IPv4: at is the header's length. */
	uint32_t at, pointer_at;
	uint8_t version;
	bool more, unfragmentable;
	bool is_cut;	     /* IPv6: its fragment header is not whole, and no more is known */
	uint8_t next_header; /* IPv4: the protocol */
	uint8_t ecn;
};

/* ENDED: the packet is a fragment that defragmentation takes, which is found. ODD: the capture cut what decides. */
enum step find_fragment(const struct packet *p, struct fragment *found);
/* The same of one that is_plain_fragment() found. */
void set_plain_fragment(const uint8_t *ip, struct fragment *found);
/* What identifies a datagram of a packet's addresses. */
void datagram_key(const struct packet *p, uint32_t ident, uint64_t key[KEY_WIDTH]);

#endif
