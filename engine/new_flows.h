/* SPDX-License-Identifier: Apache-2.0 */
/* What a packet that leaves a conntrack entry begins. dossim/engine/new_flows.py declares the structure again. */
#ifndef NEW_FLOWS_H
#define NEW_FLOWS_H

#include "predict.h"

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
	FLOW_NONE = 255
};

struct flow_setup {
	struct nets own;	   /* addresses of the host */
	const uint16_t *tcp_ports; /* that it listens on */
	uint32_t tcp_count;
	uint8_t forward, tcp_loose;
	uint8_t pad[2];
};

/*
 * For each flow that begins one its key, six numbers that are the same in both directions, and its class. Returns how
 * many there are; unknown: how many may begin one or not. data: what at of the flows is a position in.
 */
ENGINE_API int64_t engine_new_flows(const struct flow_setup *setup, const uint8_t *data,
				    const struct flow *flows, int64_t count, uint64_t *keys,
				    uint8_t *classes, int64_t *unknown);

#endif
