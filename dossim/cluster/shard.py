"""A shard's task: reads, walks and predicts it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from dossim.cluster.alone import Alone
from dossim.cluster.chain import Place, Walked
from dossim.cluster.ends import joined
from dossim.cluster.gather import Dependents, Placed, joined_dependents, placed
from dossim.cluster.job import Job
from dossim.cluster.split import Shard
from dossim.cluster.storage import UnreadableError, identity_of, opened
from dossim.cluster.version import VERSION
from dossim.cluster.walk import Walk
from dossim.drill.judged import every, judged_by
from dossim.drill.streamed import given, of_sweep, of_window
from dossim.drill.totals import Totals, several_of
from dossim.engine.sweep import Span, Sweep, merged, span_of
from dossim.exhaustion.flows import NewFlows, new_flows
from dossim.model.disposition import Fate
from dossim.model.errors import CaptureError
from dossim.packet.about import facts_of
from dossim.packet.capture import Capture, capture_of
from dossim.packet.offload import artefacts_of
from dossim.packet.source import display_name
from dossim.predict import Prediction
from dossim.predict.prediction import FATE_CODE
from enforcer.model.errors import HostError

_NOT_HERE = np.uint8(FATE_CODE[Fate.NOT_SENDABLE])  # the fate of packets that conntrack does not see


@dataclass(frozen=True)
class Report:
    """What the one who joins the shards is told of one. ``fault``: why the capture cannot be read, if the shard begins
    where it was thought to. ``warning`` and ``late`` as Walk has them. ``senders`` and ``wanted`` as Judged. ``totals``
    and ``flows`` are without the packets that depend on others: ``dependents`` with ``size`` bytes. ``times``: of the
    first and the last of all packets, in ns; none without packets.
    """

    walked: Walked
    fault: str = ""
    warning: str = ""
    late: int = 0
    senders: frozenset[bytes] = frozenset()
    wanted: frozenset[bytes] = frozenset()
    totals: Totals = field(default_factory=Totals)
    flows: NewFlows = field(default_factory=NewFlows)
    dependents: int = 0
    size: int = 0
    times: tuple[int, ...] = ()


@dataclass(frozen=True)
class Result:
    """``records``: the number of each packet, counted from the first record of the shard; with ``prediction`` only if
    the job keeps packets.
    """

    report: Report
    dependents: Dependents | None = None
    records: np.ndarray | None = None
    prediction: Prediction | None = None


@dataclass(frozen=True)
class Assignment:
    """``start`` None: where the shard begins is not known yet. ``packets``: how many are before it in its file, if that
    is known. ``senders``: those of other shards.
    """

    shard: Shard
    start: Place | None = None
    packets: int | None = None
    senders: frozenset[bytes] = frozenset()


def predict_shard(job: Job, given: Assignment) -> Result:
    """Raises UnreadableError if the capture cannot be read here, HostError on a worker of another version."""
    if job.version != VERSION:
        raise HostError(f"a worker has {VERSION}, not {job.version}: install the same on all of them")
    name = job.names[given.shard.file]
    with opened(name) as capture:
        if identity_of(name, capture) != job.identities[given.shard.file]:
            raise UnreadableError(f"{name}: another file than on other workers, or it changes while it is read")
        try:
            walk = Walk(capture, display_name(name), given.shard, given.start, given.packets)
            return _Shard(job, given).predict(walk)
        except UnreadableError:
            raise
        except CaptureError as error:
            return Result(Report(Walked(given.start, None, stopped=True), fault=str(error)))


@dataclass
class _Shard:
    job: Job
    given: Assignment
    packets: int = 0
    totals: Totals = field(default_factory=Totals)
    flows: NewFlows = field(default_factory=NewFlows)
    senders: set[bytes] = field(default_factory=set)
    wanted: set[bytes] = field(default_factory=set)
    dependents: list[Dependents] = field(default_factory=list)
    numbers: list[np.ndarray] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    span: Span | None = None

    def predict(self, walk: Walk) -> Result:
        alone = Alone(self.job.plan, self.job.host, self.job.follows)
        sweep = None if self.job.keeps_packets else Sweep(alone.engine)
        own = [address.ip for address in self.job.host.addresses]
        for whole in self._captures(walk):
            window = whole if sweep is None else whole.among(sweep.take(whole)["row"])
            self.span = merged(self.span, span_of(window.timestamp_ns))
            artefacts = artefacts_of(window, own)
            instead = judged_by(window, artefacts, every(window), self.given.senders)
            self.senders |= instead.senders
            self.wanted |= instead.wanted
            capture, doubt, why = given(instead)
            prediction, dependents = alone.predict(capture, doubt, why)
            self.totals = self.totals.merged(of_window(facts_of(window, artefacts), instead))
            self._count(capture, prediction, dependents)
            if self.job.keeps_packets:
                self.numbers.append(capture.record.copy())
                self.predictions.append(prediction)
            self.packets += len(capture)
        if sweep is not None:
            self.span = merged(self.span, sweep.span)
            self.totals = self.totals.merged(of_sweep(sweep, self.job.plan, self.job.host))
        return self._result(walk)

    def _captures(self, walk: Walk) -> Iterator[Capture]:
        name = display_name(self.job.names[self.given.shard.file])
        for piece, taken in walk.windows():
            yield capture_of(name, piece.buf, taken.records, (), skip_unknown=self.job.skip_unknown)

    def _count(self, capture: Capture, prediction: Prediction, dependents: Dependents | None) -> None:
        mine = others = prediction
        if dependents is not None:
            self.dependents.append(replace(dependents, rows=dependents.rows + self.packets))
            rest = np.ones(len(capture), np.bool_)
            rest[dependents.rows] = False
            mine = prediction.only(np.flatnonzero(rest))
            others = replace(prediction, fate=np.where(rest, prediction.fate, _NOT_HERE))
        if self.job.table is not None:
            self.flows = self.flows.merged(new_flows(capture, others, self.job.host, self.job.table))
        self.totals = self.totals.merged(Totals(ends=mine.ends(), several=several_of(mine)))

    def _result(self, walk: Walk) -> Result:
        dependents = joined_dependents(self.dependents) if self.dependents else None
        report = Report(
            walk.walked,
            warning=walk.warning,
            late=walk.late,
            senders=frozenset(self.senders),
            wanted=frozenset(self.wanted),
            totals=self.totals,
            flows=self.flows,
            dependents=0 if dependents is None else len(dependents),
            size=0 if dependents is None else dependents.size,
            times=self.span or (),
        )
        if not self.predictions:
            return Result(report, dependents)
        return Result(report, dependents, np.concatenate(self.numbers), joined(self.predictions))


def report_of(result: Result) -> Report:
    return result.report


def dependents_of(result: Result) -> Dependents:
    """The packets of a shard that depend on others; there are some."""
    assert result.dependents is not None, "it has been reported"
    return result.dependents


def placed_of(job: Job, result: Result) -> Placed:
    """The same, and which of them may meet."""
    return placed(dependents_of(result), states=job.follows)


def may_meet_any(found: Placed) -> bool:
    return found.may_meet_any


def part_of(found: Placed, number: int, count: int) -> Dependents:
    """One of so many parts of them."""
    return found.part(number, count)
