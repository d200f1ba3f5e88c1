"""The captures that predictions are measured with, and a policy for them.

A SYN flood with correct checksums, half of it from 37,000 deny-listed sources, the other half from random ones; and the
same packets with tags, options and extension headers, as IPv6, in fragments, and longer.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dossim.model.host import Host, Listener
from dossim.packet.capture import PADDING, Capture
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import STAGE_OF_MODE, Action, Backend, Mode, Stage
from enforcer.planning.plan import InterfacePlan, PlannedEntry
from enforcer.policy.resources import DEFAULT_FAILSAFE_INBOUND, DEFAULT_FAILSAFE_OUTBOUND
from enforcer.policy.ruletable import IpSet, RuleTable
from tests.support.entries import SideMatch, entry_of

SOURCES = 37_000
VICTIM = "10.10.10.10"
VICTIM6 = "2001:db8:d246::a0a:a0a"
HOST = Host(
    "jasper", addresses=(ip_interface(f"{VICTIM}/32"), ip_interface(f"{VICTIM6}/128")), listen=(Listener(6, 80),)
)
LONG = 1_500  # bytes of an IP packet

Bytes = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]

_ETHERNET = bytes.fromhex("060000000001 020000000000 0800")
_IPV4 = bytes.fromhex("45000028 00000000 40060000 00000000 0a0a0a0a")
_TCP = bytes.fromhex("04000050 00000001 00000000 50022000 00000000")
_FRAME = _ETHERNET + _IPV4 + _TCP
_PREFIX6 = bytes.fromhex("20010db8 d246 0000 00000000")  # its words sum to all ones
_PSEUDO = 6 + len(_TCP)  # protocol and length; the addresses are summed with the header


def listed() -> U32:
    """The deny-listed sources."""
    return np.unique(np.random.default_rng(2).integers(1 << 24, 127 << 24, size=SOURCES, dtype=np.uint32))


def syn_flood(packets: int, sources: U32, *, others: bool = True) -> Capture:
    """SYNs from these sources, with ``others`` every second one from a random source."""
    rng = np.random.default_rng(1)
    chosen = sources[rng.integers(len(sources), size=packets)]
    if others:
        chosen[1::2] = rng.integers(1 << 24, 127 << 24, size=packets // 2, dtype=np.uint32)
    frames = np.tile(np.frombuffer(_FRAME, np.uint8), (packets, 1))
    frames[:, 26:30] = chosen.astype(">u4").view(np.uint8).reshape(-1, 4)
    frames[:, 24:26] = _checksum(frames[:, 14:34], 0)
    frames[:, 50:52] = _checksum(frames[:, 26:54], _PSEUDO)
    size = len(_FRAME)
    return Capture(
        path="<generated>",
        sha256="",
        data=np.concatenate([frames.ravel(), np.zeros(PADDING, np.uint8)]),
        offset=np.arange(packets, dtype=np.int64) * size,
        length=np.full(packets, size, np.int32),
        wire_length=np.full(packets, size, np.int32),
        record=np.arange(packets, dtype=np.int64),
        timestamp_ns=np.arange(packets, dtype=np.int64) * 1000,
    )


def with_frames(flood: Capture, frames: Bytes) -> Capture:
    """The same with other frames of one length, a row each."""
    packets, size = frames.shape
    return replace(
        flood,
        data=np.concatenate([frames.ravel(), np.zeros(PADDING, np.uint8)]),
        offset=np.arange(packets, dtype=np.int64) * size,
        length=np.full(packets, size, np.int32),
        wire_length=np.full(packets, size, np.int32),
    )


def kinds(flood: Capture) -> dict[str, Capture]:
    """A flood of :func:`syn_flood` with tags, IPv4 options, in fragments, and as IPv6, also with an options header."""
    packets = len(flood)
    rows = flood.data[: packets * len(_FRAME)].reshape(packets, len(_FRAME))
    ethernet, header, tcp = rows[:, :14], rows[:, 14:34], rows[:, 34:]

    def joined(*parts: Bytes | bytes) -> Bytes:
        same = [np.tile(np.frombuffer(part, np.uint8), (packets, 1)) for part in parts if isinstance(part, bytes)]
        columns = iter(same)
        return np.concatenate([next(columns) if isinstance(part, bytes) else part for part in parts], axis=1)

    options = joined(header, b"\1\1\1\0")
    options[:, 0], options[:, 3] = 0x46, 0x2C
    options[:, 10:12] = 0
    options[:, 10:12] = _checksum(options, 0)
    # The addresses are the IPv4 ones, mapped into a prefix whose words sum to zero, so the TCP checksum stays right.
    source, destination = joined(_PREFIX6, header[:, 12:16]), joined(_PREFIX6, header[:, 16:20])
    six = joined(bytes.fromhex("60000000 0014 06 40"), source, destination)
    extended = joined(bytes.fromhex("60000000 001c 3c 40"), source, destination, bytes.fromhex("0600010400000000"))
    half = header.copy()
    half[0::2, 6], half[1::2, 7] = 0x20, 1  # two fragments of eight and twelve bytes for each SYN
    half[:, 2:4] = np.where(np.arange(packets)[:, None] % 2 == 0, (0, 28), (0, 32))
    numbers = (np.arange(packets) // 2 & 0xFFFF).astype(">u2").view(np.uint8).reshape(-1, 2)
    half[:, 4:6], half[1::2, 12:16] = numbers, half[0::2, 12:16]
    half[:, 10:12] = 0
    half[:, 10:12] = _checksum(half, 0)
    payload = tcp.copy()
    payload[1::2, :12] = tcp[0::2, 8:20]
    return {
        "VLAN tag": with_frames(flood, joined(rows[:, :12], bytes.fromhex("81000000"), rows[:, 12:])),
        "two tags": with_frames(flood, joined(rows[:, :12], bytes.fromhex("88a80000 81000000"), rows[:, 12:])),
        "IPv4 options": with_frames(flood, joined(ethernet, options, tcp)),
        "two fragments each": with_frames(flood, joined(ethernet, half, payload)),
        "IPv6": with_frames(flood, joined(rows[:, :12], b"\x86\xdd", six, tcp)),
        "IPv6, destination options": with_frames(flood, joined(rows[:, :12], b"\x86\xdd", extended, tcp)),
    }


def lengthened(flood: Capture) -> Capture:
    """A flood of :func:`syn_flood` with data, so that each IP packet has LONG bytes."""
    packets, size = len(flood), len(_FRAME)
    rows = np.zeros((packets, 14 + LONG), np.uint8)
    rows[:, :size] = flood.data[: packets * size].reshape(packets, size)
    rows[:, size:] = np.random.default_rng(3).integers(256, size=14 + LONG - size, dtype=np.uint8)
    rows[:, 16:18] = LONG >> 8, LONG & 0xFF
    rows[:, 24:26] = rows[:, 50:52] = 0
    rows[:, 24:26] = _checksum(rows[:, 14:34], 0)
    rows[:, 50:52] = _checksum(rows[:, 26:], 6 + LONG - 20)
    return with_frames(flood, rows)


def write(flood: Capture, path: Path, *, pcapng: bool = False) -> None:
    """A file of frames of one length, with timestamps a microsecond apart: faster than Capture.write()."""
    packets, size = len(flood), int(flood.length[0])
    frames = flood.data[: packets * size].reshape(packets, size)
    micros = np.arange(packets, dtype=np.uint64)
    words = np.empty((packets, 4), "<u4")
    if pcapng:
        padded = -size % 4
        header = np.empty((packets, 7), "<u4")
        header[:] = 6, 32 + size + padded, 0, 0, 0, size, size
        header[:, 3], header[:, 4] = micros >> np.uint64(32), micros & np.uint64(0xFFFF_FFFF)
        end = np.zeros((packets, padded + 4), np.uint8)
        end[:, padded:] = np.frombuffer(struct.pack("<I", 32 + size + padded), np.uint8)
        parts = [header.view(np.uint8), frames, end]
        first = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
        first += struct.pack("<IIHHII", 1, 20, 1, 0, 0, 20)
    else:
        words[:] = 0, 0, size, size
        words[:, 0], words[:, 1] = micros // 1_000_000, micros % 1_000_000
        parts = [words.view(np.uint8), frames]
        first = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1)
    path.write_bytes(first + np.concatenate(parts, axis=1).tobytes())


def _checksum(rows: Bytes, initial: int) -> Bytes:
    total = rows.copy().view(">u2").sum(axis=1, dtype=np.int64) + initial
    for _ in range(2):
        total = (total & 0xFFFF) + (total >> 16)
    sealed: Bytes = (0xFFFF - total).astype(">u2").view(np.uint8).reshape(-1, 2)
    return sealed


def deny_list(sources: U32, mode: Mode | None) -> InterfacePlan:
    deny = entry_of("gnp/dos-mitigation ingress[0]", Action.DENY, source=SideMatch(ip_set="s:deny"))
    nets = Nets(sources, np.full(len(sources), 32, np.uint8)) | Nets.of(_six(sources))
    table = RuleTable(
        "eth0",
        "hep",
        (deny,),
        failsafe_inbound=DEFAULT_FAILSAFE_INBOUND,
        failsafe_outbound=DEFAULT_FAILSAFE_OUTBOUND,
        sets={"s:deny": IpSet("s:deny", "dos-deny-list == 'true'", nets)},
    )
    stage = STAGE_OF_MODE[mode] if mode else Stage.RAW
    return InterfacePlan(table, mode, Backend.IPTABLES, (PlannedEntry(deny, stage),), held=1 if mode else 0)


_POLICY = """apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {{name: eth0, labels: {{role: host}}}}
spec: {{node: jasper, interfaceName: eth0, expectedIPs: [{victim}, "{victim6}"]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: dos-mitigation}}
spec:
  selector: role == 'host'
  doNotTrack: true
  applyOnForward: true
  types: [Ingress]
  ingress: [{{action: Deny, source: {{selector: dos == 'true'}}}}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {{name: deny, labels: {{dos: 'true'}}}}
spec:
  nets:
{nets}
"""


def policy_text(sources: U32) -> str:
    """The deny list as the objects that ``dossim predict`` reads; IPv6 sources as :func:`deny_list` has them."""
    return _POLICY.format(
        victim=VICTIM, victim6=VICTIM6, nets="\n".join(f"  - {item}" for item in [*_four(sources), *_six(sources)])
    )


def _four(sources: U32) -> list[str]:
    return [str(IPv4Address(item)) for item in sources.tolist()]


def _six(sources: U32) -> list[str]:
    prefix = int.from_bytes(_PREFIX6, "big") << 32
    return [f"{IPv6Address(prefix | source)}/128" for source in sources.tolist()]
