/* SPDX-License-Identifier: Apache-2.0 */
/* A set of keys of five numbers each. */
#ifndef KEYSET_H
#define KEYSET_H

#include <stdbool.h>
#include <stdint.h>

enum { KEY_WIDTH = 5 };

struct keyset {
	uint64_t (*keys)[KEY_WIDTH];
	uint8_t *taken;
	uint32_t mask, count;
	uint64_t seed;
};

/* Seeded, so that no capture can be made whose keys all share a bucket. */
static inline uint64_t key_hash(const uint64_t *key, uint32_t width, uint64_t seed)
{
	uint64_t found = seed;

	for (uint32_t i = 0; i < width; i++) {
		unsigned __int128 product =
			(unsigned __int128)(found ^ key[i]) * (0x9e3779b97f4a7c15 ^ seed << 1);

		found = (uint64_t)product ^ (uint64_t)(product >> 64);
	}
	return found ^ found >> 32;
}

void keyset_free(struct keyset *set);
bool keyset_has(const struct keyset *set, const uint64_t key[KEY_WIDTH]);
/* False: there is no memory, or as many as are kept are there. */
bool keyset_add(struct keyset *set, const uint64_t key[KEY_WIDTH]);

#endif
