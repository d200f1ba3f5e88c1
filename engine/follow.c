// SPDX-License-Identifier: Apache-2.0
/* A batch of packets in the order of their arrival. */
#include "follow.h"

#include <stdlib.h>

#include "follow_look.h"
#include "octets.h"
#include "protocols.h"

static void lose(void *user, const struct piece *piece, enum reason reason)
{
	struct result result = {0};

	drop(&result.end, AT_DEFRAG, reason);
	settle_alike(user, piece, &result, NO_CODE);
}

static const uint32_t no_codes[MOST_WAYS];

static bool take_turn(struct follower *follower, struct packet *p, struct end *end)
{
	return received(follower->batch->capture, follower->at, p, end) == GO_ON;
}

/* A packet of which it is unknown whether it gets to conntrack may have passed it; p NULL: nor whose it is. */
static void may_pass(struct follower *follower, const struct packet *p)
{
	for (uint32_t i = 0; i < follower->way_count; i++) {
		struct ends *ends = &follower->ways[i].ends;
		struct conn_packet packet = {0};

		if (!ends->tracks)
			continue;
		if (p)
			set_packet(&packet, p);
		packet.at_ns = now_ns(follower);
		may_have_passed(&ends->conntrack, p ? &packet : NULL);
	}
}

static void leave_unknown(void *user, const struct piece *piece, enum reason reason)
{
	struct follower *follower = user;
	struct result result = {.end = {UNDETERMINED, AT_DEFRAG, reason, NONE}};
	struct packet p;
	struct end end;

	settle_alike(follower, piece, &result, NO_CODE);
	if (piece ? receive(piece->frame, piece->captured, piece->wire, &p, &end) == GO_ON
		  : take_turn(follower, &p, &end))
		may_pass(follower, &p);
}

/* What conntrack, and policy after it, do with a packet that has an end without them; p: what it is. */
static void track_all(struct follower *follower, const struct packet *p, const struct flow *flow,
		      struct result results[MOST_WAYS])
{
	for (uint32_t i = 0; i < follower->way_count; i++) {
		struct ends *ends = &follower->ways[i].ends;
		struct conn_packet packet = {0};

		if (!ends->tracks)
			continue;
		set_packet(&packet, p);
		packet.at_ns = now_ns(follower);
		track(ends, &packet, flow, &results[i]);
	}
}

/* A packet that goes on from defragmentation, as the result of each way. */
static void go_on(struct follower *follower, struct packet *p, struct result results[MOST_WAYS])
{
	struct flow flow = {0};

	onward(&follower->world, p, &flow, &results[0].end);
	results[0].untracked = p->untracked;
	for (uint32_t i = 1; i < follower->way_count; i++)
		results[i] = results[0];
	if (flow.version)
		track_all(follower, p, &flow, results);
	else if (results[0].end.fate == UNDETERMINED)
		may_pass(follower, p);
}

/* A datagram that is ordinary. False: it is not, or conntrack wants more of it. */
static bool end_sound(struct follower *follower, struct bytes frame, uint32_t largest,
		      struct ordinary *ordinary, struct result results[MOST_WAYS],
		      uint32_t codes[MOST_WAYS])
{
	struct looked *it = &follower->datagram;
	uint32_t code = end_datagram(follower->run, frame, largest, follower->it->fragment.classes,
				     ordinary);
	const struct outcome *outcome = &follower->run->outcomes.list[code];

	if (code == NO_CODE)
		return false;
	set_looked(follower, it, ordinary, code);
	if (it->reaches && follower->tracks && !it->key)
		return false;
	it->untracked = outcome->untracked;
	results[0].end = outcome->end;
	results[0].untracked = outcome->untracked;
	for (uint32_t i = 1; i < follower->way_count; i++)
		results[i] = results[0];
	for (uint32_t i = 0; i < follower->way_count; i++) {
		struct one_way *way = &follower->ways[i];

		codes[i] = code;
		if (it->reaches && way->ends.tracks)
			codes[i] = follow_sound(follower, way, it, &results[i]);
	}
	return true;
}

