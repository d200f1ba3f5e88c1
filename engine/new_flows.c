// SPDX-License-Identifier: Apache-2.0
#include "new_flows.h"

#include <stdlib.h>

#include "defrag.h"
#include "octets.h"
#include "protocols.h"
#include "transport.h"

enum { FLOW_UNKNOWN = FLOW_NONE - 1 };

struct new_flows {
	struct flow_setup setup;
	unsigned __int128 keys[FLOW_KEYS];
	uint64_t listens[65536 / 64]; /* a bit for each port of TCP */
	struct flow_counts counts;
	struct flow_set set;
};

enum { FIN = 0x01, SYN = 0x02, RST = 0x04, ACK = 0x10, SCTP_INIT = 1 };

static inline bool listens(const struct new_flows *flows, int32_t port)
{
	return flows->listens[port / 64] >> port % 64 & 1;
}

static inline bool is_ours(const struct flow_setup *setup, uint8_t version, bool group,
			   const uint64_t destination[2])
{
	/* A copy, so that the caller may have it in registers. */
	const uint64_t address[2] = {destination[0], destination[1]};

	return group || !setup->forward || nets_contain(&setup->own, version, address);
}

/* A host that knows no such connection answers with a RST, which ends the entry. */
ALWAYS_INLINE uint8_t class_of_tcp(const struct new_flows *flows, uint8_t version, bool group,
				   const uint64_t destination[2], const uint8_t *segment)
{
	const struct flow_setup *setup = &flows->setup;

	switch (segment[13] & (FIN | SYN | RST | ACK)) {
	case SYN:
		if (!is_ours(setup, version, group, destination))
			return FLOW_SYN_SENT;
		return listens(flows, be16(segment + 2)) ? FLOW_SYN_RECV : FLOW_CLOSED_PORT;
	case ACK: /* picked up in the middle */
		if (!setup->tcp_loose)
			return FLOW_NONE;
		return is_ours(setup, version, group, destination) ? FLOW_CLOSED_PORT
								   : FLOW_PICK_UP;
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

static uint8_t class_of(const struct new_flows *flows, const struct flow *flow,
			const uint8_t *segment)
{
	switch (flow->protocol) {
	case TCP:
		return flow->length < 20 ? FLOW_NONE
					 : class_of_tcp(flows, flow->version, flow->group,
							flow->destination, segment);
	case UDP:
	case UDPLITE:
		return FLOW_UDP;
	case GRE:
		return FLOW_GRE;
	case SCTP:
		return flow->length >= 16 && segment[12] == SCTP_INIT ? FLOW_SCTP : FLOW_UNKNOWN;
	case DCCP:
		return FLOW_UNKNOWN;
	case ICMP:
	case ICMPV6:
		return class_of_icmp(flow);
	}
	return flow->protocol < 0 ? FLOW_NONE : FLOW_GENERIC;
}

/* -- what tells flows apart -- */

/*
 * Pair-multiply-shift (Thorup, High Speed Hashing for Integers and Strings) of words of 56 bits: whatever two flows
 * are, 1 of 2^72 choices of the keys gives them the same first 72 bits, so the odds that any two of two million flows have
 * them are less than 1 to 2^30. Who made the packets does not know the keys, which are others each time.
 */
ALWAYS_INLINE unsigned __int128 pair(const unsigned __int128 keys[2], uint64_t one, uint64_t other)
{
	return (keys[0] + one) * (keys[1] + other);
}

/* A bijection of these bits: flows in regular steps are spread over the parts as well. */
ALWAYS_INLINE struct flow_mark mark_of(unsigned __int128 hash, uint8_t class)
{
	uint64_t high = (uint64_t)(hash >> 64), low = (uint64_t)hash;

	high = (high ^ high >> 32) * 0x9e3779b97f4a7c15;
	return (struct flow_mark){
		.mark = high << 12 | low >> 56 << CLASS_BITS | (class + 1u),
		.part = (uint32_t)(high >> 52),
	};
}

/* One end of a flow: an address and a port, or what is in its place. */
struct flow_end {
	unsigned __int128 address;
	uint64_t port;
};

ALWAYS_INLINE struct flow_end end_of(const uint64_t address[2], uint64_t port)
{
	return (struct flow_end){(unsigned __int128)address[0] << 64 | address[1], port};
}

/* In words of 48 bits, the last one of which has the port. */
ALWAYS_INLINE uint64_t word_of(const struct flow_end *end, int number)
{
	static const uint64_t mask = 0xffffffffffff;

	if (number == 2)
		return ((uint64_t)end->address << 16 & mask) | end->port;
	return (uint64_t)(end->address >> (number ? 32 : 80)) & mask;
}

/* Both directions alike: without a branch, as nobody foresees which end is the greater one. */
ALWAYS_INLINE void sort_ends(struct flow_end *one, struct flow_end *other)
{
	bool swaps = (one->address > other->address) |
		     ((one->address == other->address) & (one->port > other->port));
	unsigned __int128 address = (one->address ^ other->address) & -(unsigned __int128)swaps;
	uint64_t port = (one->port ^ other->port) & -(uint64_t)swaps;

	one->address ^= address;
	other->address ^= address;
	one->port ^= port;
	other->port ^= port;
}

ALWAYS_INLINE unsigned __int128 hash4(const unsigned __int128 keys[FLOW_KEYS], uint8_t protocol,
				      struct flow_end one, struct flow_end other, bool sorts)
{
	uint64_t a = word_of(&one, 2), b = word_of(&other, 2), first = sorts && b < a ? b : a;

	return keys[0] + pair(keys + 2, first | (uint64_t)protocol << 48, a ^ b ^ first);
}

ALWAYS_INLINE unsigned __int128 hash6(const unsigned __int128 keys[FLOW_KEYS], uint8_t protocol,
				      struct flow_end one, struct flow_end other, bool sorts)
{
	if (sorts)
		sort_ends(&one, &other);
	return keys[1] +
	       pair(keys + 2, word_of(&one, 2) | (uint64_t)protocol << 48, word_of(&other, 2)) +
	       pair(keys + 4, word_of(&one, 1), word_of(&other, 1)) +
	       pair(keys + 6, word_of(&one, 0), word_of(&other, 0));
}

ALWAYS_INLINE struct flow_mark mark_ends(const struct new_flows *flows, uint8_t version,
					 uint8_t protocol, struct flow_end one,
					 struct flow_end other, bool sorts, uint8_t class)
{
	return mark_of(version == 4 ? hash4(flows->keys, protocol, one, other, sorts)
				    : hash6(flows->keys, protocol, one, other, sorts),
		       class);
}

static struct flow_mark mark_flow(const struct new_flows *flows, const struct flow *flow,
				  const uint8_t *segment, uint8_t class)
{
	bool is_icmp = flow->protocol == ICMP || flow->protocol == ICMPV6;
	uint64_t one_port, other_port;
	struct flow_end one, other;

	if (is_icmp) {
		one_port = be16(segment + 4);
		other_port = (uint16_t)(flow->icmp_type * 256 + flow->icmp_code);
	} else {
		one_port = flow->sport > 0 ? (uint64_t)flow->sport : 0;
		other_port = flow->dport > 0 ? (uint64_t)flow->dport : 0;
	}
	one = end_of(flow->source, one_port);
	other = end_of(flow->destination, other_port);
	return mark_ends(flows, flow->version, (uint8_t)flow->protocol, one, other, !is_icmp,
			 class);
}

/* -- packets -- */

void count_mark(struct new_flows *flows, struct flow_mark mark)
{
	flows->counts.beginning++;
	flow_set_add(&flows->set, mark);
}

void count_marks(struct new_flows *flows, const struct left *left, int64_t count)
{
	enum { AHEAD = 16 };
	struct flow_set *set = &flows->set;

	flows->counts.beginning += count;
	for (int64_t i = 0; i < count && !set->is_more; i++) {
		flow_set_ask(set, left[i + AHEAD < count ? i + AHEAD : i].mark);
		flow_set_add(set, left[i].mark);
	}
}

/* One of which the flow is known and everything that tells it was captured. */
static void count_flow(struct new_flows *flows, const struct flow *flow, const uint8_t *segment)
{
	uint8_t class = class_of(flows, flow, segment);

	if (class == FLOW_UNKNOWN)
		flows->counts.unknown++;
	else if (class != FLOW_NONE)
		count_mark(flows, mark_flow(flows, flow, segment, class));
}

static __attribute__((noinline)) bool
mark_message(const struct new_flows *flows, const struct ordinary *it, struct flow_mark *mark)
{
	const uint8_t *segment = it->ip + it->segment;
	struct flow flow = {
		.version = it->version,
		.protocol = (int16_t)it->protocol,
		.length = (int32_t)(it->total - it->segment),
		.icmp_type = segment[0],
		.icmp_code = segment[1],
	};
	uint8_t class = class_of_icmp(&flow);

	if (class == FLOW_NONE)
		return false;
	addresses_of(it, flow.source, flow.destination);
	*mark = mark_flow(flows, &flow, segment, class);
	return true;
}

ALWAYS_INLINE bool mark_ports(const struct new_flows *flows, const struct ordinary *it,
			      uint8_t version, struct flow_mark *mark)
{
	const struct ordinary same = {.ip = it->ip, .version = version};
	const uint8_t *segment = it->ip + it->segment;
	uint8_t protocol = (uint8_t)it->protocol, class = FLOW_UDP;
	uint64_t source[2], destination[2];
	struct flow_end one, other;

	addresses_of(&same, source, destination);
	if (protocol == TCP)
		class = class_of_tcp(flows, version, it->group, destination, segment);
	if (class == FLOW_NONE)
		return false;
	if (flow_set_is_over(&flows->set)) {
		*mark = (struct flow_mark){0};
		return true;
	}
	one = end_of(source, be16(segment));
	other = end_of(destination, be16(segment + 2));
	*mark = mark_ends(flows, version, protocol, one, other, true, class);
	return true;
}

static __attribute__((noinline)) bool mark_ports6(const struct new_flows *flows,
						  const struct ordinary *it, struct flow_mark *mark)
{
	return mark_ports(flows, it, 6, mark);
}

bool mark_ordinary(const struct new_flows *flows, const struct ordinary *it, struct flow_mark *mark)
{
	if (it->protocol != TCP && it->protocol != UDP)
		return mark_message(flows, it, mark);
	return it->version == 4 ? mark_ports(flows, it, 4, mark) : mark_ports6(flows, it, mark);
}

/* By itself, so that all is in registers. */
__attribute__((noinline)) void mark_tcp4(const struct new_flows *flows, const struct unmarked *list,
					 uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		const struct ordinary it = {.ip = list[i].ip, .segment = 20, .protocol = TCP};
		struct left *left = list[i].left;

		left->marking = mark_ports(flows, &it, 4, &left->mark) ? MARKED : BEGINS_NONE;
	}
}

void count_ordinary(struct new_flows *flows, const struct ordinary *it)
{
	struct flow_mark mark;

	if (mark_ordinary(flows, it, &mark))
		count_mark(flows, mark);
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

void count_packet(struct new_flows *flows, const struct packet *p)
{
	struct flow flow = {0};
	struct bytes segment;

	flow_in_raw(p, true, &flow, &segment);
	if (flow.protocol == CUT ||
	    (segment.seen < segment.length && segment.seen < read_of(flow.protocol)))
		flows->counts.unknown++;
	else if (!flow.later_fragment)
		count_flow(flows, &flow, segment.at);
}

/* What is none of IP begins nothing. */
void count_frame(struct new_flows *flows, struct bytes frame)
{
	struct packet p;
	struct end end;

	if (receive(frame.at, frame.seen, frame.length, &p, &end) == GO_ON)
		count_packet(flows, &p);
}

struct new_flows *engine_new_flows(const struct flow_setup *setup)
{
	struct new_flows *flows = calloc(1, sizeof *flows);

	if (!flows)
		return NULL;
	flows->setup = *setup;
	for (uint32_t i = 0; i < FLOW_KEYS; i++)
		flows->keys[i] =
			(unsigned __int128)setup->keys[2 * i] << 64 | setup->keys[2 * i + 1];
	for (uint32_t i = 0; i < setup->tcp_count; i++)
		flows->listens[setup->tcp_ports[i] / 64] |= 1ull << setup->tcp_ports[i] % 64;
	if (flow_set_init(&flows->set, setup->most))
		return flows;
	free(flows);
	return NULL;
}

void engine_new_flows_free(struct new_flows *flows)
{
	flow_set_free(&flows->set);
	free(flows);
}

uint64_t seed_of_flows(const struct new_flows *flows)
{
	return flows->setup.keys[0];
}

void engine_flow_counts(struct new_flows *flows, struct flow_counts *counts)
{
	flow_set_settle(&flows->set);
	*counts = flows->counts;
	counts->is_more = flows->set.is_more;
	for (int class = 0; class < FLOW_CLASSES; class++)
		counts->flows[class] = flows->set.flows[class + 1];
}
