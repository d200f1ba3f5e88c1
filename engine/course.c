// SPDX-License-Identifier: Apache-2.0
#include "course.h"

#include "follow.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum {
	MOST_EARLY = 256, /* pieces without anything left, before one that is not done */
	MOST_WINDOWS = 64 /* that are filled before the follower takes packets again */
};

struct course {
	struct reading *reading;
	struct window *window;
	pthread_mutex_t turn, order;
	pthread_cond_t moved;	/* what is below, but for early */
	int64_t places;		/* that pieces have */
	int64_t next;		/* place */
	int64_t awaited;	/* windows that Python has not followed yet */
	bool early[MOST_EARLY]; /* by place: done before its turn */
	bool is_over, is_closed, is_following;
	/*
	 * Changed in a place: so many windows are to be filled first, as many the next time; packets that the follower
	 * took since.
	 */
	int64_t windows, next_windows, followed;
};

struct course *engine_course(struct reading *reading, struct window *window)
{
	struct course *course = calloc(1, sizeof *course);

	if (!course)
		return NULL;
	course->reading = reading;
	course->window = window;
	course->next_windows = 1;
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
	while (course->is_following)
		pthread_cond_wait(&course->moved, &course->order);
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

/* -- what is left, in its place -- */

void engine_change_window(struct course *course, struct window *window)
{
	pthread_mutex_lock(&course->order);
	course->awaited += course->window->count > 0;
	pthread_mutex_unlock(&course->order);
	course->windows -= course->windows > 0;
	course->window = window;
}

void engine_window_followed(struct course *course)
{
	pthread_mutex_lock(&course->order);
	course->awaited--;
	pthread_cond_broadcast(&course->moved);
	pthread_mutex_unlock(&course->order);
}

/* Whether the follower can take packets now: it has those of all windows. */
static bool begin_following(struct course *course, const struct sweep *sweep)
{
	bool may_follow;

	if (!sweep->follower || course->windows || course->window->count)
		return false;
	pthread_mutex_lock(&course->order);
	while (course->awaited && !is_closed(course))
		pthread_cond_wait(&course->moved, &course->order);
	may_follow = course->is_following = !is_closed(course);
	pthread_mutex_unlock(&course->order);
	return may_follow;
}

static void end_following(struct course *course)
{
	pthread_mutex_lock(&course->order);
	course->is_following = false;
	pthread_cond_broadcast(&course->moved);
	pthread_mutex_unlock(&course->order);
}

/* Where Python has to look at many packets, all are better left to it than waited for. */
static void leave_to_windows(struct course *course)
{
	bool is_soon = course->followed < course->window->most;

	course->windows = is_soon ? course->next_windows : 1;
	course->next_windows =
		2 * course->windows < MOST_WINDOWS ? 2 * course->windows : MOST_WINDOWS;
	course->followed = 0;
}

int64_t engine_hand_on(struct course *course, struct sweep *sweep, const struct capture *piece,
		       const int64_t *numbers, const int64_t *times, const struct left *left,
		       int64_t count)
{
	int64_t taken = 0;

	if (begin_following(course, sweep)) {
		taken = follow_left(sweep->follower, sweep, piece, left, count);
		end_following(course);
		if (taken == OUT_OF_MEMORY || taken == count) {
			course->followed += count;
			return taken;
		}
		course->followed += taken;
		leave_to_windows(course);
	}
	return taken + gather(course->window, piece, numbers, times, left + taken, count - taken);
}

/* -- what a thread does -- */

static struct capture capture_of(const struct reading *reading, const struct runner *runner)
{
	const struct rows *rows = &runner->walk.rows;

	return (struct capture){runner->data, rows->offset, rows->length, rows->wire_length,
				reading->size};
}

/* In its place. OVER: all that was left. */
static enum run_step hand_on(struct course *course, struct runner *runner)
{
	const struct capture capture = capture_of(course->reading, runner);
	const struct rows *rows = &runner->walk.rows;
	int64_t taken = engine_hand_on(course, runner->sweep, &capture, rows->number,
				       rows->timestamp_ns, runner->left + runner->handed_on,
				       runner->left_count - runner->handed_on);

	if (taken == OUT_OF_MEMORY)
		return NO_ROOM;
	runner->handed_on += taken;
	return runner->handed_on == runner->left_count ? OVER : WINDOW_FULL;
}

uint32_t engine_run_course(struct course *course, struct runner *runner)
{
	for (;;) {
		struct capture capture;

		if (runner->handed_on < runner->left_count) { /* in its place */
			enum run_step step = hand_on(course, runner);

			if (step == NO_ROOM)
				runner->left_count = runner->handed_on;
			if (step != OVER)
				return step;
			engine_leave_place(course, runner->place);
		}
		pthread_mutex_lock(&course->turn);
		if (course->is_over || is_closed(course)) {
			pthread_mutex_unlock(&course->turn);
			return OVER;
		}
		runner->place = course->places++;
		runner->left_count = runner->handed_on = 0;
		if (!take_piece(course, runner))
			return HAS_TURN;
		pthread_mutex_unlock(&course->turn);
		capture = capture_of(course->reading, runner);
		if (!sweep_rows(runner->sweep, &capture, runner->walk.rows.timestamp_ns,
				runner->walk.count, runner->left, &runner->left_count)) {
			runner->left_count = 0;
			return NO_ROOM;
		}
		if (!runner->left_count)
			engine_leave_place(course, runner->place);
		else if (!engine_take_place(course, runner->place))
			return OVER;
	}
}
