"""The notes about a capture as a whole, which precede results about its packets."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import numpy as np
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from dossim.packet.about import describe
from dossim.packet.capture import Capture

MAC = "02:00:00:00:00:01"  # without one Scapy asks the network for it
ORDINARY = bytes(Ether(dst=MAC) / IP(src="192.0.2.1", dst="192.0.2.2") / UDP())
ZERO = bytes(Ether(dst=MAC) / IP(src="192.0.2.2", dst="192.0.2.1", chksum=0) / TCP(chksum=0))


def test_an_ordinary_capture_is_one_sentence() -> None:
    assert describe(Capture.from_frames([ORDINARY])) == ["1 packet."]
    assert describe(Capture.from_frames([])) == ["0 packets."]


def test_everything_that_is_to_be_known() -> None:
    capture = replace(
        Capture.from_frames([ORDINARY, ORDINARY, ZERO]),
        wire_length=np.array([len(ORDINARY), 1514, len(ZERO)], np.int32),
        skipped={"sent by the host (SLL outgoing)": 1200},
        warnings=("x.pcap: cut",),
        link_types={"ETHERNET": 2, "LINUX_SLL": 1201},
    )
    assert describe(capture, [ip_address("192.0.2.2")]) == [
        "3 packets (1,201 LINUX_SLL, 2 ETHERNET).",
        "1 packet cut by the snapshot length: what is decided after the cut is not known.",
        "1,200 packets left out: sent by the host (SLL outgoing).",
        "1 packet from an address of the host itself: sent, it seems, not received.",
        "1 packet without a complete TCP, UDP or SCTP checksum, 1 of them sent by the host: as they look before "
        "hardware completes it (checksum offload).",
        "1 packet with 0 for the checksum of the IPv4 header, as before hardware sets it.",
        "x.pcap: cut",
    ]
