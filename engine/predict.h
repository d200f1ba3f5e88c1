/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the predictor share. The structures up to "one packet" are filled in by Python:
 * dossim/engine/predictor.py declares them again, and a test compares their sizes.
 */
#ifndef PREDICT_H
#define PREDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine.h"

/* -- policy -- */

/* A set of addresses: disjoint ranges in ascending order. IPv6 addresses are (high, low) pairs. */
struct range4 {
	uint32_t first, last;
};

struct range6 {
	uint64_t first[2], last[2];
};

struct nets {
	const struct range4 *four;
	const struct range6 *six;
	/* root4[b] is the number of ranges that begin before b << 16; NULL for a short list. */
	const uint32_t *root4;
	uint32_t count4, count6;
};

enum side { SOURCE, DESTINATION };

enum condition_kind { ON_PROTOCOL, ON_NETS, ON_PORTS, ON_ICMP };

/* In the order of evaluation: protocols, addresses, ports, ICMP types. */
struct condition {
	uint8_t kind, side, negated;
	/* ON_NETS: bit 0 for IPv4, bit 1 for IPv6: one net, which netfilter tests before the protocol. */
	uint8_t single;
	/*
	 * ON_PROTOCOL: number. ON_NETS: index of the set. ON_PORTS: first range, ranges, first named set, named
	 * sets. ON_ICMP: type, code or -1.
	 */
	int32_t a, b, c, d;
};

enum action { ALLOW, DENY, LOG, PASS };

struct entry {
	uint8_t action;
	uint8_t families;			  /* bit 0: IPv4, bit 1: IPv6 */
	uint8_t protocols, ports, numbers, types; /* whether it matches on any of them */
	uint16_t tier;
	uint32_t first, count; /* its conditions */
	int32_t index;	       /* what a drop by it is reported as */
};

struct port_range {
	uint16_t first, last;
};

struct port_member {
	uint64_t address[2];
	uint16_t port;
	uint8_t version;
	uint8_t pad[5];
};

struct port_set {
	uint32_t first, count;
	int32_t protocol;
	uint32_t pad;
};

struct failsafe {
	int32_t protocol, port;
	int32_t nets;	 /* index of a set, -1 for any remote address */
	int32_t version; /* of that set */
};

/* A list of entries and what they refer to. */
struct rules {
	const struct entry *entries;
	const struct condition *conditions;
	const struct nets *nets;
	const struct port_range *ranges;
	const uint32_t *names; /* indices of port sets */
	const struct port_set *port_sets;
	const struct port_member *port_members;
	/* Those of the rules' direction match the destination port, those of the other the source port. */
	const struct failsafe *own, *other;
	uint32_t entry_count, own_count, other_count;
	uint8_t egress; /* the remote side is the destination */
	uint8_t pad[3];
};

/* The entries of a tier or a profile; by_default: what a packet that none matches is denied by, or -1. */
struct tier {
	uint32_t first, count;
	int32_t by_default;
};

struct chain {
	struct rules rules; /* failsafes: own only */
	const struct tier *tiers;
	uint32_t tier_count;
	int32_t by_invalid, by_end; /* -1: not denied */
};

/* The chains at each hook, NULL where none is: those of the outside interface, and one of the inside interface. */
struct after {
	const struct chain *pre_dnat, *input, *forward_in, *forward_out, *forward_inside;
};

/* -- the host and its interface -- */

struct route {
	uint64_t net[2], mask[2];
	int32_t version, length;
};

enum early { NOT_EARLY, EARLY_XDP, EARLY_DEVICE, EARLY_NETDEV };

struct world {
	struct rules raw;
	uint32_t held;		      /* so many entries, from the first, are in the early stage */
	uint8_t early;		      /* enum early */
	uint8_t early_stage;	      /* its code */
	uint8_t skips_authentication; /* raw finds the protocol behind an authentication header */
	uint8_t forward;
	uint8_t rp_filter;
	uint8_t has4;
	uint8_t records_flows; /* flows are written */
	uint8_t pad;
	uint32_t mtu;
	const struct classes *classes; /* engine_classes(), or NULL: no packet is ordinary */
	struct nets own, broadcasts, anycasts, joined, routed;
	const struct route *inside, *outside;
	uint32_t inside_count, outside_count;
	const uint16_t *udp_ports; /* that a socket listens on */
	uint32_t udp_count;
};

/* -- packets in, ends out -- */

struct capture {
	const uint8_t *data;
	const int64_t *offset;
	const int32_t *length, *wire_length;
	int64_t size; /* of data */
};

/* Codes are positions in dossim.predict.prediction: FATES, STAGES. */
enum fate { DELIVERED, FORWARDED, DROPPED, UNDETERMINED, NOT_SENDABLE };

