// SPDX-License-Identifier: Apache-2.0
/* TCP: nf_conntrack_tcp_packet() of nf_conntrack_proto_tcp.c, Linux 6.18. */
#include "conntrack.h"
#include "octets.h"
#include "protocols.h"

enum state { NN, SS, SR, ES, FW, CW, LA, TW, CL, S2, IV, IG };

enum {
	OPTION_END = 0,
	OPTION_NOP = 1,
	OPTION_WINDOW = 3,
	OPTION_SACK_PERMITTED = 4,
	OPTION_SACK = 5,
	MOST_SCALE = 14,
	JUDGED_FLAGS = FLAG_FIN | FLAG_SYN | FLAG_RST | FLAG_ACK | FLAG_URG,
	/* seconds: nf_conntrack_tcp_timeout_... */
	TIMEOUT_UNACKNOWLEDGED = 300,
	TIMEOUT_MAX_RETRANS = 300,
	MAX_RETRANS = 3,
	SHRINKS_ABOVE = 120,
};

static const int32_t timeouts[] = {
	[NN] = 0,  [SS] = 120, [SR] = 60, [ES] = 5 * 24 * 3600, [FW] = 120, [CW] = 60,
	[LA] = 30, [TW] = 120, [CL] = 10, [S2] = 120,
};

/* tcp_conntracks: rows are kinds, columns states. IV: invalid; IG: the segment passes, the entry stays as it is. */
static const uint8_t next_states[2][6][10] = {
	{
		{SS, SS, IG, IG, IG, IG, IG, SS, SS, S2}, /* SYN */
		{IV, IV, SR, IV, IV, IV, IV, IV, IV, SR}, /* SYN+ACK */
		{IV, IV, FW, FW, LA, LA, LA, TW, CL, IV}, /* FIN */
		{ES, IV, ES, ES, CW, CW, TW, TW, CL, IV}, /* ACK */
		{IV, CL, CL, CL, CL, CL, CL, CL, CL, CL}, /* RST */
		{IV, IV, IV, IV, IV, IV, IV, IV, IV, IV},
	},
	{
		{IV, S2, IV, IV, IV, IV, IV, SS, IV, S2},
		{IV, SR, IG, IG, IG, IG, IG, IG, IG, SR},
		{IV, IV, FW, FW, LA, LA, LA, TW, CL, IV},
		{IV, IG, SR, ES, CW, CW, TW, TW, CL, IG},
		{IV, CL, CL, CL, CL, CL, CL, CL, CL, CL},
		{IV, IV, IV, IV, IV, IV, IV, IV, IV, IV},
	},
};

static bool is_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static enum kind kind_of(uint8_t flags)
{
	if (flags & FLAG_RST)
		return KIND_RST;
	if (flags & FLAG_SYN)
		return flags & FLAG_ACK ? KIND_SYNACK : KIND_SYN;
	if (flags & FLAG_FIN)
		return KIND_FIN;
	return flags & FLAG_ACK ? KIND_ACK : KIND_NONE;
}

/* tcp_sack(): the highest right edge of the first such option. */
static uint32_t highest_sack(const uint8_t *body, uint32_t length, uint32_t ack)
{
	uint32_t highest = ack;

	for (uint32_t at = 0; at + 8 <= length; at += 8) {
		uint32_t edge = be32(body + at + 4);

		if (is_before(highest, edge))
			highest = edge;
	}
	return highest;
}

/* As far as they can be read; the last of each kind counts (tcp_options). */
static void read_options(const uint8_t *at, uint32_t length, struct segment *segment)
{
	bool has_sack = length == 12 && !memcmp(at, "\1\1\10\12", 4); /* timestamps alone */
	uint32_t here = 0;

	while (here < length && at[here] != OPTION_END) {
		const uint8_t *body = at + here + 2;
		uint32_t size;

		if (at[here] == OPTION_NOP) {
			here++;
			continue;
		}
		size = here + 1 < length ? at[here + 1] : 0;
		if (size < 2 || here + size > length)
			break;
		if (at[here] == OPTION_SACK_PERMITTED && size == 2) {
			segment->sack_permitted = true;
		} else if (at[here] == OPTION_WINDOW && size == 3) {
			segment->scale = body[0] > MOST_SCALE ? MOST_SCALE : body[0];
		} else if (at[here] == OPTION_SACK && size > 2 && !((size - 2) % 8) && !has_sack) {
			segment->sack = highest_sack(body, size - 2, segment->ack);
			has_sack = true;
		}
		here += size;
	}
}

