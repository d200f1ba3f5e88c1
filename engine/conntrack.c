// SPDX-License-Identifier: Apache-2.0
/*
 * The table of connections: resolve_normal_ct(), nf_conntrack_inet_error() and __nf_conntrack_confirm() of
 * nf_conntrack_core.c (Linux 6.18), on one CPU, with a table that never fills up, without NAT, helpers and zones.
 */
#include "conntrack.h"

#include <string.h>

#include "protocols.h"

bool conntrack_init(struct conntrack *conntrack, uint64_t seed, uint64_t most_bytes)
{
	conntrack->lost = (struct keyset){.seed = seed};
	return conns_init(&conntrack->conns, seed, most_bytes);
}

void conntrack_free(struct conntrack *conntrack)
{
	conns_free(&conntrack->conns);
	keyset_free(&conntrack->lost);
}

/* -- flows of which nobody knows what their entry is -- */

static void set_lost_key(uint64_t key[KEY_WIDTH], const uint64_t source[2],
			 const uint64_t destination[2], uint8_t version, int protocol)
{
	int order = memcmp(source, destination, 2 * sizeof *source);

	memcpy(key, order < 0 ? source : destination, 2 * sizeof *key);
	memcpy(key + 2, order < 0 ? destination : source, 2 * sizeof *key);
	key[4] = (uint64_t)version << 16 | (uint64_t)(protocol + 1);
}

static bool is_lost(const struct conntrack *conntrack, const struct tuple *of)
{
	uint64_t key[KEY_WIDTH];

	if (conntrack->all_lost)
		return true;
	if (!conntrack->lost.count)
		return false;
	set_lost_key(key, of->source, of->destination, of->version, NONE);
	if (keyset_has(&conntrack->lost, key))
		return true;
	set_lost_key(key, of->source, of->destination, of->version, of->protocol);
	return keyset_has(&conntrack->lost, key);
}

/* Why nobody knows what the entry of a flow is, or NO_COIN. */
static enum coin why_open(const struct conntrack *conntrack, const struct conn *conn,
			  const struct tuple *key)
{
	if (conn && conn->open)
		return conn->open;
	if (is_lost(conntrack, key))
		return COIN_CUT;
	return !conn && conntrack->conns.forgets ? COIN_FORGOTTEN : NO_COIN;
}

void may_have_passed(struct conntrack *conntrack, const struct conn_packet *packet)
{
	uint64_t key[KEY_WIDTH];

	if (!packet) {
		conntrack->all_lost = true;
	} else if (packet->payload != READ || packet->ports != READ) {
		int protocol = packet->payload == READ ? packet->protocol : NONE;

		set_lost_key(key, packet->source, packet->destination, packet->version, protocol);
		if (!keyset_add(&conntrack->lost, key))
			conntrack->all_lost = true;
	} else if (packet->has_key) {
		struct conn *conn = conns_find(&conntrack->conns, &packet->key);

		if (!conn)
			conn = conns_add(&conntrack->conns, &packet->key, packet->is_own_inverse);
		if (conn) {
			conn_clear(&conntrack->conns, conn);
			conn->open = COIN_CUT;
		}
	}
}

static bool is_empty(const struct conn *conn)
{
	if (conn->open)
		return false;
	if (conn->holds != HOLDS_WORLDS)
		return conn->holds == HOLDS_NOTHING;
	for (int i = 0; i < WORLDS; i++)
		if (conn->worlds[i].has_entry || conn->worlds[i].embryo.exists)
			return false;
	return true;
}

/* Nothing can be there of the packet's flow: neither an entry nor a packet of which nobody knows. */
bool is_fresh(const struct conntrack *conntrack, const struct conn_packet *packet)
{
	const struct conn *conn;

	if (!packet->has_key)
		return false;
	conn = conns_find(&conntrack->conns, &packet->key);
	return (!conn || is_empty(conn)) && !why_open(conntrack, conn, &packet->key);
}

bool is_unknown(const struct conntrack *conntrack, const struct conn_packet *packet)
{
	return packet->has_key && !conns_find(&conntrack->conns, &packet->key) &&
	       !why_open(conntrack, NULL, &packet->key);
}

