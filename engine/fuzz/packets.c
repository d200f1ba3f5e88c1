// SPDX-License-Identifier: Apache-2.0
/*
 * Frames through all stages: a byte of settings, then frames with two bytes in front of each, its length and whether
 * the capture cut it. They come in two batches, and every packet must end.
 */
#include <stdlib.h>
#include <string.h>

#include "../course.h"
#include "../follow.h"

enum { MOST = 64, BYTES = MOST * 4096, UNTOUCHED = 77 };

static const struct range4 four[] = {{0x0a000000, 0x0affffff}, {0xcb007100, 0xcb0071ff}};
static const struct range6 six[] = {{{0x20010db800000000, 0}, {0x20010db8ffffffff, UINT64_MAX}}};
static uint32_t root[65537];
static const struct nets nets[] = {{four, six, root, 2, 1}, {four + 1, six, NULL, 1, 1}};
static const struct condition conditions[] = {
	{ON_PROTOCOL, 0, 0, 0, 6, 0, 0, 0},	   {ON_NETS, SOURCE, 0, 1, 0, 0, 0, 0},
	{ON_PORTS, DESTINATION, 0, 0, 0, 1, 0, 1}, {ON_PROTOCOL, 0, 0, 0, 58, 0, 0, 0},
	{ON_ICMP, 0, 1, 0, 128, -1, 0, 0},	   {ON_NETS, SOURCE, 0, 0, 1, 0, 0, 0},
};
static const struct port_range ranges[] = {{80, 90}};
static const uint32_t names[] = {0};
static const struct port_member members[] = {{{0, 0x0a0a0a0a}, 443, 4, {0}}};
static const struct port_set port_sets[] = {{0, 1, 6, 0}};
static const struct entry entries[] = {
	{PASS, 3, 1, 1, 1, 0, 0, 0, 3, 0},
	{DENY, 3, 1, 0, 0, 1, 1, 3, 2, 1},
	{DENY, 3, 0, 0, 0, 0, 2, 5, 1, 2},
};
static const struct failsafe own[] = {{6, 22, -1, 0}, {17, 68, 1, 4}}, other[] = {{17, 53, -1, 0}};
static const struct route inside[] = {{{0, 0x0a010000}, {0, 0xffff0000}, 4, 16}};
static const struct route outside[] = {{{0, 0x0a0a0a00}, {0, 0xffffff00}, 4, 24}};
static const struct tier tiers[] = {{0, 2, 5}, {2, 1, -1}};
static const uint16_t ports[] = {53, 80};
static const int64_t first_row[] = {0};
static const struct classes *classes;
static struct chain chain;
static struct rules raw; /* of what the host sends */
static const struct after after = {&chain, &chain, &chain, NULL, &chain};

static void require(bool holds)
{
	if (!holds)
		abort();
}

static struct world world_of(uint8_t setting)
{
	struct world world = {
		.raw = {entries,
			conditions,
			nets,
			ranges,
			names,
			port_sets,
			members,
			own,
			other,
			3,
			2,
			1,
			0,
			{0}},
		.held = 3,
		.early = setting & 3,
		.skips_authentication = setting >> 2 & 1,
		.forward = setting >> 3 & 1,
		.rp_filter = (setting >> 4 & 3) % 3,
		.has4 = 1,
		.records_flows = setting >> 6 & 1,
		.mtu = 100,
		.classes = classes,
		.own = nets[0],
		.broadcasts = nets[1],
		.anycasts = nets[1],
		.joined = nets[0],
		.routed = nets[0],
		.inside = inside,
		.outside = outside,
		.inside_count = 1,
		.outside_count = 1,
		.udp_ports = ports,
		.udp_count = 1,
	};

	return world;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct world world;

	(void)argc;
	(void)argv;
	for (uint32_t part = 0; part <= 65536; part++)
		root[part] = (part > 0x0a00) + (part > 0xcb00);
	world = world_of(0);
	chain = (struct chain){world.raw, tiers, 2, 7, 8};
	raw = world.raw;
	classes = engine_classes(&world, (const struct rules *const[]){&chain.rules, &raw}, 2);
	require(classes);
	return 0;
}

