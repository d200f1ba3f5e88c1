// SPDX-License-Identifier: Apache-2.0
#include "records.h"

#include "sweep.h"

/* The record at a byte as a row; AT_END, or why there is none. */
static inline enum stop take_record(const struct file *file, struct walk *walk, int64_t row)
{
	const struct rows *rows = &walk->rows;
	int64_t here = walk->at;
	uint32_t captured, original;

	if (file->size - here < file->header)
		return CUT_IN_HEADER;
	captured = word_of(file, here + 8);
	if (captured > file->largest)
		return TOO_LARGE;
	if (captured > file->size - here - file->header)
		return CUT_IN_RECORD;
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
