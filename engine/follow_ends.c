// SPDX-License-Identifier: Apache-2.0
/* A packet at conntrack: the end for each state that it may have, and what it leaves in the table. */
#include "follow_ends.h"

#include <stdlib.h>
#include <string.h>

#include "protocols.h"

enum {
	REASON_COUNT = BECAUSE_REPLY_SEEN + 1,
	REMARK_COUNT = REMARK_DELETED + 1,
	SINGLES = SEEN_STATES * REASON_COUNT * REMARK_COUNT,
	FIRST_CAPACITY = 16,
};

void *append(void *array, size_t *count, size_t *capacity, size_t size)
{
	uint8_t *rows;

	memcpy(&rows, array, sizeof rows);
	if (*count == *capacity) {
		size_t more = *capacity ? 2 * *capacity : FIRST_CAPACITY;

		rows = realloc(rows, more * size);
		if (!rows)
			return NULL;
		memcpy(array, &rows, sizeof rows);
		*capacity = more;
	}
	return rows + (*count)++ * size;
}

bool ends_init(struct ends *ends, const struct world *world, const struct way_setup *setup,
	       uint64_t seed, uint64_t most_flow_bytes)
{
	*ends = (struct ends){
		.world = world,
		.after = setup->after,
		.tracks = setup->tracks,
		.conntrack =
			{
				.world = world,
				.sends_outside = setup->sends_outside,
				.sends_inside = setup->sends_inside,
				.tcp_ports = setup->tcp_ports,
				.tcp_count = setup->tcp_count,
			},
		.single = calloc(SINGLES, sizeof *ends->single),
	};
	return conntrack_init(&ends->conntrack, seed, most_flow_bytes) && ends->single;
}

void ends_free(struct ends *ends)
{
	conntrack_free(&ends->conntrack);
	free(ends->several);
	free(ends->sayings);
	free(ends->single);
}

bool keep_several(struct ends *ends, int64_t number, const struct several *several)
{
	struct several *kept =
		append(&ends->several, &ends->several_count, &ends->several_capacity, sizeof *kept);

	if (!kept)
		return false;
	*kept = *several;
	kept->number = number;
	return true;
}

/* -- what is said of a packet -- */

static uint16_t new_saying(struct ends *ends, const struct conn_verdict *verdict)
{
	struct saying *saying;

	if (ends->saying_count >= UINT16_MAX - FIRST_SAYING)
		return SAYS_NOTHING;
	saying =
		append(&ends->sayings, &ends->saying_count, &ends->saying_capacity, sizeof *saying);
	if (!saying)
		return SAYS_NOTHING;
	memset(saying, 0, sizeof *saying);
	memcpy(saying->outcomes, verdict->outcomes,
	       verdict->outcome_count * sizeof *verdict->outcomes);
	saying->count = (uint8_t)verdict->outcome_count;
	saying->coin = verdict->coin;
	return (uint16_t)(FIRST_SAYING + ends->saying_count - 1);
}

uint16_t say(struct ends *ends, const struct conn_verdict *verdict)
{
	const struct conn_outcome *one = &verdict->outcomes[0];

	if (verdict->outcome_count == 1) {
		uint16_t *known =
			&ends->single[(one->state * REASON_COUNT + one->because) * REMARK_COUNT +
				      one->remark];

		if (!*known)
			*known = new_saying(ends, verdict);
		return *known;
	}
	for (size_t i = 0; i < ends->saying_count; i++) {
		const struct saying *saying = &ends->sayings[i];

		if (saying->count == verdict->outcome_count && saying->coin == verdict->coin &&
		    !memcmp(saying->outcomes, verdict->outcomes, saying->count * sizeof *one))
			return (uint16_t)(FIRST_SAYING + i);
	}
	return new_saying(ends, verdict);
}

/* -- ends -- */

/* As after.c names states. RELATED is treated as ESTABLISHED. */
static const uint8_t asked[SEEN_STATES] = {
	[SEEN_NEW] = 0,	    [SEEN_ESTABLISHED] = 1, [SEEN_RELATED] = 1,
	[SEEN_INVALID] = 2, [SEEN_UNTRACKED] = 3,
};

static uint8_t bit(unsigned int state)
{
	return (uint8_t)(1u << state);
}