/* All fragments of a datagram end as it does. */
static void complete(void *user, const struct queue *queue, struct bytes frame)
{
	struct follower *follower = user;
	const struct piece *pieces = follower->defrag.queues.pieces;
	struct result results[MOST_WAYS] = {{.told = &pieces[queue->head]}};
	uint32_t codes[MOST_WAYS] = {NO_CODE};
	struct ordinary ordinary;
	struct packet p;
	bool is_sound = end_sound(follower, frame, queue->largest, &ordinary, results, codes);

	if (!is_sound) {
		datagram_of(&follower->defrag, queue, frame, &p);
		go_on(follower, &p, results);
	}
	if (begins(follower, &results[0].end, results[0].untracked)) {
		if (is_sound)
			count_ordinary(follower->new_flows, &ordinary);
		else
			count_packet(follower->new_flows, &p);
	}
	for (uint32_t i = queue->last; i != NO_INDEX; i = pieces[i].before)
		settle(follower, &pieces[i], results, codes);
}

static void leave(void *user)
{
	struct follower *follower = user;
	struct result results[MOST_WAYS] = {{.told = NULL}};
	struct packet p;
	struct end end;

	take_turn(follower, &p, &end);
	go_on(follower, &p, results);
	settle_mine(follower, results, no_codes);
}

/* -- the packets of a batch -- */

static void take_fragment(struct follower *follower, const struct fragment *fragment)
{
	const struct way_columns *columns = follower->batch->columns;

	for (uint32_t i = 0; columns && i < follower->way_count; i++)
		columns[i].fate[follower->at] = WAITS;
	defrag_take(&follower->defrag, fragment, &follower->mine);
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
static enum reach reach_of(const struct packet *p, bool has_header, uint64_t key[KEY_WIDTH])
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
		datagram_key(p, 0, key);
		return OF_PAIR;
	case ENDED:
		memcpy(key, fragment.key, sizeof fragment.key);
		return fragment.is_cut ? OF_NONE : OF_DATAGRAM;
	case GO_ON:
		break;
	}
	return OF_NONE;
}

/* A packet that ended, as far as it is known, before conntrack: what that means for those after it. */
static void pass_open(struct follower *follower, uint8_t stage)
{
	bool has_link, has_header = false;
	uint64_t key[KEY_WIDTH];
	struct packet p;
	struct end end;

	take(follower->batch->capture, follower->at, &p);
	has_link = parse_link(&p) == GO_ON;
	if (has_link)
		has_header = read_header(&p);
	if (stage <= AT_DEFRAG) {
		enum reach reach = has_link ? reach_of(&p, has_header, key) : OF_ANY;

		defrag_leave_open(&follower->defrag, reach, key);
	}
	if (!follower->tracks)
		return;
	if (stage >= AT_DEFRAG && take_turn(follower, &p, &end)) {
		may_pass(follower, &p);
	} else if (has_header) {
		if (p.version == 4)
			p.ip = bytes_to(p.ip, p.total);
		may_pass(follower, &p);
	} else {
		may_pass(follower, NULL);
	}
}

/* A packet that got to conntrack, through it. */
static void take_flow(struct follower *follower, struct ends *ends, struct looked *it,
		      struct result *result)
{
	struct packet p;
	struct end end;

	if (!it->flow.version)
		flow_of(follower->run, it->ordinary, &it->flow);
	if (!it->is_packet) {
		it->packet = (struct conn_packet){0};
		take_turn(follower, &p, &end);
		set_packet(&it->packet, &p);
	}
	it->packet.untracked = it->flow.untracked;
	it->packet.at_ns = now_ns(follower);
	track(ends, &it->packet, &it->flow, result);
}

/* One that is no fragment. */
static void take_whole(struct follower *follower, struct looked *it)
{
	struct result result = {.end = it->end, .untracked = it->untracked};
	struct result results[MOST_WAYS];
	uint32_t codes[MOST_WAYS];

	if (it->odd == ODD_OPEN)
		pass_open(follower, it->end.stage);
	for (uint32_t i = 0; i < MOST_WAYS && i < follower->way_count; i++) {
		struct one_way *way = &follower->ways[i];

		results[i] = result;
		codes[i] = it->code;
		if (!it->reaches || !way->ends.tracks)
			continue;
		codes[i] = NO_CODE;
		if (it->key)
			codes[i] = follow_sound(follower, way, it, &results[i]);
		else
			take_flow(follower, &way->ends, it, &results[i]);
	}
	settle_mine(follower, results, codes);
	if (it->key)
		note_usual(follower, it, results);
}

void take_one(struct follower *follower, int64_t row, struct looked *it)
{
	follower->at = row;
	follower->it = it;
	if (it->key && take_usual(follower, it))
		return;
	set_mine(follower);
	if (it->odd == ODD_FRAGMENT)
		take_fragment(follower, &it->fragment);
	else
		take_whole(follower, it);
}

/* -- batches -- */

