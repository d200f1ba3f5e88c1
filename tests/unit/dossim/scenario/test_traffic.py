"""Traffic: rows interleaved evenly, each packet with its label."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from dossim.errors import ScenarioError
from dossim.packet.capture import Capture
from dossim.scenario.model import CaptureTraffic, GeneratedTraffic, Generator, Parameters
from dossim.scenario.traffic import build_traffic

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