static int64_t split(const uint8_t *data, size_t size, int64_t *offset, int32_t *length,
		     int32_t *wire)
{
	int64_t count = 0;

	for (size_t at = 0; count < MOST && at + 2 <= size; count++) {
		size_t mine = data[at] | (data[at + 1] & 15) << 8;
		int cut = data[at + 1] >> 4;

		at += 2;
		if (mine > size - at)
			mine = size - at;
		offset[count] = (int64_t)at;
		length[count] = (int32_t)mine;
		wire[count] = length[count] + (cut > 10 ? cut * 8 : 0);
		at += mine;
	}
	return count;
}

/* Ordinary packets end as they would stage by stage. */
static void compare(struct world world, const struct capture *capture, int64_t count,
		    const struct columns *found)
{
	uint8_t fate[MOST], stage[MOST], untracked[MOST], odd[MOST] = {0};
	uint16_t reason[MOST];
	int32_t entry[MOST];
	struct flow flows[MOST];
	struct columns columns = {fate, stage, entry, reason, untracked, odd, flows, 0};

	world.classes = NULL;
	for (int64_t i = 0; i < count; i++)
		fate[i] = capture->wire_length[i] < 14 ? NOT_SENDABLE : UNTOUCHED;
	require(engine_predict(&world, capture, count, NULL, &columns) == ALL_PREDICTED);
	for (int64_t i = 0; i < count; i++) {
		require(fate[i] == found->fate[i] && odd[i] == found->odd[i]);
		require(fate[i] == NOT_SENDABLE || odd[i] == ODD_FRAGMENT ||
			(stage[i] == found->stage[i] && entry[i] == found->entry[i] &&
			 reason[i] == found->reason[i] && untracked[i] == found->untracked[i]));
	}
	require(columns.flow_count == found->flow_count);
	require(!memcmp(flows, found->flows, (size_t)columns.flow_count * sizeof *flows));
}

/* What is not left is counted. */
static void sweep(const struct world *world, const struct capture *capture, int64_t count)
{
	struct left left[MOST];
	int64_t left_count, found = 0;
	const int64_t times[MOST] = {0};
	struct sweep sweep = {.run = engine_run(world)};
	const struct outcome *list;

	require(sweep.run &&
		engine_sweep(&sweep, capture, times, count, left, &left_count) == ALL_PREDICTED);
	for (uint32_t code = engine_outcomes(sweep.run, &list); code-- > 1;)
		found += list[code].packets;
	require(found == sweep.packets && found + left_count == count);
	engine_run_free(sweep.run);
}

/* Packets that have ended, and of each way how; of those that waited that only. */
struct ended {
	bool has[MOST];
	uint8_t fate[2][MOST], stage[2][MOST], untracked[2][MOST], states[2][MOST];
	uint16_t reason[2][MOST], said[2][MOST];
	int32_t entry[2][MOST];
};

