/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets of several pieces of a capture, one after the other in memory of their own: a window. dossim/engine/gather.py
 * declares the structure again.
 */
#ifndef GATHER_H
#define GATHER_H

#include "left.h"
#include "predict.h"

struct window {
	uint8_t *data;
	int64_t size, used; /* bytes that there is room for; that are there */
	int64_t *offset;
	int32_t *length, *wire_length;
	int64_t *number, *timestamp_ns;
	int64_t most, count; /* rows that there is room for; that are there */
};

/* These packets of a piece, in order, with the numbers and times of its rows, as many as there is room for: how many. */
int64_t gather(struct window *window, const struct capture *piece, const int64_t *numbers,
	       const int64_t *times, const struct left *left, int64_t count);

#endif
