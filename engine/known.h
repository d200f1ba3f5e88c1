/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which packets are ordinary, and what is known of their classes up to conntrack (ordinary.h): inlined where packets are
 * looked at one after the other.
 */
#ifndef KNOWN_H
#define KNOWN_H

#include "ordinary.h"
#include "protocols.h"
#include "transport.h"

/* What Python tells apart by its first bytes is left to it (dossim/packet/cut.py). */
enum { LEAST_SENT = 14, MOST_SENT = 65549 };

static inline bool is_sendable(struct bytes frame)
{
	return frame.length >= LEAST_SENT && frame.length <= MOST_SENT;
}

enum { TPID = 0x0081, PROVIDER_TPID = 0xa888, MOST_EARLY_TAGS = 2 }; /* in memory order */

/* How long the transport must be for all that rules match on to be there; 0: no ordinary one. */
static inline uint32_t least_of(uint8_t version, uint32_t protocol)
{
	if (protocol == TCP)
		return 20;
	return protocol == UDP || protocol == (version == 4 ? ICMP : ICMPV6) ? 8 : 0;
}

/* seen: bytes that were captured from the IP header on. */
ALWAYS_INLINE bool is_ordinary4(const struct world *world, uint32_t seen, struct ordinary *it)
{
	const uint8_t *ip = it->ip;
	uint32_t least;

	it->version = 4;
	it->segment = (ip[0] & 15) * 4;
	it->has_extra = it->segment != 20;
	it->total = be16(ip + 2);
	it->protocol = ip[9];
	least = least_of(4, it->protocol);
	/* Netdev ingress sees no ports after options. */
	if (it->has_extra && (it->segment < 20 || world->early == EARLY_NETDEV))
		return false;
	return ip[0] >> 4 == 4 && least && !(be16(ip + 6) & 0x3fff) &&
	       it->segment + least <= it->total && it->total <= seen;
}

/* Whether the early stage reads the transport behind options as raw does. */
static inline bool is_read_behind_options6(const struct world *world)
{
	return !world->early || world->early == EARLY_XDP;
}

/* One header of options is ordinary, where that is read. */
ALWAYS_INLINE bool is_ordinary6(const struct world *world, uint32_t seen, struct ordinary *it)
{
	const uint8_t *ip = it->ip;
	uint32_t payload, least;

	if (seen < 40 || ip[0] >> 4 != 6 || ip[8] == 0xff ||
	    (ip[24] == 0xff && (ip[25] & 15) <= 1) || (!be64(ip + 8) && be64(ip + 16) == 1) ||
	    (!be64(ip + 24) && be64(ip + 32) == 1))
		return false;
	payload = be16(ip + 4);
	it->version = 6;
	it->segment = 40;
	it->total = 40 + payload;
	it->protocol = ip[6];
	it->has_extra = it->protocol == HOP_BY_HOP || it->protocol == OPTIONS;
	if (!payload || it->total > seen)
		return false;
	if (it->has_extra) {
		if (payload < 8 || !is_read_behind_options6(world))
			return false;
		it->segment += (ip[41] + 1u) * 8;
		it->protocol = ip[40];
	}
	least = least_of(6, it->protocol);
	return least && it->segment + least <= it->total;
}

ALWAYS_INLINE bool is_ordinary(const struct world *world, struct bytes frame, struct ordinary *it)
{
	uint32_t at = 14;
	uint16_t type;

	if (frame.seen < 34)
		return false;
	memcpy(&type, frame.at + 12, sizeof type);
	it->tags = 0;
	while (type == TPID || type == PROVIDER_TPID) {
		if (frame.seen < at + 4 || (be16(frame.at + at) & 0xfff) || it->tags == 255)
			return false;
		memcpy(&type, frame.at + at + 2, sizeof type);
		at += 4;
		it->tags++;
	}
	if (frame.seen < at + 20)
		return false;
	it->ip = frame.at + at;
	it->classes = 0;
	it->largest = 0;
	it->fragment = NO_FRAGMENT;
	it->start = (uint16_t)at;
	it->group = frame.at[0] & 1;
	if (type == __builtin_bswap16(TYPE_IPV4))
		return is_ordinary4(world, frame.seen - at, it);
	return type == __builtin_bswap16(TYPE_IPV6) && is_ordinary6(world, frame.seen - at, it);
}

