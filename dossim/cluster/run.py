"""A prediction in shards, from the first guess to the totals, on anything that runs functions elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dossim.cluster.chain import Place, Walked, counted_shards, first_records, to_walk_again
from dossim.cluster.decide import Patch, counts_of, decide, patch_of
from dossim.cluster.ends import with_rows
from dossim.cluster.job import Job
from dossim.cluster.places import places_of
from dossim.cluster.shard import (
    Assignment,
    Report,
    Result,
    dependents_of,
    may_meet_any,
    part_of,
    placed_of,
    predict_shard,
    report_of,
)
from dossim.cluster.split import Shard
from dossim.drill.totals import Totals
from dossim.exhaustion.flows import NewFlows
from dossim.model.errors import CaptureError
from dossim.packet.about import Facts
from dossim.packet.records import late_warning
from dossim.packet.source import display_name
from dossim.predict import Prediction

Progress = Callable[[str, int, int], None]

_GUESSES = 2  # rounds in which shards are predicted from where others may end; then one walk finds all places
_PART = 64 << 20  # bytes of packets that depend on others, decided in one task
_MOST_PARTS = 256


class Executor(Protocol):
    """Runs functions with pickled values, each to its end, exactly once as far as results tell."""

    def submit(self, function: Callable[..., Any], *given: Any) -> Any:
        """Stands for the result, also as an argument of another call."""
        ...

    def gather(self, results: Sequence[Any]) -> list[Any]:
        """The results. Raises what a function raised."""
        ...


@dataclass(frozen=True)
class Packets:
    """Of one shard: the ``numbers`` of its packets in the capture, and where each ends; ``later``: where with the
    policy that Calico would enforce, None if there is none.
    """

    numbers: npt.NDArray[np.int64]
    prediction: Prediction
    later: Prediction | None


class Sharded:
    """A prediction, of which the packets are with the workers."""

    def __init__(self, executor: Executor, job: Job, shards: Sequence[Shard]) -> None:
        self._executor, self._job, self._shards = executor, executor.submit(_same, job), shards
        self._names, self._has_later, self._keeps = job.names, job.other is not None, job.keeps_packets
        self._given = [Assignment(shard) for shard in shards]
        self._results: list[Any] = [None] * len(shards)
        self._reports: list[Report] = [Report(Walked(None))] * len(shards)
        self._decided: list[Any] = []
        self.totals = Totals()
        self.flows = NewFlows()

    def run(self) -> None:
        """Raises CaptureError, as reading the captures in one process does."""
        self._predict(dict(enumerate(self._given)))
        self._prove()
        self._require_readable()
        self._complete()
        for number in self._counted:
            self.flows = self.flows.merged(self._reports[number].flows)
        self.totals = self._decide(self._joined())
        times = [time for number in self._counted for time in self._reports[number].times]
        self.flows = replace(self.flows, seconds=(max(times) - min(times)) / 1e9 if times else 0.0)

    def packets(self) -> Iterator[Packets]:
        """Of one shard after the other; the job has to keep them."""
        assert self._keeps
        first = first_records(self._shards, self._walked)
        before = 0
        for number in self._counted:
            if number and self._shards[number].file != self._shards[number - 1].file:
                before += self._records_of(self._shards[number].file - 1)
            if not self._reports[number].totals.facts.packets:
                continue
            patches = [self._executor.submit(patch_of, decided, number) for decided in self._decided]
            whole = self._executor.submit(
                _packets, self._results[number], before + first[number], self._has_later, *patches
            )
            (found,) = self._executor.gather([whole])
            yield found

    # -- one after the other -------------------------------------------------------------------------------------------

    def _predict(self, which: dict[int, Assignment]) -> None:
        for number, given in which.items():
            self._given[number] = given
            self._results[number] = self._executor.submit(predict_shard, self._job, given)
        reports = [self._executor.submit(report_of, self._results[number]) for number in which]
        for number, report in zip(which, self._executor.gather(reports), strict=True):
            self._reports[number] = report

    def _prove(self) -> None:
        rounds = 0
        while again := to_walk_again(self._shards, self._walked):
            rounds += 1
            if rounds > _GUESSES:
                again = self._places(again)
            self._predict({number: replace(self._given[number], start=place) for number, place in again.items()})

    def _places(self, again: dict[int, Place]) -> dict[int, Place]:
        """Where the shards begin that do not begin where they have to, by one walk for each capture: where guesses are
        wrong they are so many times.
        """
        files: dict[int, list[int]] = {}
        for number in sorted(again):
            files.setdefault(self._shards[number].file, []).append(number)
        tasks = []
        for numbers in files.values():
            last = max(n for n, shard in enumerate(self._shards) if shard.file == self._shards[numbers[0]].file) + 1
            which = range(numbers[0], last)
            tasks.append(
                self._executor.submit(
                    places_of,
                    self._job,
                    [self._shards[n] for n in which],
                    again[numbers[0]],
                )
            )
        found: dict[int, Place] = {}
        for numbers, places in zip(files.values(), self._executor.gather(tasks), strict=True):
            for number, place in enumerate(places, numbers[0]):
                if self._reports[number].walked.start != place:
                    found[number] = place
        return found

    def _require_readable(self) -> None:
        for number in self._counted:
            if fault := self._reports[number].fault:
                raise CaptureError(fault)

    def _complete(self) -> None:
        """What a shard could not know: which senders others found, and how many packets are before a damaged place."""
        senders = frozenset().union(*(self._reports[number].senders for number in self._counted))
        first = first_records(self._shards, self._walked)
        again = {}
        for number in self._counted:
            report, given = self._reports[number], self._given[number]
            if report.wanted & senders or (report.warning and given.packets is None):
                again[number] = replace(given, start=report.walked.start, packets=first[number], senders=senders)
        if again:
            self._predict(again)
            self._require_readable()

    def _joined(self) -> Totals:
        totals = Totals()
        for number in self._counted:
            totals = totals.merged(self._reports[number].totals)
            is_last = number + 1 == len(self._shards) or self._shards[number + 1].file != self._shards[number].file
            if is_last or self._reports[number].walked.stopped:
                totals = totals.merged(Totals(facts=Facts(warnings=self._warnings(self._shards[number].file))))
        return totals

    def _warnings(self, file: int) -> tuple[str, ...]:
        mine = [self._reports[number] for number in self._counted if self._shards[number].file == file]
        late = sum(report.late for report in mine)
        about = [late_warning(display_name(self._names[file]), late)] if late else []
        return (*about, *(report.warning for report in mine if report.warning))

    def _decide(self, totals: Totals) -> Totals:
        """The packets that depend on others."""
        numbers = [number for number in self._counted if self._reports[number].dependents]
        if not numbers:
            return totals
        for parts in self._parts(numbers):
            self._decided.append(self._executor.submit(decide, self._job, numbers, *parts))
        for found, flows in self._executor.gather([self._executor.submit(counts_of, each) for each in self._decided]):
            totals = totals.merged(found)
            self.flows = self.flows.merged(flows)  # a flow is in one part, as its packets are
        return totals

    def _parts(self, numbers: Sequence[int]) -> list[list[Any]]:
        """Those of each shard, for each task that decides some."""
        submit, results = self._executor.submit, [self._results[number] for number in numbers]
        size = sum(self._reports[number].size for number in numbers)
        count = min(size // _PART, _MOST_PARTS)
        if count > 1:
            placed = [submit(placed_of, self._job, result) for result in results]
            if not any(self._executor.gather([submit(may_meet_any, each) for each in placed])):
                return [[submit(part_of, each, part, count) for each in placed] for part in range(count)]
        return [[submit(dependents_of, result) for result in results]]

    @property
    def _walked(self) -> list[Walked]:
        return [report.walked for report in self._reports]

    @property
    def _counted(self) -> list[int]:
        return counted_shards(self._shards, self._walked)

    def _records_of(self, file: int) -> int:
        return sum(self._reports[n].walked.records for n in self._counted if self._shards[n].file == file)


def _same(job: Job) -> Job:
    return job


def _packets(result: Result, first: int, has_later: bool, *patches: Patch | None) -> Packets:
    """The packets of a shard, with what was decided together with those of others."""
    assert result.prediction is not None, "the job keeps packets"
    assert result.records is not None, "and their numbers"
    found = result.prediction
    later = found
    for patch in filter(None, patches):
        found = with_rows(found, patch.rows, patch.prediction)
        later = with_rows(later, patch.rows, patch.prediction if patch.later is None else patch.later)
    return Packets(result.records + first, found, later if has_later else None)
