/* SPDX-License-Identifier: Apache-2.0 */
/* What defrag.c finds in a packet. */
#ifndef DEFRAG_H
#define DEFRAG_H

#include "predict.h"

struct fragment {
	uint32_t offset;
	uint32_t ident;
	struct bytes data;
	bool more, unfragmentable;
	bool is_cut;	     /* IPv6: its fragment header is not whole */
	uint8_t next_header; /* IPv4: the protocol */
	uint8_t ecn;
	/* IPv6: where the fragment header is, and the byte that announces it. IPv4: at is the header's length. */
	uint32_t at, pointer_at;
};

/* ENDED: the packet is a fragment that defragmentation takes. ODD: the capture cut what decides. */
enum step find_fragment(const struct packet *p, struct fragment *found);

#endif
