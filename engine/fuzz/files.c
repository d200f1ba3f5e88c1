// SPDX-License-Identifier: Apache-2.0
/* Files: a byte of settings, then what is read as pcap records and as pcapng blocks. */
#include <stdlib.h>
#include <string.h>

#include "../records.h"

enum { PADDING = 256, MOST = 1000, LARGEST = 262144 };

static void require(bool holds)
{
	if (!holds)
		abort();
}

static int64_t offset[MOST], timestamp[MOST], number[MOST];
static int32_t length[MOST], wire[MOST], links[MOST];
static uint8_t fcs[MOST], cause[MOST];
static const struct walk WALK = {
	.rows = {offset, length, wire, timestamp, number, links, fcs, cause}, .most = MOST};

static void check(const struct file *file, const struct walk *walk)
{
	require(walk->at <= file->size && walk->count <= MOST && walk->number == walk->count);
	for (int64_t i = 0; i < walk->count; i++) {
		require(offset[i] + length[i] <= file->size && length[i] <= LARGEST);
		require(wire[i] >= length[i] && number[i] == i);
	}
}

static void pcap(const struct file *file)
{
	struct walk walk = WALK;

	require(engine_pcap(file, &walk) <= TOO_LARGE);
	check(file, &walk);
}

static void pcapng(const struct file *file)
{
	static const struct interface interfaces[] = {
		{.snaplen = 96, .link = 1, .resolution = 6},
		{.link = 101, .resolution = 0x8f, .offset_s = -5, .fcs = 4},
	};
	struct blocks blocks = {.interfaces = interfaces, .interface_count = 2, .plain = true};
	struct walk walk = WALK;

	engine_pcapng(file, &blocks, &walk);
	check(file, &walk);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct file file = {
		.unit_ns = 1000, .largest = LARGEST, .longest = 1 << 20, .largest_block = 1 << 24};
	uint8_t *copy;

	if (!size)
		return 0;
	copy = calloc(1, size - 1 + PADDING);
	require(copy);
	memcpy(copy, data + 1, size - 1);
	file.data = copy;
	file.size = (int64_t)size - 1;
	file.big_endian = data[0] & 1;
	file.header = data[0] & 2 ? 16 : 24;
	pcap(&file);
	pcapng(&file);
	free(copy);
	return 0;
}
