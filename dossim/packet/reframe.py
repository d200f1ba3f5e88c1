"""How one packet of a link type other than Ethernet becomes an Ethernet frame.

Layouts: https://www.tcpdump.org/linktypes.html. The destination is a group address where the original header says
broadcast or multicast, all zero otherwise (the replayer puts the victim's there); the source is zero. 802.11 has
addresses of its own (:mod:`dossim.packet.wifi`).

A decoder raises IndexError or struct.error when the packet ends within the header it reads.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

IPV4_TYPE, IPV6_TYPE = 0x0800, 0x86DD
UNICAST, GROUP, BROADCAST = bytes(6), b"\x01" + bytes(5), b"\xff" * 6
SOURCE = bytes(6)


class Packet(NamedTuple):
    """``buf`` as captured, ``wire`` bytes on the wire; ``big_endian`` as the machine that captured it."""

    buf: bytes
    wire: int
    big_endian: bool

    def u16(self, at: int) -> int:
        (value,) = struct.unpack_from(">H", self.buf, at)
        return int(value)

    def after(self, start: int) -> Packet:
        """The bytes after a header of ``start`` bytes."""
        return Packet(self.buf[start:], self.wire - start, self.big_endian)


class Part(NamedTuple):
    """The Ethernet frame is ``header`` and the packet from ``start`` on, without its last ``trailer`` bytes; on the
    wire it had ``missing`` more bytes, which the record does not count.
    """

    header: bytes
    start: int
    trailer: int = 0
    missing: int = 0


Result = Part | str  # str: why it is not a received packet for IP


def ethernet(ethertype: int, start: int, destination: bytes = UNICAST, trailer: int = 0) -> Part:
    """An Ethernet header for the payload at ``start``."""
    return Part(destination + SOURCE + ethertype.to_bytes(2, "big"), start, trailer)


def raw(packet: Packet) -> Result:
    """RAW: the version field distinguishes IPv4 and IPv6."""
    return ethernet(IPV6_TYPE if packet.buf[:1] and packet.buf[0] >> 4 == 6 else IPV4_TYPE, 0)


def ipv4(packet: Packet) -> Result:
    """IPV4, whatever the version field says."""
    return ethernet(IPV4_TYPE, 0)


def ipv6(packet: Packet) -> Result:
    """IPV6, whatever the version field says."""
    return ethernet(IPV6_TYPE, 0)


# AF_INET6 of NetBSD and OpenBSD, FreeBSD, Darwin, Linux, Windows; AF_INET is 2 everywhere.
_FAMILIES = {2: IPV4_TYPE, 24: IPV6_TYPE, 28: IPV6_TYPE, 30: IPV6_TYPE, 10: IPV6_TYPE, 23: IPV6_TYPE}


def loopback(packet: Packet) -> Result:
    """NULL and LOOP: an address family in the byte order of the machine that captured, which may be either."""
    found = struct.unpack_from("<I", packet.buf) + struct.unpack_from(">I", packet.buf)
    ethertype = next((_FAMILIES[family] for family in found if family in _FAMILIES), None)
    return "BSD loopback, another address family" if ethertype is None else ethernet(ethertype, 4)


def shifted(result: Result, by: int) -> Result:
    """The same part, for a packet with ``by`` bytes in front."""
    return result if isinstance(result, str) else result._replace(start=result.start + by)


_PPP_NAMES = {
    0x8021: "PPP IPCP", 0x8057: "PPP IPV6CP", 0x80FD: "PPP CCP", 0xC021: "PPP LCP", 0xC023: "PPP PAP",
    0xC025: "PPP LQR", 0xC223: "PPP CHAP", 0x00FD: "PPP, compressed", 0x002D: "PPP, compressed TCP header",
    0x002F: "PPP, uncompressed TCP header", 0x0053: "PPP, encrypted", 0x0281: "PPP MPLS",
}  # fmt: skip
_PPP_IP = {0x0021: IPV4_TYPE, 0x0057: IPV6_TYPE}


def ppp(packet: Packet, at: int = 0, trailer: int = 0) -> Result:
    """PPP: with or without ``ff 03`` in front (RFC 1662), the protocol in one byte or two (RFC 1661 6.5)."""
    buf = packet.buf
    if buf[at] == 0xFF:
        if buf[at + 1] != 0x03:
            return "PPP, another address and control field"
        at += 2
    protocol, start = (buf[at], at + 1) if buf[at] & 1 else (packet.u16(at), at + 2)
    if protocol not in _PPP_IP:
        return _PPP_NAMES.get(protocol, "PPP, another protocol than IP")
    return ethernet(_PPP_IP[protocol], start, trailer=trailer)


def ppp_hdlc(packet: Packet) -> Result:
    """PPP_HDLC: PPP, or Cisco's framing by its first byte."""
    return c_hdlc(packet) if packet.buf[0] in (0x0F, 0x8F) else ppp(packet)


def ppp_ether(packet: Packet) -> Result:
    """PPP_ETHER: PPPoE (RFC 2516) without Ethernet; bytes after its own length are padding."""
    _, code, _, length = struct.unpack_from(">BBHH", packet.buf)
    if code:
        return "PPPoE discovery"
    return ppp(packet, 6, max(packet.wire - 6 - length, 0))


def ppp_pppd(packet: Packet) -> Result:
    """PPP_PPPD: the address byte is the direction, 0 in and 1 out."""
    if packet.buf[0] == 1:
        return "sent by the host (PPP direction)"
    return ppp(packet, 2 if packet.buf[:2] == b"\x00\x03" else 0)


def ppp_with_dir(packet: Packet) -> Result:
    """PPP_WITH_DIR: a byte in front, 0 in, else out."""
    return "sent by the host (PPP direction)" if packet.buf[0] else ppp(packet, 1)


def c_hdlc(packet: Packet, at: int = 0) -> Result:
    """C_HDLC: an address, 0x8f for broadcast, a control byte and an ethertype."""
    address, _, ethertype = struct.unpack_from(">BBH", packet.buf, at)
    if ethertype not in (IPV4_TYPE, IPV6_TYPE):
        return "Cisco HDLC, another protocol than IP"
    return ethernet(ethertype, at + 4, BROADCAST if address == 0x8F else UNICAST)


def c_hdlc_with_dir(packet: Packet) -> Result:
    """C_HDLC_WITH_DIR: a byte in front, 0 in, else out."""
    return "sent by the host (Cisco HDLC direction)" if packet.buf[0] else c_hdlc(packet, 1)
