// SPDX-License-Identifier: Apache-2.0
/* SCTP: nf_conntrack_sctp_packet() of nf_conntrack_proto_sctp.c, Linux 6.18. */
#include "conntrack.h"
#include "octets.h"

enum {
	HEADER = 12,
	CHUNK_HEADER = 4,
	INIT_HEADER = 16, /* struct sctp_inithdr: after the header of the chunk */
	T_FLAG = 1,	  /* the tag is the peer's own */
};

enum chunk_kind {
	DATA = 0,
	INIT = 1,
	INIT_ACK = 2,
	HEARTBEAT = 4,
	HEARTBEAT_ACK = 5,
	ABORT = 6,
	SHUTDOWN = 7,
	SHUTDOWN_ACK = 8,
	ERROR = 9,
	COOKIE_ECHO = 10,
	COOKIE_ACK = 11,
	SHUTDOWN_COMPLETE = 14,
	MOST_KIND = 14,
};

enum state { NN, CL, CW, CE, ES, SS, SR, SA, HS, IV };

static const int32_t timeouts[] = {
	/* NN: of a packet whose chunks left the state as it was before any */
	[NN] = 10, [CL] = 10, [CW] = 3, [CE] = 3,  [ES] = 210,
	[SS] = 3,  [SR] = 3,  [SA] = 3, [HS] = 30,
};

#define SAME {NN, CL, CW, CE, ES, SS, SR, SA, HS}

/* sctp_conntracks: rows are chunks, columns states. Other chunks change nothing. */
static const uint8_t next_states[2][MOST_KIND + 1][9] = {
	{
		[DATA] = SAME,
		[INIT] = {CL, CL, CW, CE, ES, CL, CL, SA, CW},
		[INIT_ACK] = {CL, CL, CW, CE, ES, SS, SR, SA, CL},
		[3] = SAME,
		[HEARTBEAT] = {HS, CL, CW, CE, ES, SS, SR, SA, HS},
		[HEARTBEAT_ACK] = {HS, CL, CW, CE, ES, SS, SR, SA, HS},
		[ABORT] = {CL, CL, CL, CL, CL, CL, CL, CL, CL},
		[SHUTDOWN] = {CL, CL, CW, CE, SS, SS, SR, SA, CL},
		[SHUTDOWN_ACK] = {SA, CL, CW, CE, ES, SA, SA, SA, SA},
		[ERROR] = {CL, CL, CW, CE, ES, SS, SR, SA, CL},
		[COOKIE_ECHO] = {CL, CL, CE, CE, ES, SS, SR, SA, CL},
		[COOKIE_ACK] = {CL, CL, CW, ES, ES, SS, SR, SA, CL},
		[12] = SAME,
		[13] = SAME,
		[SHUTDOWN_COMPLETE] = {CL, CL, CW, CE, ES, SS, SR, CL, CL},
	},
	{
		[DATA] = SAME,
		[INIT] = {IV, CL, CW, CE, ES, SS, SR, SA, IV},
		[INIT_ACK] = {IV, CW, CW, CE, ES, SS, SR, SA, IV},
		[3] = SAME,
		[HEARTBEAT] = {IV, CL, CW, CE, ES, SS, SR, SA, HS},
		[HEARTBEAT_ACK] = {IV, CL, CW, CE, ES, SS, SR, SA, ES},
		[ABORT] = {IV, CL, CL, CL, CL, CL, CL, CL, IV},
		[SHUTDOWN] = {IV, CL, CW, CE, SR, SS, SR, SA, IV},
		[SHUTDOWN_ACK] = {IV, CL, CW, CE, ES, SA, SA, SA, IV},
		[ERROR] = {IV, CL, CW, CL, ES, SS, SR, SA, IV},
		[COOKIE_ECHO] = {IV, CL, CE, CE, ES, SS, SR, SA, IV},
		[COOKIE_ACK] = {IV, CL, CW, ES, ES, SS, SR, SA, IV},
		[12] = SAME,
		[13] = SAME,
		[SHUTDOWN_COMPLETE] = {IV, CL, CW, CE, ES, SS, SR, CL, IV},
	},
};

/* tag: the initiate tag of an INIT or INIT ACK that is long enough. */
struct chunk {
	uint32_t tag;
	uint16_t length;
	uint8_t kind, flags;
	bool has_tag;
};

/* The chunk at a position, which is moved on; one of length 0 is the last. False: there is none. */
static bool read_chunk(struct bytes buf, uint32_t *at, struct chunk *chunk)
{
	const uint8_t *here = buf.at + *at;

	if (buf.length < *at + CHUNK_HEADER)
		return false;
	*chunk = (struct chunk){.length = be16(here + 2), .kind = here[0], .flags = here[1]};
	if ((chunk->kind == INIT || chunk->kind == INIT_ACK) &&
	    buf.length >= *at + CHUNK_HEADER + INIT_HEADER) {
		chunk->tag = be32(here + 4);
		chunk->has_tag = true;
	}
	*at = chunk->length ? *at + ((chunk->length + 3u) & ~3u) : buf.length;
	return true;
}

