// SPDX-License-Identifier: Apache-2.0
/* A batch of packets in the order of their arrival. */
#include "follow.h"

#include <stdlib.h>

#include "follow_ends.h"
#include "octets.h"
#include "protocols.h"

enum { FRAME_AHEAD = 8, CONN_AHEAD = 4 };

struct follower {
	struct ends ends;
	struct defrag defrag;
	const struct follow_batch *batch;
	int64_t at; /* the packet whose turn it is, in the batch */
	struct late *late;
	struct told *told;
	size_t late_count, late_capacity, told_count, told_capacity;
	bool no_memory;
};

static int64_t now_ns(const struct follower *follower)
{
	return follower->batch->times ? follower->batch->times[follower->at] : 0;
}

/* -- what becomes of packets -- */

static void put_late(struct follower *follower, int64_t number, const struct result *result)
{
	struct late *late = append(&follower->late, &follower->late_count, &follower->late_capacity,
				   sizeof *late);

	if (!late) {
		follower->no_memory = true;
		return;
	}
	*late = (struct late){
		.number = number,
		.entry = result->end.entry,
		.reason = result->end.reason,
		.said = result->said,
		.fate = result->end.fate,
		.stage = result->end.stage,
		.untracked = result->untracked,
		.states = result->states,
	};
}

static void put(struct follower *follower, int64_t number, const struct result *result)
{
	const struct follow_batch *batch = follower->batch;
	struct columns *columns = batch->columns;
	int64_t row = number - batch->first;

	if (result->several && !keep_several(&follower->ends, number, result->several))
		follower->no_memory = true;
	if (result->told && result->told->number != number) {
		struct told *told = append(&follower->told, &follower->told_count,
					   &follower->told_capacity, sizeof *told);

		if (told)
			*told = (struct told){number, (int32_t)result->told->captured,
					      (int32_t)result->told->wire};
		else
			follower->no_memory = true;
	}
	if (row < 0) {
		put_late(follower, number, result);
		return;
	}
	columns->fate[row] = result->end.fate;
	columns->stage[row] = result->end.stage;
	columns->entry[row] = result->end.entry;
	columns->reason[row] = result->end.reason;
	columns->untracked[row] = result->untracked;
	batch->states[row] = result->states;
	batch->said[row] = result->said;
}

static int64_t number_of(const struct follower *follower, const struct piece *piece)
{
	return piece ? piece->number : follower->batch->first + follower->at;
}

static void lose(void *user, const struct piece *piece, enum reason reason)
{
	struct follower *follower = user;
	struct result result = {0};

	drop(&result.end, AT_DEFRAG, reason);
	put(follower, number_of(follower, piece), &result);
}

static bool take_turn(struct follower *follower, struct packet *p, struct end *end)
{
	return received(follower->batch->capture, follower->at, p, end) == GO_ON;
}

/* A packet of which it is unknown whether it gets to conntrack may have passed it. */
static void may_pass(struct follower *follower, const struct packet *p)
{
	struct conn_packet packet = {0};

	if (!follower->ends.tracks)
		return;
	set_packet(&packet, p);
	packet.at_ns = now_ns(follower);
	may_have_passed(&follower->ends.conntrack, &packet);
}

static void leave_unknown(void *user, const struct piece *piece, enum reason reason)
{
	struct follower *follower = user;
	struct result result = {.end = {UNDETERMINED, AT_DEFRAG, reason, NONE}};
	struct packet p;
	struct end end;

	put(follower, number_of(follower, piece), &result);
	if (piece ? receive(piece->frame, piece->captured, piece->wire, &p, &end) == GO_ON
		  : take_turn(follower, &p, &end))
		may_pass(follower, &p);
}

/* A packet that goes on from defragmentation. */
static void go_on(struct follower *follower, struct packet *p, struct result *result)
{
	struct flow flow = {0};

	onward(follower->ends.world, p, &flow, &result->end);
	result->untracked = p->untracked;
	if (!follower->ends.tracks)
		return;
	if (flow.version) {
		struct conn_packet packet = {0};

		set_packet(&packet, p);
		packet.at_ns = now_ns(follower);
		track(&follower->ends, &packet, &flow, result);
	} else if (result->end.fate == UNDETERMINED) {
		may_pass(follower, p);
	}
}

