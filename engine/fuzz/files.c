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

static int64_t offset[MOST], timestamp[MOST];
static int32_t length[MOST], wire[MOST], links[MOST];
static uint8_t fcs[MOST], cause[MOST];
static const struct rows ROWS = {offset, length, wire, timestamp, links, fcs, cause};

static void check(const struct file *file, int64_t at, int64_t count)
{
	require(at <= file->size && count <= MOST);
	for (int64_t i = 0; i < count; i++) {
		require(offset[i] + length[i] <= file->size && length[i] <= LARGEST);
		require(wire[i] >= length[i]);
	}
}

static void pcap(const struct file *file)
{
	int64_t at = 0, count;

	require(engine_pcap(file, MOST, &ROWS, &at, &count) <= TOO_LARGE);
	check(file, at, count);
}

static void pcapng(const struct file *file)
{
	static const struct interface interfaces[] = {
		{.snaplen = 96, .link = 1, .resolution = 6},
		{.link = 101, .resolution = 0x8f, .offset_s = -5, .fcs = 4},
	};
	struct blocks blocks = {.interfaces = interfaces, .interface_count = 2, .plain = true};
	int64_t at = 0;

	engine_pcapng(file, MOST, &blocks, &ROWS, &at);
	check(file, at, blocks.count);
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
