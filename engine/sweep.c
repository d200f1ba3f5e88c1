// SPDX-License-Identifier: Apache-2.0
#include "sweep_some.h"

#include "artefacts.h"

/* Most frames are one behind the other: so many bytes before their turn. */
enum { AHEAD = 2048 };

struct run *engine_run(const struct world *world)
{
	return run_of(world);
}

void engine_run_free(struct run *run)
{
	run_free(run);
}

uint32_t engine_outcomes(const struct run *run, const struct outcome **list)
{
	*list = run->outcomes.list;
	return run->outcomes.count;
}

static inline struct bytes frame_at(const struct some *some, uint32_t at)
{
	const struct capture *capture = some->capture;
	int64_t row = some->from + at, length = capture->length[row];
	int64_t wire = capture->wire_length[row];

	return (struct bytes){capture->data + capture->offset[row],
			      (uint32_t)(wire > length ? wire : length), (uint32_t)length};
}

/* -- which are ordinary -- */

static __attribute__((noinline)) void look_closer(const struct world *world, struct some *some,
						  uint32_t at, struct bytes frame)
{
	struct ordinary it;

	some->place[at] = (struct place){0};
	some->is_odd[at] = true;
	if (!world->classes || !is_sendable(frame) || !has_classes(world, frame, &it))
		return;
	some->ip[at] = it.ip;
	some->place[at] = (struct place){it.fragment ? IN_FRAGMENT : (uint16_t)it.segment,
					 it.version, it.tags};
	ask_first(world->classes, &it);
	some->source[at] = it.source;
}

enum { AT_IP = 14 };

/* TCP or UDP in a usual place in IPv4. False: look_closer() has to say. */
static inline bool is_plain4(const uint8_t *frame, uint32_t seen)
{
	enum { LEAST = 54 };
	static const uint8_t head[4] = {0x08, 0x00, 0x45}, head_mask[4] = {0xff, 0xff, 0xff};
	static const uint8_t tcp[4] = {0, 0, 0, TCP}, udp[4] = {0, 0, 0, UDP};
	static const uint8_t mask[4] = {0x3f, 0xff, 0, 0xff}; /* fragments, protocol */
	uint32_t total, word, wanted, other;

	if (seen < LEAST || seen > MOST_SENT)
		return false;
	total = be16(frame + AT_IP + 2);
	memcpy(&word, frame + AT_IP - 2, sizeof word);
	memcpy(&other, head_mask, sizeof other);
	memcpy(&wanted, head, sizeof wanted);
	if ((word & other) != wanted || total < LEAST - AT_IP || total > seen - AT_IP)
		return false;
	memcpy(&word, frame + AT_IP + 6, sizeof word);
	memcpy(&other, mask, sizeof other);
	word &= other;
	memcpy(&wanted, tcp, sizeof wanted);
	memcpy(&other, udp, sizeof other);
	return word == wanted || word == other;
}

/* An address of a group, and the first half of :: and ::1, have rules of their own. */
static inline bool is_usual6(const uint8_t *address)
{
	return be64(address) - 1 < ((uint64_t)0xff << 56) - 1;
}

/*
 * Where TCP or UDP begins in IPv6, behind its header or that and one of options for the destination, if the early stage
 * reads it. 0: look_closer() has to say.
 */
static inline uint32_t plain_segment6(const uint8_t *frame, uint32_t seen, bool reads_options)
{
	enum { LEAST = 74 };
	static const uint8_t head[4] = {0x86, 0xdd, 0x60, 0}, head_mask[4] = {0xff, 0xff, 0xf0};
	const uint8_t *ip = frame + AT_IP;
	uint32_t word, mask, wanted, total, segment = 40, protocol;

	if (seen < LEAST || seen > MOST_SENT)
		return 0;
	memcpy(&word, ip - 2, sizeof word);
	memcpy(&mask, head_mask, sizeof mask);
	memcpy(&wanted, head, sizeof wanted);
	if ((word & mask) != wanted || !is_usual6(ip + 8) || !is_usual6(ip + 24))
		return 0;
	total = 40u + be16(ip + 4);
	protocol = ip[6];
	if (protocol == OPTIONS && reads_options) {
		segment += (ip[41] + 1u) * 8;
		protocol = ip[40];
	}
	if (total > seen - AT_IP || segment + 20 > total || (protocol != TCP && protocol != UDP))
		return 0;
	return segment;
}

