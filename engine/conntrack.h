/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connection tracking, as dossim/pipeline/conntrack models it, packet after packet: net/netfilter/nf_conntrack_core.c
 * and nf_conntrack_proto_*.c of Linux 6.18, with the default settings.
 *
 * What the host's initial sequence number (ISN) decides is not known beforehand: a flow of a listening port has a world
 * for each of a few ISNs that divide the circle of 2^32 evenly; every other flow has one.
 */
#ifndef CONNTRACK_H
#define CONNTRACK_H

#include "keyset.h"
#include "predict.h"

/* In the order of CtState. */
enum conn_state {
	SEEN_NEW,
	SEEN_ESTABLISHED,
	SEEN_RELATED,
	SEEN_INVALID,
	SEEN_UNTRACKED,
	SEEN_STATES
};

/* Why a packet has its state: positions in dossim.pipeline.conntrack.states.Reason. */
enum because {
	BECAUSE_NO_PROTOCOL,
	BECAUSE_NO_TUPLE,
	BECAUSE_NO_REPLY_TUPLE,
	BECAUSE_WRONG_FAMILY,
	BECAUSE_TCP_SHORT,
	BECAUSE_TCP_DATA_OFFSET,
	BECAUSE_TCP_CHECKSUM,
	BECAUSE_TCP_FLAGS,
	BECAUSE_TCP_NOT_OPENING,
	BECAUSE_TCP_NOT_LOOSE,
	BECAUSE_TCP_STATE,
	BECAUSE_TCP_RST_OLD,
	BECAUSE_TCP_SEQ_OVER,
	BECAUSE_TCP_ACK_OVER,
	BECAUSE_UDP_SHORT,
	BECAUSE_UDP_LENGTH,
	BECAUSE_UDP_CHECKSUM,
	BECAUSE_UDPLITE_SHORT,
	BECAUSE_UDPLITE_COVERAGE,
	BECAUSE_UDPLITE_NO_CHECKSUM,
	BECAUSE_UDPLITE_CHECKSUM,
	BECAUSE_ICMP_SHORT,
	BECAUSE_ICMP_CHECKSUM,
	BECAUSE_ICMP_TYPE_UNKNOWN,
	BECAUSE_ICMP_NOT_REQUEST,
	BECAUSE_ICMP_QUOTE_SHORT,
	BECAUSE_ICMP_QUOTE_NO_REPLY,
	BECAUSE_ICMP_QUOTE_UNKNOWN,
	BECAUSE_ICMP_QUOTE_OTHER,
	BECAUSE_REDIRECT_SHORT,
	BECAUSE_REDIRECT_FORGED,
	BECAUSE_REDIRECT_NO_QUOTE,
	BECAUSE_SCTP_SHORT,
	BECAUSE_SCTP_CHECKSUM,
	BECAUSE_SCTP_CHUNKS,
	BECAUSE_SCTP_NOT_OPENING,
	BECAUSE_SCTP_TAG,
	BECAUSE_SCTP_STATE,
	BECAUSE_NOTRACK,
	BECAUSE_NEIGHBOUR,
	BECAUSE_QUOTES_FLOW,
	BECAUSE_FIRST,
	BECAUSE_NO_REPLY_YET,
	BECAUSE_IS_REPLY,
	BECAUSE_REPLY_SEEN,
};

/* What else happened: one more than the position in Remark. */
enum remark {
	NO_REMARK,
	REMARK_PICKED_UP,
	REMARK_IGNORED,
	REMARK_CHALLENGE_ACK,
	REMARK_OVERSHOT,
	REMARK_SEQ_UNDER,
	REMARK_ACK_UNDER,
	REMARK_REOPENED,
	REMARK_DELETED,
};

enum direction { ORIGINAL, REPLY };

enum { WORLDS = 8 };

#define SECOND_NS INT64_C(1000000000)

/* struct nf_conntrack_tuple. Keys: ports; of ICMP the id, and type and code; of PPTP's GRE the call id. */
struct tuple {
	uint64_t source[2], destination[2];
	uint16_t source_key, destination_key;
	uint8_t protocol, version;
	uint16_t pad;
};

enum kind { KIND_SYN, KIND_SYNACK, KIND_FIN, KIND_ACK, KIND_RST, KIND_NONE };

enum { FLAG_FIN = 1, FLAG_SYN = 2, FLAG_RST = 4, FLAG_ACK = 16, FLAG_URG = 32 };

enum { NO_SCALE = 255 };

/* end: after its data, + 1 each for SYN and FIN. sack: the highest right edge, or ack. */
struct segment {
	uint32_t seq, ack, end, sack;
	uint16_t window;
	uint8_t flags, kind;
	uint8_t scale; /* offered, or NO_SCALE */
	bool sack_permitted, has_options;
};

/* struct ip_ct_tcp_state. */
struct tcp_side {
	uint32_t end, maxend, maxwin, maxack;
	uint8_t scale;
	bool has_maxack, has_scale, sack_permitted, liberal, unacknowledged, close_init;
};

