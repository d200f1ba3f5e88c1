"""Small captures of well-formed packets for the tests of suggest."""

from __future__ import annotations

from collections.abc import Iterable

from dossim.packet.capture import Capture
from tests.support.frames import ME4, ME6, ethernet, ipv4, ipv6, segment

TCP, UDP, ICMP = 6, 17, 1

Packet = tuple[str, int, tuple[int, int]]  # source, protocol, ports


def capture(packets: Iterable[Packet], path: str = "<generated>") -> Capture:
    """A frame each, to the host."""
    return Capture.from_frames([frame(*packet) for packet in packets], path)


def frame(source: str, protocol: int, ports: tuple[int, int]) -> bytes:
    if ":" in source:
        payload = segment(protocol, source, ME6, ports, b"x")
        return ethernet(ipv6(payload, source=source, destination=ME6, next_header=protocol), 0x86DD)
    payload = segment(protocol, source, ME4, ports, b"x")
    return ethernet(ipv4(payload, source=source, destination=ME4, protocol=protocol), 0x0800)
