// SPDX-License-Identifier: Apache-2.0
#define _DEFAULT_SOURCE /* madvise() */
#include "new_flows.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "defrag.h"
#include "keyset.h"
#include "octets.h"
#include "protocols.h"

enum { WIDTH = 5, CLASS_BITS = 4 };
enum { PARTS = 4096, FIRST_SIZE = 8, LEAST_MOST = 256, WAITING = 15, AHEAD = 8 };
enum { LINE_BITS = 3, LINE = 1 << LINE_BITS }; /* marks of 64 bytes */
enum { HUGE = 2 << 20 };		       /* bytes of a page */

/*
 * The flows that share 12 bits of a keyed hash. A mark is 60 bits of another one, and the class; 0: nothing is there. By
 * both together no two of some millions of flows are taken for one: the odds are less than 1 to 2^29. Marks wait until a
 * part has a few of them, whose places in the table are asked for at once.
 */
struct part {
	uint32_t count, waiting;
	uint64_t coming[WAITING];
};

struct coming {
	uint64_t mark;
	struct part *part;
};

struct new_flows {
	struct flow_setup setup;
	struct flow_counts counts;
	uint64_t count, waiting;
	/* For each part a table of so many slots, one behind the other; behind all that there may be room for another. */
	uint64_t *marks;
	uint32_t size, most_size;
	struct part *ripe; /* its marks are next, and their places were asked for; NULL: none */
	/* Those that came last: their parts were asked for. */
	struct coming coming[AHEAD];
	uint64_t came, taken;
	struct part *parts;
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

static bool is_greater(const uint64_t one[2], uint64_t one_port, const uint64_t other[2],
		       uint64_t other_port)
{
	for (int i = 0; i < 2; i++)
		if (one[i] != other[i])
			return one[i] > other[i];
	return one_port > other_port;
}

/* The same numbers in both directions; returns how many. In the place of ports: what else tells flows apart. */
static uint32_t set_key(uint64_t key[WIDTH], const struct flow *flow, const uint8_t *segment)
{
	bool is_icmp = flow->protocol == ICMP || flow->protocol == ICMPV6, swaps;
	const uint64_t *one = flow->source, *other = flow->destination;
	uint64_t one_port, other_port;

	if (is_icmp) {
		one_port = be16(segment + 4);
		other_port = (uint16_t)(flow->icmp_type * 256 + flow->icmp_code);
	} else {
		one_port = flow->sport > 0 ? (uint64_t)flow->sport : 0;
		other_port = flow->dport > 0 ? (uint64_t)flow->dport : 0;
	}
	swaps = !is_icmp && is_greater(one, one_port, other, other_port);
	if (swaps) {
		uint64_t port = one_port;

		one = flow->destination;
		other = flow->source;
		one_port = other_port;
		other_port = port;
	}
	key[0] = one_port << 48 | other_port << 32 | (uint64_t)(uint8_t)flow->protocol << 8 |
		 flow->version;
	if (flow->version == 4) {
		key[1] = one[1] << 32 | other[1];
		return 2;
	}
	for (int i = 0; i < 2; i++) {
		key[1 + i] = one[i];
		key[3 + i] = other[i];
	}
	return WIDTH;
}

/* -- the flows that were seen -- */

/* Of all parts and tables, and one more of these. */
static size_t bytes_of(uint32_t size)
{
	return PARTS * sizeof(struct part) + ((size_t)PARTS + 1) * size * sizeof(uint64_t);
}

static inline uint64_t *table_of(const struct new_flows *flows, const struct part *part)
{
	return flows->marks + (uint64_t)(part - flows->parts) * flows->size;
}

/* Where the search for a mark begins: with a line of the cache, by its first bits. */
static inline uint64_t place_of(const struct new_flows *flows, uint64_t mark)
{
	return (mark >> 32) * (flows->size / LINE) >> 32 << LINE_BITS;
}

/* Where a flow is, or belongs. */
static inline uint64_t *slot_of(const struct new_flows *flows, const struct part *part,
				uint64_t mark)
{
	uint64_t *table = table_of(flows, part), at = place_of(flows, mark);

	while (table[at] && (table[at] ^ mark) >> CLASS_BITS)
		at = (at + 1) & (flows->size - 1);
	return &table[at];
}

/* The tables become twice as large where they are, the last one first; what is behind all of them is still zero. */
static bool grow(struct new_flows *flows)
{
	uint32_t before = flows->size;
	size_t bytes = before * sizeof *flows->marks;
	uint64_t *copy = flows->marks + (uint64_t)PARTS * flows->most_size;

	if (before == flows->most_size)
		return false;
	if (2 * PARTS * bytes == HUGE) /* else most of the time goes into finding pages */
		madvise(flows->parts, bytes_of(flows->most_size), MADV_HUGEPAGE);
	flows->size = 2 * before;
	for (struct part *part = flows->parts + PARTS; part-- > flows->parts;) {
		memcpy(copy, flows->marks + (uint64_t)(part - flows->parts) * before, bytes);
		if (part < flows->parts + PARTS / 2)
			memset(table_of(flows, part), 0, 2 * bytes);
		for (uint32_t old = 0; old < before; old++)
			if (copy[old])
				*slot_of(flows, part, copy[old]) = copy[old];
	}
	return true;
}

/* A third of the slots are free, and some of each part, so that a search is short. */
static bool is_full(const struct new_flows *flows, const struct part *part)
{
	return 3 * flows->count >= 2 * (uint64_t)PARTS * flows->size ||
	       8 * (part->count + 1) > 7 * flows->size;
}

static void add(struct new_flows *flows, struct part *part, uint64_t mark)
{
	uint64_t *slot = slot_of(flows, part, mark);

	if (*slot)
		return;
	if (flows->count == flows->setup.most) {
		flows->counts.is_more = true;
		return;
	}
	if (is_full(flows, part)) {
		if (!grow(flows)) {
			flows->setup.most = flows->count;
			flows->counts.is_more = true;
			return;
		}
		slot = slot_of(flows, part, mark);
	}
	*slot = mark;
	part->count++;
	flows->count++;
	flows->counts.flows[mark & ((1 << CLASS_BITS) - 1)]++;
}

static void take_waiting(struct new_flows *flows, struct part *part)
{
	for (uint32_t i = 0; i < part->waiting; i++)
		add(flows, part, part->coming[i]);
	flows->waiting -= part->waiting;
	part->waiting = 0;
	if (flows->ripe == part)
		flows->ripe = NULL;
}

static void ripen(struct new_flows *flows, struct part *part)
{
	struct part *before = flows->ripe;

	for (uint32_t i = 0; i < part->waiting; i++)
		__builtin_prefetch(table_of(flows, part) + place_of(flows, part->coming[i]));
	flows->ripe = part;
	if (before) {
		take_waiting(flows, before);
		flows->ripe = part;
	}
}

static void take_next(struct new_flows *flows)
{
	const struct coming *next = &flows->coming[flows->taken++ % AHEAD];
	struct part *part = next->part;

	if (part->waiting == WAITING)
		take_waiting(flows, part);
	part->coming[part->waiting++] = next->mark;
	flows->waiting++;
	if (part->waiting == WAITING)
		ripen(flows, part);
}

static void take_all(struct new_flows *flows)
{
	while (flows->taken < flows->came)
		take_next(flows);
	for (uint32_t part = 0; part < PARTS; part++)
		take_waiting(flows, &flows->parts[part]);
}

/* Its turn comes later. */
static void await(struct new_flows *flows, struct part *part, uint64_t mark)
{
	if (flows->came - flows->taken == AHEAD)
		take_next(flows);
	flows->coming[flows->came++ % AHEAD] = (struct coming){mark, part};
	__builtin_prefetch(part, 1);
	__builtin_prefetch(&part->coming[LINE - 1], 1);
}

/* Those that came first are told apart: where there may be too many, none waits. */
static void add_now(struct new_flows *flows, struct part *part, uint64_t mark)
{
	if (flows->waiting || flows->taken < flows->came)
		take_all(flows);
	add(flows, part, mark);
}

/* One of which the flow is known and everything that tells it was captured. */
static void count_flow(struct new_flows *flows, const struct flow *flow, const uint8_t *segment)
{
	uint8_t class = class_of(&flows->setup, flow, segment, &flows->counts.unknown);
	uint64_t key[WIDTH], mark;
	struct part *part;
	uint32_t width;

	if (class == FLOW_NONE)
		return;
	flows->counts.beginning++;
	if (flows->counts.is_more)
		return;
	width = set_key(key, flow, segment);
	mark = key_hash(key, width, flows->setup.seeds[0]) << CLASS_BITS;
	mark = (mark ? mark : 1 << CLASS_BITS) | class;
	part = &flows->parts[key_hash(key, width, flows->setup.seeds[1]) & (PARTS - 1)];
	if (flows->count + flows->waiting + AHEAD < flows->setup.most)
		await(flows, part, mark);
	else
		add_now(flows, part, mark);
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
	enum step step;
	struct end end;
	bool is_cut;

	if (receive(frame.at, frame.seen, frame.length, &p, &end) != GO_ON)
		return;
	step = find_fragment(&p, &fragment);
	if (step == ENDED && fragment.version == 4 && fragment.offset)
		return;
	is_cut = step == ODD;
	if (!is_cut) {
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
	flows->size = FIRST_SIZE;
	flows->most_size = LEAST_MOST; /* and twice as large as a part is likely to need */
	while (2 * setup->most > (uint64_t)PARTS * flows->most_size)
		flows->most_size *= 2;
	/* Of what is not used yet the system gives no memory. */
	flows->parts = mmap(NULL, bytes_of(flows->most_size), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	flows->marks = (uint64_t *)(flows->parts + PARTS);
	if (flows->parts != MAP_FAILED)
		return flows;
	free(flows);
	return NULL;
}

void engine_new_flows_free(struct new_flows *flows)
{
	munmap(flows->parts, bytes_of(flows->most_size));
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
	take_all(flows);
	*counts = flows->counts;
}
