// SPDX-License-Identifier: Apache-2.0
/*
 * What the host's TCP answers to a segment that it was delivered, which conntrack sees in the other direction: a RST of a
 * closed port, the SYN+ACK of a listening one. tcp_rcv_state_process() (TCP_LISTEN) and tcp_check_req()
 * (net/ipv4/tcp_input.c, tcp_minisocks.c), as far as captured traffic gets: nobody on the wire knows the host's ISN.
 */
#include "conntrack.h"

enum {
	RETRIES = 5, /* tcp_synack_retries */
	/* The window of a SYN+ACK: 128 kB of buffer, half of it window, in whole segments of 1,460 bytes (tcp_rmem). */
	SYNACK_WINDOW = 64240,
	OFFERED_SCALE = 7,
};

#define FIRST_TIMEOUT_NS SECOND_NS    /* TCP_TIMEOUT_INIT; each is twice the one before */
#define RATE_LIMIT_NS (SECOND_NS / 2) /* tcp_invalid_ratelimit */

bool is_listening(const struct conntrack *conntrack, const struct conn_packet *packet)
{
	if (packet->protocol != 6 || !packet->has_key)
		return false;
	for (uint32_t i = 0; i < conntrack->tcp_count; i++)
		if (conntrack->tcp_ports[i] == packet->tuple.destination_key)
			return true;
	return false;
}

static void set_segment(struct segment *answer, uint8_t flags, uint32_t seq, uint32_t ack,
			uint16_t window)
{
	*answer = (struct segment){
		.seq = seq,
		.ack = ack,
		.sack = ack,
		.end = seq + !!(flags & FLAG_SYN),
		.window = window,
		.flags = flags,
		.kind = flags & FLAG_RST   ? KIND_RST
			: flags & FLAG_SYN ? KIND_SYNACK
					   : KIND_ACK,
		.scale = NO_SCALE,
	};
}

/* As tcp_v4_send_reset() writes it. */
static void set_reset(struct segment *answer, const struct segment *to)
{
	if (to->flags & FLAG_ACK)
		set_segment(answer, FLAG_RST, to->ack, 0, 0);
	else
		set_segment(answer, FLAG_RST | FLAG_ACK, 0, to->end, 0);
}

static void set_syn_ack(struct segment *answer, const struct segment *to, uint32_t isn)
{
	set_segment(answer, FLAG_SYN | FLAG_ACK, isn, to->seq + 1, SYNACK_WINDOW);
	answer->has_options = true;
	answer->sack_permitted = to->sack_permitted;
	if (to->scale != NO_SCALE)
		answer->scale = OFFERED_SCALE;
}

/* TCP_LISTEN: a RST to an ACK, a SYN+ACK to a SYN without FIN, nothing else. embryo: the one that begins, or NULL. */
static bool listener(const struct segment *segment, bool flipped, struct embryo *embryo,
		     uint32_t isn, int64_t at_ns, struct segment *answer)
{
	if (segment->flags & FLAG_RST)
		return false;
	if (segment->flags & FLAG_ACK) {
		set_reset(answer, segment);
		return true;
	}
	if (!(segment->flags & FLAG_SYN) || (segment->flags & FLAG_FIN))
		return false;
	set_syn_ack(answer, segment, isn);
	if (embryo)
		*embryo = (struct embryo){
			.opened = *segment,
			.isn = isn,
			.due_ns = at_ns + FIRST_TIMEOUT_NS,
			.exists = true,
			.flipped = flipped,
		};
	return true;
}

/* tcp_oow_rate_limited(): data without SYN is not limited. */
static bool is_allowed(struct embryo *embryo, const struct segment *segment, int64_t at_ns)
{
	int64_t since_ns = at_ns - embryo->limited_ns;

	if (segment->seq != segment->end && !(segment->flags & FLAG_SYN))
		return true;
	if (embryo->is_limited && since_ns >= 0 && since_ns < RATE_LIMIT_NS)
		return false;
	embryo->is_limited = true;
	embryo->limited_ns = at_ns;
	return true;
}

/* tcp_in_window(). */
static bool is_in_receive_window(const struct segment *segment, uint32_t first)
{
	uint32_t end = first + SYNACK_WINDOW;

	if (segment->seq == first ||
	    ((int32_t)(first - segment->end) < 0 && (int32_t)(segment->seq - end) < 0))
		return true;
	return segment->seq == end && segment->end == end;
}

static bool half_open(const struct segment *segment, bool flipped, struct embryo *embryo,
		      uint32_t isn, int64_t at_ns, struct segment *answer)
{
	uint32_t syn_isn = embryo->opened.seq;
	uint8_t kind = segment->flags & (FLAG_SYN | FLAG_RST | FLAG_ACK);

	if (segment->seq == syn_isn && kind == FLAG_SYN) {
		if (!is_allowed(embryo, segment, at_ns))
			return false;
		embryo->due_ns = at_ns + (FIRST_TIMEOUT_NS << embryo->timeouts);
		set_syn_ack(answer, &embryo->opened, embryo->isn);
		return true;
	}
	if ((segment->flags & FLAG_ACK) && segment->ack != embryo->isn + 1)
		return listener(segment, flipped, NULL, isn, at_ns, answer);
	if (!is_in_receive_window(segment, syn_isn + 1)) {
		if ((segment->flags & FLAG_RST) || !is_allowed(embryo, segment, at_ns))
			return false;
		set_segment(answer, FLAG_ACK, embryo->isn + 1, syn_isn + 1, SYNACK_WINDOW);
		return true;
	}
	if (segment->seq == syn_isn)
		kind &= ~FLAG_SYN;
	if (kind & FLAG_RST) { /* only an exact one ends it (measured, 6.18.44) */
		embryo->exists = segment->seq != syn_isn + 1;
		return false;
	}
	if (!(kind & FLAG_SYN))
		return false;
	set_reset(answer, segment);
	embryo->exists = false;
	return true;
}

bool tcp_answer(const struct segment *segment, bool flipped, struct embryo *embryo, uint32_t isn,
		int64_t at_ns, struct segment *answer)
{
	if (!embryo) {
		if (segment->flags & FLAG_RST)
			return false;
		set_reset(answer, segment);
		return true;
	}
	return embryo->exists ? half_open(segment, flipped, embryo, isn, at_ns, answer)
			      : listener(segment, flipped, embryo, isn, at_ns, answer);
}

/* The SYN+ACK that the host's timer repeats next, by at_ns, and when: reqsk_timer_handler(). */
bool repeated_syn_ack(struct embryo *embryo, int64_t at_ns, struct segment *answer,
		      int64_t *sent_ns)
{
	if (!embryo->exists || at_ns < embryo->due_ns)
		return false;
	if (embryo->timeouts == RETRIES) {
		embryo->exists = false;
		return false;
	}
	*sent_ns = embryo->due_ns;
	embryo->timeouts++;
	embryo->due_ns += FIRST_TIMEOUT_NS << embryo->timeouts;
	set_syn_ack(answer, &embryo->opened, embryo->isn);
	return true;
}
