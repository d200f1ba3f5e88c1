"""Frames that no socket would send, from one host to another, and where each ends."""

from __future__ import annotations

import socket

from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP, IPOption_Stream_Id
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from enforcer.model.vocabulary import Stage
from tests.conformance.flows import wait_until
from tests.conformance.topology import Host

FAILSAFE_PORT, PLAIN_PORT = 22, 8055
NO_OPERATIONS = [IPOption_NOP()] * 4
# Taken for a TCP header, bytes 2 and 3 of the option are the destination port.
LIKE_FAILSAFE = [IPOption_Stream_Id(security=FAILSAFE_PORT)]


def to(host: Host, source: str, *layers: Packet, **fields: object) -> bytes:
    """A frame to the host's own address from this source."""
    packet = Ether(src="02:00:00:00:99:99", dst=host.mac) / IP(src=source, dst=host.address(), **fields)
    for layer in layers:
        packet = packet / layer
    return bytes(packet)


def odd_frames(host: Host, source: str) -> dict[str, tuple[bytes, bool]]:
    """Frames of one denied source, by name, and whether raw passes each."""
    # What follows the IP header of a later fragment is data, even if it looks like ports.
    looks_like_ssh = Raw(bytes(TCP(sport=40000, dport=FAILSAFE_PORT)))
    return {
        "one byte after the IP header": (to(host, source, Raw(b"x"), proto=254), False),
        "nothing after the IP header": (to(host, source, proto=254), False),
        "IP options, plain port": (to(host, source, UDP(sport=40000, dport=PLAIN_PORT), options=NO_OPERATIONS), False),
        "IP options, failsafe port": (
            to(host, source, TCP(sport=40000, dport=FAILSAFE_PORT, flags="S"), options=NO_OPERATIONS),
            True,
        ),
        "IP options that look like a failsafe port": (
            to(host, source, TCP(sport=40000, dport=PLAIN_PORT), options=LIKE_FAILSAFE),
            False,
        ),
        "a later fragment that looks like a failsafe port": (
            to(host, source, looks_like_ssh, proto=6, frag=185),
            False,
        ),
    }


def dropped_at(sender: Host, host: Host, frame: bytes, entry: str) -> Stage | None:
    """The stage at which the entry counted the frame; None if the host's raw table passed it."""
    before = host.counts()
    passed = passed_raw(host)
    with sender.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
        mouth.bind(("eth0", 0))
        mouth.send(frame)
    said = f"neither dropped nor passed: {frame.hex()}"
    wait_until(lambda: bool(host.counts() - before) or passed_raw(host) > passed, said)
    grown = host.counts() - before
    assert len(grown) <= 1, grown
    assert not grown or passed_raw(host) == passed, f"counted, and passed all the same: {frame.hex()}"
    return next((stage for stage, found in grown if found == entry), None)


def count_what_passes_raw(host: Host) -> None:
    """A foreign rule without a target in mangle PREROUTING, after raw: it only counts."""
    host.run("iptables-legacy", "-w", "-t", "mangle", "-A", "PREROUTING", "-i", "eth0")


def passed_raw(host: Host) -> int:
    lines = host.run("iptables-legacy-save", "-c", "-t", "mangle").splitlines()
    (line,) = [line for line in lines if line.endswith("-A PREROUTING -i eth0")]
    return int(line[1:].split(":")[0])