/* At least the header is there, and its length is possible. */
static void read_segment(const uint8_t *at, uint32_t length, struct segment *segment)
{
	uint32_t header = (at[12] >> 4) * 4;
	uint8_t flags = at[13];

	*segment = (struct segment){
		.seq = be32(at + 4),
		.ack = be32(at + 8),
		.sack = be32(at + 8),
		.window = be16(at + 14),
		.flags = flags,
		.kind = (uint8_t)kind_of(flags),
		.scale = NO_SCALE,
		.has_options = header > 20,
	};
	segment->end =
		segment->seq + (length - header) + !!(flags & FLAG_SYN) + !!(flags & FLAG_FIN);
	if (segment->has_options)
		read_options(at + 20, header - 20, segment);
}

/* tcp_valid_flags. */
static bool are_flags_valid(uint8_t flags)
{
	switch (flags & JUDGED_FLAGS) {
	case FLAG_SYN:
	case FLAG_SYN | FLAG_URG:
	case FLAG_SYN | FLAG_ACK:
	case FLAG_RST:
	case FLAG_RST | FLAG_ACK:
	case FLAG_FIN | FLAG_ACK:
	case FLAG_FIN | FLAG_ACK | FLAG_URG:
	case FLAG_ACK:
	case FLAG_ACK | FLAG_URG:
		return true;
	}
	return false;
}

static enum tracked refuse(uint8_t *because, enum because why)
{
	*because = (uint8_t)why;
	return REFUSED_IT;
}

/* tcp_error(), and the header of 20 bytes before it. */
enum tracked check_tcp(struct conn_packet *packet, uint8_t *because)
{
	struct bytes buf = packet->buf;
	uint32_t header;

	if (buf.length < 20)
		return refuse(because, BECAUSE_TCP_SHORT);
	if (buf.seen < 13)
		return UNREADABLE;
	header = (buf.at[12] >> 4) * 4;
	if (header < 20 || header > buf.length)
		return refuse(because, BECAUSE_TCP_DATA_OFFSET);
	if (buf.seen < buf.length)
		return UNREADABLE;
	if (!packet->sum_known)
		packet->sum_good = sum_is_good(packet->p, buf.at, buf.length, buf.length, TCP);
	if (!packet->sum_good)
		return refuse(because, BECAUSE_TCP_CHECKSUM);
	read_segment(buf.at, buf.length, &packet->segment);
	return are_flags_valid(buf.at[13]) ? ACCEPTED_IT : refuse(because, BECAUSE_TCP_FLAGS);
}

/* tcp_new(): a SYN, or an ACK of a connection that is under way (nf_conntrack_tcp_loose=1). */
static bool begin(struct tcp *tcp, const struct segment *segment, uint8_t *remark)
{
	struct tcp_side *sender = &tcp->sides[ORIGINAL];
	uint8_t next = next_states[ORIGINAL][segment->kind][NN];
	uint32_t window = segment->window ? segment->window : 1, offered = 0;

	*tcp = (struct tcp){.last = {.kind = KIND_NONE}};
	if (next == SS) {
		take_options(sender, segment);
	} else if (next == ES) {
		for (int i = 0; i < 2; i++)
			tcp->sides[i].sack_permitted = tcp->sides[i].liberal = true;
		offered = window;
		*remark = REMARK_PICKED_UP;
	} else {
		return false;
	}
	sender->end = segment->end;
	sender->maxwin = window;
	sender->maxend = segment->end + offered;
	return true;
}

/* A SYN to a connection that one side closed, or that its own RST ended. */
static bool may_reopen(const struct tcp *tcp, enum direction direction)
{
	return (tcp->last.direction == direction && tcp->last.kind == KIND_RST) ||
	       tcp->sides[0].close_init || tcp->sides[1].close_init;
}

/* A SYN+ACK that acknowledges a SYN which was ignored: both ends are in step, the entry was not. */
static bool resynchronises(struct tcp *tcp, enum direction direction, const struct segment *segment)
{
	struct last *last = &tcp->last;
	bool liberal = tcp->sides[direction].liberal;

	if (segment->kind != KIND_SYNACK || last->kind != KIND_SYN ||
	    last->direction == direction || segment->ack != last->end)
		return false;
	last->expects_challenge_ack = false;
	tcp->sides[last->direction] = (struct tcp_side){
		.end = last->end,
		.maxend = last->end,
		.maxwin = last->window ? last->window : 1,
		.scale = last->scale,
		.has_scale = last->has_scale,
		.sack_permitted = last->sack_permitted,
	};
	tcp->sides[direction] = (struct tcp_side){.liberal = liberal};
	return true;
}

