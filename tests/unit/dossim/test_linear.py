"""Work is linear in the number of fragments with one datagram's key: twice as many take twice as long, not four times.

The tests count executed lines of Python, not seconds.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from ipaddress import ip_interface
from types import FrameType
from typing import Any

import numpy as np
import pytest

from dossim.model.host import Host
from dossim.observe.journey import JOURNEY, Checkpoint
from dossim.observe.judgement import judge, open_packets
from dossim.packet.capture import Capture
from dossim.packet.parse import parse_ipv4
from dossim.pipeline.explain import Explainer
from dossim.pipeline.reassembly import reassemble
from dossim.predict import predict
from enforcer.model.vocabulary import Backend
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.resources import Resources
from enforcer.policy.ruletable import RuleTable
from tests.support.frames import ME4, ethernet, ipv4

HOST = Host("jasper", addresses=(ip_interface(ME4),))
FEW = 150
MORE = 0x2000


def lines_run(work: Callable[[], object]) -> int:
    """The number of Python lines executed; lines of comprehensions count once per iteration."""
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def assert_linear(work: Callable[[int], Callable[[], object]]) -> None:
    once, twice = lines_run(work(FEW)), lines_run(work(2 * FEW))
    assert twice < 2.6 * once, (once, twice)


def piece(at: int, *, more: bool = True, gap: int = 1) -> bytes:
    """A fragment of eight bytes at offset ``at * gap``, in units of eight bytes."""
    return ipv4(bytes(8), source="203.0.113.7", destination=ME4, protocol=253, ident=7, fragment=at * gap | MORE * more)


def in_order(count: int) -> list[bytes]:
    return [piece(at, more=at < count - 1) for at in range(count)]


def last_first(count: int) -> list[bytes]:
    return in_order(count)[::-1]


def shuffled_with_holes(count: int) -> list[bytes]:
    pieces = [piece(at, gap=2) for at in range(count)]
    random.Random(count).shuffle(pieces)
    return pieces


def over_and_over(count: int) -> list[bytes]:
    """Complete datagrams of two fragments, all with the same id."""
    return [piece(at % 2, more=not at % 2) for at in range(count)]


ORDERS = pytest.mark.parametrize("order", [in_order, last_first, shuffled_with_holes, over_and_over])


@ORDERS
def test_reassembly(order: Callable[[int], list[bytes]]) -> None:
    def work(count: int) -> Callable[[], object]:
        packets = [(number, found) for number, buf in enumerate(order(count)) if (found := parse_ipv4(buf))]
        return lambda: reassemble(packets)

    assert_linear(work)


@ORDERS
def test_explain_and_predict(order: Callable[[int], list[bytes]]) -> None:
    def frames(count: int) -> list[bytes]:
        return [ethernet(packet, 0x0800) for packet in order(count)]

    plan = InterfacePlan(RuleTable(HOST.interface), None, Backend.IPTABLES, ())
    assert_linear(lambda count: lambda: Explainer(Resources(), HOST, mode=None).explain_capture(frames(count)))
    assert_linear(lambda count: lambda: predict(Capture.from_frames(frames(count)), plan, HOST))


@pytest.mark.parametrize(
    "look", [open_packets, lambda journeys, keys: judge(journeys, keys, {})], ids=["open", "judge"]
)
def test_judging(look: Callable[[Any, dict[int, object]], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other fragment completes a datagram of one key."""
    monkeypatch.setattr("dossim.observe.judgement.drop_reasons", dict)
    monkeypatch.setattr("dossim.observe.judgement.resolve", lambda addresses: {0: ""})
    into = int(Checkpoint.RECEIVE | Checkpoint.PRE_DEFRAG)
    out = into | int(Checkpoint.POST_DEFRAG | Checkpoint.INPUT_LAST)

    def work(count: int) -> Callable[[], object]:
        journeys = np.zeros(count, JOURNEY)
        journeys["pre_defrag_ns"] = np.arange(count) * 10 + 1
        journeys["checkpoints"] = into
        journeys["checkpoints"][1::2] = out
        journeys["post_defrag_ns"][1::2] = journeys["pre_defrag_ns"][1::2] + 5
        return lambda: look(journeys, dict.fromkeys(range(count), "one key"))

    assert_linear(work)
