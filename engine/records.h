/* SPDX-License-Identifier: Apache-2.0 */
/* Where the packets of a capture file are. dossim/engine/records.py declares the structures again. */
#ifndef RECORDS_H
#define RECORDS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "engine.h"

/* Why a walk stopped. */
enum stop { AT_END, FULL, CUT_IN_HEADER, CUT_IN_RECORD, TOO_LARGE };

/* Why a record is not a received packet: dossim.packet.records. */
enum cause { RECEIVED, SENT, OTHER_HOST, BROKEN };

struct file {
	const uint8_t *data; /* at least 16 bytes more than size can be read */
	int64_t size;
	uint32_t big_endian;
	uint32_t header;	/* pcap: bytes before each packet */
	uint32_t unit_ns;	/* pcap: of the fraction of a second */
	uint32_t largest;	/* packet that there can be */
	uint32_t longest;	/* length on the wire that is kept */
	uint32_t largest_block; /* pcapng: that there can be */
};

/* One row for each packet; pcap: without the last three. */
struct rows {
	int64_t *offset;
	int32_t *length, *wire_length;
	int64_t *timestamp_ns, *number;
	int32_t *link;
	uint8_t *fcs, *cause;
};

/* pcapng: what an interface description says; resolution is if_tsresol. */
struct interface {
	int64_t offset_s;
	uint32_t snaplen;
	uint16_t link;
	uint8_t resolution, fcs;
};

/* A walk over packets, which goes on where it is. */
struct walk {
	struct rows rows;
	int64_t most;	/* rows that there is room for */
	int64_t at;	/* the byte of the file */
	int64_t count;	/* rows that are there */
	int64_t number; /* of the next packet */
};

/* What is known before packet blocks, and counted in them: times that 64 bits do not hold. */
struct blocks {
	const struct interface *interfaces;
	uint32_t interface_count;
	uint32_t plain; /* all are received Ethernet frames without a check sequence */
	int64_t late;
};

/* Headers are read where they are: so far before their turn they are asked for. */
enum { HEADERS_AHEAD = 512 };

static inline uint32_t word_of(const struct file *file, int64_t at)
{
	uint32_t v;

	memcpy(&v, file->data + at, sizeof v);
	return file->big_endian ? __builtin_bswap32(v) : v;
}

ENGINE_API uint32_t engine_pcap(const struct file *file, struct walk *walk);

ENGINE_API void engine_pcapng(const struct file *file, struct blocks *blocks, struct walk *walk);

/* Whether all that engine_pcapng() lacks at a byte of a file is what comes behind its end. */
bool goes_on(const struct file *file, int64_t at);

#endif
