"""What is judged instead of recorded packets: checksums that hardware completed, and unexplained zeros."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import numpy as np
import pytest

from dossim.drill.judged import every, judged
from dossim.drill.results import PredictResult
from dossim.drill.run import predict_capture
from dossim.drill.situation import Situation
from dossim.model.disposition import Fate
from dossim.model.errors import CaptureError
from dossim.model.host import Host, Listener
from dossim.packet.capture import Capture
from dossim.packet.parse import internet_checksum
from enforcer.model.vocabulary import Stage
from enforcer.policy.resources import Resources
from tests.support.frames import ME4, ME6, ethernet, ipv4, ipv6, segment

HOST = Host("jasper", addresses=(ip_interface(ME4), ip_interface(ME6)), listen=(Listener(17, 53),))
SOURCES = {4: "203.0.113.7", 6: "2001:db8::7"}
AT = {6: 16, 17: 6}
BOTH = pytest.mark.parametrize("version", [4, 6])
EACH = pytest.mark.parametrize("protocol", [6, 17])


def frame(version: int, protocol: int, checksum: int | None, *, sender: bytes = b"\2\0\0\0\0\0") -> bytes:
    """A packet with this value in its checksum field; None: the correct one."""
    source, destination = SOURCES[version], {4: ME4, 6: ME6}[version]
    buf = segment(protocol, source, destination, (1024, 53), b"some data")
    at = AT[protocol]
    if checksum is not None:
        buf = buf[:at] + checksum.to_bytes(2, "big") + buf[at + 2 :]
    if version == 4:
        built = ethernet(ipv4(buf, source=source, destination=destination, protocol=protocol), 0x0800)
    else:
        built = ethernet(ipv6(buf, source=source, destination=destination, next_header=protocol), 0x86DD)
    return built[:6] + sender + built[12:]


def pseudo_sum(version: int, protocol: int) -> int:
    """What Linux leaves in the field for hardware to complete."""
    length = len(segment(protocol, SOURCES[version], {4: ME4, 6: ME6}[version], (1024, 53), b"some data"))
    pair = ip_address(SOURCES[version]).packed + ip_address({4: ME4, 6: ME6}[version]).packed
    return 0xFFFF - internet_checksum(pair + length.to_bytes(4, "big") + protocol.to_bytes(4, "big"))


def told(frames: list[bytes], *, recorded: bool = True) -> PredictResult:
    capture = Capture.from_frames(frames)
    return predict_capture(capture, Situation(Resources(), HOST), recorded=every(capture) if recorded else None)


def fates(result: PredictResult) -> list[Fate]:
    return [result.prediction.disposition(number).fate for number in range(len(result.capture))]


@BOTH
@EACH
def test_a_pseudo_header_sum_is_completed_as_hardware_did(version: int, protocol: int) -> None:
    partial, right = frame(version, protocol, pseudo_sum(version, protocol)), frame(version, protocol, None)
    assert fates(told([partial, right])) == [Fate.DELIVERED, Fate.DELIVERED]
    assert fates(told([partial], recorded=False)) == [Fate.DROPPED]  # a crafted checksum is kept as it is
    capture = Capture.from_frames([partial])
    found = judged(capture, every(capture))
    assert (found.completed, found.sent.frame(0), capture.frame(0)) == (1, right, partial)


@BOTH
@EACH
def test_a_bad_checksum_stays_bad(version: int, protocol: int) -> None:
    assert fates(told([frame(version, protocol, 0x1234)])) == [Fate.DROPPED]


@BOTH
def test_a_checksum_of_0_is_undetermined(version: int) -> None:
    result = told([frame(version, 6, 0)])
    end = result.prediction.disposition(0)
    assert end.fate is Fate.UNDETERMINED
    assert end.reason.startswith("its checksum is 0")
    assert any("checksum of 0" in sentence for sentence in result.about)


@BOTH
def test_but_not_from_whom_pseudo_header_sums_come_as_well(version: int) -> None:
    frames = [frame(version, 6, 0), frame(version, 6, pseudo_sum(version, 6))]
    assert fates(told(frames)) == [Fate.DELIVERED, Fate.DELIVERED]
    elsewhere = frame(version, 6, 0, sender=b"\2\0\0\0\0\1")
    assert fates(told([elsewhere, *frames]))[0] is Fate.UNDETERMINED


def test_senders_of_other_parts_of_a_capture_count_as_well() -> None:
    """What a part says of senders, and what it would like to know of them."""
    mine, another = bytes(frame(4, 6, 0))[6:12], b"\2\0\0\0\0\1"
    capture = Capture.from_frames(
        [
            frame(4, 6, 0),
            frame(4, 6, pseudo_sum(4, 6), sender=another),
            without(frame(4, 17, None), header_checksum=False),
        ]
    )
    found = judged(capture, every(capture))
    assert (found.senders, found.wanted) == ({another}, {mine})
    assert (found.completed, int(found.zero.sum()), found.ambiguous) == (1, 1, 1)
    found = judged(capture, every(capture), [mine])
    assert (found.senders, found.wanted) == ({another}, set())
    assert (found.completed, int(found.zero.sum()), found.ambiguous) == (3, 0, 0)


def test_udp_over_ipv4_without_checksum_is_whole() -> None:
    assert fates(told([frame(4, 17, 0)])) == [Fate.DELIVERED]


def test_a_cut_packet_is_sent_at_its_length_and_judged_as_cut() -> None:
    whole = frame(4, 6, None)
    capture = replace(Capture.from_frames([whole[:60], whole]), wire_length=np.array([len(whole)] * 2, np.int32))
    found = judged(capture, every(capture))
    assert found.sent.frame(0) == whole[:60] + bytes(len(whole) - 60)
    assert (found.padded, found.capture.length.tolist()) == (1, [60, len(whole)])
    result = predict_capture(capture, Situation(Resources(), HOST), recorded=every(capture))
    assert fates(result) == [Fate.UNDETERMINED, Fate.DELIVERED]
    assert result.prediction.disposition(0).reason == (
        f"cut by the capture at 60 of {len(whole)} bytes: its TCP checksum is not known"
    )


def without(buf: bytes, *, header_checksum: bool = True, total_length: bool = True) -> bytes:
    """An IPv4 frame with 0 in these fields."""
    buf = buf if header_checksum else buf[:24] + b"\0\0" + buf[26:]
    return buf if total_length else buf[:16] + b"\0\0" + buf[18:]


def test_a_header_checksum_of_0_confirms_no_drop() -> None:
    result = told([without(frame(4, 17, None), header_checksum=False)])
    end = result.prediction.disposition(0)
    assert (end.fate, end.stage) == (Fate.UNDETERMINED, Stage.IP_INPUT)
    assert any("predicted both ways" in sentence for sentence in result.about)
    made = told([without(frame(4, 17, None), header_checksum=False)], recorded=False)
    assert fates(made) == [Fate.DROPPED]


def test_it_is_completed_from_whom_pseudo_header_sums_come() -> None:
    frames = [without(frame(4, 6, pseudo_sum(4, 6)), header_checksum=False)]
    assert fates(told(frames)) == [Fate.DELIVERED]
    capture = Capture.from_frames(frames)
    assert judged(capture, every(capture)).sent.frame(0) == frame(4, 6, None)


def test_a_segment_for_hardware_to_cut_confirms_no_drop() -> None:
    """Windows records a total length of 0 for segments larger than a packet."""
    buf = segment(6, SOURCES[4], ME4, (1024, 53), bytes(3000))
    large = ethernet(ipv4(buf, source=SOURCES[4], destination=ME4, protocol=6), 0x0800)
    result = told([without(large, header_checksum=False, total_length=False)])
    end = result.prediction.disposition(0)
    assert (end.fate, end.stage) == (Fate.UNDETERMINED, Stage.IP_INPUT)


def test_a_checksum_is_completed_where_only_the_padding_was_cut() -> None:
    partial = frame(4, 6, pseudo_sum(4, 6))
    padded = replace(Capture.from_frames([partial]), wire_length=np.array([len(partial) + 20], np.int32))
    result = predict_capture(padded, Situation(Resources(), HOST), recorded=every(padded))
    assert fates(result) == [Fate.DELIVERED]


@BOTH
def test_packets_without_an_ethernet_source_say_nothing_about_each_other(version: int) -> None:
    """Frames of cooked and raw captures have no source address, so a sent one cannot be recognised."""
    nobody = bytes(6)
    partial = frame(version, 6, pseudo_sum(version, 6), sender=nobody)
    assert fates(told([frame(version, 6, 0, sender=nobody), partial])) == [Fate.UNDETERMINED, Fate.DELIVERED]


def test_cut_packets_that_claim_more_than_memory_are_not_sent() -> None:
    one = Capture.from_frames([frame(4, 6, None)[:60]])
    rows = np.zeros(100_000, np.int64)
    claims = replace(
        one,
        offset=one.offset[rows],
        length=one.length[rows],
        wire_length=np.full(len(rows), 65_549, np.int32),
        record=np.arange(len(rows)),
        timestamp_ns=one.timestamp_ns[rows],
    )
    with pytest.raises(CaptureError, match=r"take 6,554,900,000 bytes at their length on the wire; at most"):
        assert judged(claims, None).sent
