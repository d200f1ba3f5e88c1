// SPDX-License-Identifier: Apache-2.0
#include "follow_settle.h"

static void show_late(struct follower *follower, struct one_way *way, int64_t number,
		      const struct result *result)
{
	struct late *late = append(&way->late, &way->late_count, &way->late_capacity, sizeof *late);

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

static void show(struct follower *follower, struct one_way *way, int64_t number,
		 const struct result *result)
{
	const struct way_columns *columns = &follower->batch->columns[way - follower->ways];
	int64_t row = number - follower->first;

	if (result->several && !keep_several(&way->ends, number, result->several))
		follower->no_memory = true;
	if (result->told && result->told->number != number) {
		struct told *told =
			append(&way->told, &way->told_count, &way->told_capacity, sizeof *told);

		if (told)
			*told = (struct told){number, (int32_t)result->told->captured,
					      (int32_t)result->told->wire};
		else
			follower->no_memory = true;
	}
	if (row < 0) {
		show_late(follower, way, number, result);
		return;
	}
	columns->fate[row] = result->end.fate;
	columns->stage[row] = result->end.stage;
	columns->entry[row] = result->end.entry;
	columns->reason[row] = result->end.reason;
	columns->untracked[row] = result->untracked;
	columns->states[row] = result->states;
	columns->said[row] = result->said;
}

/* A reason that says of what length the packet was that the capture cut. */
static bool tells_lengths(const struct end *end)
{
	return end->fate == UNDETERMINED && end->reason >= LINK_CUT && end->reason < REASONS;
}

/* Most packets end as the one before. */
static uint32_t code_of_end(struct follower *follower, struct one_way *way,
			    const struct result *result)
{
	const struct end *end = &result->end, *last = &way->last;

	if (end->fate != last->fate || end->stage != last->stage || end->reason != last->reason ||
	    end->entry != last->entry || result->untracked != way->last_untracked ||
	    !way->last_code) {
		way->last_code = code_of(follower->run, end, result->untracked);
		way->last = *end;
		way->last_untracked = result->untracked;
	}
	return way->last_code;
}

/* code: that of the end, if it is known. */
static void count(struct follower *follower, struct one_way *way, const struct piece *piece,
		  const struct result *result, uint32_t code)
{
	const struct piece *of = result->told ? result->told : piece;
	bool good;

	if (code == NO_CODE)
		code = code_of_end(follower, way, result);
	if (tells_lengths(&result->end))
		good = count_cut(&way->counts, code, (int32_t)of->captured, (int32_t)of->wire);
	else
		good = count_ends(&way->counts, code, follower->run->outcomes.count, 1);
	if (result->several && result->several->is_set && result->end.fate != UNDETERMINED)
		count_several(&way->counts, result->several);
	follower->no_memory |= !good;
}

bool is_shortened(const struct follower *follower, int64_t row)
{
	return row >= 0 && follower->batch->shortened && follower->batch->shortened[row];
}

/* The end of a packet, by one way. */
static void put(struct follower *follower, struct one_way *way, const struct piece *piece,
		struct result *result, uint32_t code)
{
	if (result->end.fate == UNDETERMINED &&
	    is_shortened(follower, piece->number - follower->first)) {
		result->end.reason = follower->batch->shortened_reason;
		code = NO_CODE;
	}
	count(follower, way, piece, result, code);
	if (follower->batch->columns)
		show(follower, way, piece->number, result);
}

void set_mine(struct follower *follower)
{
	const struct looked *it = follower->it;

	follower->mine = (struct piece){
		.number = follower->first + follower->at,
		.frame = it->frame.at,
		.captured = it->frame.seen,
		.wire = (uint32_t)follower->batch->capture->wire_length[follower->at],
	};
}

void settle(struct follower *follower, const struct piece *piece,
	    const struct result results[MOST_WAYS], const uint32_t codes[MOST_WAYS])
{
	const struct end *end = &results[0].end;

	for (uint32_t i = 0; i < follower->way_count; i++) {
		struct one_way *way = &follower->ways[i];
		struct result result = results[i];

		put(follower, way, piece, &result, codes[i]);
		way->counts.open_here +=
			result.end.fate == UNDETERMINED && end->fate != UNDETERMINED;
	}
}

/* One of which raw leaves conntrack an entry, unless policy after it drops the packet. */
static void begin_flow(struct follower *follower)
{
	struct bytes frame = follower->it->frame;

	if (follower->it->ordinary) {
		count_ordinary(follower->new_flows, follower->it->ordinary);
		return;
	}
	if (is_shortened(follower, follower->at))
		frame.seen = (uint32_t)follower->batch->whole_length[follower->at];
	if (frame.length < frame.seen)
		frame.length = frame.seen;
	count_frame(follower->new_flows, frame);
}

void settle_mine(struct follower *follower, const struct result results[MOST_WAYS],
		 const uint32_t codes[MOST_WAYS])
{
	settle(follower, &follower->mine, results, codes);
	if (begins(follower, &results[0].end, results[0].untracked))
		begin_flow(follower);
}

void settle_alike(struct follower *follower, const struct piece *piece, const struct result *result,
		  uint32_t code)
{
	settle(follower, piece ? piece : &follower->mine,
	       (const struct result[MOST_WAYS]){*result, *result},
	       (const uint32_t[MOST_WAYS]){code, code});
}
