/* SPDX-License-Identifier: Apache-2.0 */
/* The transports that most packets have, where all of a segment is often there: transport.c, ordinary.c. */
#ifndef TRANSPORT_H
#define TRANSPORT_H

#include "octets.h"
#include "predict.h"
#include "protocols.h"

/* Where all of a packet is there, what it is said to be may stay in registers. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE bool is_sum_good(const struct packet *p, const uint8_t *at, uint32_t covered,
			       uint32_t length, uint8_t protocol)
{
	uint64_t sum = p->version == 4 ? sum_words(p->ip.at + 12, 8) : sum_words(p->ip.at + 8, 32);

	sum += word(length & 0xffff) + word(length >> 16) + word(protocol);
	return all_ones(sum + sum_words(at, covered));
}

/* Of the first bytes of a segment, as if they were all of it. Conntrack and the socket may both ask for the whole. */
ALWAYS_INLINE bool segment_sum_good(struct packet *p, struct bytes segment, uint32_t covered,
				    uint8_t protocol)
{
	if (covered < segment.length)
		return is_sum_good(p, segment.at, covered, covered, protocol);
	if (!p->sum_known) {
		p->sum_known = true;
		p->sum_good = is_sum_good(p, segment.at, covered, covered, protocol);
	}
	return p->sum_good;
}

ALWAYS_INLINE enum step tcp(struct packet *p, struct bytes segment, struct end *end)
{
	uint32_t data_offset;

	if (p->group)
		return drop(end, AT_SOCKET, TCP_GROUP);
	if (segment.length < 20)
		return drop(end, AT_SOCKET, TCP_MALFORMED);
	if (segment.seen < 13)
		return ODD;
	data_offset = (segment.at[12] >> 4) * 4;
	if (data_offset < 20 || data_offset > segment.length)
		return drop(end, AT_SOCKET, TCP_MALFORMED);
	if (segment.seen < segment.length)
		return ODD;
	if (!segment_sum_good(p, segment, segment.length, TCP))
		return drop(end, AT_SOCKET, TCP_CHECKSUM);
	return deliver(end, NO_REASON);
}

ALWAYS_INLINE bool has_listener(const struct world *world, uint16_t port)
{
	for (uint32_t i = 0; i < world->udp_count; i++)
		if (world->udp_ports[i] == port)
			return true;
	return false;
}

/*
 * A checksum of 0 means none. Over IPv6 a socket refuses that; without a socket the kernel reports that first, and a
 * group's datagram goes to the sockets that have joined it, and there are none.
 */
ALWAYS_INLINE enum step udp(const struct world *world, struct packet *p, struct bytes segment,
			    struct end *end)
{
	uint32_t length;

	if (segment.length < 8)
		return drop(end, AT_SOCKET, UDP_MALFORMED);
	if (segment.seen < 6)
		return ODD;
	length = be16(segment.at + 4);
	if (!length && p->version == 6) /* a jumbogram */
		length = segment.length;
	if (length < 8 || length > segment.length)
		return drop(end, AT_SOCKET, UDP_MALFORMED);
	if (segment.seen < 8)
		return ODD;
	if (!be16(segment.at + 6)) {
		if (p->version == 6 && !p->for_group && has_listener(world, be16(segment.at + 2)))
			return drop(end, AT_SOCKET, UDP6_NO_CHECKSUM);
		return deliver(end, NO_REASON);
	}
	if (segment.seen < length)
		return ODD;
	if (!segment_sum_good(p, segment, length, UDP))
		return drop(end, AT_SOCKET, UDP_CHECKSUM);
	return deliver(end, NO_REASON);
}

/*
 * A message with a good checksum counts as delivered, however it is handled. Conntrack verifies the checksum first if
 * the header is complete (icmp_error), and includes the IP header in the sum (nf_ip_checksum): so a message of nothing
 * but zeros has a good sum.
 */
ALWAYS_INLINE enum step icmp(const struct packet *p, struct bytes segment, struct end *end)
{
	uint64_t sum = !p->untracked && segment.length >= 8 ? 0xffff : 0;

	if (segment.seen < segment.length)
		return ODD;
	if (!all_ones(sum + sum_words(segment.at, segment.length)))
		return drop(end, AT_SOCKET, ICMP_CHECKSUM);
	return deliver(end, NO_REASON);
}

ALWAYS_INLINE enum step icmp6(struct packet *p, struct bytes segment, struct end *end)
{
	if (segment.seen < segment.length)
		return ODD;
	if (!segment_sum_good(p, segment, segment.length, ICMPV6))
		return drop(end, AT_SOCKET, ICMP6_CHECKSUM);
	return deliver(end, NO_REASON);
}

#endif
