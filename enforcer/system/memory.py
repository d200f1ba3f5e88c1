"""How the C library gives memory to threads."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # malloc.h of glibc


def one_arena() -> bool:
    """Let all threads allocate from one arena of glibc (mallopt(3)): each further arena keeps what it once needed, and
    the agent's threads seldom allocate at the same time. Call it before there are threads. False: another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, 1) == 1