/* All are looked at before the first is taken, so that what is asked for is there. */
static int64_t take_all(struct follower *follower)
{
	struct follow_batch *all = follower->batch;
	struct batch batch;

	while (all->taken < all->count) {
		int64_t from = all->taken;
		bool good = take_batch(&follower->world, all->capture, from, all->count, &batch);
		uint32_t count = 0;

		while (count < batch.count &&
		       look(follower, from + count, &batch, count, &follower->looked[count]))
			count++;
		if (follower->run->no_memory)
			return OUT_OF_MEMORY;
		for (uint32_t at = 0; at < count; at++)
			take_one(follower, from + at, &follower->looked[at]);
		all->taken += count;
		if (count < batch.count)
			break;
		if (!good)
			return all->taken;
	}
	return ALL_PREDICTED;
}

static bool init(struct follower *follower, const struct follower_setup *setup)
{
	struct defrag_user on = {lose, leave_unknown, complete, leave, follower};
	bool good, is_usual = true;

	follower->world = *setup->world;
	follower->alone = setup->alone;
	follower->new_flows = setup->new_flows;
	follower->way_count = (uint32_t)setup->way_count;
	good = defrag_init(&follower->defrag, setup->seed, setup->most_fragment_bytes, &on);
	for (uint32_t i = 0; i < follower->way_count; i++) {
		struct ends *ends = &follower->ways[i].ends;

		good &= ends_init(ends, &follower->world, &setup->ways[i], setup->seed,
				  setup->most_flow_bytes);
		follower->tracks |= ends->tracks;
		is_usual &= are_told_apart(follower->world.classes, &setup->ways[i]);
	}
	follower->is_usual = follower->tracks && is_usual;
	follower->world.records_flows =
		false; /* those of ordinary packets only where they are needed */
	follower->run = run_of(&follower->world);
	return good && follower->run;
}

struct follower *engine_follower(const struct follower_setup *setup)
{
	struct follower *follower = calloc(1, sizeof *follower);

	if (!follower || init(follower, setup))
		return follower;
	engine_unfollow(follower);
	return NULL;
}

void engine_unfollow(struct follower *follower)
{
	for (uint32_t i = 0; i < follower->way_count; i++) {
		struct one_way *way = &follower->ways[i];

		ends_free(&way->ends);
		counts_free(&way->counts);
		free(way->late);
		free(way->told);
	}
	defrag_free(&follower->defrag);
	run_free(follower->run);
	free(follower);
}

static void report(const struct one_way *way, struct followed *followed)
{
	*followed = (struct followed){
		.several = way->ends.several,
		.late = way->late,
		.told = way->told,
		.sayings = way->ends.sayings,
		.several_count = way->ends.several_count,
		.late_count = way->late_count,
		.told_count = way->told_count,
		.saying_count = way->ends.saying_count,
	};
}

const struct new_flows *flows_by_end(const struct follower *follower)
{
	return follower->ways[0].ends.tracks ? NULL : follower->new_flows;
}

bool wants_more(const struct follower *follower)
{
	return follower->is_usual || !follower->tracks;
}

int64_t engine_follow(struct follower *follower, struct follow_batch *batch,
		      struct followed *followed)
{
	int64_t found;

	follower->batch = batch;
	follower->doubted = follower->refused = 0;
	for (uint32_t i = 0; i < follower->way_count; i++) {
		struct one_way *way = &follower->ways[i];

		way->late_count = way->told_count = way->ends.several_count = 0;
	}
	found = take_all(follower);
	if (batch->is_last)
		defrag_finish(&follower->defrag);
	else if (!queues_keep(&follower->defrag.queues))
		follower->no_memory = true;
	follower->first += batch->taken;
	for (uint32_t i = 0; i < follower->way_count; i++)
		report(&follower->ways[i], &followed[i]);
	return follower->no_memory || follower->run->no_memory ? OUT_OF_MEMORY : found;
}

void engine_followed(const struct follower *follower, uint32_t way, struct counted *counted)
{
	const struct counts *counts = &follower->ways[way].counts;
	uint32_t codes = follower->run->outcomes.count;

	*counted = (struct counted){
		.outcomes = follower->run->outcomes.list,
		.packets = counts->packets,
		.cuts = counts->cuts,
		.outcome_count = codes,
		.packet_count = codes < counts->room ? codes : counts->room,
		.cut_count = counts->cut_count,
		.several = counts->several,
		.several_after = counts->several_after,
		.open_here = counts->open_here,
	};
}
