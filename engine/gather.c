// SPDX-License-Identifier: Apache-2.0
#include "gather.h"

#include <string.h>

int64_t gather(struct window *window, const struct capture *piece, const int64_t *numbers,
	       const int64_t *times, const struct left *left, int64_t count)
{
	int64_t taken = 0, used = window->used, at = window->count;

	while (taken < count && at < window->most) {
		int64_t row = left[taken].row;
		int32_t length = piece->length[row];

		if (length > window->size - used)
			break;
		memcpy(window->data + used, piece->data + piece->offset[row], (size_t)length);
		window->offset[at] = used;
		window->length[at] = length;
		window->wire_length[at] = piece->wire_length[row];
		window->number[at] = numbers[row];
		window->timestamp_ns[at] = times[row];
		used += length;
		at++;
		taken++;
	}
	window->used = used;
	window->count = at;
	return taken;
}