static uint8_t next_state(enum direction direction, uint8_t kind, uint8_t state)
{
	return kind > MOST_KIND ? state : next_states[direction][kind][state];
}

/* Four bits at a time (RFC 9260, appendix A). */
static uint32_t add_to_crc(uint32_t crc, const uint8_t *at, uint32_t length)
{
	static const uint32_t parts[16] = {
		0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
		0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
		0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
	};

	for (uint32_t i = 0; i < length; i++) {
		crc ^= at[i];
		crc = crc >> 4 ^ parts[crc & 15];
		crc = crc >> 4 ^ parts[crc & 15];
	}
	return crc;
}

static bool is_checksum_good(struct bytes buf)
{
	static const uint8_t none[4];
	uint32_t crc = add_to_crc(UINT32_MAX, buf.at, 8), found;

	crc = add_to_crc(crc, none, sizeof none);
	crc = ~add_to_crc(crc, buf.at + HEADER, buf.length - HEADER);
	memcpy(&found, buf.at + 8, sizeof found);
	return crc == found;
}

static bool is_alone(uint8_t kind)
{
	return kind == INIT || kind == INIT_ACK || kind == SHUTDOWN_COMPLETE;
}

/* do_basic_checks(): some chunks are alone in their packet, others its first; none has length 0. */
static bool are_well_formed(struct bytes buf)
{
	bool had_alone = false;
	uint32_t at = HEADER, place = 0;
	struct chunk chunk;

	for (; read_chunk(buf, &at, &chunk); place++) {
		had_alone |= is_alone(chunk.kind);
		if (place && (had_alone || chunk.kind == COOKIE_ACK || chunk.kind == COOKIE_ECHO))
			return false;
		if (!chunk.length)
			return false;
	}
	return place;
}

static enum tracked refuse(uint8_t *because, enum because why)
{
	*because = (uint8_t)why;
	return REFUSED_IT;
}

enum tracked check_sctp(const struct conn_packet *packet, uint8_t *because)
{
	if (packet->buf.length < HEADER)
		return refuse(because, BECAUSE_SCTP_SHORT);
	if (packet->buf.seen < packet->buf.length)
		return UNREADABLE;
	if (!is_checksum_good(packet->buf))
		return refuse(because, BECAUSE_SCTP_CHECKSUM);
	if (!are_well_formed(packet->buf))
		return refuse(because, BECAUSE_SCTP_CHUNKS);
	return ACCEPTED_IT;
}

/* sctp_new(), and what an unknown association cannot begin with (RFC 9260, section 8.4). */
static bool begin(struct sctp *sctp, struct bytes buf, uint32_t tag)
{
	uint32_t at = HEADER;
	struct chunk chunk;

	*sctp = (struct sctp){0};
	while (read_chunk(buf, &at, &chunk)) {
		uint8_t next = next_state(ORIGINAL, chunk.kind, NN);

		if (chunk.kind == ABORT || chunk.kind == SHUTDOWN_COMPLETE ||
		    chunk.kind == COOKIE_ACK || next == NN || next == IV)
			return false;
		if (chunk.kind == INIT) {
			if (tag || !chunk.has_tag)
				return false;
			sctp->tags[REPLY] = chunk.tag;
		} else if (chunk.kind == HEARTBEAT) {
			sctp->tags[ORIGINAL] = tag;
		} else if (chunk.kind == SHUTDOWN_ACK) {
			sctp->tags[REPLY] = tag;
		}
	}
	return true;
}

/* One packet on its entry, chunk by chunk. */
struct walk {
	struct conn_entry *entry;
	struct sctp *sctp;
	enum direction direction;
	uint32_t tag;
	bool has_data, keeps_timeout;
};

enum tag_verdict { GOOD_TAG, BAD_TAG, PASSED_OVER };

/* A restarted peer has another tag: believed once the other side answers. */
static enum tag_verdict heartbeat(struct walk *walk, bool is_answer)
{
	struct sctp *sctp = walk->sctp;
	enum direction direction = walk->direction;

	if (!sctp->tags[direction]) {
		sctp->tags[direction] = walk->tag;
		return GOOD_TAG;
	}
	if (walk->tag == sctp->tags[direction]) {
		sctp->heartbeat_failed = false;
		return GOOD_TAG;
	}
	if (walk->has_data || walk->keeps_timeout)
		return BAD_TAG;
	if (!is_answer) {
		sctp->heartbeat_failed = walk->keeps_timeout = true;
		sctp->last_direction = (uint8_t)direction;
		return PASSED_OVER;
	}
	if (!sctp->heartbeat_failed || sctp->last_direction == direction)
		return BAD_TAG;
	sctp->heartbeat_failed = false;
	sctp->tags[direction] = walk->tag;
	sctp->tags[!direction] = 0;
	return GOOD_TAG;
}

