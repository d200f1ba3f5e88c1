"""Linux cooked captures, from the ``any`` interface: SLL and SLL2, which state whether each packet was received."""

from __future__ import annotations

import struct

from dossim.packet.reframe import BROADCAST, GROUP, UNICAST, Packet, Result, ethernet, shifted
from dossim.packet.wifi import radiotap

_LENGTH_BELOW = 0x0600  # smaller values are 802.3 lengths

# PACKET_HOST and so on of <linux/if_packet.h>.
_GROUPS = {0: UNICAST, 1: BROADCAST, 2: GROUP}
_NOT_RECEIVED = {3: "to another host", 4: "sent by the host", 5: "looped back to the host itself"}
_ARPHRD_RADIOTAP, _ARPHRD_NETLINK = 803, 824


def linux_sll(packet: Packet) -> Result:
    """LINUX_SLL: captured on the ``any`` interface."""
    kind, hardware, _, _, protocol = struct.unpack_from(">HHH8sH", packet.buf)
    return _cooked("SLL", packet, kind, hardware, protocol, 16)


def linux_sll2(packet: Packet) -> Result:
    """LINUX_SLL2: the same with the interface."""
    protocol, _, _, hardware, kind, _, _ = struct.unpack_from(">HHIHBB8s", packet.buf)
    return _cooked("SLL2", packet, kind, hardware, protocol, 20)


def _cooked(name: str, packet: Packet, kind: int, hardware: int, protocol: int, start: int) -> Result:
    if kind not in _GROUPS:
        known = kind in _NOT_RECEIVED
        return f"{_NOT_RECEIVED[kind]} ({name} packet type {kind})" if known else f"{name}, another packet type"
    if hardware == _ARPHRD_NETLINK:
        return f"netlink message ({name})"
    if hardware == _ARPHRD_RADIOTAP:
        return shifted(radiotap(packet.after(start)), start)
    if protocol < _LENGTH_BELOW:  # 1 and 4 mean 802.3 and LLC, whose Ethernet header has a length there
        protocol = min(packet.wire - start, _LENGTH_BELOW - 1)
    return ethernet(protocol, start, _GROUPS[kind])
