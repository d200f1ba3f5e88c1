/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of protocols, extension headers and ethertypes. */
#ifndef PROTOCOLS_H
#define PROTOCOLS_H

#include <stdbool.h>
#include <stdint.h>

#include "predict.h"

enum {
	ICMP = 1,
	TCP = 6,
	UDP = 17,
	DCCP = 33,
	GRE = 47,
	ICMPV6 = 58,
	SCTP = 132,
	UDPLITE = 136,

	HOP_BY_HOP = 0,
	ROUTING = 43,
	FRAGMENT = 44,
	AUTHENTICATION = 51,
	NO_NEXT = 59,
	OPTIONS = 60, /* for the destination */

	TYPE_IPV4 = 0x0800,
	TYPE_ARP = 0x0806,
	TYPE_IPV6 = 0x86dd,
};

static inline bool is_extension(int kind)
{
	return kind == HOP_BY_HOP || kind == ROUTING || kind == FRAGMENT ||
	       kind == AUTHENTICATION || kind == NO_NEXT || kind == OPTIONS;
}

/* The unit depends on the kind (RFC 8200, RFC 4302). */
static inline uint32_t extension_length(int kind, uint8_t length)
{
	if (kind == FRAGMENT)
		return 8;
	return kind == AUTHENTICATION ? (length + 2u) * 4 : (length + 1u) * 8;
}

/* What is left from an offset on; the offset may lie beyond the end. */
static inline struct bytes bytes_from(struct bytes whole, uint32_t at)
{
	struct bytes rest = {whole.at + (at < whole.length ? at : whole.length), 0, 0};

	rest.length = at < whole.length ? whole.length - at : 0;
	rest.seen = at < whole.seen ? whole.seen - at : 0;
	return rest;
}

static inline struct bytes bytes_to(struct bytes whole, uint32_t length)
{
	if (length < whole.length)
		whole.length = length;
	if (length < whole.seen)
		whole.seen = length;
	return whole;
}

#endif
