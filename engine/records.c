// SPDX-License-Identifier: Apache-2.0
#include "records.h"

/* AT_END, or why there is no record at a byte. */
static inline enum stop find_record(const struct file *file, int64_t at, uint32_t *captured)
{
	if (file->size - at < file->header)
		return CUT_IN_HEADER;
	*captured = word_of(file, at + 8);
	if (*captured > file->largest)
		return TOO_LARGE;
	return *captured > file->size - at - file->header ? CUT_IN_RECORD : AT_END;
}

static inline void put_row(const struct file *file, const struct rows *rows, int64_t row,
			   int64_t at, uint32_t captured)
{
	uint32_t original = word_of(file, at + 12);

	if (original > file->longest)
		original = file->longest;
	rows->offset[row] = at + file->header;
	rows->length[row] = (int32_t)captured;
	rows->wire_length[row] = (int32_t)(original > captured ? original : captured);
	rows->timestamp_ns[row] = (int64_t)word_of(file, at) * 1000000000 +
				  (int64_t)word_of(file, at + 4) * file->unit_ns;
}

/* big_endian: a number that is known where it is inlined. */
static inline __attribute__((always_inline)) uint32_t find_records(const struct file *given,
								   uint32_t big_endian,
								   struct walk *walk)
{
	struct file file = *given; /* in registers, as what no row can change */
	const struct rows rows = walk->rows;
	int64_t at = walk->at, row = walk->count, most = walk->most;
	int64_t number = walk->number - row;
	enum stop stop = AT_END;
	uint32_t captured;

	file.big_endian = big_endian;
	while (at < file.size) {
		stop = row == most ? FULL : find_record(&file, at, &captured);
		if (stop != AT_END)
			break;
		__builtin_prefetch((const void *)((uintptr_t)file.data + at + HEADERS_AHEAD));
		put_row(&file, &rows, row, at, captured);
		rows.number[row] = number + row;
		row++;
		at = (at + file.header) + captured; /* soon after its length is there */
	}
	walk->at = at;
	walk->count = row;
	walk->number = number + row;
	return stop;
}

/*
 * The records of a pcap file, up to the first that is invalid or cut short, or to the first for which there is no room:
 * then FULL.
 */
uint32_t engine_pcap(const struct file *file, struct walk *walk)
{
	return file->big_endian ? find_records(file, true, walk) : find_records(file, false, walk);
}