/* The end for each of the states; where they differ by more than the entry, several is set. */
static void set_ends(const struct ends *ends, const struct flow *flow, const struct end *before,
		     uint8_t states, struct end found[SEEN_STATES])
{
	for (uint32_t state = 0; state < SEEN_STATES; state++) {
		if (!(states & bit(state)))
			continue;
		found[state] = *before;
		if (ends->after)
			filter_flow(ends->after, asked[state], flow, &found[state]);
	}
}

static void note_several(const struct end found[SEEN_STATES], uint8_t states,
			 struct several *several)
{
	*several = (struct several){.states = states};
	for (uint32_t state = 0; state < SEEN_STATES; state++) {
		if (!(states & bit(state)))
			continue;
		several->entry[state] = found[state].entry;
		several->reason[state] = found[state].reason;
		several->fate[state] = found[state].fate;
		several->stage[state] = found[state].stage;
	}
}

/*
 * The end that all states have; if they end differently, all ends where they are all that is possible, else none is
 * known from the earliest stage on.
 */
static void join_ends(const struct end found[SEEN_STATES], uint8_t states, bool may_be_set,
		      enum reason why, struct result *result, struct several *several)
{
	uint32_t first = 0;
	bool differ = false, entries_differ = false;
	uint8_t earliest = NO_STAGE;

	while (!(states & bit(first)))
		first++;
	for (uint32_t state = first; state < SEEN_STATES; state++) {
		if (!(states & bit(state)))
			continue;
		differ |= found[state].fate != found[first].fate ||
			  found[state].stage != found[first].stage;
		entries_differ |= found[state].entry != found[first].entry;
		may_be_set &= found[state].fate != UNDETERMINED;
		if (found[state].stage < earliest)
			earliest = found[state].stage;
	}
	result->end = found[first];
	if (!differ && !entries_differ)
		return;
	note_several(found, states, several);
	result->several = several;
	if (differ && may_be_set)
		several->is_set = true;
	else if (differ)
		result->end = (struct end){UNDETERMINED, earliest, (uint16_t)why, NONE};
}

/* -- what the packet leaves -- */

/* The host's answer to a packet, as its rules see it. */
static struct flow answer_to(const struct flow *flow)
{
	struct flow found = *flow;

	memcpy(found.source, flow->destination, sizeof found.source);
	memcpy(found.destination, flow->source, sizeof found.destination);
	if (flow->protocol == TCP) {
		found.sport = flow->dport;
		found.dport = flow->sport;
	} else if (flow->protocol == ICMP) {
		found.icmp_type = flow->icmp_type == 8	  ? 0
				  : flow->icmp_type == 13 ? 14
							  : flow->icmp_type;
	} else if (flow->protocol == ICMPV6 && flow->icmp_type == 128) {
		found.icmp_type = 129;
	}
	return found;
}

/*
 * What the host answers is of the packet's flow, and gets to conntrack: raw is before it. A group is not answered from
 * its own address (tcp_v4_send_reset, icmpv6_echo_reply), an anycast address only by TCP.
 */
static bool is_answered(const struct conntrack *conntrack, const struct flow *flow)
{
	const struct world *world = conntrack->world;
	uint8_t version = flow->version;
	const struct rules *rules;
	struct flow answer;
	int32_t by;

	if (version == 4 && nets_contain(&world->broadcasts, 4, flow->destination))
		return false;
	if (!nets_contain(&world->own, version, flow->destination) &&
	    !(flow->protocol == TCP && version == 6 &&
	      nets_contain(&world->anycasts, 6, flow->destination)))
		return false;
	rules = leads_inside(world, version, flow->source) ? conntrack->sends_inside
							   : conntrack->sends_outside;
	if (!rules->entry_count)
		return true;
	answer = answer_to(flow);
	switch (decide(rules, &answer, &by)) {
	case DENIED:
	case ALLOWED:
	case HOTDROPPED:
		return false;
	case PASSED:
	case LEFT_OPEN:
	case ACCEPTED:
		break;
	}
	return true;
}

static bool is_past_input(const struct end *end)
{
	return end->fate != FORWARDED && (end->stage == NO_STAGE || end->stage == AT_SOCKET);
}

