// SPDX-License-Identifier: Apache-2.0
/*
 * Routing: to this host, to another, or a drop. net/ipv4/route.c (ip_route_input_rcu, ip_route_input_slow),
 * net/ipv4/fib_frontend.c (fib_validate_source), net/ipv4/ip_forward.c, net/ipv6/ip6_input.c (ip6_mc_input) and
 * ip6_output.c (ip6_forward).
 */
#include "octets.h"
#include "predict.h"
#include "protocols.h"

enum {
	BROADCAST = 0xffffffff,
	ALL_HOSTS = 0xe0000001,
	LOOPBACK = 0x7f000001,
	STRICT = 1,
	LEAST_MTU6 = 1280
};

static bool is_group4(uint32_t address)
{
	return address >> 28 == 14;
}

static bool is_loopback4(uint32_t address)
{
	return address >> 24 == 127;
}

static int longest(const struct route *routes, uint32_t count, uint8_t version,
		   const uint64_t address[2])
{
	int found = -1;

	for (const struct route *one = routes; one < routes + count; one++)
		if (one->version == version && (address[0] & one->mask[0]) == one->net[0] &&
		    (address[1] & one->mask[1]) == one->net[1] && one->length > found)
			found = one->length;
	return found;
}

/* The longest prefix wins; the host's own subnets are outside. */
bool leads_inside(const struct world *world, uint8_t version, const uint64_t address[2])
{
	return nets_contain(&world->routed, version, address) &&
	       longest(world->inside, world->inside_count, version, address) >
		       longest(world->outside, world->outside_count, version, address);
}

/*
 * fib_validate_source(): the default route leaves by the receiving interface, so only networks behind the inside one
 * can fail the strict reverse path filter, and they pass the loose one.
 */
static enum reason bad_source4(const struct world *world, const uint64_t source[2])
{
	if (nets_contain(&world->own, 4, source) || source[1] == LOOPBACK)
		return MARTIAN_OWN;
	if (!world->rp_filter)
		return NO_REASON;
	if (nets_contain(&world->broadcasts, 4, source) || is_loopback4((uint32_t)source[1]))
		return MARTIAN_BROADCAST;
	if (leads_inside(world, 4, source) && (world->rp_filter == STRICT || !world->has4))
		return MARTIAN_WAY;
	return NO_REASON;
}

static enum step to_host(struct packet *p, bool for_group, bool multicast, enum way *way)
{
	p->for_group = for_group;
	p->multicast = multicast;
	*way = TO_HOST;
	return GO_ON;
}

static enum step to_another(const struct world *world, const struct packet *p, enum way *way)
{
	*way = leads_inside(world, p->version, p->destination) ? INSIDE : OUT_AGAIN;
	return GO_ON;
}

/* A host is a member of 224.0.0.1 only (ip_mc_validate_source). */
static enum step multicast4(const struct world *world, struct packet *p, struct end *end,
			    enum way *way)
{
	uint32_t source = (uint32_t)p->source[1];
	enum reason why;

	if (p->destination[1] != ALL_HOSTS)
		return drop(end, AT_ROUTE, NOT_JOINED);
	if (is_group4(source) || source == BROADCAST || is_loopback4(source))
		return drop(end, AT_ROUTE, MARTIAN_GROUP);
	why = source ? bad_source4(world, p->source) : NO_REASON;
	return why ? drop(end, AT_ROUTE, why) : to_host(p, true, true, way);
}

static enum step broadcast4(const struct world *world, struct packet *p, struct end *end,
			    enum way *way)
{
	enum reason why = p->source[1] ? bad_source4(world, p->source) : NO_REASON;

	return why ? drop(end, AT_ROUTE, why) : to_host(p, true, false, way);
}

static enum step route4(const struct world *world, struct packet *p, struct end *end, enum way *way)
{
	uint32_t source = (uint32_t)p->source[1], destination = (uint32_t)p->destination[1];
	bool is_own;
	enum reason why;