/* The entry may be out of step: it notes the segment and lets it pass. */
static enum tracked ignore(struct tcp *tcp, enum direction direction, const struct segment *segment,
			   uint8_t *remark)
{
	struct last *last = &tcp->last;

	last->kind = segment->kind;
	last->direction = (uint8_t)direction;
	last->seq = segment->seq;
	last->end = segment->end;
	last->window = segment->window;
	if (segment->kind == KIND_SYN && direction == ORIGINAL) {
		last->has_scale = segment->scale != NO_SCALE;
		last->scale = last->has_scale ? segment->scale : 0;
		last->sack_permitted = segment->sack_permitted;
		last->simultaneous_open = false;
		last->expects_challenge_ack = tcp->state == LA;
	}
	if (tcp->state == SS && segment->kind == KIND_ACK && direction == REPLY)
		last->ack = segment->ack;
	*remark = REMARK_IGNORED;
	return ACCEPTED_IT;
}

static void refresh(struct conn_entry *entry, int64_t at_ns, int32_t timeout_s)
{
	entry->brief.refreshed_ns = at_ns;
	entry->brief.timeout_s = timeout_s;
}

static int32_t timeout_of(const struct tcp *tcp, const struct segment *segment, uint8_t next)
{
	int32_t usual = timeouts[next];

	if (tcp->retransmissions >= MAX_RETRANS && usual > TIMEOUT_MAX_RETRANS)
		return TIMEOUT_MAX_RETRANS;
	if (segment->kind == KIND_RST)
		return timeouts[CL];
	if ((tcp->sides[0].unacknowledged || tcp->sides[1].unacknowledged) &&
	    usual > TIMEOUT_UNACKNOWLEDGED)
		return TIMEOUT_UNACKNOWLEDGED;
	if (!tcp->last.window && usual > TIMEOUT_MAX_RETRANS)
		return TIMEOUT_MAX_RETRANS;
	return usual;
}

static enum tracked accept(struct conn_entry *entry, enum direction direction,
			   const struct segment *segment, int64_t at_ns, uint8_t old, uint8_t next,
			   uint8_t *remark)
{
	struct tcp *tcp = &entry->tcp;
	int32_t timeout_s;

	tcp->last.kind = segment->kind;
	tcp->last.direction = (uint8_t)direction;
	tcp->state = next;
	if (old != next && next == FW)
		tcp->sides[direction].close_init = true;
	timeout_s = timeout_of(tcp, segment, next);
	if (!entry->brief.seen_reply) {
		if (segment->kind == KIND_RST) { /* the only answer: there is no connection */
			*remark = REMARK_DELETED;
			return DELETES_IT;
		}
		if (segment->kind == KIND_SYN && old == SS) /* does not keep the entry */
			return ACCEPTED_IT;
		if (next == ES && timeout_s > TIMEOUT_UNACKNOWLEDGED)
			timeout_s = TIMEOUT_UNACKNOWLEDGED;
	} else if ((old == SR || old == ES) && next == ES) {
		entry->brief.assured = true;
	}
	refresh(entry, at_ns, timeout_s);
	return ACCEPTED_IT;
}

/* A RST that answers a SYN of the other side, an ACK or a challenge ACK which was let through. */
static bool answers_ignored(const struct conn_entry *entry, enum direction direction,
			    const struct segment *segment, uint8_t old)
{
	const struct last *last = &entry->tcp.last;
	bool after_syn =
		entry->brief.seen_reply && last->kind == KIND_SYN && last->direction != direction;
	bool after_ack = !entry->brief.assured && last->kind == KIND_ACK;

	if ((after_syn || after_ack) && segment->ack == last->end)
		return true;
	return old == SS && last->kind == KIND_ACK && last->direction == REPLY &&
	       segment->seq == last->ack;
}

