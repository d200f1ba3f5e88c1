// SPDX-License-Identifier: Apache-2.0
/* The packet blocks of a pcapng file (draft-ietf-opsawg-pcapng): enhanced, simple and obsolete ones. */
#include "records.h"

enum { SECTION = 0x0a0d0d0a, INTERFACE = 1, OBSOLETE = 2, SIMPLE = 3, ENHANCED = 6 };
enum { SMALLEST = 12, LEAST_SIMPLE = 16, LEAST_ENHANCED = 32, OPTION_FLAGS = 2, ETHERNET = 1 };
enum { BINARY = 0x80, MOST_DIGITS = 19 };

#define BILLION 1000000000
#define LAST_S 9223372035 /* the most that int64 nanoseconds hold */

static const uint64_t TENS[MOST_DIGITS + 1] = {
	1ull,
	10ull,
	100ull,
	1000ull,
	10000ull,
	100000ull,
	1000000ull,
	10000000ull,
	100000000ull,
	1000000000ull,
	10000000000ull,
	100000000000ull,
	1000000000000ull,
	10000000000000ull,
	100000000000000ull,
	1000000000000000ull,
	10000000000000000ull,
	100000000000000000ull,
	1000000000000000000ull,
	10000000000000000000ull,
};

/* Ticks of a power of ten, or of two, as seconds and nanoseconds, rounded down. */
static void split(uint64_t ticks, uint8_t resolution, uint64_t *seconds, uint64_t *ns)
{
	uint32_t power = resolution & ~BINARY;
	uint64_t rest = ticks;

	*seconds = 0;
	if (resolution & BINARY) {
		if (power < 64) {
			*seconds = ticks >> power;
			rest = ticks - (*seconds << power);
		}
		*ns = (uint64_t)((unsigned __int128)rest * BILLION >> power);
		return;
	}
	if (power <= MOST_DIGITS) {
		*seconds = ticks / TENS[power];
		rest = ticks - *seconds * TENS[power];
	}
	if (power <= 9)
		*ns = rest * TENS[9 - power];
	else
		*ns = power - 9 <= MOST_DIGITS ? rest / TENS[power - 9] : 0;
}

static __attribute__((noinline)) int64_t unusual_time(uint64_t ticks,
						      const struct interface *interface,
						      int64_t *late)
{
	uint64_t seconds, ns;
	__int128 total;

	split(ticks, interface->resolution, &seconds, &ns);
	total = (__int128)seconds + interface->offset_s;
	if (total > LAST_S || total < -LAST_S) {
		++*late;
		total = total < 0 ? -LAST_S : LAST_S;
	}
	return (int64_t)total * BILLION + (int64_t)ns;
}

/* late: counted up if 64 bits do not hold it. */
static inline int64_t time_of(uint64_t ticks, const struct interface *interface, int64_t *late)
{
	int64_t unusually_late = 0, found;

	if (!interface->offset_s && interface->resolution == 6 && ticks < LAST_S * 1000000)
		return (int64_t)(ticks * 1000);
	if (!interface->offset_s && interface->resolution == 9 && ticks < LAST_S * BILLION)
		return (int64_t)ticks;
	found = unusual_time(ticks, interface, &unusually_late);
	*late += unusually_late;
	return found;
}

/* The option epb_flags of a block whose options are there, 0 without. */
static uint32_t flags_of(const struct file *file, int64_t option, int64_t after)
{
	while (option + 8 <= after) {
		uint32_t head = word_of(file, option);
		uint32_t code = file->big_endian ? head >> 16 : head & 0xffff;
		uint32_t length = file->big_endian ? head & 0xffff : head >> 16;

		if (code == OPTION_FLAGS && length == 4)
			return word_of(file, option + 4);
		if (!code)
			break;
		option += 4 + (length + 3) / 4 * 4;
	}
	return 0;
}

/* Reception type and direction: bits 2 to 4, 0 and 1; errors: bits 24 to 31. */
static uint8_t cause_of(uint32_t flags)
{
	if ((flags & 3) == 2)
		return SENT;
	if ((flags >> 2 & 7) == 4)
		return OTHER_HOST;
	return flags >> 24 ? BROKEN : RECEIVED;
}

