/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Classes of addresses and of ports. Two addresses of one class are in the same sets of all that policy, routes and the
 * kernel's checks of addresses refer to; two ports of one class are in the same ranges. So packets with the same
 * protocol, the same classes and, for ICMP, the same type and code are treated alike, and what the rules say need be
 * found once only.
 */
#ifndef CLASSES_H
#define CLASSES_H

#include "octets.h"
#include "predict.h"

enum {
	MOST_SEARCHED = 4, /* segments of a block that are looked at one by one */
	SEGMENT_BITS = 26, /* of a slot, that number a segment */
	MOST_OTHER = 16
};

static const uint32_t IS_NODE = 1u << 31;

#define KEY uint32_t
#define NAME(name) name##4
#include "trie.h"
#undef KEY
#undef NAME
#define KEY unsigned __int128
#define NAME(name) name##6
#include "trie.h"
#undef KEY
#undef NAME

struct classes {
	struct trie4 four;
	struct trie6 six;
	uint16_t ports[65536];
	/* Rules whose sets and ranges are among them, beside those of the world. */
	const struct rules *other[MOST_OTHER];
	uint32_t other_count;
};

static inline unsigned __int128 key6(uint64_t high, uint64_t low)
{
	return (unsigned __int128)high << 64 | low;
}

static inline unsigned __int128 key_at6(const uint8_t *address)
{
	return key6(be64(address), be64(address + 8));
}

static inline uint32_t class_in4(const struct trie4 *trie, uint32_t segment, uint32_t address)
{
	return class_from4(&trie->segments[segment], address);
}

static inline uint32_t class_of4(const struct trie4 *trie, uint32_t address)
{
	return class_in4(trie, segment_of4(trie, address), address);
}

static inline const struct segment4 *narrow_from(const struct trie6 *trie, uint32_t segment)
{
	return &trie->narrow[segment & ((1u << SEGMENT_BITS) - 1)];
}

/* segment: as segment_of6() found it. */
static inline uint32_t class_in6(const struct trie6 *trie, uint32_t segment, const uint8_t *address)
{
	uint32_t behind = segment >> SEGMENT_BITS;

	return behind ? class_from4(narrow_from(trie, segment), be32(address + 13 - behind))
		      : class_from6(&trie->segments[segment], key_at6(address));
}

static inline uint32_t class_of6(const struct trie6 *trie, const uint8_t *address)
{
	return class_in6(trie, segment_of6(trie, key_at6(address)), address);
}

/*
 * The classes for a world, of which classes is not read, and other rules, at most MOST_OTHER; of the world alone, if there
 * are too many. NULL: no memory, or too many nevertheless.
 */
ENGINE_API struct classes *engine_classes(const struct world *world,
					  const struct rules *const *other, uint32_t count);
ENGINE_API void engine_classes_free(struct classes *classes);
/* Whether packets whose keys are alike are so for these rules as well. */
bool tells_apart(const struct classes *classes, const struct rules *rules);

#endif
