"""Checksums left to hardware: packets captured before their checksum was computed, or after it was taken away.

Linux leaves the plain sum of the pseudo header in the field (CHECKSUM_PARTIAL: ``__tcp_v4_send_check``,
``udp4_hwcsum``) and the device completes it. Packets that GRO merged have it too (``tcp_gro_complete``), and so have
packets that passed no real device (veth, virtio). Other systems leave 0. On the wire the checksum was correct.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import numpy as np
import numpy.typing as npt

from dossim.engine import artefacts as engine
from dossim.packet.capture import Capture
from enforcer.model.nets import Nets

Bool = npt.NDArray[np.bool_]

OFFLOADED, HEADER = engine.NOT_SUMMED, engine.HEADER_NOT_SUMMED
LENGTH, SENT = engine.LENGTH_MISSING, engine.SENT_BY_HOST


@dataclass(frozen=True)
class Artefacts:
    """Of each packet of a capture ``flags`` (uint8[N]), and ``packets``: how many have each combination of them. The
    properties are bool[N].

    ``offloaded``: the TCP, UDP or SCTP checksum is incomplete: 0 where 0 is not valid, or the sum of the pseudo header
    alone. A correct checksum is never one of them. 0 is valid in UDP over IPv4 (RFC 768) and not counted. Fragments are
    left out: the checksum is computed before fragmentation. ``header``: the IPv4 header checksum is 0 and wrong; Linux
    never leaves that one to the device. ``length``: an IPv4 packet of TCP or UDP, longer than an Ethernet frame, with
    total length 0: a large send that the device was to segment (Windows leaves the length to it). ``sent``: the source
    is an address of the host, so that it sent the packet.
    """

    flags: npt.NDArray[np.uint8]
    packets: Sequence[int]

    @property
    def offloaded(self) -> Bool:
        return self.has(OFFLOADED)

    @property
    def header(self) -> Bool:
        return self.has(HEADER)

    @property
    def length(self) -> Bool:
        return self.has(LENGTH)

    @property
    def sent(self) -> Bool:
        return self.has(SENT)

    @property
    def is_any_incomplete(self) -> bool:
        """Whether any packet has one of them but ``sent``."""
        return any(packets for found, packets in enumerate(self.packets) if found & ~SENT)

    def has(self, flags: int) -> Bool:
        """bool[N]: the packet has one of these flags."""
        return np.asarray(self.flags & flags != 0, np.bool_)

    def count(self, flags: int) -> int:
        """How many packets have all of these flags."""
        return sum(packets for found, packets in enumerate(self.packets) if found & flags == flags)


def artefacts_of(capture: Capture, addresses: Collection[IPv4Address | IPv6Address] = ()) -> Artefacts:
    """``addresses`` are those of the host."""
    return Artefacts(*engine.artefacts(capture, Nets.of(addresses)))