/* The packets from one on; those of fragments that wait are told by a later batch. */
static void follow_batch(struct follower *follower, const struct capture *all, int64_t first,
			 int64_t count, bool is_last, struct ended *ended)
{
	const struct capture capture = {all->data, all->offset + first, all->length + first,
					all->wire_length + first, all->size};
	uint8_t shortened[MOST];
	uint16_t refused_reasons[MOST];
	int64_t times[MOST], refused[MOST];
	struct way_columns columns[2];
	struct doubt doubt = {first_row, &capture, count > 0, REASONS + 2, {0}};
	struct follow_batch batch = {
		.capture = &capture,
		.columns = columns,
		.times = times,
		.doubt = &doubt,
		.refused = refused,
		.refused_reasons = refused_reasons,
		.shortened = shortened,
		.whole_length = capture.length,
		.count = count,
		.shortened_reason = REASONS + 1,
		.is_last = is_last,
	};
	struct followed followed[2];

	for (int i = 0; i < 2; i++)
		columns[i] =
			(struct way_columns){ended->fate[i] + first,	  ended->stage[i] + first,
					     ended->entry[i] + first,	  ended->reason[i] + first,
					     ended->untracked[i] + first, ended->states[i] + first,
					     ended->said[i] + first};
	for (int64_t i = 0; i < count; i++) {
		columns[0].fate[i] = columns[1].fate[i] = UNTOUCHED;
		shortened[i] = i % 7 == 3;
		times[i] = (first + i) * 400 * 1000 * 1000;
		if (capture.wire_length[i] < 14) {
			refused_reasons[batch.refused_count] = REASONS;
			refused[batch.refused_count++] = i;
		}
	}
	require(engine_follow(follower, &batch, followed) == ALL_PREDICTED);
	for (int64_t i = 0; i < count; i++) {
		const uint8_t found[] = {columns[0].fate[i], columns[1].fate[i]};

		require(!ended->has[first + i] && found[0] != UNTOUCHED);
		require((found[0] == WAITS) == (found[1] == WAITS));
		require((found[0] == NOT_SENDABLE) == (capture.wire_length[i] < 14));
		ended->has[first + i] = found[0] != WAITS;
	}
	require(followed[0].late_count == followed[1].late_count);
	for (uint64_t i = 0; i < followed[0].late_count; i++) {
		require(followed[0].late[i].number == followed[1].late[i].number);
		require(!ended->has[followed[0].late[i].number]);
		ended->has[followed[0].late[i].number] = true;
	}
}

/* Every packet is counted once. */
static int64_t packets_of(const struct follower *follower, uint32_t way)
{
	struct counted counted;
	int64_t found = 0;

	engine_followed(follower, way, &counted);
	for (uint64_t i = 0; i < counted.packet_count; i++)
		found += counted.packets[i];
	for (uint64_t i = 0; i < counted.cut_count; i++)
		found += counted.cuts[i].packets;
	return found;
}

/* With and without what is remembered of classes. */
static void follow_all(struct world world, const struct capture *capture, int64_t count)
{
	struct way_setup ways[] = {
		{NULL, NULL, NULL, NULL, 0, 0, {0}},
		{&after, &raw, &raw, ports + 1, 1, world.records_flows, {0}},
	};
	struct flow_setup flow_setup = {nets[0], ports + 1, 1, world.forward, 1, {0}, {42, 43}, 5};
	struct ended ended[2] = {{.has = {false}}, {.has = {false}}};
	struct flow_counts flow_counts[2];

	for (int i = 0; i < 2; i++) {
		struct new_flows *new_flows = engine_new_flows(&flow_setup);
		struct follower_setup setup = {&world, ways,  2, new_flows, 42,
					       100000, 20000, 0, {0}};
		struct follower *follower = engine_follower(&setup);

		require(new_flows && follower);
		follow_batch(follower, capture, 0, count / 2, false, &ended[i]);
		follow_batch(follower, capture, count / 2, count - count / 2, true, &ended[i]);
		for (int64_t at = 0; at < count; at++)
			require(ended[i].has[at]);
		require(packets_of(follower, 0) == count && packets_of(follower, 1) == count);
		engine_flow_counts(new_flows, &flow_counts[i]);
		require(flow_counts[i].beginning + flow_counts[i].unknown <= count);
		engine_unfollow(follower);
		engine_new_flows_free(new_flows);
		world.classes = NULL;
	}
	require(!memcmp(&flow_counts[0], &flow_counts[1], sizeof *flow_counts));
	require(!memcmp(&ended[0], &ended[1], sizeof *ended));
}

