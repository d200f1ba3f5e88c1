// SPDX-License-Identifier: Apache-2.0
/*
 * A packet in one of the worlds of its flow: resolve_normal_ct() and nf_conntrack_handle_packet() of
 * nf_conntrack_core.c (Linux 6.18).
 */
#include "conntrack.h"
#include "protocols.h"

enum { ISN_TICK_NS = 64 }; /* secure_seq.c: seq_scale */

bool is_expired(const struct brief *brief, int64_t at_ns)
{
	return at_ns >= brief->refreshed_ns + brief->timeout_s * SECOND_NS;
}

/* The state of the packet, and the entry it would make. What has no entry any more has *has false. */
void in_world(struct conn_entry *entry, bool *has, const struct conn_packet *packet,
	      struct branch *branch)
{
	struct conn_outcome *outcome = &branch->outcome;
	enum direction direction = ORIGINAL;
	struct conn_entry *mine = entry;
	uint8_t because = 0;
	enum tracked tracked;

	branch->is_pending = false;
	if (*has && is_expired(&entry->brief, packet->at_ns))
		*has = false;
	if (!*has) {
		mine = &branch->entry;
		mine->brief = (struct brief){.flipped = packet->flipped};
	} else if (packet->is_own_inverse || packet->flipped != entry->brief.flipped) {
		direction = REPLY; /* also where both are the same: that tuple was inserted last */
	}
	*outcome = (struct conn_outcome){SEEN_NEW, *has ? BECAUSE_NO_REPLY_YET : BECAUSE_FIRST,
					 NO_REMARK};
	if (direction == REPLY)
		*outcome = (struct conn_outcome){SEEN_ESTABLISHED, BECAUSE_IS_REPLY, NO_REMARK};
	else if (mine->brief.seen_reply)
		*outcome = (struct conn_outcome){SEEN_ESTABLISHED, BECAUSE_REPLY_SEEN, NO_REMARK};
	tracked = track_packet(mine, direction, packet, &because, &outcome->remark);
	if (tracked == REFUSED_IT) {
		*outcome = (struct conn_outcome){SEEN_INVALID, because, NO_REMARK};
		return;
	}
	if (tracked == REOPENS_IT) {
		*has = false;
		in_world(entry, has, packet, branch);
		outcome->remark = REMARK_REOPENED;
		return;
	}
	mine->brief.seen_reply |= direction == REPLY;
	branch->is_pending = !mine->brief.confirmed;
	if (tracked == DELETES_IT)
		*has = false;
}

void confirm(struct conn_entry *entry, bool *has, const struct branch *branch)
{
	*entry = branch->entry;
	entry->brief.confirmed = true;
	*has = true;
}

/* A packet of the host's own, in one world, in the other direction than the packet. */
static void send(struct conn_entry *entry, bool *has, const struct conn_packet *packet,
		 const struct segment *segment, int64_t at_ns)
{
	struct conn_packet own = *packet;
	struct branch branch;

	invert_tuple(&packet->tuple, &own.tuple);
	own.flipped = !packet->flipped && !packet->is_own_inverse;
	own.at_ns = at_ns;
	if (segment)
		own.segment = *segment;
	in_world(entry, has, &own, &branch);
	if (branch.is_pending)
		confirm(entry, has, &branch);
}

/* embryo NULL: no socket listens. */
void answer_packet(struct conn_entry *entry, bool *has, const struct conn_packet *packet,
		   struct embryo *embryo, uint32_t isn)
{
	uint8_t type = (uint8_t)(packet->tuple.destination_key >> 8);
	uint8_t code = (uint8_t)packet->tuple.destination_key;
	struct segment segment;

	if (packet->protocol == TCP) {
		isn += (uint32_t)(packet->at_ns / ISN_TICK_NS);
		if (tcp_answer(&packet->segment, packet->flipped, embryo, isn, packet->at_ns,
			       &segment))
			send(entry, has, packet, &segment, packet->at_ns);
	} else if (packet->version == 4 && packet->protocol == ICMP) {
		/* icmp_timestamp() answers with code 0, whatever that of the request is. */
		if (type == 8 || (type == 13 && !code && packet->buf.length >= 12))
			send(entry, has, packet, NULL, packet->at_ns);
	} else if (packet->version == 6 && packet->protocol == ICMPV6 && type == 128) {
		send(entry, has, packet, NULL, packet->at_ns);
	}
}

/* -- worlds -- */

/* The worlds of a flow that was no more than its opener; NULL: they cannot be kept. */
static struct conn_world *expand(struct conntrack *conntrack, struct conn *conn)
{
	struct opener opener = conn->opener;
	struct conn_packet packet = {
		.protocol = TCP,
		.version = conn->key.version,
		.tuple = conn->key,
		.segment = opener.segment,
		.at_ns = opener.at_ns,
		.flipped = opener.flipped,
		.is_own_inverse = conn->is_own_inverse,
	};
	struct branch branch;
	struct conn_world *worlds;
	bool has = false;

	if (opener.flipped)
		invert_tuple(&conn->key, &packet.tuple);
	conn_clear(&conntrack->conns, conn);
	worlds = conn_split(&conntrack->conns, conn);
	if (!worlds)
		return NULL;
	if (opener.has_entry)
		in_world(NULL, &has, &packet, &branch);
	for (int i = 0; i < WORLDS; i++) {
		struct conn_world *world = &worlds[i];

		if (opener.has_entry)
			confirm(&world->entry, &world->has_entry, &branch);
		answer_packet(&world->entry, &world->has_entry, &packet, &world->embryo,
			      world->isn);
	}
	return worlds;
}

struct conn_world *worlds_of(struct conntrack *conntrack, struct conn *conn)
{
	if (conn && conn->holds == HOLDS_OPENER)
		return expand(conntrack, conn);
	return conn && conn->holds == HOLDS_WORLDS ? conn->worlds : NULL;
}

/* What the host's timers have sent until now. */
void repeat_syn_acks(struct conn_world *world, const struct conn_packet *packet)
{
	struct segment segment;
	int64_t at_ns;

	while (repeated_syn_ack(&world->embryo, packet->at_ns, &segment, &at_ns)) {
		struct conn_packet opened = *packet;

		if (packet->flipped != world->embryo.flipped)
			invert_tuple(&packet->tuple, &opened.tuple);
		opened.flipped = world->embryo.flipped;
		send(&world->entry, &world->has_entry, &opened, &segment, at_ns);
	}
}
