/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets of several pieces of a capture, one after the other in memory of their own: a window. dossim/engine/gather.py
 * declares the structure again.
 */
#ifndef GATHER_H
#define GATHER_H

#include "predict.h"

struct window {
	uint8_t *data;
	int64_t size, used; /* bytes that there is room for; that are there */
	int64_t *offset;
	int32_t *length, *wire_length;
	int64_t *number, *timestamp_ns;
	int64_t most, count; /* rows that there is room for; that are there */
};

/* These rows of a piece, in order, with their numbers and times, as many as there is room for: how many. */
ENGINE_API int64_t engine_gather(struct window *window, const struct capture *piece,
				 const int64_t *numbers, const int64_t *times, const int64_t *rows,
				 int64_t count);

#endif