void forget(struct conntrack *conntrack, const struct conn_packet *packet)
{
	struct conn *conn = packet->has_key ? conns_find(&conntrack->conns, &packet->key) : NULL;

	if (conn)
		conns_remove(&conntrack->conns, conn);
}

/* -- verdicts -- */

static struct conn_outcome invalid(uint8_t because)
{
	return (struct conn_outcome){SEEN_INVALID, because, NO_REMARK};
}

static void be_sure(struct conn_verdict *verdict, uint8_t state, uint8_t because)
{
	verdict->outcomes[0] = (struct conn_outcome){state, because, NO_REMARK};
	verdict->outcome_count = 1;
}

static void give_up(struct conntrack *conntrack, const struct conn_packet *packet,
		    struct conn_verdict *verdict)
{
	may_have_passed(conntrack, packet);
	verdict->unreadable = true;
}

/* What the packet itself decides stands; else an unknown entry may make anything of it. */
static void decide_open(struct conntrack *conntrack, struct conn_packet *packet, enum coin coin,
			struct conn_verdict *verdict)
{
	uint8_t because = 0;
	enum tracked checked = check_packet(packet, &because);

	if (checked == UNREADABLE) {
		give_up(conntrack, packet, verdict);
	} else if (checked == REFUSED_IT) {
		be_sure(verdict, SEEN_INVALID, because);
	} else {
		be_sure(verdict, SEEN_NEW, BECAUSE_NO_REPLY_YET);
		verdict->outcomes[1] =
			(struct conn_outcome){SEEN_ESTABLISHED, BECAUSE_REPLY_SEEN, NO_REMARK};
		verdict->outcomes[2] = invalid(BECAUSE_TCP_STATE);
		verdict->outcome_count =
			packet->protocol == TCP || packet->protocol == SCTP ? 3 : 2;
		verdict->coin = (uint8_t)coin;
	}
}

/* The different outcomes of the branches, by state. */
static void sum_up(struct conn_verdict *verdict)
{
	verdict->outcome_count = 0;
	for (uint8_t state = 0; state < SEEN_STATES; state++) {
		for (uint32_t i = 0; i < verdict->branch_count; i++) {
			struct conn_outcome outcome = verdict->branches[i].outcome;
			uint32_t known = 0;

			if (outcome.state != state)
				continue;
			while (known < verdict->outcome_count &&
			       memcmp(&verdict->outcomes[known], &outcome, sizeof outcome))
				known++;
			if (known == verdict->outcome_count)
				verdict->outcomes[verdict->outcome_count++] = outcome;
		}
	}
	verdict->coin = verdict->outcome_count > 1 ? COIN_ISN : NO_COIN;
}

static void set_all(struct conn_verdict *verdict, uint32_t count, struct conn_outcome outcome)
{
	for (uint32_t i = 0; i < count; i++) {
		verdict->branches[i].outcome = outcome;
		verdict->branches[i].is_pending = false;
	}
	verdict->branch_count = count;
	be_sure(verdict, outcome.state, outcome.because);
}

/* The rest of nf_conntrack_inet_error(): an error neither refreshes the entry, nor is it a reply. */
static struct conn_outcome quoting(struct conn_entry *entry, bool has,
				   const struct conn_packet *packet, const struct tuple *quoted)
{
	if (!has || is_expired(&entry->brief, packet->at_ns))
		return invalid(BECAUSE_ICMP_QUOTE_UNKNOWN);
	if (memcmp(quoted->destination, packet->destination, sizeof quoted->destination))
		return invalid(BECAUSE_ICMP_QUOTE_OTHER);
	return (struct conn_outcome){SEEN_RELATED, BECAUSE_QUOTES_FLOW, NO_REMARK};
}

