// SPDX-License-Identifier: Apache-2.0
#include "follow_usual.h"

#include "follow_settle.h"
#include "transport.h"

enum { ECHO_REPLY = 0, ECHO = 8 };

static bool is_sum_sound(const struct ordinary *it, uint32_t length)
{
	struct packet p; /* of which no more is read */

	p.version = it->version;
	p.ip.at = it->ip;
	return is_sum_good(&p, it->ip + it->segment, length, length, it->protocol);
}

/* What conntrack finds in errors of ICMP depends on what they quote. */
bool is_sound(const struct ordinary *it, const struct known *known, uint32_t code)
{
	const uint8_t *segment = it->ip + it->segment;
	uint32_t length = it->total - it->segment, data_offset;
	bool is_delivered = code == known->delivered;

	switch (it->protocol) {
	case TCP:
		data_offset = (segment[12] >> 4) * 4;
		return is_delivered ||
		       (data_offset >= 20 && data_offset <= length && is_sum_sound(it, length));
	case UDP:
		return be16(segment + 4) == length &&
		       (is_delivered || !be16(segment + 6) || is_sum_sound(it, length));
	case ICMP:
		return (segment[0] == ECHO || segment[0] == ECHO_REPLY) &&
		       (is_delivered || all_ones(0xffff + sum_words(segment, length)));
	}
	return false;
}

void set_usual(struct looked *it)
{
	const struct ordinary *of = it->ordinary;
	uint32_t length = of->total - of->segment;

	/* One by one: the rest is only read of packets of which it is set. */
	it->packet.p = NULL;
	it->packet.version = of->version;
	it->packet.protocol = of->protocol;
	addresses_of(of, it->packet.source, it->packet.destination);
	it->packet.is_cut = false;
	it->packet.sum_known = it->packet.sum_good = true;
	set_payload(&it->packet, (struct bytes){of->ip + of->segment, length, length});
	it->is_packet = true;
}

static struct usual *usual_of(struct follower *follower, uint64_t key, uint32_t code, uint8_t flags)
{
	uint64_t mixed = (key ^ (uint64_t)code << 8 ^ flags) * 0x9e3779b97f4a7c15;

	return &follower->usual[mixed >> (64 - USUAL_BITS)];
}

const struct usual *find_usual(struct follower *follower, uint64_t key, uint32_t code,
			       uint8_t flags)
{
	const struct usual *found = usual_of(follower, key, code, flags);

	return found->key == key && found->code == code && found->flags == flags ? found : NULL;
}

bool knows_nothing(const struct follower *follower)
{
	for (uint32_t i = 0; i < follower->way_count; i++) {
		const struct ends *ends = &follower->ways[i].ends;

		if (ends->tracks && !is_blank(&ends->conntrack))
			return false;
	}
	return true;
}

void count_usual(struct follower *follower, const struct usual *usual, int64_t packets)
{
	for (uint32_t i = 0; i < follower->way_count; i++)
		follower->no_memory |= !count_ends(&follower->ways[i].counts, usual->ends[i],
						   follower->run->outcomes.count, packets);
}

/* Connection tracking knows nothing of its flow, in any of the ways. */
static bool is_new(const struct follower *follower, struct looked *it)
{
	for (uint32_t i = 0; i < follower->way_count; i++) {
		const struct ends *ends = &follower->ways[i].ends;

		if (!ends->tracks || is_blank(&ends->conntrack))
			continue;
		if (!it->is_packet)
			set_usual(it);
		if (!is_unknown(&ends->conntrack, &it->packet))
			return false;
	}
	return true;
}

/* What it leaves at conntrack. */
static void leave_usual(struct follower *follower, struct looked *it, const struct usual *found)
{
	for (uint32_t i = 0; i < follower->way_count; i++) {
		struct conntrack *conntrack = &follower->ways[i].ends.conntrack;
		struct conn_verdict verdict;

		if (!(found->passed[i] | found->delivered[i]))
			continue;
		if (!it->is_packet)
			set_usual(it);
		it->packet.untracked = it->untracked;
		it->packet.at_ns = now_ns(follower);
		observe(conntrack, &it->packet, &verdict);
		conclude(conntrack, &it->packet, &verdict, found->passed[i], found->delivered[i]);
	}
}