/* Of a fragment of IPv4 without options. */
static inline enum fragment_kind kind_of_fragment(const uint8_t *ip)
{
	uint32_t shown = (be16(ip + 2) - 20u) & ~7u; /* as it is queued */

	return be16(ip + 6) & 0x1fff || shown < least_of(4, ip[9]) ? OTHER_FRAGMENT
								   : FIRST_FRAGMENT;
}

/* Not of the first of transports that no ordinary packet has. */
ALWAYS_INLINE bool is_plain_fragment(struct bytes frame, struct ordinary *it)
{
	const uint8_t *ip = frame.at + 14;
	uint32_t total;

	if (frame.seen < 34 || be16(ip - 2) != TYPE_IPV4 || ip[0] != 0x45 ||
	    !(be16(ip + 6) & 0x3fff))
		return false;
	total = be16(ip + 2);
	if (total < 20 || total > frame.seen - 14 || !all_ones(sum_header(ip)) ||
	    (!(be16(ip + 6) & 0x1fff) && !least_of(4, ip[9])))
		return false;
	*it = (struct ordinary){
		.ip = ip,
		.total = total,
		.segment = 20,
		.protocol = ip[9],
		.start = 14,
		.version = 4,
		.group = frame.at[0] & 1,
		.fragment = kind_of_fragment(ip),
	};
	return true;
}

/* One of which something is known by its classes. */
ALWAYS_INLINE bool has_classes(const struct world *world, struct bytes frame, struct ordinary *it)
{
	return is_ordinary(world, frame, it) || is_plain_fragment(frame, it);
}

/*
 * Ask for what the class of an address is found by, in two steps: for a slot, of which the place is returned, and for
 * segments, the first of which is. Always inlined: to gcc, what only asks for memory does nothing and need not be called.
 */
ALWAYS_INLINE uint32_t ask_slot4(const struct trie4 *trie, uint32_t address)
{
	uint32_t place = first_place4(trie, address);

	__builtin_prefetch(&trie->table[place]);
	return place;
}

ALWAYS_INLINE uint32_t ask_slot6(const struct trie6 *trie, const uint8_t *address)
{
	unsigned __int128 key = key_at6(address);
	uint32_t place = next_place6(trie, first_place6(trie, key), key);

	__builtin_prefetch(&trie->table[place]);
	return place;
}

ALWAYS_INLINE uint32_t ask_segments4(const struct trie4 *trie, uint32_t place, uint32_t address)
{
	uint32_t segment = trie->table[place];

	if (segment & IS_NODE)
		segment = segment_from4(trie, segment, address);
	__builtin_prefetch(trie->segments + segment);
	__builtin_prefetch(trie->segments + segment + MOST_SEARCHED);
	return segment;
}

ALWAYS_INLINE uint32_t ask_segments6(const struct trie6 *trie, uint32_t place,
				     const uint8_t *address)
{
	uint32_t segment = trie->table[place];

	if (segment & IS_NODE)
		segment = segment_from6(trie, segment, key_at6(address));
	if (segment >> SEGMENT_BITS) {
		__builtin_prefetch(narrow_from(trie, segment));
		__builtin_prefetch(narrow_from(trie, segment) + MOST_SEARCHED);
	} else {
		__builtin_prefetch(&trie->segments[segment]);
		__builtin_prefetch(&trie->segments[segment + 2]);
		__builtin_prefetch(&trie->segments[segment + MOST_SEARCHED]);
	}
	return segment;
}

ALWAYS_INLINE void ask_first(const struct classes *classes, struct ordinary *it)
{
	it->source = it->version == 4 ? ask_slot4(&classes->four, be32(it->ip + 12))
				      : ask_slot6(&classes->six, it->ip + 8);
}

/* After ask_first(). */
ALWAYS_INLINE void ask_second(const struct classes *classes, struct ordinary *it)
{
	it->source = it->version == 4 ? ask_segments4(&classes->four, it->source, be32(it->ip + 12))
				      : ask_segments6(&classes->six, it->source, it->ip + 8);
}

ALWAYS_INLINE void find_source(const struct classes *classes, struct ordinary *it)
{
	ask_first(classes, it);
	ask_second(classes, it);
}

