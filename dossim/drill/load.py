"""How busy the machine was while a drill ran, as the kernel measured it, and which results that affects.

A drill depends on timing in one place: all fragments of a datagram must arrive within the kernel's timeout. Whether
they did is measured with the observer's clock, not assumed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dossim.observe.journey import Journeys

_SCHEDSTAT = Path("/proc/thread-self/schedstat")  # ns on a CPU, ns waiting for one, time slices
_MUCH = 0.1  # a machine is called busy from this share of time spent waiting for a CPU
_TICK_S = 0.05  # the kernel's timers may fire this early, because of their granularity


@dataclass(frozen=True)
class Waiting:
    """Seconds measured, and how many of them this thread waited for a CPU."""

    elapsed_s: float
    waited_s: float

    @property
    def is_busy(self) -> bool:
        return self.waited_s > _MUCH * self.elapsed_s

    def __str__(self) -> str:
        waited = f"of {self.elapsed_s:.1f} s the drill waited {self.waited_s:.1f} s for a CPU"
        return f"the machine was too busy: {waited}; run the drill again with less load"


class Stall:
    """Measures from its creation."""

    def __init__(self) -> None:
        self._started, self._waited = time.monotonic(), _waited_s()

    def so_far(self) -> Waiting:
        return Waiting(time.monotonic() - self._started, _waited_s() - self._waited)


def _waited_s() -> float:
    """0 on kernels without this figure (CONFIG_SCHED_INFO)."""
    try:
        return int(_SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def spans_s(journeys: Journeys, fragments: Mapping[int, Hashable]) -> dict[Hashable, float]:
    """Seconds between the first and the last fragment of each key at defragmentation."""
    first: dict[Hashable, int] = {}
    last: dict[Hashable, int] = {}
    arrived_ns = journeys["pre_defrag_ns"]
    for packet, key in fragments.items():
        arrived = int(arrived_ns[packet])
        if arrived:
            first[key] = min(arrived, first.get(key, arrived))
            last[key] = max(arrived, last.get(key, arrived))
    return {key: (last[key] - first[key]) / 1e9 for key in first}


def overdue(journeys: Journeys, fragments: Mapping[int, Hashable], timeout_s: int) -> tuple[dict[int, str], float]:
    """Fragments whose datagram the capture completes but the kernel may have timed out, each with the reason; and the
    longest time between two fragments with one key.
    """
    spans = spans_s(journeys, fragments)
    late = {key: span for key, span in spans.items() if span > timeout_s - _TICK_S}
    return {
        packet: f"{late[key]:.1f} s passed between the fragments of its datagram, and the kernel waits {timeout_s} s"
        for packet, key in fragments.items()
        if key in late and np.any(journeys["pre_defrag_ns"][packet])
    }, max(spans.values(), default=0.0)


def longer_timeout_s(span_s: float) -> int:
    """A timeout for a machine on which two fragments were this far apart: twice that, in whole seconds."""
    return math.ceil(2 * span_s) + 1
