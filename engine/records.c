// SPDX-License-Identifier: Apache-2.0
#include "records.h"

/*
 * The records of a pcap file from at on, up to the first that is invalid or cut short, where at is left. At most so
 * many: then FULL.
 */
uint32_t engine_pcap(const struct file *file, int64_t most, const struct rows *rows, int64_t *at,
		     int64_t *count)
{
	int64_t here = *at, found = 0;
	enum stop stop = AT_END;

	while (here < file->size) {
		uint32_t captured, original;

		if (found == most)
			stop = FULL;
		else if (file->size - here < file->header)
			stop = HEADER_CUT;
		if (stop != AT_END)
			break;
		captured = word_of(file, here + 8);
		if (captured > file->largest)
			stop = TOO_LARGE;
		else if (captured > file->size - here - file->header)
			stop = RECORD_CUT;
		if (stop != AT_END)
			break;
		original = word_of(file, here + 12);
		if (original > file->longest)
			original = file->longest;
		rows->offset[found] = here + file->header;
		rows->length[found] = (int32_t)captured;
		rows->wire_length[found] = (int32_t)(original > captured ? original : captured);
		rows->timestamp_ns[found] = (int64_t)word_of(file, here) * 1000000000 +
					    (int64_t)word_of(file, here + 4) * file->unit_ns;
		found++;
		here += file->header + captured;
		__builtin_prefetch(file->data + here + 512);
	}
	*at = here;
	*count = found;
	return stop;
}