	if (is_group4(destination))
		return multicast4(world, p, end, way);
	if (is_group4(source) || source == BROADCAST)
		return drop(end, AT_ROUTE, MARTIAN_SOURCE);
	if (destination == BROADCAST || (!source && !destination))
		return broadcast4(world, p, end, way);
	if (!source)
		return drop(end, AT_ROUTE, MARTIAN_NONE);
	if (!destination || is_loopback4(destination))
		return drop(end, AT_ROUTE, MARTIAN_DESTINATION);
	if (is_loopback4(source))
		return drop(end, AT_ROUTE, MARTIAN_LOOPBACK);
	if (nets_contain(&world->broadcasts, 4, p->destination))
		return broadcast4(world, p, end, way);
	is_own = nets_contain(&world->own, 4, p->destination);
	if (!is_own && !world->forward)
		return drop(end, AT_ROUTE, NOT_OWN);
	why = bad_source4(world, p->source);
	if (why)
		return drop(end, AT_ROUTE, why);
	return is_own ? to_host(p, false, false, way) : to_another(world, p, way);
}

static enum step route6(const struct world *world, struct packet *p, struct end *end, enum way *way)
{
	if (p->destination[0] >> 56 == 0xff) {
		if (!nets_contain(&world->joined, 6, p->destination))
			return drop(end, AT_ROUTE, NOT_JOINED);
		return to_host(p, true, true, way);
	}
	if (nets_contain(&world->own, 6, p->destination) ||
	    nets_contain(&world->anycasts, 6, p->destination))
		return to_host(p, false, false, way);
	if (!world->forward)
		return drop(end, AT_ROUTE, NOT_OWN);
	return to_another(world, p, way);
}

/* The way of a packet by its addresses alone; GO_ON if it has one. */
enum step find_way(const struct world *world, struct packet *p, struct end *end, enum way *way)
{
	return p->version == 4 ? route4(world, p, end, way) : route6(world, p, end, way);
}

/* ip_forward() up to its hook. */
static enum step forward4(const struct world *world, const struct packet *p, struct end *end)
{
	if (p->group)
		return drop(end, AT_ROUTE, GROUP_FRAME);
	if (p->ip.at[8] <= 1)
		return drop(end, AT_ROUTE, TTL);
	/* Its fragments must fit the MTU, not the reassembled datagram (ip_exceeds_mtu: frag_max_size, ignore_df). */
	if ((p->ip.at[6] & 0x40) && (p->largest ? p->largest : p->ip.length) > world->mtu)
		return drop(end, AT_ROUTE, OVER_MTU4);
	return GO_ON;
}

/* ip6_forward() up to its hook. The source is checked only on the way to another interface. */
static enum step forward6(const struct world *world, const struct packet *p, bool inside,
			  struct end *end)
{
	uint32_t length = p->largest && p->largest < p->ip.length ? p->largest : p->ip.length;
	bool is_bound = (!p->source[0] && !p->source[1]) || p->source[0] >> 54 == 0xfe80 >> 6;

	if (p->group)
		return drop(end, AT_ROUTE, GROUP_FRAME);
	if (p->ip.at[7] <= 1)
		return drop(end, AT_ROUTE, HOP_LIMIT);
	if (is_bound && inside)
		return drop(end, AT_ROUTE, LEAVES_LINK);
	if (length > (world->mtu > LEAST_MTU6 ? world->mtu : LEAST_MTU6))
		return drop(end, AT_ROUTE, OVER_MTU6);
	return GO_ON;
}

/* ENDED with fate FORWARDED: policy for forwarded packets has not been asked. */
static enum step forward(const struct world *world, const struct packet *p, struct end *end,
			 enum way *way)
{
	bool inside = *way == INSIDE;

	if ((p->version == 4 ? forward4(world, p, end) : forward6(world, p, inside, end)) !=
	    GO_ON) {
		*way = NOWHERE;
		return ENDED;
	}
	*end = (struct end){FORWARDED, NO_STAGE, inside ? TO_INSIDE : TO_OUTSIDE, NONE};
	return ENDED;
}

/* What is left of routing a packet that has a way, which it may lose. */
enum step take_way(const struct world *world, struct packet *p, struct end *end, enum way *way)
{
	enum step step = *way == TO_HOST ? GO_ON : forward(world, p, end, way);
	enum reason why;

	if (p->version == 6 || p->header == 20 || *way == NOWHERE)
		return step;
	if (bad_options4(bytes_from(bytes_to(p->ip, p->header), 20), &why) == ODD)
		return ODD;
	if (!why)
		return step;
	*way = NOWHERE;
	return drop(end, AT_ROUTE, why);
}

enum step route(const struct world *world, struct packet *p, struct end *end, enum way *way)
{
	enum step step = find_way(world, p, end, way);

	return step == GO_ON ? take_way(world, p, end, way) : step;
}
