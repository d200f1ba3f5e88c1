// SPDX-License-Identifier: Apache-2.0
/*
 * The trackers of UDP, UDP-Lite, ICMP, ICMPv6, GRE and all other protocols: nf_conntrack_proto_udp.c, _icmp.c,
 * _icmpv6.c, _gre.c and generic_packet() of nf_conntrack_core.c, Linux 6.18. Before any of it, some messages of ICMP are
 * decided by themselves: nf_conntrack_handle_icmp().
 */
#include "conntrack.h"
#include "octets.h"
#include "protocols.h"

enum {
	HIGHEST_TYPE = 18, /* NR_ICMP_TYPES */
	ERRORS6_BELOW = 128,
	REDIRECT = 137,
	REDIRECT_LENGTH = 40,  /* struct rd_msg */
	REDIRECTED_HEADER = 4, /* ND_OPT_REDIRECT_HDR */
	STREAM_AFTER = 2,      /* seconds, as the timeouts */
	UDP_TIMEOUT = 30,
	UDP_TIMEOUT_STREAM = 120,
	ICMP_TIMEOUT = 30,
	GRE_TIMEOUT = 30,
	GRE_TIMEOUT_STREAM = 180,
	GENERIC_TIMEOUT = 600,
};

static enum before refuse_before(uint8_t *because, enum because why)
{
	*because = (uint8_t)why;
	return BEFORE_REFUSED;
}

/* The beginning of nf_conntrack_inet_error(): the tuple that the quoted packet's flow is found by. */
static enum before quotes(const struct conn_packet *packet, uint32_t at, struct tuple *quoted,
			  uint8_t *because)
{
	struct tuple found;

	if (find_quoted(packet->buf, at, packet->version, &found) != READ)
		return refuse_before(because, BECAUSE_ICMP_QUOTE_SHORT);
	if (!invert_tuple(&found, quoted))
		return refuse_before(because, BECAUSE_ICMP_QUOTE_NO_REPLY);
	return BEFORE_QUOTES;
}

static enum before icmp4(const struct conn_packet *packet, struct tuple *quoted, uint8_t *because)
{
	struct bytes buf = packet->buf;

	if (buf.length < 8)
		return refuse_before(because, BECAUSE_ICMP_SHORT);
	if (buf.seen < buf.length)
		return BEFORE_UNREADABLE;
	/* nf_ip_checksum() sums up the IP header as well: a message of nothing but zeros then is as good as any. */
	if (!all_ones(0xffff + sum_words(buf.at, buf.length)))
		return refuse_before(because, BECAUSE_ICMP_CHECKSUM);
	if (buf.at[0] > HIGHEST_TYPE)
		return refuse_before(because, BECAUSE_ICMP_TYPE_UNKNOWN);
	switch (buf.at[0]) { /* icmp_is_err() */
	case 3:
	case 4:
	case 5:
	case 11:
	case 12:
		return quotes(packet, 8, quoted, because);
	}
	return ORDINARY;
}

/* nf_conntrack_icmpv6_redirect(): one that quotes the packet in its first option. */
static enum before redirect(const struct conn_packet *packet, struct tuple *quoted,
			    uint8_t *because)
{
	struct bytes buf = packet->buf;

	if (buf.length < REDIRECT_LENGTH)
		return refuse_before(because, BECAUSE_REDIRECT_SHORT);
	if (buf.at[1])
		return ORDINARY;
	if (packet->p->ip.at[7] != 255 || packet->source[0] >> 54 != 0xfe80 >> 6)
		return refuse_before(because, BECAUSE_REDIRECT_FORGED);
	if (buf.length < REDIRECT_LENGTH + 2 || !buf.at[REDIRECT_LENGTH + 1])
		return refuse_before(because, BECAUSE_REDIRECT_NO_QUOTE);
	if (buf.at[REDIRECT_LENGTH] != REDIRECTED_HEADER)
		return ORDINARY;
	return quotes(packet, REDIRECT_LENGTH + 8, quoted, because);
}

/* MLD, router and neighbour discovery; multicast router advertisements and solicitations (RFC 4286). */
static bool is_discovery(uint8_t type)
{
	return (type >= 130 && type <= 136) || type == 143 || type == 151 || type == 152;
}

static enum before icmp6(struct conn_packet *packet, struct tuple *quoted, uint8_t *because)
{
	struct bytes buf = packet->buf;

	if (buf.length < 8)
		return refuse_before(because, BECAUSE_ICMP_SHORT);
	if (buf.seen < buf.length)
		return BEFORE_UNREADABLE;
	if (!sum_is_good(packet->p, buf.at, buf.length, buf.length, ICMPV6))
		return refuse_before(because, BECAUSE_ICMP_CHECKSUM);
	if (is_discovery(buf.at[0]))
		return BEFORE_UNTRACKED;
	if (buf.at[0] == REDIRECT)
		return redirect(packet, quoted, because);
	return buf.at[0] < ERRORS6_BELOW ? quotes(packet, 8, quoted, because) : ORDINARY;
}

/* ICMP of the other family is ordinary, until its tracker refuses it. */
enum before before_lookup(struct conn_packet *packet, struct tuple *quoted, uint8_t *because)
{
	if (packet->version == 4 && packet->protocol == ICMP)
		return icmp4(packet, quoted, because);
	if (packet->version == 6 && packet->protocol == ICMPV6)
		return icmp6(packet, quoted, because);
	return ORDINARY;
}

