"""A capture that is predicted window by window ends as one that is predicted at once, whatever the windows."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dossim.drill.judged import every
from dossim.drill.results import CountedResult, PredictResult
from dossim.drill.run import predict_capture
from dossim.drill.situation import Situation
from dossim.drill.streamed import predict_stream
from dossim.exhaustion.flows import new_flows
from dossim.exhaustion.table import assumed_table
from dossim.model.disposition import Disposition
from dossim.model.host import Host
from dossim.packet.capture import Capture, read_capture
from dossim.packet.source import Reading
from dossim.packet.stream import Stream
from dossim.predict.batches import Decided
from enforcer.model.choices import ModeChoice, TrackedChoice
from enforcer.policy.resources import Resources
from tests.property.test_fragments import datagrams
from tests.support.examples import examples
from tests.support.frames import captures
from tests.support.reach_tracked import reach_tracked
from tests.support.strategies import hosts
from tests.support.tracked_strategies import spoken, tracked_resources
from tests.support.tracked_witnesses import tables_of
from tests.support.witnesses import plan_for
from tests.unit.dossim.test_judged import frame, pseudo_sum

SENDERS = [bytes([2, 0, 0, 0, 0, last]) for last in range(3)]
PAIR = tuple[Disposition, Disposition | None]


@dataclass
class Seen:
    """The end of each packet, by its number."""

    can_start_again: bool = True
    sees_all: bool = True
    ends: dict[int, PAIR] = field(default_factory=dict)

    def start(self) -> None:
        self.ends = {}

    def tell(self, done: int, total: int | None) -> None:
        assert total is None or done <= total

    def see(self, decided: Decided) -> None:
        for row, record in enumerate(decided.packets.record.tolist()):
            assert record not in self.ends, "a packet ends once"
            later = None if decided.later is None else decided.later.disposition(row)
            self.ends[record] = decided.prediction.disposition(row), later


def streamed(path: Path, situation: Situation, window: int, most: int) -> tuple[CountedResult, dict[int, PAIR]]:
    seen = Seen()
    stream = Stream([path], Reading(any_file=True), window, most)
    return predict_stream(stream, situation, watchers=[seen], table=assumed_table()), seen.ends


def swept(path: Path, situation: Situation, window: int, most: int) -> CountedResult:
    """As it is counted where nobody wants to see each packet. Windows for Python are soon full, so that the follower
    goes on behind them; memory is not empty, as it is not where pieces were before.
    """
    stream = Stream([path], Reading(any_file=True), window, most, is_hashed=False)
    with patch("dossim.packet.gather._MOST", min(most, 40)), patch("numpy.empty", used):
        return predict_stream(stream, situation, table=assumed_table())


def used(*given: Any, _empty: Callable[..., npt.NDArray[Any]] = np.empty, **also: Any) -> npt.NDArray[Any]:
    """As ``numpy.empty``, of memory that something else was in."""
    found = _empty(*given, **also)
    if not found.dtype.hasobject:
        ctypes.memset(found.ctypes.data, 0x55, found.nbytes)
    return found


def ends_of(result: PredictResult) -> dict[int, PAIR]:
    later = result.modelled.prediction if result.modelled else None
    return {
        int(record): (result.prediction.disposition(row), later.disposition(row) if later else None)
        for row, record in enumerate(result.capture.record.tolist())
    }


def with_artefacts(rng: random.Random) -> list[bytes]:
    """Packets as they look before hardware completes them, or as careless tools make them."""
    found = []
    for _ in range(rng.randrange(6)):
        version, protocol, sender = rng.choice((4, 6)), rng.choice((6, 17)), rng.choice(SENDERS)
        checksum = rng.choice((None, 0, 0, 0x1234, pseudo_sum(version, protocol)))
        found.append(frame(version, protocol, checksum, sender=sender))
    return found


def written(frames: Sequence[bytes], rng: random.Random, folder: str) -> Path:
    """A file of these frames, perhaps cut by a snapshot length."""
    capture, path = Capture.from_frames(frames), Path(folder) / "x.pcap"
    if rng.random() < 0.4:
        kept = np.minimum(capture.length, rng.choice((20, 30, 40, 60))).astype(np.int32)
        capture = replace(capture, length=kept)
    capture.write(path)
    return path


@pytest.mark.long
@settings(max_examples=examples(12, nightly=5_000), suppress_health_check=list(HealthCheck))
@given(tracked_resources(), hosts(), captures(), st.integers(0, 1 << 32), st.sampled_from(TrackedChoice), st.data())
def test_windows_of_every_size_end_as_the_whole(
    policy: Resources, host: Host, others: list[bytes], seed: int, tracked: TrackedChoice, data: st.DataObject
) -> None:
    rng = random.Random(seed)
    mode = rng.choice((ModeChoice.RAW, ModeChoice.NATIVE))
    situation = Situation(policy, host, mode, tracked=tracked)
    plan = plan_for(policy, host, mode, situation.raw)
    reached = reach_tracked(tables_of(policy, host), plan, host, seed, candidates_each=4, adjacent=2).frames
    parts = [*reached, *others, *datagrams(rng), *with_artefacts(rng)]
    rng.shuffle(parts)
    frames = [*parts, *data.draw(spoken(host)), *datagrams(rng), *with_artefacts(rng)]
    with TemporaryDirectory() as folder:
        path = written(frames, rng, folder)
        capture = read_capture(path)
        whole = predict_capture(capture, situation, recorded=every(capture))
        expected = ends_of(whole)
        for window, most in ((1, 1), (300, 2), (rng.randrange(1, 5000), rng.randrange(1, 50)), (1 << 20, 1 << 20)):
            found, ends = streamed(path, situation, window, most)
            assert ends == expected
            assert found.totals == whole.totals
            assert found.about == whole.about
            counted = swept(path, situation, window, most)
            assert counted.totals == whole.totals
            assert counted.about == whole.about
            assert counted.flows == found.flows == new_flows(capture, whole.prediction, host, assumed_table())
