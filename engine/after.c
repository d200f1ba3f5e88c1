// SPDX-License-Identifier: Apache-2.0
/*
 * Policy after conntrack: what the chains of the hooks do to packets that all have one state. Evaluation and names:
 * enforcer/policy/tracked.py.
 */
#include "predict.h"
#include "protocols.h"

/* The decision of a tier or a profile, or its default; PASSED: the next one is asked. */
static enum verdict ask_tier(const struct chain *chain, const struct tier *tier,
			     const struct flow *flow, int32_t *by)
{
	for (uint32_t i = tier->first; i < tier->first + tier->count; i++) {
		const struct entry *entry = &chain->rules.entries[i];
		enum match match = match_entry(&chain->rules, entry, flow);

		if (match == NO)
			continue;
		if (match == SHORT)
			return HOTDROPPED;
		if (match == OPEN)
			return LEFT_OPEN;
		if (entry->action == PASS)
			return PASSED;
		if (entry->action == LOG)
			continue;
		*by = entry->index;
		return entry->action == DENY ? DENIED : ALLOWED;
	}
	*by = tier->by_default;
	return tier->by_default < 0 ? PASSED : DENIED;
}

/* ALLOWED: by an entry; ACCEPTED: at once, and nothing more of the table is evaluated. */
static enum verdict ask(const struct chain *chain, enum asked_state state, const struct flow *flow,
			int32_t *by)
{
	const struct rules *rules = &chain->rules;
	enum verdict found;

	if (state == STATE_KNOWN)
		return ACCEPTED;
	if (state == STATE_INVALID && chain->by_invalid >= 0) {
		*by = chain->by_invalid;
		return DENIED;
	}
	found = accept_failsafes(rules, rules->own, rules->own_count, flow->dport, flow);
	if (found != PASSED)
		return found;
	for (const struct tier *tier = chain->tiers; tier < chain->tiers + chain->tier_count;
	     tier++) {
		found = ask_tier(chain, tier, flow, by);
		if (found != PASSED)
			return found;
	}
	*by = chain->by_end;
	return chain->by_end < 0 ? PASSED : DENIED;
}

/* ENDED if the chain of a hook drops the flow, or if that is open. */
static enum step filter(const struct chain *chain, enum asked_state state, enum stage stage,
			const struct flow *flow, bool *marked, bool *accepted, struct end *end)
{
	int32_t by = NONE;

	if (!chain)
		return GO_ON;
	switch (ask(chain, state, flow, &by)) {
	case DENIED:
		return drop_by(end, stage, by);
	case HOTDROPPED:
		return drop(end, stage, FILTER_SHORT);
	case LEFT_OPEN:
		return leave_open(end, stage, MATCH_CUT);
	case ALLOWED:
		*marked = true;
		return GO_ON;
	case ACCEPTED:
		*accepted = true;
		return GO_ON;
	case PASSED:
		break;
	}
	return GO_ON;
}

/* ICMPv6 that is accepted before normal policy, because conntrack does not track it: MLD, neighbour discovery. */
static bool is_discovery(const struct flow *flow)
{
	return flow->version == 6 && flow->protocol == ICMPV6 &&
	       ((flow->icmp_type >= 130 && flow->icmp_type <= 136) || flow->icmp_type == 143);
}

/* The chain of the interface a flow came in by, then that of the one it leaves by. */
static enum step forward(const struct after *after, enum asked_state state, const struct flow *flow,
			 bool marked, struct end *end)
{
	const struct chain *out = flow->way == INSIDE ? after->forward_inside : after->forward_out;
	bool accepted = false;

	if (!marked && filter(after->forward_in, state, AT_FILTER_FORWARD, flow, &marked, &accepted,
			      end) == ENDED)
		return ENDED;
	return accepted ? GO_ON
			: filter(out, state, AT_FILTER_FORWARD, flow, &marked, &accepted, end);
}

/* RELATED is treated as ESTABLISHED. */
enum step filter_flow(const struct after *after, enum asked_state state, const struct flow *flow,
		      struct end *end)
{
	bool marked = flow->marked, accepted = false;

	if (!marked &&
	    filter(after->pre_dnat, state, AT_MANGLE, flow, &marked, &accepted, end) == ENDED)
		return ENDED;
	if (flow->way == OUT_AGAIN || flow->way == INSIDE)
		return forward(after, state, flow, marked, end);
	if (flow->way != TO_HOST || marked || (state == STATE_UNTRACKED && is_discovery(flow)))
		return GO_ON;
	return filter(after->input, state, AT_FILTER_INPUT, flow, &marked, &accepted, end);
}
