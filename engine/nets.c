// SPDX-License-Identifier: Apache-2.0
/* Sets of addresses. A long IPv4 list has an index by the upper half of the address, so that a search is short. */
#include "predict.h"

static bool contains4(const struct nets *nets, uint32_t address)
{
	uint32_t low = 0, high = nets->count4;

	if (nets->root4) {
		low = nets->root4[address >> 16];
		high = nets->root4[(address >> 16) + 1];
	}
	/* The last range that begins at or before the address; it may begin before the part that is searched. */
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (nets->four[middle].first <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low && address <= nets->four[low - 1].last;
}

static bool at_most(const uint64_t one[2], const uint64_t other[2])
{
	return one[0] < other[0] || (one[0] == other[0] && one[1] <= other[1]);
}

static bool contains6(const struct nets *nets, const uint64_t address[2])
{
	uint32_t low = 0, high = nets->count6;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (at_most(nets->six[middle].first, address))
			low = middle + 1;
		else
			high = middle;
	}
	return low && at_most(address, nets->six[low - 1].last);
}

bool nets_contain(const struct nets *nets, uint8_t version, const uint64_t address[2])
{
	return version == 4 ? contains4(nets, (uint32_t)address[1]) : contains6(nets, address);
}
