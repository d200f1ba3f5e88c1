"""The results of a prediction and of a drill, for reports and expectations. Values only."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from dossim.drill.modelled import Modelled
from dossim.drill.situation import Situation
from dossim.drill.totals import Totals
from dossim.packet.capture import Capture
from dossim.predict import Prediction, Tables
from dossim.verify.verification import Verification
from enforcer.model.conntrack import ConntrackStatistics
from enforcer.model.counted import counted
from enforcer.planning.plan import InterfacePlan

if TYPE_CHECKING:
    from dossim.drill.full_table import FullTable
    from dossim.exhaustion.flows import NewFlows
    from dossim.observe.judgement import Observations


@dataclass(frozen=True)
class Drawn:
    """``packets`` of ``offered`` ones were drawn at random, by ``seed``."""

    packets: int
    offered: int
    seed: int

    def __str__(self) -> str:
        return f"A sample: {self.packets:,} of {counted(self.offered)}, drawn at random (seed {self.seed})."


@dataclass(frozen=True)
class CountedResult:
    """What reports show of a prediction. ``path``: what the capture is called; ``sha256`` "" if nobody asked for it;
    ``sample``: if not all packets of the capture are predicted. ``flows``: new ones, if they were counted. The rest as
    PredictResult has it.
    """

    path: str
    sha256: str
    situation: Situation
    plan: InterfacePlan
    totals: Totals
    timings_s: Mapping[str, float]
    about: tuple[str, ...] = ()
    tables: Tables | None = None
    modelled: Modelled | None = None
    sample: Drawn | None = None
    flows: NewFlows | None = None

    @property
    def mode(self) -> str:
        """The mode the plan uses: native, generic, offload, or raw."""
        return str(self.plan.mode or "raw")


@dataclass(frozen=True)
class PredictResult:
    """``about`` are sentences that describe the capture, and what is judged in its place. ``tables``: the policy after
    conntrack that is enforced; None if none is. ``modelled``: what Calico would do with that which is not. ``totals``:
    the packets, counted.
    """

    capture: Capture
    situation: Situation
    plan: InterfacePlan
    prediction: Prediction
    timings_s: Mapping[str, float]
    totals: Totals = field(kw_only=True)
    about: tuple[str, ...] = field(default=(), kw_only=True)
    tables: Tables | None = field(default=None, kw_only=True)
    modelled: Modelled | None = field(default=None, kw_only=True)

    @property
    def mode(self) -> str:
        """As CountedResult has it."""
        return self.counted.mode

    @property
    def counted(self) -> CountedResult:
        """What is left without the packets."""
        capture, shared = self.capture, {item.name: getattr(self, item.name) for item in fields(CountedResult)[2:-2]}
        return CountedResult(capture.path, capture.sha256, **shared)


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
