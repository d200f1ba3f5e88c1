// SPDX-License-Identifier: Apache-2.0
#include "follow_look.h"

#include "artefacts.h"

static bool is_refused(struct follower *follower, int64_t row, struct end *end)
{
	const struct follow_batch *batch = follower->batch;

	if (follower->refused == batch->refused_count || batch->refused[follower->refused] != row)
		return false;
	*end = (struct end){NOT_SENDABLE, NO_STAGE, batch->refused_reasons[follower->refused++],
			    NONE};
	return true;
}

static bool is_doubtful(struct follower *follower, int64_t row)
{
	const struct doubt *doubt = follower->batch->doubt;

	if (!doubt || follower->doubted == doubt->count || doubt->rows[follower->doubted] != row)
		return false;
	follower->doubted++;
	return true;
}

/* Of TCP and UDP the headers need not be read again. */
static void look_at_flow(struct looked *it)
{
	const struct flow *flow = &it->flow;

	it->is_packet = flow->version && flow->sum != SUM_UNKNOWN;
	if (!it->is_packet)
		return;
	/* One by one: the rest is only read of packets of which it is set. */
	it->packet.p = NULL;
	it->packet.version = flow->version;
	it->packet.protocol = (uint8_t)flow->protocol;
	memcpy(it->packet.source, flow->source, sizeof flow->source);
	memcpy(it->packet.destination, flow->destination, sizeof flow->destination);
	it->packet.is_cut = flow->captured < flow->length;
	it->packet.sum_known = true;
	it->packet.sum_good = flow->sum == SUM_GOOD;
	set_payload(&it->packet, (struct bytes){it->frame.at + flow->at, (uint32_t)flow->length,
						(uint32_t)flow->captured});
}

/* Its place in the tables of conntrack. */
void ask_conntrack(struct follower *follower, struct looked *it)
{
	for (uint32_t i = 0; i < follower->way_count; i++) {
		const struct ends *ends = &follower->ways[i].ends;

		if (!ends->tracks || is_blank(&ends->conntrack))
			continue;
		if (it->key && !it->is_packet)
			set_usual(it);
		if (it->is_packet && it->packet.has_key)
			conns_prefetch(&ends->conntrack.conns, &it->packet.key);
	}
}

/* False: it is to stop before this packet. */
static bool note_artefacts(struct follower *follower, const struct batch *batch, uint32_t at,
			   bool knows_source)
{
	const struct ordinary *it = &batch->ordinary[at];
	bool is_from_host = follower->run->is_from_host;

	if (!it->version || !knows_source || (!it->fragment && may_be_incomplete(it))) {
		uint8_t found = artefacts_of(batch->frames[at], &follower->world.own);

		if (found & INCOMPLETE)
			return false;
		is_from_host = found & SENT_BY_HOST;
	}
	follower->batch->from_host += is_from_host;
	follower->batch->cut += batch->frames[at].length > batch->frames[at].seen;
	return true;
}

void set_looked(struct follower *follower, struct looked *it, const struct ordinary *ordinary,
		uint32_t code)
{
	const struct known *known = follower->run->last;

	it->ordinary = ordinary;
	it->code = code;
	it->reaches = known;
	it->is_packet = false;
	it->flow.version = 0;
	it->key = 0;
	if (known && follower->is_usual && is_sound(ordinary, known, code)) {
		it->key = known->key;
		it->flags = ordinary->protocol == TCP ? ordinary->ip[ordinary->segment + 13] : 0;
	}
}

/* The same of any other, or of one that may have been otherwise. */
static void look_at_other(struct follower *follower, const struct batch *batch, uint32_t at,
			  bool doubtful, struct looked *it)
{
	struct run *run = follower->run;

	it->code = end_one(run, batch, at, &it->flow, &it->odd);
	it->fragment = run->fragment; /* if it is one */
	if (batch->ordinary[at].version && run->last)
		flow_of(run, &batch->ordinary[at], &it->flow);
	if (doubtful)
		it->code = end_in_doubt(run, follower->batch->doubt, follower->doubted - 1,
					it->code, &it->flow, &it->odd);
	it->reaches = it->flow.version;
	if (follower->tracks)
		look_at_flow(it);
}

bool look(struct follower *follower, int64_t row, const struct batch *batch, uint32_t at,
	  struct looked *it)
{
	bool is_sendable = true, doubtful = is_doubtful(follower, row);
	const struct ordinary *ordinary = &batch->ordinary[at];
	struct run *run = follower->run;

	it->frame = batch->frames[at];
	it->ordinary = NULL;
	it->key = 0;
	it->flow.version = 0;
	it->odd = NOT_ODD;
	it->is_packet = it->reaches = false;
	if (is_refused(follower, row, &it->end)) {
		it->code = code_of(run, &it->end, false);
		is_sendable = false;
	} else if (!ordinary->version || doubtful || is_shortened(follower, row)) {
		look_at_other(follower, batch, at, doubtful, it);
	} else if (ordinary->fragment) {
		it->code = end_fragment(run, ordinary, &it->fragment);
		it->odd = it->code == NO_CODE ? ODD_FRAGMENT : NOT_ODD;
	} else {
		set_looked(follower, it, ordinary, end_ordinary(run, ordinary));
	}
	if (follower->batch->stops && !note_artefacts(follower, batch, at, is_sendable))
		return false;
	if (it->odd && follower->alone) {
		if (it->odd == ODD_FRAGMENT)
			it->code = code_of(
				run, &(struct end){UNDETERMINED, AT_DEFRAG, follower->alone, NONE},
				false);
		it->odd = NOT_ODD;
	}
	it->end = run->outcomes.list[it->code].end;
	it->untracked = run->outcomes.list[it->code].untracked;
	if (it->odd == ODD_FRAGMENT)
		queues_ask(&follower->defrag.queues, &it->fragment);
	if (it->reaches && follower->tracks)
		ask_conntrack(follower, it);
	return true;
}