static void leave_behind(struct ends *ends, struct conn_packet *packet, const struct flow *flow,
			 const struct end found[SEEN_STATES], uint8_t states,
			 struct conn_verdict *verdict, struct result *result)
{
	uint8_t passed = 0, delivered = 0;

	result->is_usual = verdict->coin == NO_COIN && !verdict->conn;
	for (uint32_t state = 0; state < SEEN_STATES; state++) {
		const struct end *end = &found[state];

		if (!(states & bit(state)))
			continue;
		if (end->fate == UNDETERMINED) {
			may_have_passed(&ends->conntrack, packet);
			result->is_usual = false;
		} else if (end->fate == DELIVERED && is_answered(&ends->conntrack, flow)) {
			delivered |= bit(state);
		} else if (is_past_input(end) || end->fate == FORWARDED) {
			passed |= bit(state);
		}
	}
	result->passed = passed;
	result->delivered = delivered;
	conclude(&ends->conntrack, packet, verdict, passed, delivered);
}

/* -- packets of which the capture cut what decides -- */

/* RELATED ends as ESTABLISHED does. Of a fresh flow a packet is NEW or INVALID, but for ICMP. */
static uint8_t states_of_cut(const struct conn_packet *packet, uint8_t first_header, bool fresh)
{
	uint8_t states = bit(SEEN_NEW) | bit(SEEN_INVALID);

	if (fresh && (first_header == TCP || first_header == UDP || first_header == UDPLITE ||
		      first_header == SCTP))
		return states;
	states |= bit(SEEN_ESTABLISHED);
	return packet->version == 4 ? states : states | bit(SEEN_UNTRACKED);
}

static void track_cut(struct ends *ends, const struct conn_packet *packet, const struct flow *flow,
		      bool fresh, struct result *result)
{
	uint8_t first_header =
		packet->p && packet->version == 6 ? packet->p->protocol : packet->protocol;
	uint8_t states = states_of_cut(packet, first_header, fresh);
	struct end found[SEEN_STATES];
	bool may_leave = false;

	set_ends(ends, flow, &result->end, states, found);
	join_ends(found, states, false, STATE_CUT, result, &ends->one);
	result->states = states;
	if (states & bit(SEEN_ESTABLISHED))
		result->states |= bit(SEEN_RELATED);
	result->said = SAYS_CUT;
	for (uint32_t state = 0; state < SEEN_STATES; state++)
		if (states & bit(state))
			may_leave |= found[state].fate == UNDETERMINED ||
				     found[state].fate == FORWARDED || is_past_input(&found[state]);
	if (fresh && !may_leave)
		forget(&ends->conntrack, packet);
}

static const uint16_t why[] = {
	[NO_COIN] = NO_REASON,
	[COIN_ISN] = FLOW_ISN,
	[COIN_CUT] = FLOW_CUT,
	[COIN_FORGOTTEN] = FLOW_FORGOTTEN,
};

void end_flow(struct ends *ends, struct conn_packet *packet, const struct flow *flow,
	      struct conn_verdict *verdict, struct result *result)
{
	struct end found[SEEN_STATES];
	uint8_t states = 0;

	for (uint32_t i = 0; i < verdict->outcome_count; i++)
		states |= bit(verdict->outcomes[i].state);
	set_ends(ends, flow, &result->end, states, found);
	leave_behind(ends, packet, flow, found, states, verdict, result);
	join_ends(found, states, verdict->coin == COIN_ISN, why[verdict->coin], result, &ends->one);
	result->states = states;
	result->said = say(ends, verdict);
}

void track(struct ends *ends, struct conn_packet *packet, const struct flow *flow,
	   struct result *result)
{
	bool fresh = packet->is_cut && is_fresh(&ends->conntrack, packet);
	struct conn_verdict verdict;

	observe(&ends->conntrack, packet, &verdict);
	if (verdict.unreadable && packet->untracked) {
		verdict.outcomes[0] =
			(struct conn_outcome){SEEN_UNTRACKED, BECAUSE_NOTRACK, NO_REMARK};
		verdict.outcome_count = 1;
	} else if (verdict.unreadable) {
		track_cut(ends, packet, flow, fresh, result);
		return;
	}
	end_flow(ends, packet, flow, &verdict, result);
}