/* The rules of single chunks (RFC 9260, section 8.5.1). */
static enum tag_verdict judge_tag(struct walk *walk, const struct chunk *chunk)
{
	struct sctp *sctp = walk->sctp;
	uint32_t expected = sctp->tags[walk->direction];

	switch (chunk->kind) {
	case INIT:
		return walk->tag ? BAD_TAG : GOOD_TAG;
	case ABORT:
	case SHUTDOWN_COMPLETE:
		if (chunk->flags & T_FLAG)
			expected = sctp->tags[!walk->direction];
		return walk->tag == expected ? GOOD_TAG : BAD_TAG;
	case COOKIE_ECHO:
		return walk->tag == expected ? GOOD_TAG : BAD_TAG;
	case COOKIE_ACK:
		sctp->inits[0] = sctp->inits[1] = false;
		return GOOD_TAG;
	case HEARTBEAT:
	case HEARTBEAT_ACK:
		return heartbeat(walk, chunk->kind == HEARTBEAT_ACK);
	}
	return GOOD_TAG;
}

static bool take_initiate_tag(struct walk *walk, const struct chunk *chunk, uint8_t old,
			      uint8_t next)
{
	struct sctp *sctp = walk->sctp;
	enum direction direction = walk->direction, other = !direction;

	if (chunk->kind != INIT && chunk->kind != INIT_ACK)
		return true;
	if (!chunk->has_tag)
		return false;
	if (chunk->kind == INIT) {
		/* Else it is repeated or late, which counted in 6.18 without its updates. */
		if (old == NN || sctp->tags[other] != chunk->tag) {
			sctp->inits[other] &= !sctp->inits[direction];
			sctp->inits[direction] = true;
		}
		walk->keeps_timeout |= old == CL && next == CL && walk->entry->brief.confirmed;
	} else {
		uint32_t known = sctp->tags[other];
		bool both = sctp->inits[0] && sctp->inits[1];

		if ((both || !sctp->inits[other]) && known != chunk->tag && (known || both))
			return false;
	}
	sctp->tags[other] = chunk->tag;
	return true;
}

static enum tracked walk_chunks(struct walk *walk, struct bytes buf, int64_t at_ns,
				uint8_t *because)
{
	uint32_t at = HEADER;
	uint8_t next = NN;
	struct chunk chunk;

	while (read_chunk(buf, &at, &chunk)) {
		enum tag_verdict verdict = judge_tag(walk, &chunk);
		uint8_t old = walk->sctp->state, following;

		if (verdict == BAD_TAG)
			return refuse(because, BECAUSE_SCTP_TAG);
		if (verdict == PASSED_OVER)
			continue;
		following = next_state(walk->direction, chunk.kind, old);
		if (following == IV)
			return refuse(because, BECAUSE_SCTP_STATE);
		next = following;
		if (!take_initiate_tag(walk, &chunk, old, next))
			return refuse(because, BECAUSE_SCTP_TAG);
		walk->sctp->state = next;
		walk->entry->brief.assured |= old != next && next == ES;
	}
	if (!walk->keeps_timeout) {
		walk->entry->brief.refreshed_ns = at_ns;
		walk->entry->brief.timeout_s = timeouts[next];
	}
	return ACCEPTED_IT;
}

static bool has_own_tag_rule(uint8_t kind)
{
	return kind == INIT || kind == SHUTDOWN_COMPLETE || kind == COOKIE_ECHO || kind == ABORT ||
	       kind == SHUTDOWN_ACK || kind == HEARTBEAT || kind == HEARTBEAT_ACK;
}

enum tracked track_sctp(struct conn_entry *entry, enum direction direction,
			const struct conn_packet *packet, uint8_t *because)
{
	struct bytes buf = packet->buf;
	struct walk walk = {entry, &entry->sctp, direction, be32(buf.at + 4), false, false};
	bool own_rule = false;
	uint32_t at = HEADER;
	struct chunk chunk;

	while (read_chunk(buf, &at, &chunk)) {
		own_rule |= has_own_tag_rule(chunk.kind);
		walk.has_data |= chunk.kind == DATA;
	}
	if (!entry->brief.confirmed && !begin(walk.sctp, buf, walk.tag))
		return refuse(because, BECAUSE_SCTP_NOT_OPENING);
	if (!own_rule && walk.tag != walk.sctp->tags[direction])
		return refuse(because, BECAUSE_SCTP_TAG);
	return walk_chunks(&walk, buf, packet->at_ns, because);
}