/* So many end so by one way. */
static int64_t count_of(const struct follower *follower, uint32_t way, const struct outcome *of)
{
	struct counted counted;
	int64_t found = 0;

	engine_followed(follower, way, &counted);
	for (uint64_t i = 0; i < counted.packet_count; i++)
		if (!memcmp(&counted.outcomes[i].end, &of->end, sizeof of->end) &&
		    counted.outcomes[i].untracked == of->untracked)
			found += counted.packets[i];
	for (uint64_t i = 0; i < counted.cut_count; i++) {
		const struct outcome *cut = &counted.outcomes[counted.cuts[i].code];

		if (!memcmp(&cut->end, &of->end, sizeof of->end) && cut->untracked == of->untracked)
			found += counted.cuts[i].packets;
	}
	return found;
}

/* These packets follow those that there were. */
static void follow_more(struct follower *follower, const struct capture *capture, int64_t count,
			bool is_last)
{
	struct follow_batch batch = {.capture = capture, .count = count, .is_last = is_last};
	struct followed followed[2];

	require(engine_follow(follower, &batch, followed) == ALL_PREDICTED);
}

/* Memory for a window of all packets, of which it may have fewer. */
struct room {
	struct window window;
	uint8_t data[BYTES + 16];
	int64_t offset[MOST], number[MOST], times[MOST];
	int32_t length[MOST], wire[MOST];
};

static void make_empty(struct room *room, int64_t most)
{
	room->window =
		(struct window){room->data, BYTES,	  0,	       room->offset, room->length,
				room->wire, room->number, room->times, most,	     0};
}

static void follow_window(struct follower *follower, const struct window *window, bool is_last)
{
	const struct capture capture = {window->data, window->offset, window->length,
					window->wire_length, window->used};

	for (int64_t i = 1; i < window->count; i++)
		require(window->number[i - 1] < window->number[i]);
	follow_more(follower, &capture, window->count, is_last);
}

/*
 * What a sweep leaves of two pieces, in rows that have what was there before: the follower takes it where it is, or
 * windows of so many packets do, as a course has them.
 */
static void sweep_and_follow(struct sweep *sweep, const struct capture *all, int64_t count,
			     int64_t most)
{
	struct reading reading = {.descriptor = -1};
	static struct room rooms[2];
	struct room *room = &rooms[0];
	struct left left[MOST];
	int64_t numbers[MOST], times[MOST] = {0};
	struct course *course;

	make_empty(room, most);
	course = engine_course(&reading, &room->window);
	require(course);
	for (int64_t i = 0; i < count; i++)
		numbers[i] = i;
	memset(left, 0x55, sizeof left);
	for (int64_t first = 0, size; first < count; first += size) {
		const struct capture piece = {all->data, all->offset + first, all->length + first,
					      all->wire_length + first, all->size};
		int64_t left_count, handed_on = 0;

		size = first ? count - first : (count + 1) / 2;
		require(engine_sweep(sweep, &piece, times, size, left, &left_count) ==
			ALL_PREDICTED);
		while (left_count) {
			int64_t taken =
				engine_hand_on(course, sweep, &piece, numbers + first, times,
					       left + handed_on, left_count - handed_on);
			struct room *full = room;

			require(taken >= 0);
			handed_on += taken;
			if (handed_on == left_count)
				break;
			require(full->window.count == most);
			room = &rooms[room == rooms];
			make_empty(room, most);
			engine_change_window(course, &room->window);
			follow_window(sweep->follower, &full->window, false);
			engine_window_followed(course);
		}
	}
	follow_window(sweep->follower, &room->window, true);
	engine_course_free(course);
}

