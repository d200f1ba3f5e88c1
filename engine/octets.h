/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers in network byte order, and the Internet checksum (RFC 1071). */
#ifndef OCTETS_H
#define OCTETS_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "written for little-endian machines"
#endif

static inline uint16_t be16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof v);
	return __builtin_bswap16(v);
}

static inline void set_be16(uint8_t *p, uint32_t value)
{
	uint16_t v = __builtin_bswap16((uint16_t)value);

	memcpy(p, &v, sizeof v);
}

static inline uint32_t be32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return __builtin_bswap32(v);
}

static inline uint64_t be64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof v);
	return __builtin_bswap64(v);
}

/* A word as sum_words() adds it: in memory order. */
static inline uint64_t word(uint32_t value)
{
	return __builtin_bswap16((uint16_t)value);
}

/* The same of a number of more than one word, but for multiples of 0xffff: its words may be added. */
static inline uint64_t number(uint32_t value)
{
	return (uint64_t)value << 8;
}

/*
 * The sum of the words in memory order; an odd byte at the end is padded with a zero byte. Less than 2^35 for less than
 * 2^31 bytes.
 */
static inline uint64_t sum_words(const uint8_t *p, uint32_t n)
{
	unsigned __int128 one = 0, two = 0;
	uint64_t sum = 0;

	while (n >= 16) {
		uint64_t v[2];

		memcpy(v, p, sizeof v);
		one += v[0];
		two += v[1];
		p += 16;
		n -= 16;
	}
	if (n & 8) {
		uint64_t v;

		memcpy(&v, p, sizeof v);
		one += v;
		p += 8;
	}
	if (n & 4) {
		uint32_t v;

		memcpy(&v, p, sizeof v);
		sum += v;
		p += 4;
	}
	if (n & 2) {
		uint16_t v;

		memcpy(&v, p, sizeof v);
		sum += v;
		p += 2;
	}
	if (n & 1)
		sum += *p;
	one += two;
	return sum + ((uint64_t)one & 0xffffffff) + ((uint64_t)one >> 32) + (uint64_t)(one >> 64);
}

/* Has the same remainder by 0xffff as sum_words(), of the 20 bytes that most IPv4 headers have; 0 for zeros alone. */
static inline uint64_t sum_header(const uint8_t *p)
{
	uint64_t sum, more;
	uint32_t last;

	memcpy(&sum, p, sizeof sum);
	memcpy(&more, p + 8, sizeof more);
	memcpy(&last, p + 16, sizeof last);
	sum += more;
	sum += sum < more;
	sum += last;
	return sum + (sum < last);
}

/* Has the same remainder by 0xffff as sum_words(), of at least 8 bytes; 0 for zeros alone. */
static inline uint64_t sum_some(const uint8_t *p, uint32_t n)
{
	enum { MANY = 128 };
	uint64_t sum = 0, more;
	uint32_t at;

	if (n > MANY)
		return sum_words(p, n);
	for (at = 0; at + 8 < n; at += 8) {
		memcpy(&more, p + at, sizeof more);
		sum += more;
		sum += sum < more;
	}
	/* The rest is the end of the last 8 bytes, the others of which were added. */
	memcpy(&more, p + n - 8, sizeof more);
	more >>= 8 * (-n & 7);
	sum += more;
	return sum + (sum < more);
}

/* The same but for multiples of 0xffff, so that there is room for more. */
static inline uint64_t sum_halves(uint64_t sum)
{
	return (sum & 0xffffffff) + (sum >> 32);
}

/* As all_ones(), of a sum that is not 0. */
static inline int folds_to_ones(uint64_t sum)
{
	return sum % 0xffff == 0;
}

/* Whether the sum is all ones once it is folded, that is, whether what was summed has a correct checksum in it. */
static inline int all_ones(uint64_t sum)
{
	return sum && folds_to_ones(sum);
}

#endif