enum stage {
	AT_NIC_OFFLOAD,
	AT_DRIVER,
	AT_GENERIC,
	AT_NETDEV_INGRESS,
	AT_IP_INPUT,
	AT_DEFRAG,
	AT_RAW,
	AT_CONNTRACK,
	AT_MANGLE,
	AT_NAT,
	AT_ROUTE,
	AT_FILTER_INPUT,
	AT_FILTER_FORWARD,
	AT_SOCKET,
	AT_EGRESS,
	NO_STAGE = 255
};

enum { NONE = -1, CUT = -2 };

enum way { NOWHERE, TO_HOST, OUT_AGAIN, INSIDE };

/* Whether the checksum of TCP or UDP is good, without extension headers before it. */
enum sum { SUM_UNKNOWN, SUM_GOOD, SUM_BAD };

/* What rules match on, of a packet. A number is NONE if the packet does not have it, CUT if the capture cut it. */
struct flow {
	uint64_t source[2], destination[2];
	int64_t number;
	int64_t at; /* where its transport starts in the data */
	int32_t length,
		captured; /* of its transport: by the IP header, and how much of it is in the data */
	int32_t sport, dport;
	int16_t protocol, icmp_type, icmp_code;
	uint8_t version;
	uint8_t later_fragment, whole_header;
	uint8_t group;
	uint8_t untracked, marked;
	uint8_t way;	  /* enum way */
	uint8_t sum;	  /* enum sum */
	uint8_t extended; /* IPv6 extension headers are before its transport */
	uint8_t pad;
};

/*
 * What a packet means for those after it (follow.h). A fragment is not decided yet. ODD_OPEN: the capture cut what
 * decides, so that it is not known whether it gets to conntrack.
 */
enum odd { NOT_ODD, ODD_FRAGMENT, ODD_OPEN };

/* What a capture shows of a packet because of where it was taken. */
enum artefact { NOT_SUMMED = 1, HEADER_NOT_SUMMED = 2, LENGTH_MISSING = 4, SENT_BY_HOST = 8 };

/* One row for each packet. */
struct columns {
	uint8_t *fate, *stage;
	int32_t *entry;
	uint16_t *reason;
	uint8_t *untracked;
	uint8_t *odd;	    /* enum odd */
	struct flow *flows; /* those that got to conntrack, in order */
	int64_t flow_count;
};

/*
 * Packets of a capture, in order, of which it is not known whether they were on the wire as they are there, or otherwise:
 * the same packets alone. Where that matters they are undetermined for a reason.
 */
struct doubt {
	const int64_t *rows;
	const struct capture *otherwise;
	int64_t count;
	uint16_t reason;
	uint8_t pad[6];
};

/* -- one packet -- */

/* length bytes, of which the first seen ones were captured. */
struct bytes {
	const uint8_t *at;
	uint32_t length, seen;
};

struct packet {
	struct bytes frame;
	struct bytes
		ip; /* from its header on; at first to the end of the frame, then to its own end */
	uint32_t start;	     /* of the IP header in the frame */
	uint16_t type;	     /* the ethertype after all tags */
	uint16_t other_type; /* that after the first tag with a VLAN */
	uint8_t tags;
	bool named; /* a tag has a VLAN */
	bool other_host, truncated;
	bool group, broadcast; /* frames to a group; to all */
	bool for_group;	       /* the destination address is one of a group or a broadcast */
	bool multicast;	       /* of a group */
	bool untracked;
	uint8_t version;
	uint8_t protocol; /* IPv6: the first next header */
	uint8_t received; /* the same of the frame, where this is a datagram of several */
	uint16_t header;  /* IPv4: its length */
	uint16_t total;	  /* IPv4: total length, IPv6: payload length */
	uint64_t source[2], destination[2];
	/* Of a datagram that was reassembled: its largest fragment; IPv6: where its transport was put. */
	uint32_t largest, transport_at;
	bool sum_known, sum_good; /* of the transport's checksum */
};

struct end {
	uint8_t fate, stage;
	uint16_t reason;
	int32_t entry;
};

/* What a stage did with a packet. ODD: a byte that the capture cut is read. */
enum step { GO_ON, ENDED, ODD };

enum reason {
#define REASON(name, text) name,
#include "reasons.h"
#undef REASON
	REASONS,
	NO_MEMORY /* nothing could be allocated */
};

static inline enum step drop(struct end *end, enum stage stage, enum reason reason)
{
	*end = (struct end){DROPPED, stage, reason, NONE};
	return ENDED;
}

static inline enum step drop_by(struct end *end, enum stage stage, int32_t entry)
{
	*end = (struct end){DROPPED, stage, NO_REASON, entry};
	return ENDED;
}

/* The capture cut what decides. */
static inline enum step leave_open(struct end *end, enum stage stage, enum reason reason)
{
	*end = (struct end){UNDETERMINED, stage, reason, NONE};
	return ENDED;
}

static inline enum step deliver(struct end *end, enum reason reason)
{
	*end = (struct end){DELIVERED, NO_STAGE, reason, NONE};
	return ENDED;
}

