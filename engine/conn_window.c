// SPDX-License-Identifier: Apache-2.0
/*
 * Whether a segment is in the window: tcp_in_window() of nf_conntrack_proto_tcp.c, Linux 6.18. Above a bound is invalid;
 * below one, a segment is late, and ignored.
 */
#include "conntrack.h"

enum { LEAST_ACK_WINDOW = 66000 }; /* MAXACKWINCONST */
enum { STATE_SYN_SENT = 1, STATE_SYN_RECV = 2 };

/* Those of the segment, as far as they are believed. */
struct numbers {
	uint32_t seq, end, ack, sack;
};

static bool is_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static bool is_after(uint32_t a, uint32_t b)
{
	return is_before(b, a);
}

/* tcp_options(): without any, what is known stays; else they replace it, and all flags but liberal. */
void take_options(struct tcp_side *side, const struct segment *segment)
{
	if (!segment->has_options)
		return;
	side->has_scale = segment->scale != NO_SCALE;
	side->scale = side->has_scale ? segment->scale : 0;
	side->sack_permitted = segment->sack_permitted;
	side->has_maxack = side->unacknowledged = side->close_init = false;
}

/* tcp_init_sender(): from a SYN. Both must offer window scaling (RFC 7323). */
void begin_side(struct tcp_side *sender, struct tcp_side *receiver, enum direction direction,
		const struct segment *segment)
{
	sender->end = sender->maxend = segment->end;
	sender->maxwin = segment->window ? segment->window : 1;
	take_options(sender, segment);
	if (direction == REPLY && !(sender->has_scale && receiver->has_scale))
		sender->scale = receiver->scale = 0;
}

/* What is known of a sender before its first segment. True: a SYN of a simultaneous open, which ends the matter. */
static bool start(struct tcp *tcp, enum direction direction, const struct segment *segment,
		  uint32_t sack)
{
	struct tcp_side *sender = &tcp->sides[direction], *receiver = &tcp->sides[!direction];
	bool opens = segment->flags & FLAG_SYN;

	if (!sender->maxwin && !opens) { /* in the middle of a connection */
		sender->end = segment->end;
		sender->maxwin = (uint32_t)segment->window << sender->scale;
		if (!sender->maxwin)
			sender->maxwin = 1;
		sender->maxend = segment->end + sender->maxwin;
		if (!receiver->maxwin)
			receiver->end = receiver->maxend = sack;
		else if (sack == receiver->end + 1) /* likely a reply to a keepalive */
			receiver->end = sack;
		return false;
	}
	if (!sender->maxwin) {
		begin_side(sender, receiver, direction, segment);
		return !(segment->flags & FLAG_ACK);
	}
	if (opens && is_after(segment->end, sender->end) &&
	    (tcp->state == STATE_SYN_SENT || tcp->state == STATE_SYN_RECV)) {
		begin_side(sender, receiver, direction, segment);
		return direction == REPLY && !(segment->flags & FLAG_ACK);
	}
	return false;
}

static struct numbers believed(const struct tcp *tcp, enum direction direction,
			       const struct segment *segment, uint32_t sack)
{
	const struct tcp_side *sender = &tcp->sides[direction], *receiver = &tcp->sides[!direction];
	struct numbers numbers = {segment->seq, segment->end, segment->ack, sack};
	bool is_reset = segment->flags & FLAG_RST;

	/* some stacks send RST+ACK with 0 */
	if (!(segment->flags & FLAG_ACK) || (is_reset && !segment->ack))
		numbers.ack = numbers.sack = receiver->end;
	if (is_reset && !segment->seq && tcp->state == STATE_SYN_SENT) /* the answer to a SYN */
		numbers.seq = numbers.end = sender->end;
	return numbers;
}

enum position { INSIDE_IT, IGNORED_IT, OUTSIDE_IT };

