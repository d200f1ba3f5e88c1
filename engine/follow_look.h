/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of the packets of a batch by themselves, before the turn of each. */
#ifndef FOLLOW_LOOK_H
#define FOLLOW_LOOK_H

#include "follow_settle.h"

/* False: it is to stop before this packet. row: its place in the batch that is followed; at: in the one that is looked at. */
bool look(struct follower *follower, int64_t row, const struct batch *batch, uint32_t at,
	  struct looked *it);

/* What is known of an ordinary packet, of which run->last and this code are. */
void set_looked(struct follower *follower, struct looked *it, const struct ordinary *ordinary,
		uint32_t code);

/* What is asked for before the turn of a packet that gets to conntrack. */
void ask_conntrack(struct follower *follower, struct looked *it);

#endif