static void relate(struct conntrack *conntrack, const struct conn_packet *packet,
		   const struct tuple *quoted, struct conn_verdict *verdict)
{
	bool flipped, is_own_inverse, has = false;
	struct conn_entry entry;
	struct tuple key;
	struct conn *conn;
	struct conn_world *worlds;
	enum coin open;

	entry.brief = (struct brief){0};
	if (!tuple_key(quoted, &key, &flipped, &is_own_inverse)) {
		be_sure(verdict, SEEN_INVALID, BECAUSE_ICMP_QUOTE_UNKNOWN);
		return;
	}
	conn = conns_find(&conntrack->conns, &key);
	worlds = worlds_of(conntrack, conn);
	open = why_open(conntrack, conn, &key);
	if (open) {
		be_sure(verdict, SEEN_RELATED, BECAUSE_QUOTES_FLOW);
		verdict->outcomes[verdict->outcome_count++] = invalid(BECAUSE_ICMP_QUOTE_UNKNOWN);
		verdict->coin = (uint8_t)open;
		return;
	}
	verdict->branch_count = worlds ? WORLDS : 1;
	if (conn && !worlds)
		has = conn_load(conn, &entry);
	for (uint32_t i = 0; i < verdict->branch_count; i++)
		verdict->branches[i].outcome =
			worlds ? quoting(&worlds[i].entry, worlds[i].has_entry, packet, quoted)
			       : quoting(&entry, has, packet, quoted);
	sum_up(verdict);
}

/* The packet in all worlds of its flow. */
static void look_up(struct conntrack *conntrack, struct conn_packet *packet,
		    struct conn_verdict *verdict)
{
	struct conn *conn = verdict->conn;
	struct conn_world *worlds = worlds_of(conntrack, conn);
	enum coin open = why_open(conntrack, conn, &packet->key);
	uint32_t count = worlds ? WORLDS : 1;
	uint8_t because = 0;
	enum tracked checked;
	struct conn_entry entry;
	bool has;

	entry.brief = (struct brief){0};
	if (open) {
		decide_open(conntrack, packet, open, verdict);
		return;
	}
	verdict->of_flow = true;
	for (uint32_t i = 0; worlds && i < WORLDS; i++)
		repeat_syn_acks(&worlds[i], packet);
	checked = check_packet(packet, &because);
	if (checked == UNREADABLE) {
		verdict->of_flow = false;
		give_up(conntrack, packet, verdict);
		return;
	}
	if (checked == REFUSED_IT) {
		set_all(verdict, count, invalid(because));
		return;
	}
	verdict->branch_count = count;
	if (worlds) {
		for (uint32_t i = 0; i < WORLDS; i++)
			in_world(&worlds[i].entry, &worlds[i].has_entry, packet,
				 &verdict->branches[i]);
		sum_up(verdict);
		return;
	}
	has = conn && conn_load(conn, &entry);
	in_world(&entry, &has, packet, &verdict->branches[0]);
	if (conn)
		conn_store(&conntrack->conns, conn, has ? &entry : NULL);
	verdict->outcomes[0] = verdict->branches[0].outcome;
	verdict->outcome_count = 1;
}

/* A packet at PREROUTING -200, trimmed to its own length and reassembled, in the order of arrival. */
void observe(struct conntrack *conntrack, struct conn_packet *packet, struct conn_verdict *verdict)
{
	struct tuple quoted;
	uint8_t because = 0;

	verdict->branch_count = verdict->outcome_count = 0;
	verdict->coin = NO_COIN;
	verdict->unreadable = verdict->of_flow = false;
	verdict->conn = NULL;
	if (packet->payload == HIDDEN || (packet->payload == READ && packet->ports == HIDDEN)) {
		give_up(conntrack, packet, verdict);
		return;
	}
	if (packet->has_key && packet->payload == READ)
		verdict->conn = conns_find(&conntrack->conns, &packet->key);
	if (packet->untracked) {
		bool is_open = !packet->has_key ||
			       why_open(conntrack, verdict->conn, &packet->key) != NO_COIN;
		uint32_t count = is_open ? 0 : worlds_of(conntrack, verdict->conn) ? WORLDS : 1;

		set_all(verdict, count,
			(struct conn_outcome){SEEN_UNTRACKED, BECAUSE_NOTRACK, NO_REMARK});
		verdict->of_flow = count > 0;
		return;
	}
	if (packet->payload == ABSENT) {
		be_sure(verdict, SEEN_INVALID, BECAUSE_NO_PROTOCOL);
		return;
	}
	switch (before_lookup(packet, &quoted, &because)) {
	case BEFORE_REFUSED:
		be_sure(verdict, SEEN_INVALID, because);
		return;
	case BEFORE_UNTRACKED:
		be_sure(verdict, SEEN_UNTRACKED, BECAUSE_NEIGHBOUR);
		return;
	case BEFORE_QUOTES:
		relate(conntrack, packet, &quoted, verdict);
		return;
	case BEFORE_UNREADABLE:
		give_up(conntrack, packet, verdict);
		return;
	case ORDINARY:
		break;
	}
	if (packet->ports == ABSENT)
		be_sure(verdict, SEEN_INVALID, BECAUSE_NO_TUPLE);
	else if (!packet->has_key)
		be_sure(verdict, SEEN_INVALID, BECAUSE_NO_REPLY_TUPLE);
	else
		look_up(conntrack, packet, verdict);
}