static enum position bounds(const struct numbers *numbers, struct tcp_side *sender,
			    const struct tcp_side *receiver, uint8_t *because, uint8_t *remark)
{
	uint32_t window = sender->maxwin > LEAST_ACK_WINDOW ? sender->maxwin : LEAST_ACK_WINDOW;
	uint32_t lowest_end = sender->end - receiver->maxwin - 1;
	uint32_t lowest_ack = receiver->end - window - 1;
	bool is_ack_over = !is_before(numbers->sack, receiver->end + 1);

	if (!is_before(numbers->seq, sender->maxend + 1)) {
		uint32_t overshot = numbers->end - sender->maxend + 1;

		if (receiver->maxwin && is_after(numbers->end, lowest_end) &&
		    is_after(numbers->sack, lowest_ack) && !is_ack_over &&
		    overshot <= receiver->maxwin) {
			/* More than it may: if that is acknowledged, the acknowledgment shall be in the window. */
			sender->end = numbers->end;
			sender->unacknowledged = true;
			*remark = REMARK_OVERSHOT;
			return IGNORED_IT;
		}
		*because = BECAUSE_TCP_SEQ_OVER;
		return OUTSIDE_IT;
	}
	if (is_ack_over) {
		*because = BECAUSE_TCP_ACK_OVER;
		return OUTSIDE_IT;
	}
	if (receiver->maxwin && !is_after(numbers->end, lowest_end)) {
		*remark = REMARK_SEQ_UNDER;
		return IGNORED_IT;
	}
	if (is_after(numbers->sack, lowest_ack))
		return INSIDE_IT;
	*remark = REMARK_ACK_UNDER;
	return IGNORED_IT;
}

static void count_retransmissions(struct tcp *tcp, enum direction direction,
				  const struct segment *segment, const struct numbers *numbers)
{
	struct last *last = &tcp->last;

	if (last->direction == direction && last->seq == numbers->seq &&
	    last->ack == numbers->ack && last->end == numbers->end &&
	    last->window == segment->window) {
		tcp->retransmissions += tcp->retransmissions < UINT32_MAX;
		return;
	}
	last->direction = (uint8_t)direction;
	last->seq = numbers->seq;
	last->ack = numbers->ack;
	last->end = numbers->end;
	last->window = segment->window;
	tcp->retransmissions = 0;
}

static void learn(struct tcp *tcp, enum direction direction, const struct segment *segment,
		  const struct numbers *numbers)
{
	struct tcp_side *sender = &tcp->sides[direction], *receiver = &tcp->sides[!direction];
	uint32_t window = segment->window, offered, widest;

	if (!(segment->flags & FLAG_SYN))
		window <<= sender->scale;
	widest = window + numbers->sack - numbers->ack;
	if (widest > sender->maxwin)
		sender->maxwin = widest;
	if (is_after(numbers->end, sender->end)) {
		sender->end = numbers->end;
		sender->unacknowledged = true;
	}
	if ((segment->flags & FLAG_ACK) &&
	    (!sender->has_maxack || is_after(numbers->ack, sender->maxack))) {
		sender->maxack = numbers->ack;
		sender->has_maxack = true;
	}
	if (receiver->maxwin && is_after(numbers->end, sender->maxend))
		receiver->maxwin += numbers->end - sender->maxend;
	offered = numbers->sack + window;
	if (is_after(offered, receiver->maxend - 1))
		receiver->maxend = window ? offered : offered + 1;
	if (numbers->ack == receiver->end)
		receiver->unacknowledged = false;
	if (segment->kind == KIND_ACK)
		count_retransmissions(tcp, direction, segment, numbers);
}

bool judge_window(struct tcp *tcp, enum direction direction, const struct segment *segment,
		  uint8_t *because, uint8_t *remark)
{
	struct tcp_side *sender = &tcp->sides[direction], *receiver = &tcp->sides[!direction];
	uint32_t sack = receiver->sack_permitted ? segment->sack : segment->ack;
	struct numbers numbers;

	if (start(tcp, direction, segment, sack))
		return true;
	numbers = believed(tcp, direction, segment, sack);
	switch (bounds(&numbers, sender, receiver, because, remark)) {
	case INSIDE_IT:
		learn(tcp, direction, segment, &numbers);
		return true;
	case IGNORED_IT:
		if (sender->liberal)
			*remark = NO_REMARK;
		return true;
	case OUTSIDE_IT:
		break;
	}
	return sender->liberal;
}
