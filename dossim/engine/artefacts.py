"""``engine/artefacts.c``: what a capture shows of its packets because of where it was taken."""

from __future__ import annotations

import ctypes

import numpy as np

from dossim.engine.layout import Kept
from dossim.engine.library import function
from dossim.engine.predictor import Frames, Given
from dossim.engine.rules import U8
from enforcer.model.nets import Nets

# enum artefact
NOT_SUMMED, HEADER_NOT_SUMMED, LENGTH_MISSING, SENT_BY_HOST = 1, 2, 4, 8


def artefacts(capture: Frames, own: Nets) -> tuple[U8, list[int]]:
    """The flags of each packet, and how many packets have each combination of flags; ``own``: the addresses of the
    host.
    """
    found, packets = np.zeros(len(capture.offset), np.uint8), np.zeros(16, np.int64)
    given, kept = Given(capture), Kept()
    nets = kept.nets(own)
    pointer = ctypes.c_void_p
    run = function("engine_artefacts", [pointer, ctypes.c_int64, *[pointer] * 3], ctypes.c_int64)
    where = ctypes.byref(nets), found.ctypes.data, packets.ctypes.data
    given.require(run(given.address, len(found), *where))
    return found, packets.tolist()
