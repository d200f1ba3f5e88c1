"""Prediction: its counts and reports."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import ARP, Ether

from dossim.model.disposition import Disposition, Fate
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.packet.parse import internet_checksum
from dossim.predict import Prediction, predict
from dossim.predict.prediction import FATE_CODE, STAGE_CODE, Draft
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import STAGE_OF_MODE, Action, Backend, Mode, Stage
from enforcer.planning.plan import InterfacePlan, PlannedEntry
from enforcer.policy.ruletable import IpSet, RuleTable
from tests.support.entries import SideMatch, entry_of

ME = "10.10.10.10"
HOST = Host("jasper", addresses=(ip_interface(f"{ME}/24"),))
DENY = entry_of("gnp/dos ingress[0]", Action.DENY, source=SideMatch(ip_set="s:bad"))
IDLE = entry_of("gnp/dos ingress[1]", Action.DENY, source=SideMatch(ip_set="s:none"))
SETS = {
    "s:bad": IpSet("s:bad", "deny", Nets.of(["203.0.113.0/24"])),
    "s:none": IpSet("s:none", "none", Nets()),
}


def plan(mode: Mode | None) -> InterfacePlan:
    stage = STAGE_OF_MODE[mode] if mode else Stage.RAW
    table = RuleTable("eth0", "hep", (DENY, IDLE), sets=SETS)
    planned = (PlannedEntry(DENY, stage), PlannedEntry(IDLE, stage))
    return InterfacePlan(table, mode, Backend.IPTABLES, planned, held=2 if mode else 0)


def frame(source: str, destination: str = ME, **fields: object) -> bytes:
    return bytes(Ether(dst="06:00:00:00:00:01") / IP(src=source, dst=destination, **fields) / TCP())


MIXED = [
    frame("203.0.113.7"),
    frame("8.8.8.8"),
    frame("203.0.113.8"),
    frame("127.0.0.1"),
    frame("8.8.8.8", chksum=1),
    frame("8.8.8.8", frag=3),
    bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=ME)),
]


def predicted(frames: list[bytes], mode: Mode | None = None) -> Prediction:
    return predict(Capture.from_frames(frames), plan(mode), HOST)


def test_what_becomes_of_each_packet() -> None:
    prediction = predicted(MIXED)
    assert len(prediction) == len(MIXED)
    first, last = prediction.disposition(0), prediction.disposition(6)
    assert (first.fate, first.stage, first.entry) == (Fate.DROPPED, Stage.RAW, DENY.name)
    assert str(first) == f"dropped at raw by {DENY.name}"
    assert (last.fate, last.stage, last.entry) == (Fate.DELIVERED, None, None)
    assert prediction.disposition(4).agrees(Disposition(Fate.DROPPED, Stage.IP_INPUT))


def test_the_columns() -> None:
    prediction = predicted(MIXED)
    fates, stages = tuple(Fate), tuple(Stage)
    assert prediction.fate.dtype == prediction.stage.dtype == np.uint8
    assert prediction.entry.dtype == np.int32
    assert fates[prediction.fate[0]] is Fate.DROPPED
    assert stages[prediction.stage[0]] is Stage.RAW
    assert (prediction.stage[1], prediction.entry[1]) == (255, -1)


def test_totals_are_in_packet_order_and_leave_nothing_out() -> None:
    totals = predicted(MIXED, Mode.NATIVE).totals()
    assert list(totals.items()) == [("driver", 2), ("ip-input", 1), ("defrag", 1), ("route", 1), ("delivered", 2)]
    assert sum(totals.values()) == len(MIXED)


@pytest.mark.parametrize("mode", [Mode.NATIVE, None], ids=str)
def test_entries_without_drops_are_not_counted(mode: Mode | None) -> None:
    assert predicted(MIXED, mode).entry_counts() == {DENY.name: 2}


def test_a_capture_without_packets() -> None:
    prediction = predicted([])
    assert (len(prediction), prediction.totals(), prediction.entry_counts()) == (0, {}, {})


def test_the_reason_says_why_the_kernel_dropped_it() -> None:
    assert "checksum" in predicted(MIXED).disposition(4).reason
    assert "martian" in predicted(MIXED).disposition(3).reason


def test_many_lengths_on_the_wire_are_one_reason() -> None:
    """A capture can claim a different length for each packet: one reason for each would be slow and unreadable."""
    whole = frame("198.51.100.1") + bytes(300)
    few, many = 20, 3_000
    for count in (few, many):
        lengths = np.arange(100, 100 + count, dtype=np.int32)
        total = [(length - 14).to_bytes(2, "big") for length in lengths.tolist()]
        frames = [whole[:14] + _header(whole[14:34], part) + whole[34:54] for part in total]
        capture = replace(Capture.from_frames(frames), wire_length=lengths)
        prediction = predict(capture, plan(None), HOST)
        assert prediction.count(Fate.UNDETERMINED) == count
        assert len({prediction.disposition(packet).reason for packet in range(count)}) == (count if count == few else 1)


def _header(buf: bytes, total_length: bytes) -> bytes:
    header = buf[:2] + total_length + buf[4:10] + bytes(2) + buf[12:]
    return header[:10] + internet_checksum(header).to_bytes(2, "big") + header[12:]


def test_more_reasons_than_have_a_number_are_one() -> None:
    count = 70_000
    draft = Draft(replace(Capture.from_frames([]), wire_length=np.full(count, 60, np.int32), offset=np.zeros(count)))
    draft.fate[:] = FATE_CODE[Fate.UNDETERMINED]
    draft.stage[:] = STAGE_CODE[Stage.RAW]
    draft.reason[:] = [draft.code_of(f"reason {packet}") for packet in range(count)]
    prediction = draft.finish(())
    assert prediction.disposition(100).reason == "reason 100"
    assert prediction.disposition(count - 1).reason.startswith("one of more than")
    named = draft.finish(()).with_reason(np.ones(count, np.bool_), "a reason of its own")
    assert named.disposition(0).reason == "a reason of its own"