/* The last segment of note; kind and direction of the last that was accepted or ignored. */
struct last {
	uint32_t seq, ack, end;
	uint16_t window;
	uint8_t kind, direction, scale;
	bool has_scale, sack_permitted, expects_challenge_ack, simultaneous_open;
};

struct tcp {
	struct tcp_side sides[2];
	struct last last;
	uint32_t retransmissions;
	uint8_t state;
};

struct sctp {
	uint32_t tags[2];
	uint8_t state, last_direction;
	bool inits[2], heartbeat_failed;
};

/* Of other protocols than TCP and SCTP an entry is no more than this. */
struct brief {
	int64_t refreshed_ns, stream_ns;
	int32_t timeout_s;
	/* flipped: its original direction is not that of the flow's key */
	bool confirmed, seen_reply, assured, flipped;
};

struct conn_entry {
	struct brief brief;
	union {
		struct tcp tcp;
		struct sctp sctp;
	};
};

/* struct request_sock: the host's half-open connection. */
struct embryo {
	struct segment opened;
	uint32_t isn;
	int64_t due_ns, limited_ns;
	uint8_t timeouts;
	bool exists, is_limited, flipped;
};

struct conn_world {
	struct conn_entry entry;
	struct embryo embryo;
	uint32_t isn;
	bool has_entry;
};

/* A SYN that a listening port answered, in a flow that had nothing: its worlds are made when the next packet comes. */
struct opener {
	int64_t at_ns;
	struct segment segment;
	bool has_entry, flipped;
};

/* Why several states are possible. */
enum coin { NO_COIN, COIN_ISN, COIN_CUT, COIN_FORGOTTEN };

enum holds { HOLDS_NOTHING, HOLDS_BRIEF, HOLDS_ENTRY, HOLDS_OPENER, HOLDS_WORLDS };

/* Everything that has one tuple or its inverse. */
struct conn {
	struct tuple key;
	uint32_t next; /* of those that are free */
	uint8_t holds;
	uint8_t open; /* enum coin: why nobody knows what its entry is, or NO_COIN */
	bool is_own_inverse;
	union {
		struct brief brief;
		struct conn_entry *entry;
		struct opener opener;
		struct conn_world *worlds;
	};
};

struct conns {
	struct conn **chunks;
	/* By hash: its 32 bits, and the position in the chunks + 1; 0: nothing is there. At most half of them are used. */
	uint64_t *slots;
	uint32_t slot_mask, chunk_count, used, free, count;
	uint64_t bytes, most_bytes;
	uint64_t seed;
	bool forgets; /* there was one more than are kept */
};

enum read { READ, ABSENT, HIDDEN };

/* A packet at PREROUTING; buf is what it carries, if there is a payload. */
struct conn_packet {
	const struct packet *p; /* its headers; not of TCP and UDP whose sum is known */
	struct bytes buf;
	int64_t at_ns;
	struct tuple tuple, key;
	struct segment segment; /* of TCP, once it is checked */
	uint64_t source[2], destination[2];
	uint8_t version;
	uint8_t protocol;
	enum read payload, ports; /* whether it has them, and they were captured */
	bool has_key, flipped, is_own_inverse;
	bool untracked, is_cut;
	bool sum_known, sum_good;
};

struct conn_outcome {
	uint8_t state, because, remark;
};

/* What a tracker does with a packet. */
enum tracked { ACCEPTED_IT, DELETES_IT, REFUSED_IT, REOPENS_IT, UNREADABLE };

struct branch {
	struct conn_outcome outcome;
	bool is_pending; /* entry is to be confirmed */
	struct conn_entry entry;
};

struct conn_verdict {
	struct branch branches[WORLDS];
	struct conn_outcome outcomes[WORLDS];
	uint32_t branch_count, outcome_count;
	uint8_t coin;	   /* enum coin */
	bool unreadable;   /* the capture cut what decides: branches and outcomes say nothing */
	bool of_flow;	   /* branches are of the packet's own flow */
	struct conn *conn; /* that flow, if it is kept */
};

/* What the host does with packets, as far as it concerns conntrack. */
struct conntrack {
	const struct world *world;
	const struct rules *sends_outside, *sends_inside; /* raw OUTPUT of both interfaces */
	const uint16_t *tcp_ports;			  /* that a socket listens on */
	uint32_t tcp_count;
	struct conns conns;
	struct keyset lost; /* address pairs of packets of which nobody knows whether they passed */
	bool all_lost;
};

/* conn_tuple.c */
/* Of a packet whose header is whole. */
void set_packet(struct conn_packet *packet, const struct packet *p);
/* Of a payload that is known. */
void set_payload(struct conn_packet *packet, struct bytes payload);
enum read find_quoted(struct bytes buf, uint32_t at, uint8_t version, struct tuple *found);
bool invert_tuple(const struct tuple *tuple, struct tuple *inverse);
/* The same for both directions; false: it has only one direction. */
bool tuple_key(const struct tuple *tuple, struct tuple *key, bool *flipped, bool *is_own_inverse);

