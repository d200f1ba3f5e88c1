// SPDX-License-Identifier: Apache-2.0
/*
 * Options of a received packet: IPv4 (net/ipv4/ip_options.c: __ip_options_compile; ip_input.c: ip_rcv_options), IPv6
 * hop-by-hop and destination headers (net/ipv6/exthdrs.c: ipv6_parse_hopopts, ip6_parse_tlv).
 */
#include "octets.h"
#include "predict.h"
#include "protocols.h"

enum {
	RECORD_ROUTE = 7,
	TIMESTAMP = 68,
	LOOSE_ROUTE = 131,
	CIPSO = 134,
	STRICT_ROUTE = 137,
	ALERT4 = 148
};

static bool is_timestamp(const uint8_t *body, uint8_t length)
{
	uint8_t pointer, flag;

	if (length < 4 || body[2] < 5)
		return false;
	pointer = body[2];
	flag = body[3] & 15;
	if (pointer > length) /* full: the overflow field counts hosts that found no room */
		return flag == 3 || body[3] >> 4 < 15;
	return pointer + (flag == 1 || flag == 3 ? 7 : 3) <= length;
}

static bool is_good4(uint8_t kind, const uint8_t *body, uint8_t length)
{
	switch (kind) {
	case RECORD_ROUTE: /* its pointer is past the end (full), or leaves room for one more address */
		return length >= 3 && body[2] >= 4 && (body[2] > length || body[2] + 3 <= length);
	case TIMESTAMP:
		return is_timestamp(body, length);
	case LOOSE_ROUTE:
	case STRICT_ROUTE:
		return length >= 3 && body[2] >= 4;
	case ALERT4:
		return length >= 4;
	case CIPSO: /* a security label needs a domain, and a host has none (cipso_v4_validate) */
		return false;
	}
	return true;
}

/* Source routes are never accepted. */
enum step bad_options4(struct bytes options, enum reason *why)
{
	static const uint8_t bits[256] = {[RECORD_ROUTE] = 1, [TIMESTAMP] = 2, [LOOSE_ROUTE] = 4};
	uint8_t seen = 0; /* bits of those that may be there once */
	uint32_t at = 0;

	*why = NO_REASON;
	if (options.seen < options.length)
		return ODD;
	while (at < options.length && options.at[at]) {
		const uint8_t *body = options.at + at;
		uint8_t kind = body[0], length, once;

		if (kind == 1) {
			at++;
			continue;
		}
		length = at + 1 < options.length ? body[1] : 0;
		if (length < 2 || at + length > options.length) {
			*why = OPT4_LENGTH;
			return GO_ON;
		}
		once = kind == STRICT_ROUTE ? LOOSE_ROUTE : kind;
		if (seen & bits[once]) {
			*why = OPT4_TWICE;
			return GO_ON;
		}
		seen |= bits[once];
		if (!is_good4(kind, body, length)) {
			*why = OPT4_MALFORMED;
			return GO_ON;
		}
		at += length;
	}
	if (seen & bits[LOOSE_ROUTE])
		*why = OPT4_SOURCE_ROUTE;
	return GO_ON;
}

enum {
	PAD1 = 0,
	PADN = 1,
	ALERT6 = 5,
	CALIPSO = 7,
	IOAM = 0x31,
	JUMBO = 0xc2,
	MOST_PADDING = 7,
	MOST_OPTIONS = 8
};

static enum reason bad_jumbo(const struct packet *p, uint32_t at, uint8_t length)
{
	uint32_t size;

	if (length != 4 || at % 4 != 2)
		return OPT6_JUMBO;
	size = be32(p->ip.at + at + 2);
	if (size <= 0xffff || p->total)
		return OPT6_NOT_JUMBO;
	return size > p->ip.length - 40 ? OPT6_JUMBO_LONGER : NO_REASON;
}

static enum reason bad_option6(const struct packet *p, uint32_t at, bool hop_by_hop)
{
	uint8_t kind = p->ip.at[at], length = p->ip.at[at + 1];

	if (hop_by_hop && kind == ALERT6)
		return length == 2 ? NO_REASON : OPT6_ALERT;
	if (hop_by_hop && kind == CALIPSO)
		return OPT6_CALIPSO;
	if (hop_by_hop && kind == IOAM)
		return at % 4 ? OPT6_IOAM : NO_REASON;
	if (hop_by_hop && kind == JUMBO)
		return bad_jumbo(p, at, length);
	/* The two highest bits of an unknown option say what to do: 0 skips it, all others discard (RFC 8200, 4.2). */
	return kind & 0xc0 ? OPT6_UNKNOWN : NO_REASON;
}

static bool has_zeros(const uint8_t *from, const uint8_t *to)
{
	while (from < to)
		if (*from++)
			return false;
	return true;
}

/* The options header at an offset. Its end is within the packet once it is walked. */
enum step bad_options6(const struct packet *p, uint32_t at, bool hop_by_hop, enum reason *why)
{
	const struct bytes ip = p->ip;
	uint32_t end, padding = 0, options = 0;

	*why = OPT6_LONGER;
	if (ip.length < at + 8)
		return GO_ON;
	if (ip.seen < at + 2)
		return ODD;
	end = at + (ip.at[at + 1] + 1u) * 8;
	if (ip.length < end)
		return GO_ON;
	for (at += 2; at < end;) {
		uint32_t length;
		uint8_t kind;

		if (ip.seen <= at || (ip.at[at] != PAD1 && at + 1 < end && ip.seen <= at + 1))
			return ODD;
		kind = ip.at[at];
		length = kind == PAD1 ? 1 : at + 1 < end ? ip.at[at + 1] + 2u : end;
		*why = OPT6_OPTION_LONGER;
		if (at + length > end)
			return GO_ON;
		if (kind == PAD1 || kind == PADN) {
			*why = OPT6_PADDING;
			padding += length;
			if (padding <= MOST_PADDING && kind == PADN && ip.seen < at + length)
				return ODD;
			if (padding > MOST_PADDING ||
			    (kind == PADN && !has_zeros(ip.at + at + 2, ip.at + at + length)))
				return GO_ON;
		} else {
			padding = 0;
			options++;
			if (hop_by_hop && kind == JUMBO && length == 6 && at % 4 == 2 &&
			    ip.seen < at + length)
				return ODD;
			*why = bad_option6(p, at, hop_by_hop);
			if (!*why && options > MOST_OPTIONS)
				*why = OPT6_MANY;
			if (*why)
				return GO_ON;
		}
		at += length;
	}
	*why = NO_REASON;
	return GO_ON;
}

/* The length of a packet whose hop-by-hop options are good: that of the jumbo option if there is one. */
enum step jumbo_length(const struct packet *p, uint32_t *length)
{
	const struct bytes ip = p->ip;
	uint32_t at = 42, end = 40 + (ip.at[41] + 1u) * 8;

	while (at < end) {
		if (ip.at[at] == JUMBO) {
			*length = 40 + be32(ip.at + at + 2);
			return GO_ON;
		}
		at += ip.at[at] == PAD1 ? 1 : ip.at[at + 1] + 2u;
	}
	*length = ip.length;
	return GO_ON;
}