static __attribute__((noinline)) void look_at_some(const struct world *world, struct some *some)
{
	const uint8_t *data = some->capture->data;
	const int64_t *offset = some->capture->offset + some->from;
	const int32_t *length = some->capture->length + some->from;
	const int32_t *wire = some->capture->wire_length + some->from;
	const struct classes *classes = world->classes;
	bool reads_options = is_read_behind_options6(world);

	for (uint32_t at = 0; at < some->count; at++) {
		const uint8_t *frame = data + offset[at], *ip = frame + AT_IP;
		uint32_t segment;

		__builtin_prefetch((const void *)((uintptr_t)frame + AHEAD));
		if (!classes || wire[at] > MOST_SENT) {
			look_closer(world, some, at, frame_at(some, at));
		} else if (is_plain4(frame, length[at])) {
			some->source[at] = ask_slot4(&classes->four, be32(ip + 12));
			some->ip[at] = ip;
			some->place[at] = USUAL;
		} else if ((segment = plain_segment6(frame, length[at], reads_options))) {
			some->source[at] = ask_slot6(&classes->six, ip + 8);
			some->ip[at] = ip;
			some->place[at] = (struct place){(uint16_t)segment, 6, 0};
		} else {
			look_closer(world, some, at, frame_at(some, at));
		}
	}
}

static __attribute__((noinline)) void ask(const struct classes *classes, struct some *some)
{
	for (uint32_t at = 0; at < some->count; at++) {
		const uint8_t *ip = some->ip[at];
		uint8_t version = some->place[at].version;

		if (version == 4)
			some->source[at] =
				ask_segments4(&classes->four, some->source[at], be32(ip + 12));
		else if (version)
			some->source[at] = ask_segments6(&classes->six, some->source[at], ip + 8);
	}
}

/* -- where those end of which nothing else has to be known -- */

ALWAYS_INLINE bool has_bad_header(const struct ordinary *it)
{
	if (it->version == 4)
		return !folds_to_ones(it->has_extra ? sum_words(it->ip, it->segment)
						    : sum_header(it->ip));
	return it->has_extra && it->ip[6] == HOP_BY_HOP; /* it may be */
}

static __attribute__((noinline)) void learn_at(struct run *run, const struct some *some,
					       uint32_t at, uint64_t key)
{
	struct ordinary it;

	if (has_classes(run->world, frame_at(some, at), &it)) /* it has */
		*slot_of(run, key) = learn(run, key, &it);
}

ALWAYS_INLINE const struct known *known_at(struct run *run, struct some *some, uint32_t at,
					   uint64_t key)
{
	const struct known *known = slot_of(run, key);

	if (__builtin_expect(known->key != key, 0))
		learn_at(run, some, at, key);
	some->is_from_host[at] = known->is_from_host;
	return known;
}

ALWAYS_INLINE void find_code(struct run *run, struct some *some, uint32_t at, uint64_t key,
			     bool is_seen_early)
{
	const struct known *known = known_at(run, some, at, key);

	some->key[at] = key;
	some->code[at] = is_seen_early ? known->dropped : known->raw;
}

ALWAYS_INLINE void find_other(struct run *run, struct some *some, uint32_t at, uint8_t version)
{
	const struct ordinary it = ordinary_of(some, at, version);

	find_code(run, some, at, key_of(run, &it), it.tags <= most_early_tags(run->world));
	some->is_odd[at] = has_bad_header(&it) + may_be_incomplete(&it);
}

/* It is left unless the early stage drops it. */
static void find_fragment_code(struct run *run, struct some *some, uint32_t at)
{
	struct ordinary it = ordinary_of(some, at, 4);

	it.segment = 20;
	it.fragment = kind_of_fragment(it.ip);
	some->key[at] = key_of(run, &it);
	some->code[at] = early_of(known_at(run, some, at, some->key[at]));
	some->is_odd[at] = false;
}

static __attribute__((noinline)) void find_unusual(struct run *run, struct some *some, uint32_t at)
{
	if (some->place[at].segment == IN_FRAGMENT)
		find_fragment_code(run, some, at);
	else if (some->place[at].version)
		find_other(run, some, at, 4);
}

/* protocol: a number that is known where it is inlined, for most. */
ALWAYS_INLINE void find_plain(struct run *run, const struct classes *classes, struct some *some,
			      uint32_t at, uint64_t class, uint8_t protocol)
{
	const uint8_t *ip = some->ip[at];
	const struct ordinary it = {
		.ip = ip, .total = be16(ip + 2), .segment = 20, .version = 4, .protocol = protocol};
	uint64_t source = class_in4(&classes->four, some->source[at], be32(ip + 12));

	find_code(run, some, at, key_with(classes, &it, source, class), true);
	some->is_odd[at] = has_bad_header(&it) + may_be_incomplete(&it);
}

static __attribute__((noinline)) void find_codes(struct run *run, struct some *some)
{
	const struct classes *classes = run->world->classes;
	/* The destination of the last packet: most have the same. */
	uint32_t last = 0;
	uint64_t class = classes ? class_of4(&classes->four, last) : 0;

	for (uint32_t at = 0; at < some->count; at++) {
		const uint8_t *ip = some->ip[at];
		uint32_t destination;

		if (!is_usual(some->place[at])) {
			if (some->place[at].version == 6)
				find_other(run, some, at, 6);
			else
				find_unusual(run, some, at);
			continue;
		}
		destination = be32(ip + 16);
		if (destination != last) {
			last = destination;
			class = class_of4(&classes->four, destination);
		}
		if (ip[9] == TCP)
			find_plain(run, classes, some, at, class, TCP);
		else
			find_plain(run, classes, some, at, class, ip[9]);
	}
}