/* -- what a packet leaves -- */

static bool is_in(uint8_t states, const struct branch *branch)
{
	return states >> branch->outcome.state & 1;
}

/* It begins a connection of a listening port. */
static bool opens(const struct conn_packet *packet)
{
	return (packet->segment.flags & (FLAG_SYN | FLAG_ACK | FLAG_RST | FLAG_FIN)) == FLAG_SYN;
}

static void conclude_worlds(struct conn_world *worlds, const struct conn_packet *packet,
			    const struct conn_verdict *verdict, uint8_t passed, uint8_t delivered,
			    bool listens)
{
	for (int i = 0; i < WORLDS; i++) {
		struct conn_world *world = &worlds[i];
		const struct branch *branch = &verdict->branches[i];

		if (branch->is_pending && is_in(passed | delivered, branch))
			confirm(&world->entry, &world->has_entry, branch);
		if (is_in(delivered, branch))
			answer_packet(&world->entry, &world->has_entry, packet,
				      listens ? &world->embryo : NULL, world->isn);
	}
}

/* From now on the host's ISN counts. */
static void depend_on_isn(struct conntrack *conntrack, const struct conn_packet *packet,
			  struct conn *conn, const struct conn_entry *entry)
{
	struct conn_world *worlds;

	if (!conn) {
		conn = conns_add(&conntrack->conns, &packet->key, packet->is_own_inverse);
		if (!conn)
			return;
		conn->holds = HOLDS_OPENER;
		conn->opener = (struct opener){
			.at_ns = packet->at_ns,
			.segment = packet->segment,
			.has_entry = entry != NULL,
			.flipped = packet->flipped,
		};
		return;
	}
	conn_store(&conntrack->conns, conn, entry);
	worlds = conn_split(&conntrack->conns, conn);
	for (int i = 0; worlds && i < WORLDS; i++)
		answer_packet(&worlds[i].entry, &worlds[i].has_entry, packet, &worlds[i].embryo,
			      worlds[i].isn);
}

static void conclude_one(struct conntrack *conntrack, const struct conn_packet *packet,
			 const struct conn_verdict *verdict, uint8_t passed, uint8_t delivered,
			 bool listens)
{
	const struct branch *branch = &verdict->branches[0];
	struct conn *conn = verdict->conn;
	struct conn_entry entry;
	bool has;

	entry.brief = (struct brief){0};
	has = conn && conn_load(conn, &entry);
	if (branch->is_pending && is_in(passed | delivered, branch))
		confirm(&entry, &has, branch);
	if (is_in(delivered, branch)) {
		struct embryo none = {0};

		if (listens && opens(packet)) {
			depend_on_isn(conntrack, packet, conn, has ? &entry : NULL);
			return;
		}
		answer_packet(&entry, &has, packet, listens ? &none : NULL, 0);
	}
	if (!conn && has)
		conn = conns_add(&conntrack->conns, &packet->key, packet->is_own_inverse);
	if (conn)
		conn_store(&conntrack->conns, conn, has ? &entry : NULL);
}

void conclude(struct conntrack *conntrack, struct conn_packet *packet, struct conn_verdict *verdict,
	      uint8_t passed, uint8_t delivered)
{
	struct conn *conn = verdict->conn;
	uint8_t because;
	bool listens;

	if (!verdict->of_flow || !(passed | delivered) || (conn && conn->open))
		return;
	if (packet->untracked && packet->protocol == TCP)
		check_packet(packet, &because); /* reads the segment */
	listens = delivered && is_listening(conntrack, packet);
	if (verdict->branch_count == WORLDS)
		conclude_worlds(conn->worlds, packet, verdict, passed, delivered, listens);
	else
		conclude_one(conntrack, packet, verdict, passed, delivered, listens);
	if (conn && is_empty(conn))
		conns_remove(&conntrack->conns, conn);
}
