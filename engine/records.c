// SPDX-License-Identifier: Apache-2.0
#include "records.h"

#include "sweep.h"

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

static enum stop pass_over(const struct file *file, struct walk *walk)
{
	int64_t here = walk->at, last = walk->most, count = walk->kept;
	enum stop stop = AT_END;
	uint32_t captured;

	while (here < file->size) {
		stop = count == last ? FULL : find_record(file, here, &captured);
		if (stop != AT_END)
			break;
		here += file->header + captured;
		count++;
		__builtin_prefetch(file->data + here + 512);
	}
	walk->number += count - walk->kept;
	walk->at = here;
	walk->kept = count;
	return stop;
}

static inline enum stop take_record(const struct file *file, struct walk *walk, int64_t row)
{
	const struct rows *rows = &walk->rows;
	int64_t here = walk->at;
	uint32_t captured, original;
	enum stop stop = find_record(file, here, &captured);

	if (stop != AT_END)
		return stop;
	original = word_of(file, here + 12);
	if (original > file->longest)
		original = file->longest;
	rows->offset[row] = here + file->header;
	rows->length[row] = (int32_t)captured;
	rows->wire_length[row] = (int32_t)(original > captured ? original : captured);
	rows->timestamp_ns[row] = (int64_t)word_of(file, here) * 1000000000 +
				  (int64_t)word_of(file, here + 4) * file->unit_ns;
	rows->number[row] = walk->number++;
	walk->at = here + file->header + captured;
	return AT_END;
}

/*
 * The records of a pcap file, up to the first that is invalid or cut short, or to the first for which there is no room:
 * then FULL.
 */
uint32_t engine_pcap(const struct file *file, struct walk *given)
{
	struct walk walk = *given; /* in registers */
	enum stop stop = AT_END;

	if (given->passes)
		return pass_over(file, given);
	while (stop == AT_END && walk.at < file->size) {
		int64_t row = walk.kept, last = row + BATCH < walk.most ? row + BATCH : walk.most;

		if (row == last)
			stop = FULL;
		while (row < last && walk.at < file->size && stop == AT_END) {
			stop = take_record(file, &walk, row);
			row += stop == AT_END;
		}
		walk.kept = sift(walk.sweep, file->data, &walk.rows, walk.kept, row);
	}
	*given = walk;
	return stop;
}