static void show_usual(struct follower *follower, const struct usual *found)
{
	struct result results[MOST_WAYS];

	for (uint32_t i = 0; i < follower->way_count; i++) {
		const struct outcome *outcome = &follower->run->outcomes.list[found->ends[i]];

		results[i] = (struct result){.end = outcome->end,
					     .untracked = outcome->untracked,
					     .states = found->states[i],
					     .said = found->said[i]};
	}
	set_mine(follower);
	settle_mine(follower, results, found->ends);
}

bool take_usual(struct follower *follower, struct looked *it)
{
	const struct usual *found = find_usual(follower, it->key, it->code, it->flags);

	if (!found || !is_new(follower, it))
		return false;
	if (found->leaves)
		leave_usual(follower, it, found);
	if (follower->batch->columns) {
		show_usual(follower, found);
		return true;
	}
	count_usual(follower, found, 1);
	if (found->begins)
		count_ordinary(follower->new_flows, it->ordinary);
	return true;
}

static struct decided *decided_of(struct one_way *way, const struct looked *it, uint8_t state)
{
	uint64_t mixed = (it->key ^ (uint64_t)it->code << 8 ^ state) * 0x9e3779b97f4a7c15;

	return &way->decided[mixed >> (64 - DECIDED_BITS)];
}

uint32_t follow_sound(struct follower *follower, struct one_way *way, struct looked *it,
		      struct result *result)
{
	struct ends *ends = &way->ends;
	struct conn_verdict verdict;
	struct decided *found;
	uint8_t state;

	if (!it->is_packet)
		set_usual(it);
	it->packet.untracked = it->untracked;
	it->packet.at_ns = now_ns(follower);
	observe(&ends->conntrack, &it->packet, &verdict);
	state = verdict.outcomes[0].state;
	found = decided_of(way, it, state);
	if (verdict.outcome_count == 1 && found->key == it->key && found->code == it->code &&
	    found->state == state) {
		conclude(&ends->conntrack, &it->packet, &verdict, found->passed, found->delivered);
		result->end = follower->run->outcomes.list[found->end].end;
		result->states = (uint8_t)(1u << state);
		result->said = say(ends, &verdict);
		result->is_usual = !verdict.conn;
		result->passed = found->passed;
		result->delivered = found->delivered;
		return found->end;
	}
	if (!it->flow.version)
		flow_of(follower->run, it->ordinary, &it->flow);
	end_flow(ends, &it->packet, &it->flow, &verdict, result);
	if (verdict.outcome_count == 1 && result->end.fate != UNDETERMINED)
		*found = (struct decided){
			.key = it->key,
			.code = it->code,
			.end = code_of(follower->run, &result->end, result->untracked),
			.state = state,
			.passed = result->passed,
			.delivered = result->delivered,
		};
	return NO_CODE;
}

void note_usual(struct follower *follower, const struct looked *it,
		const struct result results[MOST_WAYS])
{
	struct usual found = {.key = it->key, .code = it->code, .flags = it->flags};

	for (uint32_t i = 0; i < follower->way_count; i++) {
		found.ends[i] = it->code;
		if (!follower->ways[i].ends.tracks)
			continue;
		if (!results[i].is_usual)
			return;
		found.ends[i] = code_of(follower->run, &results[i].end, results[i].untracked);
		found.states[i] = results[i].states;
		found.passed[i] = results[i].passed;
		found.delivered[i] = results[i].delivered;
		found.said[i] = results[i].said;
		found.leaves |= results[i].passed | results[i].delivered;
	}
	found.begins = begins(follower, &results[0].end, results[0].untracked);
	*usual_of(follower, it->key, it->code, it->flags) = found;
}

bool are_told_apart(const struct classes *classes, const struct way_setup *way)
{
	const struct after none = {0}, *after = way->after ? way->after : &none;
	const struct chain *chains[] = {after->pre_dnat, after->input, after->forward_in,
					after->forward_out, after->forward_inside};

	if (!way->tracks)
		return true;
	if (!classes || !tells_apart(classes, way->sends_outside) ||
	    !tells_apart(classes, way->sends_inside))
		return false;
	for (size_t i = 0; i < sizeof chains / sizeof *chains; i++)
		if (chains[i] && !tells_apart(classes, &chains[i]->rules))
			return false;
	return true;
}
