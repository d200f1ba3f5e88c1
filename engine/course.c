// SPDX-License-Identifier: Apache-2.0
#include "course.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST_EARLY = 256 }; /* pieces without anything left, before one that is not done */

struct course {
	struct reading *reading;
	struct window **window;
	pthread_mutex_t turn, order;
	pthread_cond_t moved;	/* next is another one, or it is closed */
	int64_t places;		/* that pieces have */
	int64_t next;		/* place */
	bool early[MOST_EARLY]; /* by place: done before its turn */
	bool is_over, is_closed;
};

struct course *engine_course(struct reading *reading, struct window **window)
{
	struct course *course = calloc(1, sizeof *course);

	if (!course)
		return NULL;
	course->reading = reading;
	course->window = window;
	pthread_mutex_init(&course->turn, NULL);
	pthread_mutex_init(&course->order, NULL);
	pthread_cond_init(&course->moved, NULL);
	return course;
}

void engine_course_free(struct course *course)
{
	pthread_mutex_destroy(&course->turn);
	pthread_mutex_destroy(&course->order);
	pthread_cond_destroy(&course->moved);
	free(course);
}

static bool is_closed(const struct course *course)
{
	return __atomic_load_n(&course->is_closed, __ATOMIC_RELAXED);
}

void engine_close_course(struct course *course)
{
	__atomic_store_n(&course->is_closed, true, __ATOMIC_RELAXED);
	pthread_mutex_lock(&course->order);
	pthread_cond_broadcast(&course->moved);
	pthread_mutex_unlock(&course->order);
}

/* -- the turn -- */

/* False: there is no more now, or it cannot be read. */
static bool fill(const struct course *course, uint8_t *data, int64_t *end)
{
	struct reading *reading = course->reading;

	while (*end < reading->size && !is_closed(course)) {
		ssize_t count =
			read(reading->descriptor, data + *end, (size_t)(reading->size - *end));

		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			return false;
		*end += count;
		reading->taken += count;
	}
	return *end == reading->size;
}

/* The packets of bytes that are there. False: Python has to find them. */
static bool find_packets(struct reading *reading, const uint8_t *data, struct walk *walk)
{
	struct blocks blocks = reading->blocks;

	reading->file.data = data;
	reading->file.size = reading->size;
	walk->at = walk->count = 0;
	walk->number = reading->number;
	if (!reading->is_pcapng)
		return engine_pcap(&reading->file, walk) != TOO_LARGE && walk->count;
	blocks.plain = true;
	blocks.late = 0;
	engine_pcapng(&reading->file, &blocks, walk);
	return walk->count && blocks.plain && !blocks.late &&
	       (walk->count == walk->most || goes_on(&reading->file, walk->at));
}

/* The next piece; false: Python has to take it. */
static bool take_piece(const struct course *course, struct runner *runner)
{
	struct reading *reading = course->reading;
	int64_t end = reading->rest_size;
	bool is_whole;

	if (reading->descriptor < 0 || end > reading->size / 2)
		return false;
	memmove(runner->data, reading->rest, (size_t)end); /* it may be the same memory */
	is_whole = fill(course, runner->data, &end);
	reading->rest = runner->data;
	reading->rest_size = end;
	if (!is_whole || !find_packets(reading, runner->data, &runner->walk))
		return false;
	reading->rest += runner->walk.at;
	reading->rest_size -= runner->walk.at;
	reading->base += runner->walk.at;
	reading->number = runner->walk.number;
	reading->packets += runner->walk.count;
	return true;
}

void engine_leave_turn(struct course *course, uint32_t is_over)
{
	course->is_over |= is_over;
	pthread_mutex_unlock(&course->turn);
}

/* -- places -- */

static void advance(struct course *course)
{
	do {
		course->early[course->next % MOST_EARLY] = false;
		course->next++;
	} while (course->early[course->next % MOST_EARLY]);
	pthread_cond_broadcast(&course->moved);
}

uint32_t engine_take_place(struct course *course, int64_t place)
{
	pthread_mutex_lock(&course->order);
	while (course->next != place && !is_closed(course))
		pthread_cond_wait(&course->moved, &course->order);
	pthread_mutex_unlock(&course->order);
	return !is_closed(course);
}

void engine_leave_place(struct course *course, int64_t place)
{
	pthread_mutex_lock(&course->order);
	while (place - course->next >= MOST_EARLY && !is_closed(course))
		pthread_cond_wait(&course->moved, &course->order);
	if (course->next == place)
		advance(course);
	else
		course->early[place % MOST_EARLY] = true;
	pthread_mutex_unlock(&course->order);
}

/* -- what a thread does -- */

static struct capture capture_of(const struct reading *reading, const struct runner *runner)
{
	const struct rows *rows = &runner->walk.rows;

	return (struct capture){runner->data, rows->offset, rows->length, rows->wire_length,
				reading->size};
}

/* False: the window is full. */
static bool gather(const struct course *course, struct runner *runner)
{
	const struct capture capture = capture_of(course->reading, runner);
	const struct rows *rows = &runner->walk.rows;

	runner->gathered += engine_gather(*course->window, &capture, rows->number,
					  rows->timestamp_ns, runner->left + runner->gathered,
					  runner->left_count - runner->gathered);
	return runner->gathered == runner->left_count;
}

uint32_t engine_run_course(struct course *course, struct runner *runner)
{
	for (;;) {
		struct capture capture;

		if (runner->gathered < runner->left_count) { /* in its place */
			if (!gather(course, runner))
				return WINDOW_FULL;
			engine_leave_place(course, runner->place);
		}
		pthread_mutex_lock(&course->turn);
		if (course->is_over || is_closed(course)) {
			pthread_mutex_unlock(&course->turn);
			return OVER;
		}
		runner->place = course->places++;
		runner->left_count = runner->gathered = 0;
		if (!take_piece(course, runner))
			return HAS_TURN;
		pthread_mutex_unlock(&course->turn);
		capture = capture_of(course->reading, runner);
		if (!sweep_rows(runner->sweep, &capture, runner->walk.rows.timestamp_ns,
				runner->walk.count, runner->left, &runner->left_count))
			return NO_ROOM;
		if (!runner->left_count)
			engine_leave_place(course, runner->place);
		else if (!engine_take_place(course, runner->place))
			return OVER;
	}
}
