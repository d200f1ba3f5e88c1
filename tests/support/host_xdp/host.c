// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * bpf/xdp_untracked.bpf.c as a function of the host: the source that the kernel runs, without a kernel. Its maps are
 * memory of the caller, and each frame ends where memory ends, so that a read beyond it is a fault.
 */
#define _GNU_SOURCE
#include "xdp_untracked.bpf.c"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096
#define ROOM (64 * PAGE) /* of the largest frame */
#define PASSED (-1)

struct host_map {
	const char *name;
	const void *map; /* as the program names it; NULL: a variable of the program */
	uint32_t key_size, value_size;
	void *variable;
	const uint8_t *keys, *values;
	uint32_t entries;
	int is_hash;
};

#define MAP(kind, name) {#name, &name, sizeof(*name.key), sizeof(*name.value), 0, 0, 0, 0, kind}
#define VARIABLE(name) {#name, 0, sizeof(__u32), sizeof(name), &name, 0, 0, 0, 0}

static struct host_map maps[] = {
	VARIABLE(sieve4),     VARIABLE(root4),	      VARIABLE(root6),	  VARIABLE(policy),
	MAP(0, lists4),	      MAP(0, nodes6),	      MAP(0, buckets6),	  MAP(0, lists6),
	MAP(0, address_rows), MAP(0, protocols),      MAP(0, port_pages), MAP(0, port_rows),
	MAP(0, tiers),	      MAP(0, entry_counters), MAP(1, named),
};

static const struct {
	const char *name;
	const volatile __u32 *value;
} settings[] = {
	{"multi_buffer", &multi_buffer},
	{"own_address_first", &own_address_first},
	{"own_address_last", &own_address_last},
	{"own_device", &own_device},
	{"tags_in_frame", &tags_in_frame},
	{"row_words", &row_words},
	{"match_destination", &match_destination},
	{"match_named_ports", &match_named_ports},
	{"may_skip", &may_skip},
	{"drop_unlisted", &drop_unlisted},
};

static int32_t counted; /* the entry that was counted last */

void *host_lookup(const void *map, const void *key)
{
	for (unsigned int at = 0; at < sizeof(maps) / sizeof(*maps); at++) {
		struct host_map *found = maps + at;
		uint32_t number;

		if (found->map != map)
			continue;
		if (found->is_hash) {
			for (number = 0; number < found->entries; number++)
				if (!memcmp(found->keys + number * found->key_size, key,
					    found->key_size))
					return (void *)(found->values + number * found->value_size);
			return 0;
		}
		memcpy(&number, key, sizeof(number));
		if (number >= found->entries)
			return 0;
		if (map == &entry_counters)
			counted = number;
		return (void *)(found->values + (size_t)number * found->value_size);
	}
	__builtin_trap(); /* a map that is not listed above */
}

/*
 * Fills a map; the memory stays the caller's. For an array 'keys' is NULL. The size of a value that the program
 * declares; 0 if it has no such map.
 */
uint32_t host_fill(const char *name, const void *keys, const void *values, uint32_t entries)
{
	for (unsigned int at = 0; at < sizeof(maps) / sizeof(*maps); at++) {
		struct host_map *found = maps + at;

		if (strcmp(found->name, name))
			continue;
		if (found->variable) {
			memcpy(found->variable, values, found->value_size);
		} else {
			found->keys = keys;
			found->values = values;
			found->entries = entries;
		}
		return found->value_size;
	}
	return 0;
}

/* Settings are constants, which user space sets before the program is loaded. Not 0 on success. */
int host_set(const char *name, uint32_t value)
{
	for (unsigned int at = 0; at < sizeof(settings) / sizeof(*settings); at++) {
		uintptr_t place = (uintptr_t)settings[at].value;
		void *page = (void *)(place & ~(uintptr_t)(PAGE - 1));

		if (strcmp(settings[at].name, name))
			continue;
		if (mprotect(page, 2 * PAGE, PROT_READ | PROT_WRITE))
			return 0;
		*(uint32_t *)place = value;
		return 1;
	}
	return 0;
}

/*
 * Runs the program on each frame: the number of the bit whose entry drops it, or PASSED. Not 0 on success. A frame to
 * one host is sent to 'own', as a replay does. Pointers of struct xdp_md have 32 bits, so frames are below 4 GB.
 */
int host_run(const uint8_t *frames, const int64_t *offset, const int32_t *length, uint32_t count,
	     const uint8_t own[6], int32_t *entries)
{
	uint8_t *start = mmap(0, ROOM + PAGE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	int done = start != MAP_FAILED && !mprotect(start + ROOM, PAGE, PROT_NONE);

	for (uint32_t number = 0; done && number < count; number++) {
		uint8_t *frame = start + ROOM - length[number];
		struct xdp_md ctx = {.data = (uintptr_t)frame, .data_end = (uintptr_t)start + ROOM};

		if (length[number] > ROOM)
			return 0;
		memcpy(frame, frames + offset[number], length[number]);
		if (!(frame[0] & 1))
			memcpy(frame, own, 6);
		counted = PASSED;
		entries[number] = xdp_untracked(&ctx) == XDP_DROP ? counted : PASSED;
	}
	if (start != MAP_FAILED)
		munmap(start, ROOM + PAGE);
	return done;
}