static void complete(void *user, const struct queue *queue, struct packet *p)
{
	struct follower *follower = user;
	const struct piece *pieces = follower->defrag.queues.pieces;
	struct result result = {.told = &pieces[queue->head]};

	go_on(follower, p, &result);
	for (uint32_t i = queue->last; i != NO_INDEX; i = pieces[i].before)
		put(follower, pieces[i].number, &result);
}

static void leave(void *user, struct packet *p)
{
	struct follower *follower = user;
	struct result result = {0};

	go_on(follower, p, &result);
	put(follower, number_of(follower, NULL), &result);
}

/* -- the packets of a batch -- */

static void take_fragment(struct follower *follower)
{
	const struct capture *capture = follower->batch->capture;
	int64_t row = follower->at;
	struct piece piece = {
		.number = follower->batch->first + row,
		.frame = capture->data + capture->offset[row],
		.captured = (uint32_t)capture->length[row],
		.wire = (uint32_t)capture->wire_length[row],
	};
	struct packet p;
	struct end end;

	if (take_turn(follower, &p, &end))
		defrag_take(&follower->defrag, &p, &piece);
}

/* The header of IP, whatever it says; false: it is not whole, or there is none. */
static bool read_header(struct packet *p)
{
	const uint8_t *ip = p->ip.at;
	uint32_t least = p->type == TYPE_IPV4 ? 20 : 40;

	if ((p->type != TYPE_IPV4 && p->type != TYPE_IPV6) || p->ip.length < least ||
	    p->ip.seen < least)
		return false;
	if (p->type == TYPE_IPV4) {
		p->version = 4;
		p->header = (ip[0] & 15) * 4;
		p->total = be16(ip + 2);
		p->protocol = ip[9];
		p->source[1] = be32(ip + 12);
		p->destination[1] = be32(ip + 16);
		return true;
	}
	p->version = 6;
	p->total = be16(ip + 4);
	p->protocol = p->received = ip[6];
	for (int i = 0; i < 2; i++) {
		p->source[i] = be64(ip + 8 + 8 * i);
		p->destination[i] = be64(ip + 24 + 8 * i);
	}
	return true;
}

/* Which datagrams a packet may be a fragment of, whatever its missing bytes are. p has its link header. */
static enum reach reach_of(const struct packet *p, bool has_header, uint32_t *ident)
{
	struct fragment fragment;
	struct packet trimmed = *p;

	if (!has_header) {
		if (p->type == TYPE_IPV4)
			return p->ip.length < 20 ? OF_NONE : OF_IPV4;
		if (p->type == TYPE_IPV6)
			return p->ip.length < 40 ? OF_NONE : OF_IPV6;
		return OF_NONE;
	}
	if (p->version == 6)
		trimmed.ip = bytes_to(p->ip, 40u + p->total);
	switch (find_fragment(&trimmed, &fragment)) {
	case ODD:
		return OF_PAIR;
	case ENDED:
		*ident = fragment.ident;
		return fragment.is_cut ? OF_NONE : OF_DATAGRAM;
	case GO_ON:
		break;
	}
	return OF_NONE;
}

/* A packet that ended, as far as it is known, before conntrack: what that means for those after it. */
static void pass_open(struct follower *follower)
{
	uint8_t stage = follower->batch->columns->stage[follower->at];
	bool has_link, has_header = false;
	uint32_t ident = 0;
	struct packet p;
	struct end end;

	take(follower->batch->capture, follower->at, &p);
	has_link = parse_link(&p) == GO_ON;
	if (has_link)
		has_header = read_header(&p);
	if (stage <= AT_DEFRAG) {
		enum reach reach = has_link ? reach_of(&p, has_header, &ident) : OF_ANY;

		defrag_leave_open(&follower->defrag, reach, &p, ident);
	}
	if (!follower->ends.tracks)
		return;
	if (stage >= AT_DEFRAG && take_turn(follower, &p, &end)) {
		may_pass(follower, &p);
	} else if (has_header) {
		if (p.version == 4)
			p.ip = bytes_to(p.ip, p.total);
		may_pass(follower, &p);
	} else {
		may_have_passed(&follower->ends.conntrack, NULL);
	}
}