/* What a sweep leaves and its follower takes: all end as without the sweep. */
static void hand_on(const struct world *world, const struct capture *capture, int64_t count,
		    int64_t most)
{
	const struct way_setup ways[] = {
		{NULL, NULL, NULL, NULL, 0, 0, {0}},
		{&after, &raw, &raw, ports + 1, 1, world->records_flows, {0}},
	};
	const struct flow_setup flow_setup = {nets[0], ports + 1, 1, 0, 1, {0}, {42, 43}, 5};
	struct flow_counts flow_counts[2];
	struct new_flows *new_flows[2];
	struct follower *followers[2];
	const struct outcome *list;
	struct sweep sweep = {.run = engine_run(world)};
	int64_t swept = 0;
	uint32_t codes;

	for (int i = 0; i < 2; i++) {
		new_flows[i] = engine_new_flows(&flow_setup);
		followers[i] = engine_follower(&(struct follower_setup){
			world, ways, 2, new_flows[i], 42, 100000, 20000, 0, {0}});
		require(followers[i]);
	}
	follow_more(followers[0], capture, count, true);
	sweep.follower = followers[1];
	require(sweep.run);
	sweep_and_follow(&sweep, capture, count, most);
	codes = engine_outcomes(sweep.run, &list);
	for (uint32_t code = 1; code < codes; code++)
		swept += list[code].packets;
	for (uint32_t way = 0; way < 2; way++) {
		struct counted alone, handed_on;

		engine_followed(followers[0], way, &alone);
		engine_followed(followers[1], way, &handed_on);
		require(alone.several == handed_on.several &&
			alone.several_after == handed_on.several_after &&
			alone.open_here == handed_on.open_here);
		require(packets_of(followers[0], way) == count &&
			packets_of(followers[1], way) + swept == count);
		for (uint64_t i = 1; i < alone.outcome_count; i++) {
			const struct outcome *of = &alone.outcomes[i];
			int64_t found = count_of(followers[1], way, of);

			for (uint32_t code = 1; code < codes; code++)
				if (!memcmp(&list[code].end, &of->end, sizeof of->end) &&
				    list[code].untracked == of->untracked)
					found += list[code].packets;
			require(found == count_of(followers[0], way, of));
		}
	}
	for (int i = 0; i < 2; i++) {
		engine_flow_counts(new_flows[i], &flow_counts[i]);
		engine_unfollow(followers[i]);
		engine_new_flows_free(new_flows[i]);
	}
	require(!memcmp(&flow_counts[0], &flow_counts[1], sizeof *flow_counts));
	engine_run_free(sweep.run);
}

static void all_functions(const struct world *world, const struct capture *capture, int64_t count)
{
	uint8_t fate[MOST] = {0}, stage[MOST], untracked[MOST], odd[MOST] = {0}, verdict[MOST];
	struct flow_setup flow_setup = {nets[0], ports, 2, world->forward, 0, {0}, {42, 43}, MOST};
	struct new_flows *new_flows = engine_new_flows(&flow_setup);
	int64_t marked[16] = {0};
	uint16_t reason[MOST] = {0};
	int32_t entry[MOST];
	struct flow flows[MOST];
	struct columns columns = {fate, stage, entry, reason, untracked, odd, flows, 0};

	for (int64_t i = 0; i < count; i++)
		fate[i] = capture->wire_length[i] < 14 ? NOT_SENDABLE : UNTOUCHED;
	require(engine_predict(world, capture, count, NULL, &columns) == ALL_PREDICTED);
	compare(*world, capture, count, &columns);
	sweep(world, capture, count);
	hand_on(world, capture, count, 1 + capture->size % 7);
	follow_all(*world, capture, count);
	engine_decide(&world->raw, flows, columns.flow_count, verdict, entry);
	memset(odd, 1, sizeof odd);
	require(new_flows && engine_count_flows(new_flows, capture, count, odd) == ALL_PREDICTED);
	engine_new_flows_free(new_flows);
	require(engine_artefacts(capture, count, nets, odd, marked) < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int64_t offset[MOST], count;
	int32_t length[MOST], wire[MOST];
	struct world world;
	uint8_t *copy;

	if (!size)
		return 0;
	world = world_of(data[0]);
	copy = malloc(size); /* of its own, so that a read beyond it is seen */
	require(copy);
	memcpy(copy, data, size);
	count = split(copy + 1, size - 1, offset, length, wire);
	all_functions(&world, &(struct capture){copy + 1, offset, length, wire, (int64_t)size - 1},
		      count);
	free(copy);
	return 0;
}
