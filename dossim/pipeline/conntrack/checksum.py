"""Checksums as conntrack verifies them at PREROUTING (``nf_checksum`` of ``net/netfilter/utils.c``), and CRC32c."""

from __future__ import annotations

from dossim.packet.cut import visible
from dossim.packet.fields import IP, IPv4
from dossim.packet.parse import internet_checksum, transport_checksum_ok

_CRC32C = 0x82F63B78  # the polynomial, reflected (RFC 9260, appendix A)


def transport_sum_ok(ip: IP, protocol: int, buf: bytes, *, covered: int | None = None) -> bool:
    """``nf_ip_checksum``, ``nf_ip6_checksum``: over what the packet carries, whatever a length field says.

    ``covered`` is how much of it the checksum is over (UDP-Lite).
    """
    return transport_checksum_ok(ip, protocol, buf[:covered], length=len(buf))


def icmp_sum_ok(ip: IPv4, buf: bytes) -> bool:
    """``nf_ip_checksum`` sums up the IP header as well: a message of nothing but zeros then is as good as any."""
    return internet_checksum(ip.buf[: ip.header_length], buf) == 0


def crc32c(buf: bytes) -> int:
    """The checksum of SCTP, as a number in little-endian order (RFC 9260, section 6.8)."""
    crc = 0xFFFFFFFF
    for byte in visible(buf):
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _row(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_CRC32C if byte & 1 else 0)
    return byte


_TABLE = tuple(map(_row, range(256)))
