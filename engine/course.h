/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several threads sweep one file, piece by piece. They take turns with it: who has the turn reads the next piece and finds
 * the packets in it. They sweep pieces beside each other, and hand on what is left in the order of pieces: each piece has
 * a place in it. The follower takes it where it is; from a packet on that Python has to look at, it is put into one window
 * after the other, until Python has followed these. What is not usual of a file is left to Python with the turn.
 * dossim/engine/course.py declares the structures again.
 */
#ifndef COURSE_H
#define COURSE_H

#include "gather.h"
#include "records.h"
#include "sweep.h"

/* Of whoever has the turn. The file is as records.h has it, its data and size are those of a piece. */
struct reading {
	struct file file;
	struct blocks blocks;
	uint32_t is_pcapng;
	int32_t descriptor; /* -1: Python has to read */
	int64_t size;	    /* bytes of a piece */
	/* Bytes that were read and not taken, and where they are in the file; the number of the next packet. */
	const uint8_t *rest;
	int64_t rest_size, base, number;
	int64_t taken, packets; /* bytes that were read and packets that were found here */
};

/* Of one thread: the memory for a piece, and what was found in it. */
struct runner {
	uint8_t *data; /* with room for a piece, and 16 bytes more */
	struct walk walk;
	struct sweep *sweep;
	struct left *left; /* with room for all */
	int64_t left_count, handed_on;
	int64_t place;
};

enum run_step {
	OVER,	     /* nothing is left to be done */
	HAS_TURN,    /* Python has to take the next piece */
	WINDOW_FULL, /* Python has to change the window, in the place of the piece, and to go on */
	NO_ROOM	     /* out of memory */
};

struct course;

/* The window has nothing yet. NULL: no memory. */
ENGINE_API struct course *engine_course(struct reading *reading, struct window *window);
ENGINE_API void engine_course_free(struct course *course);

/* Takes pieces until there is something for Python to do. */
ENGINE_API uint32_t engine_run_course(struct course *course, struct runner *runner);

/* is_over: no more pieces are to be taken. */
ENGINE_API void engine_leave_turn(struct course *course, uint32_t is_over);

/* Waits for the place; false if the course was closed. */
ENGINE_API uint32_t engine_take_place(struct course *course, int64_t place);
ENGINE_API void engine_leave_place(struct course *course, int64_t place);

/*
 * In its place: the follower takes what a sweep left of a piece, or the window does, as far as there is room in it. How
 * many packets; or OUT_OF_MEMORY.
 */
ENGINE_API int64_t engine_hand_on(struct course *course, struct sweep *sweep,
				  const struct capture *piece, const int64_t *numbers,
				  const int64_t *times, const struct left *left, int64_t count);
/* In a place: the packets of the window are Python's, and others go to another one, which has nothing yet. */
ENGINE_API void engine_change_window(struct course *course, struct window *window);
/* Python has followed a window that had packets. */
ENGINE_API void engine_window_followed(struct course *course);

/* Nobody wants anything more: all threads are to end. Once it returns, none of them uses the follower. */
ENGINE_API void engine_close_course(struct course *course);

#endif
