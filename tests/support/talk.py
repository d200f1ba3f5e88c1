"""A conversation with the model of connection tracking, packet by packet, and the packets for it."""

from __future__ import annotations

from ipaddress import ip_interface

from dossim.model.host import Host, Listener
from dossim.packet.fields import IP
from dossim.packet.parse import internet_checksum, parse_ipv4, parse_ipv6
from dossim.pipeline.conntrack.checksum import crc32c
from dossim.pipeline.conntrack.settings import Settings
from dossim.pipeline.conntrack.table import Conntrack
from dossim.pipeline.conntrack.verdict import Verdict
from tests.support.conversations import checked
from tests.support.frames import ipv4, ipv6

ME, PEER, OTHER = "10.10.10.10", "203.0.113.7", "198.51.100.9"
ME6, PEER6, ROUTER6 = "fd00::10", "2001:db8::7", "fe80::1"
HOST = Host(
    "jasper",
    addresses=(ip_interface(f"{ME}/24"), ip_interface(f"{ME6}/64")),
    listen=(Listener(6, 80), Listener(17, 9)),
)
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))


class Talk:
    """``peer`` and ``host`` send; seconds are since the start. By default every packet is delivered and the host says
    nothing by itself.
    """

    def __init__(self, settings: Settings | None = None, *, answers: bool = False) -> None:
        self.table = Conntrack(HOST, settings)
        self.answers = answers

    def peer(self, packet: bytes, *, at: float = 0, delivered: bool = True, untracked: bool = False) -> Verdict:
        verdict = self.table.observe(parsed(packet), int(at * 1e9), untracked=untracked)
        if delivered:
            self.table.delivered(verdict, answers=self.answers)
        return verdict

    def host(self, packet: bytes, *, at: float = 0) -> Verdict:
        return self.table.sent(parsed(packet), int(at * 1e9))

    def entries(self, *, at: float = 0) -> int:
        """How many flows have an entry."""
        return len(self.table.entries(int(at * 1e9)))


def parsed(packet: bytes) -> IP:
    ip = parse_ipv4(packet) if packet[0] >> 4 == 4 else parse_ipv6(packet)
    assert ip is not None
    return ip


def tcp(
    flags: int, seq: int = 1_000, ack: int = 0, *, ports: tuple[int, int] = (1024, 81), window: int = 1_000,
    options: bytes = b"", data: bytes = b"", back: bool = False,
) -> bytes:  # fmt: skip
    """A segment from the peer, ``back`` from the host; ports are the peer's and the host's."""
    source, destination = (ME, PEER) if back else (PEER, ME)
    front = b"".join(port.to_bytes(2, "big") for port in (ports[::-1] if back else ports))
    numbers = (seq % (1 << 32)).to_bytes(4, "big") + (ack % (1 << 32)).to_bytes(4, "big")
    rest = bytes([5 + len(options) // 4 << 4, flags]) + window.to_bytes(2, "big") + bytes(4) + options + data
    return ipv4(
        checked(6, source, destination, front + numbers + rest, 16),
        source=source,
        destination=destination,
        protocol=6,
    )


def udp(
    ports: tuple[int, int] = (5000, 9), data: bytes = b"hello", *, length: int | None = None,
    checksum: int | None = None, back: bool = False, protocol: int = 17, summed_as: int | None = None,
) -> bytes:  # fmt: skip
    """A datagram of UDP or UDP-Lite; ``summed_as`` is the protocol of its pseudo header."""
    source, destination = (ME, PEER) if back else (PEER, ME)
    front = b"".join(port.to_bytes(2, "big") for port in (ports[::-1] if back else ports))
    buf = front + (8 + len(data) if length is None else length).to_bytes(2, "big") + bytes(2) + data
    if checksum is None:
        buf = checked(summed_as or protocol, source, destination, buf, 6)
    else:
        buf = buf[:6] + checksum.to_bytes(2, "big") + buf[8:]
    return ipv4(buf, source=source, destination=destination, protocol=protocol)


def icmp(
    kind: int, body: bytes = b"\0\1\0\1", *, code: int = 0, back: bool = False, destination: str = "", spoil: int = 0
) -> bytes:
    """An ICMP message; ``body`` is all after the checksum."""
    source, target = (ME, PEER) if back else (PEER, ME)
    buf = bytes([kind, code, 0, 0]) + body
    found = internet_checksum(buf) ^ spoil
    return ipv4(
        buf[:2] + found.to_bytes(2, "big") + buf[4:], source=source, destination=destination or target, protocol=1
    )


def icmp6(
    kind: int, body: bytes = b"\0\1\0\1", *, code: int = 0, source: str = PEER6, hop_limit: int = 64, spoil: int = 0
) -> bytes:
    buf = checked(58, source, ME6, bytes([kind, code, 0, 0]) + body, 2)
    buf = buf[:3] + bytes([buf[3] ^ spoil]) + buf[4:]
    return ipv6(buf, source=source, destination=ME6, next_header=58, hop_limit=hop_limit)


def sctp(tag: int, *chunks: bytes, back: bool = False, spoil: int = 0) -> bytes:
    """An SCTP packet between ports 6000 and 7000."""
    source, destination = (ME, PEER) if back else (PEER, ME)
    ports = (7000, 6000) if back else (6000, 7000)
    buf = b"".join(port.to_bytes(2, "big") for port in ports) + tag.to_bytes(4, "big") + bytes(4) + b"".join(chunks)
    buf = buf[:8] + (crc32c(buf) ^ spoil).to_bytes(4, "little") + buf[12:]
    return ipv4(buf, source=source, destination=destination, protocol=132)


def chunk(kind: int, *, tag: int = 0, flags: int = 0) -> bytes:
    """20 bytes, as an INIT has them at least."""
    return bytes([kind, flags, 0, 20]) + tag.to_bytes(4, "big") + bytes(12)


def other(protocol: int, body: bytes = bytes(8), *, back: bool = False) -> bytes:
    source, destination = (ME, PEER) if back else (PEER, ME)
    return ipv4(body, source=source, destination=destination, protocol=protocol)
