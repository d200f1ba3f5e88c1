"""Records: where the packets of a capture file lie, before their link type is looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Records:
    """Per packet: ``offset`` into the file (int64), captured ``length``, ``wire_length`` and ``link`` type (int32),
    ``timestamp_ns``. Lengths are in bytes; ``wire_length`` is what the record says the packet had on the wire.
    """

    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int32]
    wire_length: npt.NDArray[np.int32]
    link: npt.NDArray[np.int32]
    timestamp_ns: npt.NDArray[np.int64]