/* A packet block of size bytes as a row; false if it is invalid. */
static inline bool take_block(const struct file *file, uint32_t kind, uint32_t size,
			      struct blocks *blocks, struct walk *walk)
{
	const struct rows *rows = &walk->rows;
	uint32_t number = 0, captured = 0, original, flags = 0;
	const struct interface *interface;
	int64_t at = walk->at, start = at + 28, after = at + size - 4, row = walk->count, options;
	uint64_t ticks = 0;
	uint8_t fcs, cause;

	if (kind == SIMPLE) {
		start = at + 12;
		original = word_of(file, at + 8);
	} else {
		number = word_of(file, at + 8);
		if (kind == OBSOLETE) /* it has a drop count in the other half */
			number = file->big_endian ? number >> 16 : number & 0xffff;
		ticks = (uint64_t)word_of(file, at + 12) << 32 | word_of(file, at + 16);
		captured = word_of(file, at + 20);
		original = word_of(file, at + 24);
	}
	if (number >= blocks->interface_count)
		return false;
	interface = &blocks->interfaces[number];
	if (kind == SIMPLE) {
		captured = original;
		if (interface->snaplen && interface->snaplen < captured)
			captured = interface->snaplen;
		if (captured > size - LEAST_SIMPLE)
			captured = size - LEAST_SIMPLE;
	}
	if (captured > file->largest || captured > after - start)
		return false;
	options = start + (captured + 3) / 4 * 4;
	if (kind != SIMPLE && options + 8 <= after)
		flags = flags_of(file, options, after);
	if (original > file->longest)
		original = file->longest;
	fcs = flags >> 5 & 15 ? flags >> 5 & 15 : interface->fcs;
	cause = cause_of(flags);
	rows->offset[row] = start;
	rows->length[row] = (int32_t)captured;
	rows->wire_length[row] = (int32_t)(original > captured ? original : captured);
	rows->timestamp_ns[row] = time_of(ticks, interface, &blocks->late);
	rows->number[row] = walk->number++;
	rows->link[row] = interface->link;
	rows->fcs[row] = fcs;
	rows->cause[row] = cause;
	walk->count = row + 1;
	blocks->plain &= interface->link == ETHERNET && !fcs && cause == RECEIVED;
	return true;
}

/*
 * Take packet blocks, and pass over other ones, to the end, or to a block that begins a section, describes an interface,
 * is invalid or not whole, or as long as there is room.
 */
void engine_pcapng(const struct file *given, struct blocks *given_blocks, struct walk *given_walk)
{
	/* In registers, as what no row can change. */
	const struct file file = *given;
	struct blocks blocks = *given_blocks;
	struct walk walk = *given_walk;

	while (walk.count < walk.most && file.size - walk.at >= SMALLEST) {
		int64_t here = walk.at;
		uint32_t kind = word_of(&file, here), size = word_of(&file, here + 4);
		bool is_packet = kind == ENHANCED || kind == SIMPLE || kind == OBSOLETE;

		if (kind == SECTION || kind == INTERFACE || size < SMALLEST || size % 4 ||
		    size > file.size - here || size > file.largest_block)
			break;
		__builtin_prefetch((const void *)((uintptr_t)file.data + here + HEADERS_AHEAD));
		if (word_of(&file, here + size - 4) != size)
			break;
		if (is_packet && size < (kind == SIMPLE ? LEAST_SIMPLE : LEAST_ENHANCED))
			break;
		if (is_packet && !take_block(&file, kind, size, &blocks, &walk))
			break;
		walk.at += size;
	}
	*given_blocks = blocks;
	*given_walk = walk;
}

bool goes_on(const struct file *file, int64_t at)
{
	uint32_t kind, size;

	if (file->size - at < SMALLEST)
		return true;
	kind = word_of(file, at);
	size = word_of(file, at + 4);
	return kind != SECTION && kind != INTERFACE && size % 4 == 0 &&
	       size <= file->largest_block && size > file->size - at;
}
