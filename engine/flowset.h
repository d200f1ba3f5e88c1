/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FLOWSET_H
#define FLOWSET_H

#include "engine.h"

struct flowset;

/*
 * Flows that were seen, each as 128 bits of a keyed hash of its numbers, so that no two are taken for one; at most so
 * many. NULL: no memory.
 */
ENGINE_API struct flowset *engine_flowset(uint64_t seed, uint64_t other_seed, uint64_t most);
ENGINE_API void engine_flowset_free(struct flowset *set);

/* Rows of six numbers; counts[kinds[i]] is raised for each that is new. Returns 1 if there was one that is not kept. */
ENGINE_API uint32_t engine_flowset_add(struct flowset *set, const uint64_t *keys,
				       const uint8_t *kinds, int64_t count, int64_t *counts);

#endif
