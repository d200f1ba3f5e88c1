/* SPDX-License-Identifier: Apache-2.0 */
/* The ends of packets, each once: a code is a position in the list. */
#ifndef OUTCOMES_H
#define OUTCOMES_H

#include "predict.h"

struct outcome {
	struct end end;
	uint32_t untracked;
	uint32_t elsewhere; /* its code among the outcomes of a follower; NO_CODE: not asked yet */
	int64_t packets;
};

struct outcomes {
	struct outcome *list;
	uint32_t *slots; /* codes + 1, by what is hashed */
	uint32_t count, room;
};

/* Code 0 is no end. */
enum { NO_CODE };

/* False: no memory. */
bool outcomes_init(struct outcomes *outcomes);
void outcomes_free(struct outcomes *outcomes);

/* NO_CODE: no memory. */
uint32_t outcome_of(struct outcomes *outcomes, const struct end *end, bool untracked);

#endif
