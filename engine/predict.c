// SPDX-License-Identifier: Apache-2.0
/* Packets through all stages, one after the other. */
#include "batch.h"
#include "defrag.h"
#include "octets.h"
#include "protocols.h"
#include "transport.h"

/* The packet as the tables of netfilter see it. */
void flow_in_raw(const struct packet *p, bool skips_authentication, struct flow *flow,
		 struct bytes *segment)
{
	uint32_t at = p->header, offset = 0;
	int protocol = p->protocol;

	memcpy(flow->source, p->source, sizeof flow->source);
	memcpy(flow->destination, p->destination, sizeof flow->destination);
	flow->version = p->version;
	flow->group = p->group;
	if (p->version == 6) {
		flow->extended = is_extension(protocol);
		at = 40;
		if (flow->extended &&
		    find_transport6(p, skips_authentication, &protocol, &at, &offset) == ODD)
			protocol = CUT;
	}
	*segment = bytes_from(p->ip, at);
	flow->at = at;
	flow->length = (int32_t)segment->length;
	flow->captured = (int32_t)segment->seen;
	set_transport(flow, protocol, *segment, offset);
}

/* What raw does to a packet by the entry that decides. */
enum step judge(enum verdict verdict, int32_t by, struct packet *p, struct end *end)
{
	switch (verdict) {
	case DENIED:
		return drop_by(end, AT_RAW, by);
	case HOTDROPPED:
		return drop(end, AT_RAW, RAW_SHORT);
	case LEFT_OPEN:
		return leave_open(end, AT_RAW, MATCH_CUT);
	case ALLOWED:
		p->untracked = true;
		return GO_ON;
	case PASSED:
	case ACCEPTED:
		break;
	}
	return GO_ON;
}

/* What is known of a flow once its packet is routed. */
void complete_flow(const struct packet *p, enum way way, struct flow *flow)
{
	flow->untracked = flow->marked = p->untracked;
	flow->way = way;
	if (p->sum_known && !flow->extended && (flow->protocol == TCP || flow->protocol == UDP))
		flow->sum = p->sum_good ? SUM_GOOD : SUM_BAD;
}

enum step onward(const struct world *world, struct packet *p, struct flow *flow, struct end *end)
{
	struct bytes segment;
	enum way way = NOWHERE;
	enum verdict verdict;
	enum step step;
	int32_t by;

	flow_in_raw(p, world->skips_authentication, flow, &segment);
	verdict = decide(&world->raw, flow, &by);
	step = judge(verdict, by, p, end);
	if (step != GO_ON) {
		flow->version = 0;
		return step;
	}
	step = route(world, p, end, &way);
	if (step == ODD)
		step = leave_open(end, AT_ROUTE, OPT4_CUT);
	if (step == GO_ON)
		step = transport(world, p, end);
	complete_flow(p, way, flow);
	return step;
}

/* Of a step that read what the capture cut, what is known. */
static enum step open_if_odd(enum step step, uint8_t stage, enum reason reason, struct end *end,
			     enum odd *odd)
{
	if (step != ODD)
		return step;
	*odd = ODD_OPEN;
	return leave_open(end, stage, reason);
}

/* odd: what it means for those after it. A fragment has no end. */
void one_packet(const struct world *world, struct packet *p, struct flow *flow, struct end *end,
		enum odd *odd, struct fragment *fragment)
{
	enum step step;

	*odd = NOT_ODD;
	step = open_if_odd(parse_link(p), AT_NIC_OFFLOAD, LINK_CUT, end, odd);
	if (step == GO_ON && world->early)
		step = open_if_odd(early_stage(world, p, end), world->early_stage, MATCH_CUT, end,
				   odd);
	if (step == GO_ON)
		step = open_if_odd(ip_input(p, end), AT_IP_INPUT, HEADER_CUT, end, odd);
	if (step != GO_ON)
		return;
	step = find_fragment(p, fragment);
	if (step == ENDED) {
		*odd = ODD_FRAGMENT;
	} else if (open_if_odd(step, AT_DEFRAG, FRAG_OPEN_ITSELF, end, odd) == GO_ON) {
		onward(world, p, flow, end);
		if (end->fate == UNDETERMINED && end->stage == AT_RAW)
			*odd = ODD_OPEN;
	}
}

/* False if the packet is not within the data. */
bool frame_of(const struct capture *capture, int64_t number, struct bytes *frame)
{
	int64_t offset = capture->offset[number], length = capture->length[number];
	int64_t wire = capture->wire_length[number];

	if (offset < 0 || length < 0 || offset > capture->size - length)
		return false;
	*frame = (struct bytes){capture->data + offset, (uint32_t)(wire > length ? wire : length),
				(uint32_t)length};
	return true;
}

bool take(const struct capture *capture, int64_t number, struct packet *p)
{
	struct bytes frame;

	if (!frame_of(capture, number, &frame))
		return false;
	*p = (struct packet){.frame = frame};
	return true;
}

enum step received(const struct capture *capture, int64_t number, struct packet *p, struct end *end)
{
	enum step step = take(capture, number, p) ? parse_link(p) : ODD;

	return step == GO_ON ? ip_input(p, end) : step;
}