/* -- where they end: codes; NO_CODE, if they are left -- */

static __attribute__((noinline)) uint32_t end_other(struct run *run, struct bytes frame)
{
	struct packet p = {.frame = frame};
	struct flow flow = {0};
	uint8_t artefacts;
	struct end end;
	enum odd odd;

	if (!is_sendable(frame))
		return NO_CODE;
	artefacts = artefacts_of(frame, &run->world->own);
	if (artefacts & INCOMPLETE)
		return NO_CODE;
	one_packet(run->world, &p, &flow, &end, &odd, &run->fragment);
	if (odd || end.fate != DROPPED || flow.version)
		return NO_CODE;
	run->is_from_host = artefacts & SENT_BY_HOST;
	return code_of(run, &end, p.untracked);
}

static __attribute__((noinline)) uint32_t end_doubtful(struct run *run, struct bytes frame)
{
	struct ordinary it;
	uint32_t code;

	if (!is_ordinary(run->world, frame, &it)) /* it was */
		return NO_CODE;
	find_source(run->world->classes, &it);
	code = end_in_raw(run, &it, known_of(run, &it));
	return may_be_incomplete(&it) && artefacts_of(frame, &run->world->own) & INCOMPLETE
		       ? NO_CODE
		       : code;
}

static __attribute__((noinline)) void end_odd(struct run *run, struct some *some, uint32_t at)
{
	struct bytes frame = frame_at(some, at);

	some->code[at] = some->place[at].version ? end_doubtful(run, frame) : end_other(run, frame);
	some->is_from_host[at] = run->is_from_host;
	some->key[at] = 0;
}

/* Without branches: where every second packet is left, none of them could be predicted. */
static __attribute__((noinline)) int64_t count_some(struct sweep *sweep, struct some *some,
						    const int64_t *all_times, struct left *left)
{
	const int64_t *times = all_times + some->from;
	const int32_t *wire = some->capture->wire_length + some->from;
	const int32_t *length = some->capture->length + some->from;
	int64_t earliest = sweep->earliest_ns, latest = sweep->latest_ns;
	struct outcome *outcomes = sweep->run->outcomes.list;
	struct left *next = left;
	int64_t left_count;
	uint32_t from_host = 0, cut = 0;

	for (uint32_t at = 0; at < some->count; at++) {
		if (__builtin_expect(some->is_odd[at], 0)) {
			end_odd(sweep->run, some, at);
			outcomes = sweep->run->outcomes.list;
		}
		next->row = some->from + at;
		next->key = some->key[at];
		next->is_from_host = (uint8_t)some->is_from_host[at];
		next->is_cut = wire[at] > length[at];
		next += some->code[at] == NO_CODE;
		outcomes[some->code[at]].packets++;
		earliest = times[at] < earliest ? times[at] : earliest;
		latest = times[at] > latest ? times[at] : latest;
	}
	for (uint32_t at = 0; at < some->count; at++) {
		from_host += (some->code[at] != NO_CODE) & some->is_from_host[at];
		cut += (some->code[at] != NO_CODE) & (wire[at] > length[at]);
	}
	left_count = next - left;
	sweep->packets += some->count - left_count;
	sweep->from_host += from_host;
	sweep->cut += cut;
	sweep->earliest_ns = earliest;
	sweep->latest_ns = latest;
	return left_count;
}

bool sweep_rows(struct sweep *sweep, const struct capture *capture, const int64_t *times,
		int64_t count, struct left *left, int64_t *left_count)
{
	struct some some = {.capture = capture};

	*left_count = 0;
	for (; some.from < count && !sweep->run->no_memory; some.from += some.count) {
		struct left *mine = left + *left_count;
		int64_t mine_count;

		some.count = (uint32_t)(count - some.from < AT_ONCE ? count - some.from : AT_ONCE);
		look_at_some(sweep->run->world, &some);
		ask(sweep->run->world->classes, &some);
		find_codes(sweep->run, &some);
		mine_count = count_some(sweep, &some, times, mine);
		tell(sweep, &some, mine, mine_count);
		*left_count += mine_count;
	}
	return !sweep->run->no_memory;
}

int64_t engine_sweep(struct sweep *sweep, const struct capture *capture, const int64_t *times,
		     int64_t count, struct left *left, int64_t *left_count)
{
	struct bytes frame;
	int64_t there = 0;

	while (there < count && frame_of(capture, there, &frame))
		there++;
	if (!sweep_rows(sweep, capture, times, there, left, left_count))
		return OUT_OF_MEMORY;
	return there < count ? there : ALL_PREDICTED;
}
