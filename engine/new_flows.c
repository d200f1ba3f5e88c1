// SPDX-License-Identifier: Apache-2.0
#include "new_flows.h"

#include "octets.h"
#include "protocols.h"

enum { FIN = 0x01, SYN = 0x02, RST = 0x04, ACK = 0x10, SCTP_INIT = 1 };

static bool listens(const struct flow_setup *setup, int32_t port)
{
	for (uint32_t i = 0; i < setup->tcp_count; i++)
		if (setup->tcp_ports[i] == port)
			return true;
	return false;
}

/* A host that knows no such connection answers with a RST, which ends the entry. */
static uint8_t class_of_tcp(const struct flow_setup *setup, const struct flow *flow,
			    const uint8_t *segment)
{
	bool ours = flow->group || !setup->forward ||
		    nets_contain(&setup->own, flow->version, flow->destination);

	if (flow->length < 20)
		return FLOW_NONE;
	switch (segment[13] & (FIN | SYN | RST | ACK)) {
	case SYN:
		if (!ours)
			return FLOW_SYN_SENT;
		return listens(setup, flow->dport) ? FLOW_SYN_RECV : FLOW_CLOSED_PORT;
	case ACK: /* picked up in the middle */
		if (!setup->tcp_loose)
			return FLOW_NONE;
		return ours ? FLOW_CLOSED_PORT : FLOW_PICK_UP;
	}
	return FLOW_NONE;
}

/* Those that conntrack begins a connection with: echo, timestamp, information and address mask; echo, node information. */
static bool is_request(const struct flow *flow)
{
	int type = flow->icmp_type;

	if (flow->protocol == ICMP)
		return type == 8 || type == 13 || type == 15 || type == 17;
	return type == 128 || type == 139;
}

static uint8_t class_of(const struct flow_setup *setup, const struct flow *flow,
			const uint8_t *segment, int64_t *unknown)
{
	switch (flow->protocol) {
	case TCP:
		return class_of_tcp(setup, flow, segment);
	case UDP:
	case UDPLITE:
		return FLOW_UDP;
	case GRE:
		return FLOW_GRE;
	case SCTP:
		if (flow->length >= 16 && segment[12] == SCTP_INIT)
			return FLOW_SCTP;
		(*unknown)++;
		return FLOW_NONE;
	case DCCP:
		(*unknown)++;
		return FLOW_NONE;
	case ICMP:
		if (flow->version == 4)
			return is_request(flow) ? FLOW_ICMP : FLOW_NONE;
		break;
	case ICMPV6:
		if (flow->version == 6)
			return is_request(flow) ? FLOW_ICMPV6 : FLOW_NONE;
		break;
	}
	return flow->protocol < 0 ? FLOW_NONE : FLOW_GENERIC;
}

static void set_end(uint64_t end[3], const uint64_t address[2], int32_t port)
{
	end[0] = address[0];
	end[1] = address[1];
	end[2] = port > 0 ? (uint64_t)port : 0;
}

static bool is_greater(const uint64_t one[3], const uint64_t other[3])
{
	for (int i = 0; i < 3; i++)
		if (one[i] != other[i])
			return one[i] > other[i];
	return false;
}

static void set_key(uint64_t key[6], const struct flow *flow, const uint8_t *segment)
{
	bool is_icmp = flow->protocol == ICMP || flow->protocol == ICMPV6, swaps;
	uint64_t ends[2][3];

	if (is_icmp) {
		set_end(ends[0], flow->source, be16(segment + 4));
		set_end(ends[1], flow->destination, flow->icmp_type * 256 + flow->icmp_code);
	} else {
		set_end(ends[0], flow->source, flow->sport);
		set_end(ends[1], flow->destination, flow->dport);
	}
	swaps = !is_icmp && is_greater(ends[0], ends[1]);
	memcpy(key, ends[swaps], sizeof *ends);
	memcpy(key + 3, ends[!swaps], sizeof *ends);
	key[2] |= (uint64_t)(uint8_t)flow->protocol << 16 | (uint64_t)flow->version << 32;
}

int64_t engine_new_flows(const struct flow_setup *setup, const uint8_t *data,
			 const struct flow *flows, int64_t count, uint64_t *keys, uint8_t *classes,
			 int64_t *unknown)
{
	int64_t found = 0;

	for (int64_t i = 0; i < count; i++) {
		const uint8_t *segment = data + flows[i].at;

		classes[found] = class_of(setup, &flows[i], segment, unknown);
		if (classes[found] == FLOW_NONE)
			continue;
		set_key(keys + 6 * found, &flows[i], segment);
		found++;
	}
	return found;
}
