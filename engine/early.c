// SPDX-License-Identifier: Apache-2.0
/*
 * Which entry drops a packet before the network stack: in an XDP program, or in the chains of netdev ingress, which
 * decide alike by what they know of a packet.
 *
 * An entry may match a packet if nothing known contradicts that; its match is indeterminate if it matches on something
 * unknown. The first entry that may match decides: a Deny that is not indeterminate drops, a Pass that is not skips the
 * rest of its tier, and in every other case the packet passes.
 */
#include "predict.h"

struct unknown {
	bool protocol, ports, icmp_type;
};

static bool has_port_header(int protocol)
{
	return protocol == 6 || protocol == 17 || protocol == 132;
}

static bool is_icmp_of(const struct flow *flow)
{
	return flow->protocol == (flow->version == 4 ? 1 : 58);
}

/* A device does not match on the net of a failsafe. */
static enum verdict pass_failsafes(const struct rules *rules, const struct failsafe *list,
				   uint32_t count, int32_t port, bool by_device,
				   const struct unknown *unknown, const struct flow *flow)
{
	bool passes = false;

	for (const struct failsafe *one = list; one < list + count; one++) {
		bool of_net = one->nets >= 0 && !by_device;

		if (flow->protocol == CUT)
			return LEFT_OPEN;
		if (unknown->protocol && (!of_net || one->version == flow->version))
			passes = true;
		if (flow->protocol != one->protocol)
			continue;
		if (of_net && !nets_contain(&rules->nets[one->nets], flow->version, flow->source))
			continue;
		if (flow->whole_header && port == CUT)
			return LEFT_OPEN;
		if (unknown->ports || (flow->whole_header && port == one->port))
			passes = true;
	}
	return passes ? ACCEPTED : PASSED;
}

/* NO, YES, OPEN, or SHORT: it may match, and that is indeterminate. */
static enum match may_match(const struct rules *rules, const struct entry *entry,
			    const struct unknown *unknown, const struct flow *flow)
{
	bool transport = entry->protocols || entry->ports || entry->types;
	bool may = true, indeterminate = false;

	if (transport && flow->protocol == CUT)
		return OPEN;
	/* raw matches on the protocol before sets, and hotdrops there a packet without a readable protocol. */
	if (transport && unknown->protocol)
		return SHORT;
	if (!protocols_match(rules, entry, flow) || !addresses_match(rules, entry, flow))
		return NO;
	if (entry->ports) {
		if (flow->sport == CUT && ((entry->numbers && flow->whole_header) ||
					   reads_named_ports(rules, entry, flow)))
			return OPEN;
		indeterminate |= unknown->ports;
	}
	if (entry->types) {
		if (flow->icmp_type == CUT)
			return OPEN;
		indeterminate |= unknown->icmp_type;
	}
	for (uint32_t i = entry->first; i < entry->first + entry->count && may; i++) {
		const struct condition *on = &rules->conditions[i];
		int32_t port = on->side == SOURCE ? flow->sport : flow->dport;

		if (on->kind == ON_PORTS && !unknown->ports)
			may = ports_match(rules, on, flow->whole_header ? port : NONE, flow);
		else if (on->kind == ON_ICMP && !unknown->icmp_type)
			may = icmp_matches(on, flow);
	}
	if (!may)
		return NO;
	return indeterminate ? SHORT : YES;
}

int32_t early_drops(const struct rules *rules, uint32_t held, bool by_device,
		    const struct flow *flow)
{
	struct unknown unknown = {
		.protocol = flow->protocol == NONE || (by_device && flow->protocol == 0),
		.ports = has_port_header(flow->protocol) && !flow->whole_header,
		.icmp_type = is_icmp_of(flow) && flow->icmp_type == NONE,
	};
	const struct entry *entry;
	enum verdict safe[2];
	int32_t skipped = -1;

	safe[0] = pass_failsafes(rules, rules->own, rules->own_count, flow->dport, by_device,
				 &unknown, flow);
	safe[1] = pass_failsafes(rules, rules->other, rules->other_count, flow->sport, by_device,
				 &unknown, flow);
	if (safe[0] == LEFT_OPEN || safe[1] == LEFT_OPEN)
		return CUT;
	if (safe[0] == ACCEPTED || safe[1] == ACCEPTED)
		return NONE;
	for (entry = rules->entries; entry < rules->entries + held; entry++) {
		enum match match;

		if (entry->tier == skipped || !(entry->families & family_bit(flow->version)))
			continue;
		match = may_match(rules, entry, &unknown, flow);
		if (match == NO)
			continue;
		if (match == OPEN)
			return CUT;
		if (match == SHORT)
			return NONE;
		if (entry->action == PASS)
			skipped = entry->tier;
		else
			return entry->action == DENY ? entry->index : NONE;
	}
	return NONE;
}
