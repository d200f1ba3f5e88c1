// SPDX-License-Identifier: Apache-2.0
/* The flows that packets of a capture begin of which it is known that they leave an entry. */
#include <stdlib.h>

#include "new_flows.h"
#include "reassembly.h"

/* Of fragments that leave an entry all of the datagram is there. */
struct counting {
	struct new_flows *flows;
	struct bytes frame; /* whose turn it is */
	struct defrag defrag;
	bool no_memory;
};

static void ignore(void *user, const struct piece *piece, enum reason reason)
{
	(void)user;
	(void)piece;
	(void)reason;
}

static void give_up(void *user, const struct piece *piece, enum reason reason)
{
	struct counting *counting = user;

	ignore(user, piece, reason);
	counting->no_memory = true;
}

static void complete(void *user, const struct queue *queue, struct bytes frame)
{
	struct counting *counting = user;
	struct packet p;

	datagram_of(&counting->defrag, queue, frame, &p);
	count_packet(counting->flows, &p);
}

static void leave(void *user)
{
	struct counting *counting = user;

	count_frame(counting->flows, counting->frame);
}

static void take_frame(struct counting *counting)
{
	const struct bytes frame = counting->frame;
	struct piece piece = {.frame = frame.at, .captured = frame.seen, .wire = frame.length};
	struct fragment fragment;
	struct packet p;
	struct end end;

	if (receive(frame.at, frame.seen, frame.length, &p, &end) != GO_ON)
		return;
	if (find_fragment(&p, &fragment) != ENDED) {
		count_packet(counting->flows, &p);
		return;
	}
	queues_ask(&counting->defrag.queues, &fragment);
	defrag_take(&counting->defrag, &fragment, &piece);
}

static int64_t take_frames(struct counting *counting, const struct capture *capture, int64_t count,
			   const uint8_t *wanted)
{
	for (int64_t number = 0; number < count; number++) {
		if (!wanted[number])
			continue;
		if (!frame_of(capture, number, &counting->frame))
			return number;
		take_frame(counting);
	}
	return counting->no_memory ? OUT_OF_MEMORY : ALL_PREDICTED;
}

int64_t engine_count_flows(struct new_flows *flows, const struct capture *capture, int64_t count,
			   const uint8_t *wanted)
{
	struct counting *counting = calloc(1, sizeof *counting);
	const struct defrag_user on = {ignore, give_up, complete, leave, counting};
	int64_t found = OUT_OF_MEMORY;

	if (!counting)
		return found;
	counting->flows = flows;
	if (defrag_init(&counting->defrag, seed_of_flows(flows), UINT64_MAX / 4, &on))
		found = take_frames(counting, capture, count, wanted);
	defrag_free(&counting->defrag);
	free(counting);
	return found;
}