static enum tracked refuse(uint8_t *because, enum because why)
{
	*because = (uint8_t)why;
	return REFUSED_IT;
}

/* udp_error(). The checksum is over all that the packet carries, also beyond the length of the datagram. */
static enum tracked check_udp(struct conn_packet *packet, uint8_t *because)
{
	struct bytes buf = packet->buf;
	uint32_t length;

	if (buf.length < 8)
		return refuse(because, BECAUSE_UDP_SHORT);
	if (buf.seen < 6)
		return UNREADABLE;
	length = be16(buf.at + 4);
	if (length < 8 || length > buf.length)
		return refuse(because, BECAUSE_UDP_LENGTH);
	if (buf.seen < 8)
		return UNREADABLE;
	if (!be16(buf.at + 6))
		return ACCEPTED_IT;
	if (buf.seen < buf.length)
		return UNREADABLE;
	if (!packet->sum_known)
		packet->sum_good = sum_is_good(packet->p, buf.at, buf.length, buf.length, UDP);
	return packet->sum_good ? ACCEPTED_IT : refuse(because, BECAUSE_UDP_CHECKSUM);
}

/* udplite_error(): it sums up the pseudo header of UDP. */
static enum tracked check_udplite(const struct conn_packet *packet, uint8_t *because)
{
	struct bytes buf = packet->buf;
	uint32_t covered;

	if (buf.length < 8)
		return refuse(because, BECAUSE_UDPLITE_SHORT);
	if (buf.seen < 6)
		return UNREADABLE;
	covered = be16(buf.at + 4);
	if (!covered)
		covered = buf.length;
	if (covered < 8 || covered > buf.length)
		return refuse(because, BECAUSE_UDPLITE_COVERAGE);
	if (buf.seen < 8)
		return UNREADABLE;
	if (!be16(buf.at + 6))
		return refuse(because, BECAUSE_UDPLITE_NO_CHECKSUM);
	if (buf.seen < covered)
		return UNREADABLE;
	if (!sum_is_good(packet->p, buf.at, covered, buf.length, UDP))
		return refuse(because, BECAUSE_UDPLITE_CHECKSUM);
	return ACCEPTED_IT;
}

enum tracked check_packet(struct conn_packet *packet, uint8_t *because)
{
	switch (packet->protocol) {
	case TCP:
		return check_tcp(packet, because);
	case UDP:
		return check_udp(packet, because);
	case UDPLITE:
		return check_udplite(packet, because);
	case SCTP:
		return check_sctp(packet, because);
	case ICMP:
		if (packet->version != 4)
			return refuse(because, BECAUSE_WRONG_FAMILY);
		break;
	case ICMPV6:
		if (packet->version != 6)
			return refuse(because, BECAUSE_WRONG_FAMILY);
		break;
	}
	return ACCEPTED_IT;
}

/* An answered flow is a stream, and assured, once it has lasted two seconds. */
static void track_udp(struct brief *brief, int64_t at_ns)
{
	bool is_stream;

	if (!brief->confirmed)
		brief->stream_ns = at_ns + STREAM_AFTER * SECOND_NS;
	is_stream = brief->seen_reply && at_ns > brief->stream_ns;
	brief->timeout_s = is_stream ? UDP_TIMEOUT_STREAM : UDP_TIMEOUT;
	brief->assured |= is_stream;
}

static void track_stream(struct brief *brief, int32_t timeout_s, int32_t stream_s)
{
	brief->timeout_s = brief->seen_reply ? stream_s : timeout_s;
	brief->assured |= brief->seen_reply;
}

/* nf_conntrack_icmp_packet(): only a request makes an entry. type: of the entry's original direction. */
static bool may_begin_icmp(const struct brief *brief, uint8_t protocol, uint8_t type)
{
	if (protocol == ICMP)
		return type == 8 || type == 13 || type == 15 || type == 17;
	return brief->confirmed || type == 128 || type == 139;
}

enum tracked track_packet(struct conn_entry *entry, enum direction direction,
			  const struct conn_packet *packet, uint8_t *because, uint8_t *remark)
{
	struct brief *brief = &entry->brief;
	struct tuple original = packet->tuple;

	switch (packet->protocol) {
	case TCP:
		return track_tcp(entry, direction, &packet->segment, packet->at_ns, because,
				 remark);
	case SCTP:
		return track_sctp(entry, direction, packet, because);
	case UDP:
		track_udp(brief, packet->at_ns);
		break;
	case UDPLITE:
		track_stream(brief, UDP_TIMEOUT, UDP_TIMEOUT_STREAM);
		break;
	case GRE:
		track_stream(brief, GRE_TIMEOUT, GRE_TIMEOUT_STREAM);
		break;
	case ICMP:
	case ICMPV6:
		if (direction == REPLY)
			invert_tuple(&packet->tuple, &original);
		if (!may_begin_icmp(brief, (uint8_t)packet->protocol,
				    original.destination_key >> 8))
			return refuse(because, BECAUSE_ICMP_NOT_REQUEST);
		brief->timeout_s = ICMP_TIMEOUT;
		break;
	default:
		brief->timeout_s = GENERIC_TIMEOUT;
	}
	brief->refreshed_ns = packet->at_ns;
	return ACCEPTED_IT;
}
