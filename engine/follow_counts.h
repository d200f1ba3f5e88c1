/* SPDX-License-Identifier: Apache-2.0 */
/* How many packets one way has ended, and how. */
#ifndef FOLLOW_COUNTS_H
#define FOLLOW_COUNTS_H

#include "follow.h"

struct counts {
	int64_t *packets; /* by code */
	uint32_t room;
	uint32_t cut_count;
	struct cut_count *cuts;
	uint32_t *slots; /* positions in cuts + 1, by what is hashed */
	int64_t several, several_after, open_here;
};

void counts_free(struct counts *counts);
/* So many packets with one of as many codes as there are now. False: no memory. */
bool count_ends(struct counts *counts, uint32_t code, uint32_t codes, int64_t packets);
/* Of so many different lengths that are told apart. False: no memory. */
bool count_cut(struct counts *counts, uint32_t code, int32_t captured, int32_t wire);
void count_several(struct counts *counts, const struct several *several);

#endif
