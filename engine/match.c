// SPDX-License-Identifier: Apache-2.0
/*
 * Which entry decides a packet in raw. Conditions are tested in netfilter's order, because a packet too short for one
 * is dropped at once (hotdrop: xt_multiport.c, xt_icmp): literal nets and protocol, then sets, then ports, then ICMP.
 */
#include "predict.h"

static const uint64_t *address_of(uint8_t side, const struct flow *flow)
{
	return side == SOURCE ? flow->source : flow->destination;
}

static int32_t port_of(uint8_t side, const struct flow *flow)
{
	return side == SOURCE ? flow->sport : flow->dport;
}

static bool holds_nets(const struct rules *rules, const struct condition *on,
		       const struct flow *flow)
{
	return nets_contain(&rules->nets[on->a], flow->version, address_of(on->side, flow)) !=
	       on->negated;
}

#define EACH(on, rules, entry)                                             \
	const struct condition *on = (rules)->conditions + (entry)->first; \
	on < (rules)->conditions + (entry)->first + (entry)->count;        \
	on++

bool protocols_match(const struct rules *rules, const struct entry *entry, const struct flow *flow)
{
	for (EACH(on, rules, entry))
		if (on->kind == ON_PROTOCOL &&
		    (flow->protocol < 0 || (flow->protocol == on->a) == on->negated))
			return false;
	return true;
}

bool addresses_match(const struct rules *rules, const struct entry *entry, const struct flow *flow)
{
	for (EACH(on, rules, entry))
		if (on->kind == ON_NETS && !holds_nets(rules, on, flow))
			return false;
	return true;
}

/* Whether the nets hold that are evaluated before the protocol. */
static bool reaches_protocol(const struct rules *rules, const struct entry *entry,
			     const struct flow *flow)
{
	for (EACH(on, rules, entry))
		if (on->kind == ON_NETS && (on->single & family_bit(flow->version)) &&
		    !holds_nets(rules, on, flow))
			return false;
	return true;
}

static bool is_member(const struct port_member *member, const uint64_t address[2], uint8_t version)
{
	return member->version == version && member->address[0] == address[0] &&
	       member->address[1] == address[1];
}

/* The address and the port are in a named port's set; ipset requires the complete transport header. */
static bool is_named(const struct rules *rules, const struct condition *on, int32_t port,
		     const struct flow *flow, bool any_port)
{
	const uint64_t *address = address_of(on->side, flow);

	if (!flow->whole_header)
		return false;
	for (int32_t name = on->c; name < on->c + on->d; name++) {
		const struct port_set *set = &rules->port_sets[rules->names[name]];

		if (set->protocol != flow->protocol)
			continue;
		for (uint32_t i = set->first; i < set->first + set->count; i++) {
			const struct port_member *member = &rules->port_members[i];

			if (is_member(member, address, flow->version) &&
			    (any_port || member->port == port))
				return true;
		}
	}
	return false;
}

bool ports_match(const struct rules *rules, const struct condition *on, int32_t port,
		 const struct flow *flow)
{
	bool held = false;

	for (int32_t i = on->a; i < on->a + on->b && !held; i++)
		held = port >= rules->ranges[i].first && port <= rules->ranges[i].last;
	return (held || is_named(rules, on, port, flow, false)) != on->negated;
}

/* The address has a port of one of the names, so that the port's number decides. */
bool reads_named_ports(const struct rules *rules, const struct entry *entry,
		       const struct flow *flow)
{
	for (EACH(on, rules, entry))
		if (on->kind == ON_PORTS && is_named(rules, on, NONE, flow, true))
			return true;
	return false;
}

bool icmp_matches(const struct condition *on, const struct flow *flow)
{
	bool held = flow->icmp_type == on->a && (on->b < 0 || flow->icmp_code == on->b);

	return held != on->negated;
}

static bool too_short(const struct flow *flow, int32_t field)
{
	return field == NONE && !flow->later_fragment;
}