/* Most packets of an attack have one destination. */
ALWAYS_INLINE uint64_t destination_class(struct run *run, const struct ordinary *it)
{
	const struct classes *classes = run->world->classes;
	const uint8_t *at = it->ip + (it->version == 4 ? 16 : 24);
	uint64_t high = it->version == 4 ? 0 : be64(at);
	uint64_t low = it->version == 4 ? be32(at) : be64(at + 8);

	if (low != run->destination[1] || high != run->destination[0] ||
	    it->version != run->version) {
		run->destination[0] = high;
		run->destination[1] = low;
		run->version = it->version;
		run->destination_class = it->version == 4 ? class_of4(&classes->four, (uint32_t)low)
							  : class_of6(&classes->six, at);
	}
	return run->destination_class;
}

/* Of a fragment that shows none: no two ports have these classes (classes.c). */
enum { NO_PORTS = 0xffffff };

ALWAYS_INLINE uint64_t ports_of(const struct classes *classes, const struct ordinary *it)
{
	const uint8_t *segment = it->ip + it->segment;

	if (it->fragment == OTHER_FRAGMENT)
		return NO_PORTS;
	if (it->protocol == TCP || it->protocol == UDP)
		return (uint64_t)classes->ports[be16(segment)] << 12 |
		       classes->ports[be16(segment + 2)];
	return (uint64_t)segment[0] << 12 | segment[1];
}

/* The protocol and the classes as one number; never 0. */
ALWAYS_INLINE uint64_t key_with(const struct classes *classes, const struct ordinary *it,
				uint64_t source, uint64_t destination)
{
	return source << 48 | destination << 32 | (uint64_t)it->protocol << 24 |
	       ports_of(classes, it);
}

ALWAYS_INLINE uint64_t key_of(struct run *run, const struct ordinary *it)
{
	const struct classes *classes = run->world->classes;
	const uint8_t *ip = it->ip;
	uint64_t source;

	if (it->classes)
		return it->classes | ports_of(classes, it);
	if (it->version == 4)
		source = class_in4(&classes->four, it->source, be32(ip + 12));
	else
		source = class_in6(&classes->six, it->source, ip + 8);
	return key_with(classes, it, source, destination_class(run, it));
}

/* Where it is, or has to be, what is known of a key. */
ALWAYS_INLINE struct known *slot_of(struct run *run, uint64_t key)
{
	return &run->known[key * 0x9e3779b97f4a7c15 >> (64 - KNOWN_BITS)];
}

/* ask_second() or find_source() was called. */
static inline const struct known *known_of(struct run *run, const struct ordinary *it)
{
	uint64_t key = key_of(run, it);
	struct known *known = slot_of(run, key);

	if (__builtin_expect(known->key != key, 0))
		*known = learn(run, key, it);
	return known;
}

/* NO_CODE: what ip_input() checks of its header is good. */
static inline uint32_t bad_header(struct run *run, const struct ordinary *it)
{
	static const struct end bad_sum = {DROPPED, AT_IP_INPUT, IP4_CHECKSUM, NONE};

	if (it->version == 4) {
		uint64_t sum = it->has_extra ? sum_words(it->ip, it->segment) : sum_header(it->ip);

		return all_ones(sum) ? NO_CODE : code_of(run, &bad_sum, false);
	}
	if (it->has_extra && it->ip[6] == HOP_BY_HOP)
		return bad_extra(run, it, AT_IP_INPUT, false);
	return NO_CODE;
}

/* Priority tags that the early stage looks behind. */
static inline uint32_t most_early_tags(const struct world *world)
{
	return world->early == EARLY_NETDEV ? 0 : MOST_EARLY_TAGS;
}

/* Of those that the early stage drops. */
static inline uint32_t early_of(const struct known *known)
{
	return known->dropped == known->raw ? NO_CODE : known->dropped;
}

/* Its code if it is dropped in raw or before, else NO_CODE. */
static inline uint32_t end_in_raw(struct run *run, const struct ordinary *it,
				  const struct known *known)
{
	uint32_t code;

	run->is_from_host = known->is_from_host;
	if (early_of(known) != NO_CODE && !it->largest && it->tags <= most_early_tags(run->world))
		return early_of(known);
	if (!it->largest && (code = bad_header(run, it)) != NO_CODE)
		return code;
	return known->raw;
}

#endif
