/* SPDX-License-Identifier: Apache-2.0 */
/* What all of the engine shares. dossim/engine/ loads it and declares its functions again. */
#ifndef ENGINE_H
#define ENGINE_H

#include <stdint.h>

/* Everything else is hidden (-fvisibility=hidden). */
#define ENGINE_API __attribute__((visibility("default")))

/*
 * Raised with every change of a function that is exported, or of what is passed to it: a library that was
 * built from older sources is then refused, not called (dossim/engine/library.py).
 */
#define ENGINE_ABI 28

ENGINE_API uint32_t engine_abi(void);

#endif
