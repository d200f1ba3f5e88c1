"""The results of a prediction and of a drill, for reports and expectations. Values only."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dossim.drill.modelled import Modelled
from dossim.drill.situation import Situation
from dossim.packet.capture import Capture
from dossim.predict import Prediction, Tables
from dossim.verify.verification import Verification
from enforcer.model.conntrack import ConntrackStatistics
from enforcer.planning.plan import InterfacePlan

if TYPE_CHECKING:
    from dossim.drill.full_table import FullTable
    from dossim.observe.judgement import Observations


@dataclass(frozen=True)
class PredictResult:
    """``about`` are sentences that describe the capture, and what is judged in its place. ``tables``: the policy after
    conntrack that is enforced; None if none is. ``modelled``: what Calico would do with that which is not.
    """

    capture: Capture
    situation: Situation
    plan: InterfacePlan
    prediction: Prediction
    timings_s: Mapping[str, float]
    about: tuple[str, ...] = field(default=(), kw_only=True)
    tables: Tables | None = field(default=None, kw_only=True)
    modelled: Modelled | None = field(default=None, kw_only=True)

    @property
    def mode(self) -> str:
        """The mode the plan uses: native, generic, offload, or raw."""
        return str(self.plan.mode or "raw")


@dataclass(frozen=True)
class DrillResult(PredictResult):
    """``conntrack_entries`` were tracked when the replay ended; ``driver`` is the lab interface's. ``busy`` is a
    sentence when the machine was too busy for some of the packets: those are unobserved. ``conntrack``: what conntrack
    itself dropped and evicted; None if the kernel does not show it. ``full``: what was predicted of that, if the
    replay filled the table.
    """

    verification: Verification
    observations: Observations
    conntrack_entries: int
    kernel: str
    driver: str
    busy: str = ""
    conntrack: ConntrackStatistics | None = None
    full: FullTable | None = None

    @property
    def conntrack_drops(self) -> int | None:
        """Packets that conntrack itself dropped; None if the kernel does not count them."""
        return self.conntrack.dropped if self.conntrack else None


@dataclass
class Stopwatch:
    """Seconds per phase; a phase entered twice adds up."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