/* A packet that engine_predict() has taken to its end, through conntrack. */
static void take_flow(struct follower *follower, const struct flow *flow)
{
	const struct follow_batch *batch = follower->batch;
	struct columns *columns = batch->columns;
	int64_t row = follower->at;
	struct conn_packet packet = {
		.version = flow->version,
		.protocol = (uint8_t)flow->protocol,
		.source = {flow->source[0], flow->source[1]},
		.destination = {flow->destination[0], flow->destination[1]},
		.is_cut = flow->captured < flow->length,
		.sum_known = true,
		.sum_good = flow->sum == SUM_GOOD,
	};
	struct result result = {
		.end = {columns->fate[row], columns->stage[row], columns->reason[row],
			columns->entry[row]},
		.untracked = columns->untracked[row],
	};
	struct packet p;
	struct end end;

	if (flow->sum == SUM_UNKNOWN) {
		received(batch->capture, row, &p, &end);
		packet.sum_known = false;
		set_packet(&packet, &p);
	} else {
		set_payload(&packet,
			    (struct bytes){batch->capture->data + flow->at, (uint32_t)flow->length,
					   (uint32_t)flow->captured});
	}
	packet.untracked = flow->untracked;
	packet.at_ns = now_ns(follower);
	track(&follower->ends, &packet, flow, &result);
	put(follower, batch->first + row, &result);
}

static void look_ahead(const struct follower *follower, const struct flow *flow, int64_t left)
{
	if (left > FRAME_AHEAD)
		__builtin_prefetch(follower->batch->capture->data + flow[FRAME_AHEAD].at);
	if (left > CONN_AHEAD)
		prefetch_conn(&follower->ends.conntrack.conns, &flow[CONN_AHEAD]);
}

struct follower *engine_follower(const struct follower_setup *setup)
{
	struct follower *follower = calloc(1, sizeof *follower);
	struct defrag_user on = {lose, leave_unknown, complete, leave, follower};
	bool good;

	if (!follower)
		return NULL;
	good = ends_init(&follower->ends, setup);
	if (!defrag_init(&follower->defrag, setup->seed, setup->most_fragment_bytes, &on) ||
	    !good) {
		engine_unfollow(follower);
		return NULL;
	}
	return follower;
}

void engine_unfollow(struct follower *follower)
{
	ends_free(&follower->ends);
	defrag_free(&follower->defrag);
	free(follower->late);
	free(follower->told);
	free(follower);
}

static void report(const struct follower *follower, struct followed *followed)
{
	*followed = (struct followed){
		.several = follower->ends.several,
		.late = follower->late,
		.told = follower->told,
		.sayings = follower->ends.sayings,
		.several_count = follower->ends.several_count,
		.late_count = follower->late_count,
		.told_count = follower->told_count,
		.saying_count = follower->ends.saying_count,
	};
}

/* The next batch. False: no memory, and the follower is of no more use. */
int64_t engine_follow(struct follower *follower, const struct follow_batch *batch,
		      struct followed *followed)
{
	const struct columns *columns = batch->columns;
	const struct flow *flow = columns->flows, *end = flow + columns->flow_count;

	follower->batch = batch;
	follower->late_count = follower->told_count = follower->ends.several_count = 0;
	for (int64_t row = 0; row < batch->count; row++) {
		follower->at = row;
		if (columns->odd[row] == ODD_FRAGMENT) {
			take_fragment(follower);
		} else if (columns->odd[row] == ODD_OPEN) {
			pass_open(follower);
		} else if (flow < end && flow->number == row) {
			look_ahead(follower, flow, end - flow);
			take_flow(follower, flow++);
		}
	}
	if (batch->is_last)
		defrag_finish(&follower->defrag);
	else if (!queues_keep(&follower->defrag.queues))
		follower->no_memory = true;
	report(follower, followed);
	return !follower->no_memory;
}
