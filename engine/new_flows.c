// SPDX-License-Identifier: Apache-2.0
#define _DEFAULT_SOURCE /* madvise() */
#include "new_flows.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "defrag.h"
#include "keyset.h"
#include "octets.h"
#include "protocols.h"

enum { WIDTH = 5, FIRST_SIZE = 1024, AHEAD = 16 };

/* A flow as 128 bits of a keyed hash of its numbers, so that no two are taken for one. Zeros: nothing is there. */
struct mark {
	uint64_t one, two;
};

/* Those that came last are not in the set yet: where each belongs is asked for before its turn. */
struct new_flows {
	struct flow_setup setup;
	struct flow_counts counts;
	struct mark *marks;
	uint64_t mask, count;
	struct mark coming[AHEAD];
	uint8_t classes[AHEAD];
	uint64_t came, taken;
};

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

/* nf_conntrack_icmp_packet() and its sibling: invalid in the other version of IP, and without a whole header. */
static uint8_t class_of_icmp(const struct flow *flow)
{
	if (flow->length < 8 || (flow->protocol == ICMP) != (flow->version == 4) ||
	    !is_request(flow))
		return FLOW_NONE;
	return flow->protocol == ICMP ? FLOW_ICMP : FLOW_ICMPV6;
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
	case ICMPV6:
		return class_of_icmp(flow);
	}
	return flow->protocol < 0 ? FLOW_NONE : FLOW_GENERIC;
}

/* One end of a flow: an address, and its port or what else tells flows apart. */
struct flow_end {
	uint64_t address[2], port;
};

static struct flow_end end_of(const uint64_t address[2], int32_t port)
{
	return (struct flow_end){{address[0], address[1]}, port > 0 ? (uint64_t)port : 0};
}

static bool is_greater(const struct flow_end *one, const struct flow_end *other)
{
	for (int i = 0; i < 2; i++)
		if (one->address[i] != other->address[i])
			return one->address[i] > other->address[i];
	return one->port > other->port;
}

/* The same numbers in both directions; returns how many. */
static uint32_t set_key(uint64_t key[WIDTH], const struct flow *flow, const uint8_t *segment)
{
	bool is_icmp = flow->protocol == ICMP || flow->protocol == ICMPV6, swaps;
	struct flow_end source, destination;
	const struct flow_end *one, *other;

	if (is_icmp) {
		source = end_of(flow->source, be16(segment + 4));
		destination = end_of(flow->destination, flow->icmp_type * 256 + flow->icmp_code);
	} else {
		source = end_of(flow->source, flow->sport);
		destination = end_of(flow->destination, flow->dport);
	}
	swaps = !is_icmp && is_greater(&source, &destination);
	one = swaps ? &destination : &source;
	other = swaps ? &source : &destination;
	key[0] = one->port << 48 | other->port << 32 | (uint64_t)(uint8_t)flow->protocol << 8 |
		 flow->version;
	if (flow->version == 4) {
		key[1] = one->address[1] << 32 | other->address[1];
		return 2;
	}
	memcpy(key + 1, one->address, sizeof one->address);
	memcpy(key + 3, other->address, sizeof other->address);
	return WIDTH;
}

/* -- the flows that were seen -- */

static bool is_free(const struct mark *mark)
{
	return !mark->one && !mark->two;
}

/* Where a flow is, or belongs. */
static struct mark *slot_of(struct mark *marks, uint64_t mask, struct mark mark)
{
	uint64_t at = mark.one & mask;

	while (!is_free(&marks[at]) && (marks[at].one != mark.one || marks[at].two != mark.two))
		at = (at + 1) & mask;
	return &marks[at];
}

/* Free ones. Many are in huge pages: else most of the time goes into finding the page of a slot. */
static struct mark *new_marks(uint64_t count)
{
	size_t size = count * sizeof(struct mark);
	void *marks = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (marks == MAP_FAILED)
		return NULL;
	madvise(marks, size, MADV_HUGEPAGE);
	return marks;
}

static void free_marks(struct mark *marks, uint64_t count)
{
	munmap(marks, count * sizeof *marks);
}

static bool grow(struct new_flows *flows)
{
	uint64_t mask = 2 * flows->mask + 1;
	struct mark *marks = new_marks(mask + 1);

	if (!marks)
		return false;
	for (uint64_t old = 0; old <= flows->mask; old++)
		if (!is_free(&flows->marks[old]))
			*slot_of(marks, mask, flows->marks[old]) = flows->marks[old];
	free_marks(flows->marks, flows->mask + 1);
	flows->marks = marks;
	flows->mask = mask;
	return true;
}

