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
	require(walk->at <= file->size && walk->kept <= MOST && walk->number == walk->kept);
	for (int64_t i = 0; i < walk->kept; i++) {
		require(offset[i] + length[i] <= file->size && length[i] <= LARGEST);
		require(wire[i] >= length[i] && number[i] == i);
	}
}

/* Where a walk ends that only passes over as many packets is where those end that are kept. */
static void compare(const struct walk *walk, const struct walk *over)
{
	require(over->at == walk->at && over->kept == walk->kept && over->number == walk->number);
}

static void pcap(const struct file *file)
{
	struct walk walk = WALK, over = {.most = MOST, .passes = true};
	uint32_t stop = engine_pcap(file, &walk);

	require(stop <= TOO_LARGE && engine_pcap(file, &over) == stop);
	check(file, &walk);
	compare(&walk, &over);
}

static void pcapng(const struct file *file)
{
	static const struct interface interfaces[] = {
		{.snaplen = 96, .link = 1, .resolution = 6},
		{.link = 101, .resolution = 0x8f, .offset_s = -5, .fcs = 4},
	};
	struct blocks blocks = {.interfaces = interfaces, .interface_count = 2, .plain = true};
	struct blocks others = blocks;
	struct walk walk = WALK, over = {.most = MOST, .passes = true};

	engine_pcapng(file, &blocks, &walk);
	engine_pcapng(file, &others, &over);
	check(file, &walk);
	compare(&walk, &over);
	require(blocks.late == others.late);
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
