/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packet that a sweep leaves. Of one that gets to conntrack and is sound by itself (follow_usual.h), the sweep says what
 * follows of its own bytes, so that nobody has to look at them again; and of a plain fragment (ordinary.h).
 * dossim/engine/layout.py declares it again.
 */
#ifndef LEFT_H
#define LEFT_H

#include "flow_set.h"

enum marking { NOT_MARKED, MARKED, BEGINS_NONE };

struct left {
	int64_t row;
	uint64_t key;	       /* of struct known; 0: no more is said, but for the last two */
	struct flow_mark mark; /* if MARKED */
	/* Of its end, as if conntrack was not there: of the outcomes of the sweep; NO_CODE: it is a fragment. */
	uint32_t code;
	uint8_t flags;	 /* of TCP */
	uint8_t marking; /* enum marking: of the flow that it may begin */
	uint8_t is_from_host;
	uint8_t is_cut; /* the capture has not all of its bytes */
};

#endif