static enum match match_ports(const struct rules *rules, const struct entry *entry,
			      const struct flow *flow)
{
	if (entry->numbers) {
		if (too_short(flow, flow->sport))
			return SHORT;
		if (flow->sport < 0)
			return flow->sport == CUT ? OPEN : NO;
	}
	if (flow->sport == CUT && reads_named_ports(rules, entry, flow))
		return OPEN;
	for (EACH(on, rules, entry))
		if (on->kind == ON_PORTS && !ports_match(rules, on, port_of(on->side, flow), flow))
			return NO;
	return YES;
}

static enum match match_types(const struct rules *rules, const struct entry *entry,
			      const struct flow *flow)
{
	for (EACH(on, rules, entry)) {
		if (on->kind != ON_ICMP)
			continue;
		if (too_short(flow, flow->icmp_type))
			return SHORT;
		if (flow->icmp_type < 0)
			return flow->icmp_type == CUT ? OPEN : NO;
		if (!icmp_matches(on, flow))
			return NO;
	}
	return YES;
}

enum match match_entry(const struct rules *rules, const struct entry *entry,
		       const struct flow *flow)
{
	enum match found;

	if (!(entry->families & family_bit(flow->version)))
		return NO;
	if (entry->protocols) {
		if (flow->protocol < 0) {
			if (!reaches_protocol(rules, entry, flow))
				return NO;
			return flow->protocol == CUT ? OPEN : SHORT;
		}
		if (!protocols_match(rules, entry, flow))
			return NO;
	}
	if (!addresses_match(rules, entry, flow))
		return NO;
	if ((entry->ports || entry->types) && flow->protocol == CUT)
		return OPEN;
	if (entry->ports && (found = match_ports(rules, entry, flow)) != YES)
		return found;
	return entry->types ? match_types(rules, entry, flow) : YES;
}

/* ACCEPTED if a failsafe of the list matches the remote address and the port. */
enum verdict accept_failsafes(const struct rules *rules, const struct failsafe *list,
			      uint32_t count, int32_t port, const struct flow *flow)
{
	const uint64_t *remote = rules->egress ? flow->destination : flow->source;

	for (const struct failsafe *one = list; one < list + count; one++) {
		if (one->protocol != flow->protocol && flow->protocol >= 0)
			continue;
		if (one->nets >= 0 && !nets_contain(&rules->nets[one->nets], flow->version, remote))
			continue;
		if (flow->protocol == NONE || (flow->protocol >= 0 && too_short(flow, port)))
			return HOTDROPPED;
		if (flow->protocol == CUT || port == CUT)
			return LEFT_OPEN;
		if (port == one->port)
			return ACCEPTED;
	}
	return PASSED;
}

/* by: the entry of ALLOWED and DENIED. */
enum verdict decide(const struct rules *rules, const struct flow *flow, int32_t *by)
{
	enum verdict found;
	int32_t skipped = -1; /* the tier that a Pass ended; tiers are one behind the other */

	*by = NONE;
	if (!rules->entry_count)
		return PASSED;
	found = accept_failsafes(rules, rules->own, rules->own_count, flow->dport, flow);
	if (found == PASSED)
		found = accept_failsafes(rules, rules->other, rules->other_count, flow->sport,
					 flow);
	if (found != PASSED)
		return found;
	for (const struct entry *entry = rules->entries;
	     entry < rules->entries + rules->entry_count; entry++) {
		enum match match;

		if (entry->tier == skipped)
			continue;
		match = match_entry(rules, entry, flow);
		if (match == NO)
			continue;
		if (match == SHORT)
			return HOTDROPPED;
		if (match == OPEN)
			return LEFT_OPEN;
		if (entry->action == PASS) {
			skipped = entry->tier;
		} else if (entry->action != LOG) {
			*by = entry->index;
			return entry->action == DENY ? DENIED : ALLOWED;
		}
	}
	return PASSED;
}
