"""What a process sets before it imports much: threads that nobody needs, and a garbage collector that rests."""

from __future__ import annotations

import atexit
import gc
import os

# Container objects between two collections. Python's 700 make some 80 collections while a command imports its modules,
# and find nothing: what is imported stays. So many objects take 10 to 20 MB, if they were all garbage in cycles.
_STARTING = 100_000
_USUAL = gc.get_threshold()[0]


def prepare() -> None:
    """Call it before numpy is imported.

    numpy's OpenBLAS starts a thread for each CPU when it is loaded, which takes as long as importing numpy, and memory
    for each; nothing here multiplies matrices. OPENBLAS_NUM_THREADS in the environment stays as it is. At the end of
    the process nothing is searched for garbage: the kernel takes the memory back.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.set_threshold(_STARTING)
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)


def settle() -> None:
    """A process that goes on for long has started: what it has now is never searched for garbage again (the little
    that is garbage stays), and of what follows, cycles are found as soon as Python does otherwise.
    """
    gc.freeze()
    gc.set_threshold(_USUAL)
