/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ordinary packets: TCP, UDP and ICMP in IP, unfragmented, of sound lengths, of which all was captured. What rules and
 * routes say of their classes (classes.c) is remembered, so that each is looked at once. They end as all others would by
 * one_packet() of predict.c.
 */
#ifndef ORDINARY_H
#define ORDINARY_H

#include "classes.h"
#include "defrag.h"
#include "outcomes.h"

/*
 * A fragment of IPv4 is plain without tags and options, with a good header, if all of it was captured. Of all with the same
 * classes an early stage says the same. One that is FIRST_FRAGMENT has all of its transport's header; others show none of it.
 */
enum fragment_kind { NO_FRAGMENT, FIRST_FRAGMENT, OTHER_FRAGMENT };

/* What is_ordinary() or is_plain_fragment() found. */
struct ordinary {
	const uint8_t *ip;
	uint64_t
		classes; /* key_of() without its ports, of a datagram whose fragments told it; else 0 */
	uint32_t total;	  /* bytes from its IP header on */
	uint32_t segment; /* where its transport begins in that */
	uint32_t
		source; /* the segment of addresses that its source is in, once ask_second() was called; before, its slot */
	uint32_t protocol;
	uint32_t largest; /* of a datagram that was put together: its largest fragment; else 0 */
	uint16_t start;	  /* of the IP header in the frame */
	uint8_t version;  /* 0: the frame is not ordinary */
	uint8_t tags;	  /* priority tags before it */
	bool group;	  /* the frame is for one */
	bool has_extra;	  /* options, or an extension header */
	uint8_t fragment; /* enum fragment_kind */
};

/* What holds of all packets with the same protocol and classes. Codes are of outcomes; NO_CODE: they do not end so. */
struct known {
	uint64_t key;	    /* 0: nothing is known */
	uint32_t dropped;   /* by the early stage, or else by raw */
	uint32_t raw, lost; /* by raw, routing */
	uint32_t delivered; /* sound ones for this host */
	uint8_t way;
	bool untracked, for_group, multicast;
	bool is_from_host;
	bool is_tcp_here; /* TCP that is routed to this host */
};

enum { KNOWN_BITS = 12 };

/* What is remembered from packet to packet. */
struct run {
	const struct world *world;
	struct outcomes outcomes;
	uint64_t destination[2]; /* of the last packet */
	uint32_t destination_class;
	uint8_t version;
	bool is_from_host; /* the source of the last ordinary packet is an address of the host */
	bool no_memory;
	const struct known
		*last; /* of the last ordinary packet, if it got to conntrack; else NULL */
	struct fragment fragment; /* what the last packet is that is one */
	struct known known[1 << KNOWN_BITS];
};

/* NULL: no memory. */
struct run *run_of(const struct world *world);
void run_free(struct run *run);

/* NO_CODE: no memory, and run->no_memory is set. */
uint32_t code_of(struct run *run, const struct end *end, bool untracked);

/* Its code; NO_CODE if run->no_memory. */
uint32_t end_ordinary(struct run *run, const struct ordinary *it);
/* The same of one that raw and what is before it let pass. known: of its classes. */
uint32_t end_after_raw(struct run *run, const struct ordinary *it, const struct known *known);
/*
 * As end_ordinary(), of a datagram that was put together, from raw on, which is it; NO_CODE: it is not ordinary,
 * or run->no_memory.
 * classes: as struct ordinary has them, or 0.
 */
uint32_t end_datagram(struct run *run, struct bytes frame, uint32_t largest, uint64_t classes,
		      struct ordinary *it);
/* A plain fragment: where the early stage drops it; NO_CODE: it does not, and what is found of it is set. */
uint32_t end_fragment(struct run *run, const struct ordinary *it, struct fragment *found);
/* What rules match on, of one that got to conntrack. */
void flow_of(struct run *run, const struct ordinary *it, struct flow *flow);

static inline void addresses_of(const struct ordinary *it, uint64_t source[2],
				uint64_t destination[2])
{
	const uint8_t *ip = it->ip;

	if (it->version == 4) {
		source[0] = destination[0] = 0;
		source[1] = be32(ip + 12);
		destination[1] = be32(ip + 16);
		return;
	}
	for (int i = 0; i < 2; i++) {
		source[i] = be64(ip + 8 + 8 * i);
		destination[i] = be64(ip + 24 + 8 * i);
	}
}

/*
 * What rules and routes say of its protocol and classes, by one packet; NO_CODE: what bad_header() checks of more than
 * most packets have is good. Called by known.h.
 */
struct known learn(struct run *run, uint64_t key, const struct ordinary *it);
uint32_t bad_extra(struct run *run, const struct ordinary *it, enum stage stage, bool untracked);

#endif
