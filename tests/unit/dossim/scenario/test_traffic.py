"""Traffic: rows interleaved evenly, each packet with its label."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from dossim.model.errors import CaptureError, ScenarioError
from dossim.packet.capture import Capture
from dossim.scenario.budget import Limits
from dossim.scenario.model import CaptureTraffic, GeneratedTraffic, Generator, Parameters
from dossim.scenario.traffic import build_traffic
from enforcer.model.errors import Position

HOST = {4: ip_address("10.10.10.10")}


def flood(label: str, count: int, source: str) -> GeneratedTraffic:
    parameters = Parameters(count=count, sources=(ip_network(source),))
    return GeneratedTraffic(label, Generator.SYN_FLOOD, parameters)


def test_rows_are_interleaved_evenly() -> None:
    traffic = build_traffic([flood("a", 4, "1.2.3.4"), flood("b", 2, "5.6.7.8")], HOST, path="x")
    assert [traffic.labels[index] for index in traffic.label_of] == ["a", "b", "a", "a", "b", "a"]


def test_labels_stay_with_their_packets() -> None:
    traffic = build_traffic([flood("a", 40, "1.2.3.4"), flood("b", 7, "5.6.7.8")], HOST, path="x")
    sources = [traffic.capture.frame(index)[26:30] for index in range(len(traffic.capture))]
    assert [bytes((1, 2, 3, 4)) == source for source in sources] == traffic.having("a").tolist()
    assert traffic.having(None).all()


def test_rows_with_one_label_are_one_label() -> None:
    traffic = build_traffic([flood("a", 1, "1.2.3.4"), flood("a", 1, "1.2.3.4")], HOST, path="x")
    assert traffic.labels == ("a",)
    assert traffic.capture.frame(0) != traffic.capture.frame(1), "rows draw different numbers"


def test_a_capture_keeps_its_order(tmp_path: Path) -> None:
    frames = [bytes(14) + bytes((number,)) * 20 for number in range(9)]
    Capture.from_frames(frames).write(tmp_path / "x.pcap")
    traffic = build_traffic([CaptureTraffic("c", tmp_path / "x.pcap"), flood("a", 3, "1.2.3.4")], HOST, path="x")
    kept = [traffic.capture.frame(index) for index in traffic.having("c").nonzero()[0]]
    assert kept == frames


def test_a_row_without_anywhere_to_send_to_is_refused() -> None:
    with pytest.raises(ScenarioError, match="no IPv6 address"):
        build_traffic([flood("a", 1, "2001:db8::1")], HOST, path="x")


@pytest.mark.slow
def test_a_capture_beyond_the_limits_is_not_read_to_its_end(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.pcap.gz"
    record = struct.pack("<IIII", 0, 0, 60_000, 60_000) + bytes(60_000)
    bomb.write_bytes(gzip.compress(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1) + record * 4_000, 1))
    row = CaptureTraffic("c", bomb, Position("x.yaml", 4, 5))
    few = Limits(packets=10_000, total_bytes=1 << 20)
    tracemalloc.start()
    with pytest.raises(CaptureError, match=r"bomb.pcap.gz: .* unpack to more than 1.61 MiB, .*; use --allow-large"):
        build_traffic([row], HOST, path="x", limits=few)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 << 20, "240 MB were unpacked"
    with pytest.raises(CaptureError, match=r"more than 100 KiB, the max-size of x.yaml:4:5; use a larger one"):
        build_traffic([replace(row, max_size=100 << 10)], HOST, path="x", limits=few)
    with pytest.raises(CaptureError, match=r"more than 1.61 MiB"):
        build_traffic([replace(row, max_size=1 << 40)], HOST, path="x", limits=few)


def test_a_capture_row_may_leave_out_what_cannot_be_read(tmp_path: Path) -> None:
    usb = tmp_path / "usb.pcap"
    usb.write_bytes(struct.pack("<IHHiIIIIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 189, 0, 0, 4, 4) + bytes(4))
    row = CaptureTraffic("c", usb)
    with pytest.raises(CaptureError, match="skip-unknown-link-types: true"):
        build_traffic([row], HOST, path="x")
    traffic = build_traffic([replace(row, skip_unknown=True), flood("a", 3, "1.2.3.4")], HOST, path="x")
    assert len(traffic.capture) == 3
    assert sum(traffic.capture.skipped.values()) == 1
