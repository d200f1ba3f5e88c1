"""Predictions in shards, run in this process by the functions that workers run, and what they are compared with."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dossim.cluster.job import Job
from dossim.cluster.run import Sharded
from dossim.cluster.split import shards_of
from dossim.cluster.storage import identity_of, opened
from dossim.cluster.version import VERSION
from dossim.drill.situation import Situation, enforced_after, lab_facts, plan_for
from dossim.drill.streamed import left_to_calico, policy_of, predict_stream
from dossim.drill.totals import Totals
from dossim.exhaustion.flows import NewFlows
from dossim.exhaustion.table import assumed_table
from dossim.model.disposition import Disposition
from dossim.packet.source import Reading
from dossim.packet.stream import Stream
from dossim.predict.batches import Decided

End = tuple[int, Disposition, Disposition | None]  # number, as enforced, and as Calico would


class Inline:
    """Runs at once; what is given and returned is pickled, as between machines, and results are kept so."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def submit(self, function: Callable[..., Any], *given: Any) -> _Result:
        self.calls.append(function.__name__)
        again: Callable[..., Any] = pickle.loads(pickle.dumps(function))
        sent = (each if isinstance(each, _Result) else _Result.of(each) for each in given)
        return _Result.of(again(*(each.value() for each in sent)))

    def gather(self, results: Sequence[_Result]) -> list[Any]:
        return [each.value() for each in results]


@dataclass(frozen=True)
class _Result:
    pickled: bytes

    @staticmethod
    def of(value: Any) -> _Result:
        return _Result(pickle.dumps(value))

    def value(self) -> Any:
        """Another copy."""
        return pickle.loads(self.pickled)


def job_of(paths: Sequence[Path | str], situation: Situation, *, counts_flows: bool = False) -> Job:
    names = tuple(map(str, paths))
    identities = []
    for name in names:
        with opened(name) as capture:
            identities.append(identity_of(name, capture))
    return Job(
        VERSION,
        names,
        tuple(identities),
        plan_for(situation, lab_facts(situation.host)),
        situation.host,
        policy_of(enforced_after(situation)),
        policy_of(left_to_calico(situation)[1]),
        assumed_table() if counts_flows else None,
        keeps_packets=True,
    )


def sharded(
    executor: Any,
    paths: Sequence[Path | str],
    situation: Situation,
    count: int,
    *,
    counts_flows: bool = False,
    keeps_packets: bool = True,
) -> Sharded:
    """In so many shards, or one more, each."""
    job = replace(job_of(paths, situation, counts_flows=counts_flows), keeps_packets=keeps_packets)
    sizes = [identity.size for identity in job.identities]
    found = Sharded(executor, job, shards_of(sizes, max(max(sizes) // count, 1)))
    found.run()
    return found


def ends_in_shards(found: Sharded) -> list[End]:
    return [
        (int(number), part.prediction.disposition(row), part.later.disposition(row) if part.later else None)
        for part in found.packets()
        for row, number in enumerate(part.numbers)
    ]


@dataclass
class Whole:
    """What one process finds of captures. ``ends`` by number."""

    situation: Situation
    can_start_again: bool = True
    sees_all: bool = True
    totals: Totals = field(default_factory=Totals)
    flows: NewFlows = field(default_factory=NewFlows)

    def start(self) -> None:
        self._ends: dict[int, tuple[Disposition, Disposition | None]] = {}

    def see(self, decided: Decided) -> None:
        for row, number in enumerate(decided.packets.record.tolist()):
            later = None if decided.later is None else decided.later.disposition(row)
            self._ends[number] = decided.prediction.disposition(row), later

    def tell(self, done: int, total: int | None) -> None:
        pass

    @property
    def ends(self) -> list[End]:
        return [(number, *end) for number, end in sorted(self._ends.items())]


def in_one(paths: Sequence[Path], situation: Situation) -> Whole:
    """As the command does without a cluster."""
    found = Whole(situation)
    stream = Stream(paths, Reading(any_file=True))
    result = predict_stream(stream, situation, watchers=[found], table=assumed_table())
    assert result.flows is not None, "they are counted"
    found.totals, found.flows = result.totals, result.flows
    return found