/* A RST: the state it leads to, and whether that is believed without a look at the window. False: invalid. */
static bool reset(const struct conn_entry *entry, enum direction direction,
		  const struct segment *segment, uint8_t old, uint8_t *next, bool *is_believed)
{
	const struct tcp *tcp = &entry->tcp;
	const struct last *last = &tcp->last;
	const struct tcp_side *other = &tcp->sides[!direction];
	uint8_t state = tcp->state;
	bool is_established = state == ES && entry->brief.assured;

	*next = CL;
	*is_believed = true;
	if (state == FW || state == LA || state == TW || state == CL || state == CW)
		return true;
	*is_believed = false;
	if (other->has_maxack && last->kind != KIND_SYN) {
		bool is_of_train = last->kind == KIND_ACK && last->direction == direction &&
				   segment->seq == last->end;

		if (!segment->seq && !is_established)
			return true;
		if (is_before(segment->seq, other->maxack))
			return false;
		if (!is_established || segment->seq == other->maxack || is_of_train)
			return true;
		*next = old; /* not exact: wait for a challenge ACK */
	}
	*is_believed = answers_ignored(entry, direction, segment, old);
	return true;
}

/* nf_tcp_handle_invalid(): a FIN or RST of each side out of the window shortens the life of the entry. */
static void out_of_window(struct conn_entry *entry, enum direction direction,
			  const struct segment *segment, int64_t at_ns)
{
	struct last *last = &entry->tcp.last;
	int64_t left_ns;

	if (!entry->brief.assured || (segment->kind != KIND_RST && segment->kind != KIND_FIN))
		return;
	if (last->direction == direction || (last->kind != KIND_RST && last->kind != KIND_FIN)) {
		last->kind = segment->kind;
		last->direction = (uint8_t)direction;
		return;
	}
	left_ns = entry->brief.refreshed_ns - at_ns + entry->brief.timeout_s * SECOND_NS;
	if (left_ns >= SHRINKS_ABOVE * SECOND_NS && left_ns > TIMEOUT_UNACKNOWLEDGED * SECOND_NS)
		refresh(entry, at_ns, TIMEOUT_UNACKNOWLEDGED);
}

/* One segment on its entry: by the state table, then by the window. */
static enum tracked step(struct conn_entry *entry, enum direction direction,
			 const struct segment *segment, int64_t at_ns, uint8_t *because,
			 uint8_t *remark)
{
	struct tcp *tcp = &entry->tcp;
	struct last *last = &tcp->last;
	uint8_t old = tcp->state, next = next_states[direction][segment->kind][old];
	uint8_t noted = NO_REMARK;

	if (next == IV)
		return refuse(because, BECAUSE_TCP_STATE);
	if (next == IG || (next == SS && old >= TW)) {
		if (next == SS && may_reopen(tcp, direction))
			return REOPENS_IT;
		if (!resynchronises(tcp, direction, segment))
			return ignore(tcp, direction, segment, remark);
		old = SS;
		next = SR;
	}
	if (next == TW && old == LA && segment->kind == KIND_ACK && last->direction != direction &&
	    last->kind == KIND_SYN && last->expects_challenge_ack) {
		last->expects_challenge_ack = false;
		*remark = REMARK_CHALLENGE_ACK;
		return ACCEPTED_IT;
	}
	if (next == S2)
		last->simultaneous_open = true;
	if (next == SR && direction == REPLY && segment->kind == KIND_ACK &&
	    last->simultaneous_open)
		next = ES;
	if (next == CL && segment->kind == KIND_RST) {
		bool is_believed;

		if (!reset(entry, direction, segment, old, &next, &is_believed))
			return refuse(because, BECAUSE_TCP_RST_OLD);
		if (is_believed)
			return accept(entry, direction, segment, at_ns, old, next, remark);
	}
	if (!judge_window(tcp, direction, segment, because, &noted)) {
		out_of_window(entry, direction, segment, at_ns);
		return REFUSED_IT;
	}
	if (noted) {
		*remark = noted;
		return ACCEPTED_IT;
	}
	return accept(entry, direction, segment, at_ns, old, next, remark);
}

enum tracked track_tcp(struct conn_entry *entry, enum direction direction,
		       const struct segment *segment, int64_t at_ns, uint8_t *because,
		       uint8_t *remark)
{
	if (!entry->brief.confirmed && !begin(&entry->tcp, segment, remark))
		return refuse(because, BECAUSE_TCP_NOT_OPENING);
	return step(entry, direction, segment, at_ns, because, remark);
}