/* nets.c */
bool nets_contain(const struct nets *nets, uint8_t version, const uint64_t address[2]);

/* match.c */
enum match { NO, YES, SHORT, OPEN };
enum verdict { PASSED, ALLOWED, DENIED, HOTDROPPED, LEFT_OPEN, ACCEPTED };

enum match match_entry(const struct rules *rules, const struct entry *entry,
		       const struct flow *flow);
enum verdict decide(const struct rules *rules, const struct flow *flow, int32_t *by);
enum verdict accept_failsafes(const struct rules *rules, const struct failsafe *list,
			      uint32_t count, int32_t port, const struct flow *flow);
bool protocols_match(const struct rules *rules, const struct entry *entry, const struct flow *flow);
bool addresses_match(const struct rules *rules, const struct entry *entry, const struct flow *flow);
bool ports_match(const struct rules *rules, const struct condition *on, int32_t port,
		 const struct flow *flow);
bool reads_named_ports(const struct rules *rules, const struct entry *entry,
		       const struct flow *flow);
bool icmp_matches(const struct condition *on, const struct flow *flow);

static inline uint8_t family_bit(uint8_t version)
{
	return version == 4 ? 1 : 2;
}

/* What engine_predict() returns if it is not the number of a packet that is not within the data. */
enum { ALL_PREDICTED = -1, OUT_OF_MEMORY = -2 };

/* What each exported function does is where it is defined. */
ENGINE_API int64_t engine_predict(const struct world *world, const struct capture *capture,
				  int64_t count, const struct doubt *doubt,
				  struct columns *columns);
ENGINE_API void engine_decide(const struct rules *rules, const struct flow *flows, int64_t count,
			      uint8_t *verdict, int32_t *by);
ENGINE_API const char *engine_reason(uint32_t code);
ENGINE_API uint32_t engine_cut_reasons(void);
ENGINE_API uint32_t engine_size(uint32_t which);
ENGINE_API int64_t engine_artefacts(const struct capture *capture, int64_t count,
				    const struct nets *own, uint8_t *found, int64_t *packets);

/* after.c: ENDED if policy after conntrack drops the flow, or if that is open. */
enum asked_state { STATE_NEW, STATE_KNOWN, STATE_INVALID, STATE_UNTRACKED };

enum step filter_flow(const struct after *after, enum asked_state state, const struct flow *flow,
		      struct end *end);

/* early.c: the index of the entry that drops the flow, NONE or CUT. */
int32_t early_drops(const struct rules *rules, uint32_t held, bool by_device,
		    const struct flow *flow);

/* parse.c */
enum step parse_link(struct packet *p);
void set_transport(struct flow *flow, int protocol, struct bytes transport,
		   uint32_t fragment_offset);
enum step find_transport6(const struct packet *p, bool skips_authentication, int *protocol,
			  uint32_t *at, uint32_t *fragment_offset);

/*
 * predict.c: a packet of the capture up to defragmentation, without the early stage; and from there on.
 * flow->version is set if it gets to conntrack.
 */
bool take(const struct capture *capture, int64_t number, struct packet *p);
bool frame_of(const struct capture *capture, int64_t number, struct bytes *frame);
struct fragment;
void one_packet(const struct world *world, struct packet *p, struct flow *flow, struct end *end,
		enum odd *odd, struct fragment *fragment);
enum step received(const struct capture *capture, int64_t number, struct packet *p,
		   struct end *end);
/* As received(), of a frame. */
enum step receive(const uint8_t *frame, uint32_t captured, uint32_t wire, struct packet *p,
		  struct end *end);
enum step onward(const struct world *world, struct packet *p, struct flow *flow, struct end *end);
void flow_in_raw(const struct packet *p, bool skips_authentication, struct flow *flow,
		 struct bytes *segment);
enum step judge(enum verdict verdict, int32_t by, struct packet *p, struct end *end);
void complete_flow(const struct packet *p, enum way way, struct flow *flow);

/* Each stage in the file of its name. */
enum step early_stage(const struct world *world, struct packet *p, struct end *end);
enum step ip_input(struct packet *p, struct end *end);
enum step route(const struct world *world, struct packet *p, struct end *end, enum way *way);
enum step find_way(const struct world *world, struct packet *p, struct end *end, enum way *way);
enum step take_way(const struct world *world, struct packet *p, struct end *end, enum way *way);
enum step transport(const struct world *world, struct packet *p, struct end *end);
bool sum_is_good(const struct packet *p, const uint8_t *at, uint32_t covered, uint32_t length,
		 uint8_t protocol);
bool leads_inside(const struct world *world, uint8_t version, const uint64_t address[2]);

/* options.c: NO_REASON if the packet is not dropped for them. */
enum step bad_options4(struct bytes options, enum reason *why);
enum step bad_options6(const struct packet *p, uint32_t at, bool hop_by_hop, enum reason *why);
enum step jumbo_length(const struct packet *p, uint32_t *length);

#endif
