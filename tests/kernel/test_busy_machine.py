"""Drills on a machine that is busy: the same result, or *unobserved* with the reason; never a mismatch."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_interface
from typing import Any

import pytest

from dossim import observe
from dossim.drill.load import Waiting
from dossim.drill.results import DrillResult
from dossim.drill.run import Progress, drill_capture
from dossim.drill.situation import Situation
from dossim.model.disposition import Fate
from dossim.model.host import Host, Listener
from dossim.packet.capture import Capture
from dossim.predict.prediction import FATE_CODE, NO_STAGE
from dossim.replay.scapy_sender import BATCH
from dossim.report.view import view_of
from enforcer.model.choices import ModeChoice
from enforcer.policy.resources import Resources
from tests.support.frames import ME4, ethernet, ipv4
from tests.support.odd_frames import frames

pytestmark = pytest.mark.needs_root

HOST = Host("jasper", addresses=(ip_interface(f"{ME4}/24"), ip_interface("fd00::10/64")), listen=(Listener(17, 9),))
SITUATION = Situation(Resources(), HOST, ModeChoice.RAW)
STALL_S = 2.5  # longer than the first timeout


def part(offset: int, *, more: bool) -> bytes:
    packet = ipv4(
        b"\0\1\0\x09\0\x18\0\0" if offset == 0 else bytes(16), source="203.0.113.7", destination=ME4, protocol=17,
        ident=7, fragment=offset // 8 | 0x2000 * more,
    )  # fmt: skip
    return ethernet(packet, 0x0800)


def far_apart() -> Capture:
    """The two fragments of a datagram, with a batch of other packets between them."""
    others = [ethernet(ipv4(b"", source="203.0.113.8", destination=ME4, protocol=253), 0x0800)] * BATCH
    return Capture.from_frames([part(0, more=True), *others, part(8, more=False)])


def stalling(stalls: int) -> tuple[Progress, list[int]]:
    """A replay that pauses half way, the first so many times."""
    left = [stalls]

    def tell(phase: str, done: int, total: int) -> None:
        if done < total and left[0]:
            left[0] -= 1
            time.sleep(STALL_S)

    return tell, left


def counts(result: DrillResult) -> tuple[int, int, int]:
    found = result.verification
    shown = [f"{item.predicted}; {item.observed}: {item.evidence}" for item in found.mismatches]
    assert not found.mismatched, "\n".join(shown)
    return found.packets, found.matched, found.unobserved


def test_a_replay_too_slow_for_the_timeout_is_repeated_with_a_longer_one() -> None:
    tell, left = stalling(1)
    packets, matched, _ = counts(drill_capture(far_apart(), SITUATION, progress=tell))
    assert left == [0]
    assert matched == packets


def test_fragments_that_are_late_all_the_same_are_unobserved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dossim.drill.run._ATTEMPTS", 1)
    tell, _ = stalling(1)
    result = drill_capture(far_apart(), SITUATION, progress=tell)
    packets, matched, unobserved = counts(result)
    assert (matched, unobserved) == (packets - 2, 2)
    assert "the kernel waits 2 s" in str(result.observations.evidence(0))
    view = view_of(result)
    assert "too busy" in view.busy
    assert view.is_lack_of_time  # exit code 3, not 1
    assert not view.holds


def counting() -> tuple[Progress, list[int]]:
    """How many replays there were."""
    replays = [0]

    def tell(phase: str, done: int, total: int) -> None:
        replays[0] += done == total

    return tell, replays


def few() -> Capture:
    return Capture.from_frames(frames(20261130, 10))


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_replay_with_unobserved_packets_is_repeated(monkeypatch: pytest.MonkeyPatch, *, is_busy: bool) -> None:
    """Also on a machine that is not busy: the kernel sometimes frees fragments unseen (docs/kernel-notes.md)."""
    monkeypatch.setattr(Waiting, "is_busy", is_busy)
    judge = observe.judge
    monkeypatch.setattr(observe, "judge", lambda *given: judge(*given).without({3: "it was not seen"}))
    tell, replays = counting()
    result = drill_capture(few(), SITUATION, progress=tell)
    assert replays == [4]
    assert (result.verification.unobserved, bool(result.busy)) == (1, is_busy)


def test_a_replay_that_contradicts_the_prediction_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later one that agrees would hide it."""
    monkeypatch.setattr(Waiting, "is_busy", True)
    judge, wrong = observe.judge, [FATE_CODE[Fate.FORWARDED]]

    def contradicting(*given: Any) -> observe.Observations:
        found = judge(*given).without({3: "it was not seen"})
        fate, stage = found.fate.copy(), found.stage.copy()
        fate[4], stage[4] = wrong[0], NO_STAGE
        return replace(found, fate=fate, stage=stage)

    monkeypatch.setattr(observe, "judge", contradicting)
    tell, replays = counting()
    result = drill_capture(few(), SITUATION, progress=tell)
    assert replays == [1]
    assert (result.verification.mismatched, result.verification.unobserved) == (1, 1)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.alone
def test_with_eight_busy_processes() -> None:
    capture = Capture.from_frames(frames(20261129, 150))
    with busy(8):
        result = drill_capture(capture, SITUATION)
    packets, matched, unobserved = counts(result)
    assert matched + unobserved == packets
    assert not unobserved or result.busy, "lost packets are explained"
