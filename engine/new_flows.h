/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flows that packets begin which leave a conntrack entry: each counts once, by the class of its first packet.
 * dossim/engine/new_flows.py declares the structures again.
 */
#ifndef NEW_FLOWS_H
#define NEW_FLOWS_H

#include "left.h"
#include "ordinary.h"

/* Codes are positions in dossim.exhaustion.flows: CLASSES. */
enum flow_class {
	FLOW_UDP,
	FLOW_SYN_RECV,
	FLOW_SYN_SENT,
	FLOW_CLOSED_PORT,
	FLOW_PICK_UP,
	FLOW_ICMP,
	FLOW_ICMPV6,
	FLOW_GRE,
	FLOW_SCTP,
	FLOW_GENERIC,
	FLOW_CLASSES,
	FLOW_NONE = 255
};

enum { FLOW_KEYS = 8 };

struct flow_setup {
	struct nets own;	   /* addresses of the host */
	const uint16_t *tcp_ports; /* that it listens on */
	uint32_t tcp_count;
	uint8_t forward, tcp_loose;
	uint8_t pad[2];
	uint64_t keys[2 * FLOW_KEYS]; /* of the hash that flows are told apart by: random ones */
	uint64_t most;		      /* so many flows are told apart */
};

struct flow_counts {
	int64_t flows[FLOW_CLASSES];
	int64_t beginning; /* packets that begin one or repeat its first packet */
	int64_t unknown;   /* those that may begin one or not */
	int64_t is_more;   /* there were flows that are not counted */
};

struct new_flows;

/* What setup points to lives as long. NULL: no memory. */
ENGINE_API struct new_flows *engine_new_flows(const struct flow_setup *setup);
ENGINE_API void engine_new_flows_free(struct new_flows *flows);
/* The packets that are wanted, which leave an entry, of fragments their datagrams: count_flows.c. Returns as engine_predict(). */
ENGINE_API int64_t engine_count_flows(struct new_flows *flows, const struct capture *capture,
				      int64_t count, const uint8_t *wanted);
ENGINE_API void engine_flow_counts(struct new_flows *flows, struct flow_counts *counts);

/* A number that nobody knows who makes captures. */
uint64_t seed_of_flows(const struct new_flows *flows);
/* A packet that leaves an entry, or a datagram that was put together; the packet of a frame. */
void count_packet(struct new_flows *flows, const struct packet *p);
void count_frame(struct new_flows *flows, struct bytes frame);
void count_ordinary(struct new_flows *flows, const struct ordinary *it);
/* The same in two steps, of which other threads may take the first: false, if it begins none. */
bool mark_ordinary(const struct new_flows *flows, const struct ordinary *it,
		   struct flow_mark *mark);
/* Packets that are left: TCP in IPv4 without options, to one. */
struct unmarked {
	const uint8_t *ip;
	struct left *left;
};
void mark_tcp4(const struct new_flows *flows, const struct unmarked *list, uint32_t count);
void count_mark(struct new_flows *flows, struct flow_mark mark);
/* Of packets that are left and MARKED, one after the other. */
void count_marks(struct new_flows *flows, const struct left *left, int64_t count);

#endif