/* conn_table.c */
bool conns_init(struct conns *conns, uint64_t seed, uint64_t most_bytes);
void conns_free(struct conns *conns);
struct conn *conns_find(const struct conns *conns, const struct tuple *key);
/* New and empty; NULL: as many as are kept are there, and it is one that is not. */
struct conn *conns_add(struct conns *conns, const struct tuple *key, bool is_own_inverse);
void conns_remove(struct conns *conns, struct conn *conn);
bool conn_load(const struct conn *conn, struct conn_entry *entry);
void conn_store(struct conns *conns, struct conn *conn, const struct conn_entry *entry);
struct conn_world *conn_split(struct conns *conns, struct conn *conn);
void conn_clear(struct conns *conns, struct conn *conn);
void conns_prefetch(const struct conns *conns, const struct tuple *key);

/* conn_tcp.c, conn_window.c */
enum tracked check_tcp(struct conn_packet *packet, uint8_t *because);
enum tracked track_tcp(struct conn_entry *entry, enum direction direction,
		       const struct segment *segment, int64_t at_ns, uint8_t *because,
		       uint8_t *remark);
/* NO_REMARK and true: in the window. */
bool judge_window(struct tcp *tcp, enum direction direction, const struct segment *segment,
		  uint8_t *because, uint8_t *remark);
void take_options(struct tcp_side *side, const struct segment *segment);
void begin_side(struct tcp_side *sender, struct tcp_side *receiver, enum direction direction,
		const struct segment *segment);

/* conn_sctp.c */
enum tracked check_sctp(const struct conn_packet *packet, uint8_t *because);
enum tracked track_sctp(struct conn_entry *entry, enum direction direction,
			const struct conn_packet *packet, uint8_t *because);

/* conn_protocols.c */
enum before { ORDINARY, BEFORE_REFUSED, BEFORE_UNTRACKED, BEFORE_QUOTES, BEFORE_UNREADABLE };

enum before before_lookup(struct conn_packet *packet, struct tuple *quoted, uint8_t *because);
/* By the packet alone; ACCEPTED_IT: nothing is wrong with it. */
enum tracked check_packet(struct conn_packet *packet, uint8_t *because);
enum tracked track_packet(struct conn_entry *entry, enum direction direction,
			  const struct conn_packet *packet, uint8_t *because, uint8_t *remark);

/* conn_answer.c */
bool is_listening(const struct conntrack *conntrack, const struct conn_packet *packet);
bool repeated_syn_ack(struct embryo *embryo, int64_t at_ns, struct segment *answer,
		      int64_t *sent_ns);
/* What TCP answers: false if nothing. embryo NULL: no socket listens. */
bool tcp_answer(const struct segment *segment, bool flipped, struct embryo *embryo, uint32_t isn,
		int64_t at_ns, struct segment *answer);

/* conn_world.c */
bool is_expired(const struct brief *brief, int64_t at_ns);
/* The state of the packet, and the entry it would make. What has no entry any more has *has false. */
void in_world(struct conn_entry *entry, bool *has, const struct conn_packet *packet,
	      struct branch *branch);
/* The entry is there after the last hook. */
void confirm(struct conn_entry *entry, bool *has, const struct branch *branch);
/* What the host answers to the packet goes through conntrack. embryo NULL: no socket listens. */
void answer_packet(struct conn_entry *entry, bool *has, const struct conn_packet *packet,
		   struct embryo *embryo, uint32_t isn);
/* All worlds of a flow with more than one; NULL: it has one, or they cannot be kept. */
struct conn_world *worlds_of(struct conntrack *conntrack, struct conn *conn);
/* What the host's timers have sent until now. */
void repeat_syn_acks(struct conn_world *world, const struct conn_packet *packet);

/* conntrack.c */
bool conntrack_init(struct conntrack *conntrack, uint64_t seed, uint64_t most_bytes);
void conntrack_free(struct conntrack *conntrack);
bool is_fresh(const struct conntrack *conntrack, const struct conn_packet *packet);
/* Nothing is known of any flow. */
static inline bool is_blank(const struct conntrack *conntrack)
{
	return !conntrack->conns.count && !conntrack->conns.forgets && !conntrack->lost.count &&
	       !conntrack->all_lost;
}
/* Nor of that of this packet, with a key. */
bool is_unknown(const struct conntrack *conntrack, const struct conn_packet *packet);
void observe(struct conntrack *conntrack, struct conn_packet *packet, struct conn_verdict *verdict);
/* A packet of which nobody knows whether it was here; NULL: nor whose it is. */
void may_have_passed(struct conntrack *conntrack, const struct conn_packet *packet);
/* One that was cut, whose flow was fresh: it was dropped, and has left nothing. */
void forget(struct conntrack *conntrack, const struct conn_packet *packet);
/*
 * What the packet leaves. Sets of enum conn_state: it was passed by the last hook; it was delivered, and what the host
 * answers gets to conntrack.
 */
void conclude(struct conntrack *conntrack, struct conn_packet *packet, struct conn_verdict *verdict,
	      uint8_t passed, uint8_t delivered);

#endif