enum step receive(const uint8_t *frame, uint32_t captured, uint32_t wire, struct packet *p,
		  struct end *end)
{
	enum step step;

	*p = (struct packet){.frame = {frame, wire > captured ? wire : captured, captured}};
	step = parse_link(p);
	return step == GO_ON ? ip_input(p, end) : step;
}

/* -- a capture -- */

static void put(const struct outcome *outcome, int64_t number, struct columns *columns)
{
	columns->fate[number] = outcome->end.fate;
	columns->stage[number] = outcome->end.stage;
	columns->entry[number] = outcome->end.entry;
	columns->reason[number] = outcome->end.reason;
	columns->untracked[number] = (uint8_t)outcome->untracked;
}

/* Whether it ends otherwise, or means something else for others, if it was on the wire otherwise. stage: of that. */
static bool differs(const struct world *world, struct bytes frame, const struct end *as_given,
		    enum odd odd_as_given, uint8_t *stage)
{
	struct packet p = {.frame = frame};
	struct end end = {.stage = NO_STAGE};
	struct flow flow = {0};
	struct fragment fragment;
	enum odd odd;

	one_packet(world, &p, &flow, &end, &odd, &fragment);
	*stage = odd == ODD_FRAGMENT ? NO_STAGE : end.stage;
	return odd == ODD_FRAGMENT || odd != odd_as_given || end.fate != as_given->fate ||
	       end.stage != as_given->stage;
}

/* A packet that ends otherwise in the other shape is undetermined from the earlier of both stages. */
uint32_t end_in_doubt(struct run *run, const struct doubt *doubt, int64_t row, uint32_t code,
		      struct flow *flow, enum odd *odd)
{
	struct end as_given = {.stage = NO_STAGE};
	bool untracked = false;
	struct bytes frame;
	uint8_t stage;

	if (code != NO_CODE) {
		as_given = run->outcomes.list[code].end;
		untracked = run->outcomes.list[code].untracked;
	}
	if (!frame_of(doubt->otherwise, row, &frame) ||
	    !differs(run->world, frame, &as_given, *odd, &stage))
		return code;
	if (as_given.stage < stage)
		stage = as_given.stage;
	flow->version = 0;
	*odd = ODD_OPEN;
	return code_of(run,
		       &(struct end){UNDETERMINED, stage < AT_IP_INPUT ? stage : AT_IP_INPUT,
				     doubt->reason, NONE},
		       untracked);
}

static void predict_batch(struct run *run, const struct capture *capture, int64_t from,
			  const struct batch *batch, const struct doubt *doubt, int64_t *doubted,
			  struct columns *columns)
{
	bool records_flows = run->world->records_flows;

	for (uint32_t at = 0; at < batch->count; at++) {
		struct flow *flow = &columns->flows[records_flows ? columns->flow_count : 0];
		int64_t number = from + at;
		bool is_doubtful =
			doubt && *doubted < doubt->count && doubt->rows[*doubted] == number;
		enum odd odd;
		uint32_t code;

		*doubted += is_doubtful;
		if (columns->fate[number] == NOT_SENDABLE)
			continue;
		flow->version = 0;
		code = end_one(run, batch, at, flow, &odd);
		if (is_doubtful)
			code = end_in_doubt(run, doubt, *doubted - 1, code, flow, &odd);
		columns->odd[number] = odd;
		if (code == NO_CODE)
			continue;
		put(&run->outcomes.list[code], number, columns);
		if (records_flows && flow->version) {
			flow->number = number;
			flow->at += capture->offset[number];
			columns->flow_count++;
		}
	}
}

static int64_t predict_all(struct run *run, const struct capture *capture, int64_t count,
			   const struct doubt *doubt, struct columns *columns)
{
	int64_t doubted = 0;
	struct batch batch;

	for (int64_t from = 0; from < count && !run->no_memory; from += batch.count) {
		bool good = take_batch(run->world, capture, from, count, &batch);

		predict_batch(run, capture, from, &batch, doubt, &doubted, columns);
		if (!good)
			return from + batch.count;
	}
	return run->no_memory ? OUT_OF_MEMORY : ALL_PREDICTED;
}

int64_t engine_predict(const struct world *world, const struct capture *capture, int64_t count,
		       const struct doubt *doubt, struct columns *columns)
{
	struct run *run = run_of(world);
	int64_t found = run ? predict_all(run, capture, count, doubt, columns) : OUT_OF_MEMORY;

	run_free(run);
	return found;
}

/* -- rules alone, for packets that are walked elsewhere -- */

void engine_decide(const struct rules *rules, const struct flow *flows, int64_t count,
		   uint8_t *verdict, int32_t *by)
{
	for (int64_t i = 0; i < count; i++)
		verdict[i] = decide(rules, &flows[i], &by[i]);
}

const char *engine_reason(uint32_t code)
{
	static const char *const texts[] = {
#define REASON(name, text) text,
#include "reasons.h"
#undef REASON
	};

	return code < sizeof texts / sizeof *texts ? texts[code] : NULL;
}

/* From this reason on, Python says where the capture cut the packet. */
uint32_t engine_cut_reasons(void)
{
	return LINK_CUT;
}