static void take_next(struct new_flows *flows)
{
	uint32_t at = flows->taken++ % AHEAD;
	struct mark *slot = slot_of(flows->marks, flows->mask, flows->coming[at]);

	if (!is_free(slot))
		return;
	if (flows->count == flows->setup.most) {
		flows->counts.is_more = true;
		return;
	}
	*slot = flows->coming[at];
	flows->count++;
	flows->counts.flows[flows->classes[at]]++;
	/* Half of it is free, so that there is always a slot. */
	if (2 * flows->count > flows->mask && !grow(flows))
		flows->setup.most = flows->count;
}

/* One of which the flow is known and everything that tells it was captured. */
static void count_flow(struct new_flows *flows, const struct flow *flow, const uint8_t *segment)
{
	uint8_t class = class_of(&flows->setup, flow, segment, &flows->counts.unknown);
	uint32_t at = flows->came % AHEAD;
	uint64_t key[WIDTH];
	struct mark mark;
	uint32_t width;

	if (class == FLOW_NONE)
		return;
	width = set_key(key, flow, segment);
	mark.one = key_hash(key, width, flows->setup.seeds[0]);
	mark.two = key_hash(key, width, flows->setup.seeds[1]);
	mark.two |= is_free(&mark);
	if (flows->came - flows->taken == AHEAD)
		take_next(flows);
	__builtin_prefetch(&flows->marks[mark.one & flows->mask]);
	flows->coming[at] = mark;
	flows->classes[at] = class;
	flows->came++;
	flows->counts.beginning++;
}

void count_ordinary(struct new_flows *flows, const struct ordinary *it)
{
	const uint8_t *segment = it->ip + it->segment;
	struct flow flow = {
		.version = it->version,
		.protocol = it->protocol,
		.length = (int32_t)(it->total - it->segment),
		.group = it->group,
	};

	addresses_of(it, flow.source, flow.destination);
	if (it->protocol == TCP || it->protocol == UDP) {
		flow.sport = be16(segment);
		flow.dport = be16(segment + 2);
	} else {
		flow.icmp_type = segment[0];
		flow.icmp_code = segment[1];
	}
	count_flow(flows, &flow, segment);
}

/* How much of each transport's header must be captured for its flow to be known. */
static uint32_t read_of(int protocol)
{
	switch (protocol) {
	case TCP:
		return 20;
	case SCTP:
		return 16;
	case ICMP:
	case ICMPV6:
		return 8;
	case UDP:
	case UDPLITE:
	case DCCP:
		return 4;
	}
	return 0;
}

/* What is none of IP, or a fragment without the header of its transport, begins nothing. */
void count_frame(struct new_flows *flows, struct bytes frame)
{
	struct fragment fragment;
	struct bytes segment;
	struct flow flow = {0};
	struct packet p;
	struct end end;
	bool is_cut;

	if (receive(frame.at, frame.seen, frame.length, &p, &end) != GO_ON)
		return;
	is_cut = find_fragment(&p, &fragment) == ODD;
	if (!is_cut) {
		if (p.version == 4 && fragment.offset)
			return;
		flow_in_raw(&p, true, &flow, &segment);
		is_cut = flow.protocol == CUT ||
			 (segment.seen < segment.length && segment.seen < read_of(flow.protocol));
	}
	if (is_cut)
		flows->counts.unknown++;
	else if (!flow.later_fragment)
		count_flow(flows, &flow, segment.at);
}

struct new_flows *engine_new_flows(const struct flow_setup *setup)
{
	struct new_flows *flows = calloc(1, sizeof *flows);

	if (!flows)
		return NULL;
	flows->setup = *setup;
	flows->mask = FIRST_SIZE - 1;
	flows->marks = new_marks(FIRST_SIZE);
	if (flows->marks)
		return flows;
	free(flows);
	return NULL;
}

void engine_new_flows_free(struct new_flows *flows)
{
	free_marks(flows->marks, flows->mask + 1);
	free(flows);
}

int64_t engine_count_flows(struct new_flows *flows, const struct capture *capture, int64_t count,
			   const uint8_t *wanted)
{
	for (int64_t number = 0; number < count; number++) {
		struct bytes frame;

		if (!wanted[number])
			continue;
		if (!frame_of(capture, number, &frame))
			return number;
		count_frame(flows, frame);
	}
	return ALL_PREDICTED;
}

void engine_flow_counts(struct new_flows *flows, struct flow_counts *counts)
{
	while (flows->taken < flows->came)
		take_next(flows);
	*counts = flows->counts;
}
