"""What the running kernel's conntrack says of each packet: sent in a namespace, read from a set of nf_tables.

A rule at PREROUTING after conntrack adds each packet's number, which is its Ethernet source address, with its state to
a set; one at OUTPUT does so for the packets a test sends from the host, whose number is in their mark. That needs
nothing of the observer's.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

from dossim.lab.lab import wait_for_carrier
from dossim.model.host import Host, Listener
from dossim.pipeline.conntrack.sctp_states import SctpState
from dossim.pipeline.conntrack.states import CtState
from dossim.pipeline.conntrack.tcp_states import TcpState
from dossim.pipeline.conntrack.tuples import FlowTuple
from tests.kernel.conftest import NetnsPair

HOST = Host(
    node="jasper",
    addresses=(ip_interface("10.10.10.10/24"), ip_interface("fd00::10/64")),
    listen=(Listener(6, 80), Listener(17, 9)),
)
MAC, GATEWAY_MAC = "06:00:00:00:00:01", "06:00:00:00:00:02"
_TAG = "02:00:"  # and four bytes: the number of a packet
# Marks what a test sends from the host; the other bits are the number. A mark without it may be the kernel's: mark and
# reserved_tailroom share their place in struct sk_buff, and reports of MLD and IGMP set the latter (mld_newpack in
# net/ipv6/mcast.c, igmpv3_newpack in net/ipv4/igmp.c), to 212 at an MTU of 1500.
_OWN = 1 << 30
_TABLE = f"""
table inet observed {{
  set received {{ typeof ether saddr . ct state; flags dynamic; size 65535; }}
  set sent {{ typeof meta mark . ct state; flags dynamic; size 65535; }}
  chain first {{
    type filter hook prerouting priority -150; policy accept;
    add @received {{ ether saddr . ct state }}
  }}
  chain own {{
    type filter hook output priority -150; policy accept;
    meta mark & {_OWN} != 0 add @sent {{ meta mark . ct state }}
  }}
}}
"""
# What the host says by itself never gets to conntrack.
_MUTE = f"""
table inet mute {{
  chain own {{ type filter hook output priority -300; policy accept; meta mark & {_OWN} == 0 counter drop; }}
}}
"""
_DROP = """
table inet deny { chain own { type filter hook input priority 0; policy drop; }; }
"""
_SETTLE_S = 60
_NEAR_S = 4


@dataclass(frozen=True)
class Turn:
    """One IP packet: from the wire, or from the host itself through a raw socket."""

    packet: bytes
    by_host: bool = False


@dataclass(frozen=True)
class KernelEntry:
    """``state`` and ``tags`` (SCTP, of both directions) are None of other protocols; ``left_s`` are whole seconds."""

    seen_reply: bool
    assured: bool
    state: TcpState | SctpState | None
    left_s: int
    tags: tuple[int, int] | None = None

    def is_like(self, other: KernelEntry) -> bool:
        """The same, but for a few seconds."""
        return replace(self, left_s=other.left_s) == other and abs(self.left_s - other.left_s) <= _NEAR_S


_SEEN_REPLY, _ASSURED = 2, 4  # IPS_SEEN_REPLY, IPS_ASSURED


def _read_entry(listed: Any) -> tuple[FlowTuple, KernelEntry]:
    original = listed.get_attr("CTA_TUPLE_ORIG")
    addresses, carried = (
        dict(original.get_attr("CTA_TUPLE_IP")["attrs"]),
        dict(original.get_attr("CTA_TUPLE_PROTO")["attrs"]),
    )
    version = "V4" if "CTA_IP_V4_SRC" in addresses else "V6"
    source, destination = (ip_address(addresses[f"CTA_IP_{version}_{end}"]).packed for end in ("SRC", "DST"))
    icmp = next((name for name in ("ICMP", "ICMPV6") if f"CTA_PROTO_{name}_ID" in carried), None)
    if icmp is None:
        keys = carried.get("CTA_PROTO_SRC_PORT", 0), carried.get("CTA_PROTO_DST_PORT", 0)
    else:
        keys = (
            carried[f"CTA_PROTO_{icmp}_ID"],
            carried[f"CTA_PROTO_{icmp}_TYPE"] << 8 | carried[f"CTA_PROTO_{icmp}_CODE"],
        )
    status = listed.get_attr("CTA_STATUS")
    state, tags = _read_state(listed)
    entry = KernelEntry(
        seen_reply=bool(status & _SEEN_REPLY),
        assured=bool(status & _ASSURED),
        state=state,
        left_s=listed.get_attr("CTA_TIMEOUT"),
        tags=tags,
    )
    return FlowTuple(source, destination, carried["CTA_PROTO_NUM"], *keys), entry


def _read_state(listed: Any) -> tuple[TcpState | SctpState | None, tuple[int, int] | None]:
    tcp = listed.get_nested("CTA_PROTOINFO", "CTA_PROTOINFO_TCP")
    if tcp is not None:
        return TcpState(tcp.get_attr("CTA_PROTOINFO_TCP_STATE")), None
    sctp = listed.get_nested("CTA_PROTOINFO", "CTA_PROTOINFO_SCTP")
    if sctp is None:
        return None, None
    original, reply = (sctp.get_attr(f"CTA_PROTOINFO_SCTP_VTAG_{end}") for end in ("ORIGINAL", "REPLY"))
    return SctpState(sctp.get_attr("CTA_PROTOINFO_SCTP_STATE")), (original, reply)


@dataclass
class ConntrackHost:
    """The host of the pair: 10.10.10.10 and fd00::10, everything else behind a gateway that never answers."""

    pair: NetnsPair
    sent: int = 0

    def states(self, turns: Sequence[Turn]) -> tuple[list[CtState], list[int]]:
        """Sends the packets one after another; the state of each, and the time it was sent, in ns.

        Raises AssertionError where the kernel has not said what a packet's state is.
        """
        first = self.sent
        times = self.send(turns)
        found = self.wait_for(range(first, self.sent))
        return [found[number] for number in range(first, self.sent)], times

    def send(self, turns: Sequence[Turn]) -> list[int]:
        """The time each was sent. Numbers go on from one call to the next."""
        times = []
        with _Sockets(self.pair) as sockets, _one_cpu():
            for turn in turns:
                times.append(time.monotonic_ns())
                sockets.send(turn, self.sent)
                self.sent += 1
        return times

    def wait_for(self, numbers: Collection[int]) -> dict[int, CtState]:
        """The states of all that was seen, once these are among them."""
        until = time.monotonic() + _SETTLE_S
        while True:
            found = self.seen()
            missing = [number for number in numbers if number not in found]
            if not missing:
                return found
            assert time.monotonic() < until, f"no state for packets {missing}"

    def seen(self) -> dict[int, CtState]:
        """The state of each packet that conntrack has seen, by number."""
        listed = json.loads(self.nft("-j", "list", "sets", "table", "inet", "observed"))
        sets = {item["set"]["name"]: item["set"].get("elem", []) for item in listed["nftables"] if "set" in item}
        received, sent = _read_states(sets["received"]), _read_states(sets["sent"])
        assert not (both := received.keys() & sent.keys()), f"packets {both} were received and sent"
        return received | sent

    def entries(self) -> dict[FlowTuple, KernelEntry]:
        """What ctnetlink lists, by the tuple of the original direction."""
        # Of both families at once: each list goes through the table of all namespaces.
        with self.pair.host(), NFCTSocket(nfgen_family=socket.AF_UNSPEC) as ctnetlink:
            return dict(map(_read_entry, ctnetlink.dump()))

    def forget(self) -> None:
        """Empty the sets, and remove all entries: a list of many takes seconds, in which their timeouts run."""
        self.nft("flush set inet observed received; flush set inet observed sent")
        with self.pair.host(), NFCTSocket() as ctnetlink:
            ctnetlink.flush()

    def nft(self, *arguments: str, given: str | None = None) -> str:
        with self.pair.host():
            done = subprocess.run(["nft", *arguments], input=given, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        return done.stdout

    def wait_for_count(self, table: str, chain: str) -> None:
        """Until the counter of a chain of this table of family inet is not 0. Raises AssertionError if it stays 0."""
        until = time.monotonic() + _SETTLE_S
        while "counter packets 0 " in self.nft("list", "chain", "inet", table, chain):
            assert time.monotonic() < until, f"no packet in {table} {chain}"

    def set(self, name: str, value: int) -> None:
        """A sysctl of conntrack, without ``nf_conntrack_``."""
        with self.pair.host():
            Path(f"/proc/sys/net/netfilter/nf_conntrack_{name}").write_text(str(value))

    def count(self) -> int:
        """How many entries there are."""
        with self.pair.host():
            return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())


def _read_states(elements: list[Any]) -> dict[int, CtState]:
    """The states in a set, by number of the packet."""
    found: dict[int, CtState] = {}
    for element in elements:
        key, state = element["concat"]
        if isinstance(key, str) and not key.startswith(_TAG):
            continue  # what the host says to groups, itself among them
        number = key ^ _OWN if isinstance(key, int) else int(key.removeprefix(_TAG).replace(":", ""), 16)
        assert number not in found, f"packet {number} was seen twice"
        found[number] = CtState(state.upper())
    return found


@contextmanager
def conntrack_host(pair: NetnsPair, *, mute: bool = False, drop: bool = False) -> Iterator[ConntrackHost]:
    """The pair as this host, with a TCP socket that listens on 80 and a UDP socket on 9.

    ``mute``: only what a test lets the host send gets to its conntrack. ``drop``: nothing gets past INPUT.
    """
    with pair.peer(), IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname=pair.PEER_INTERFACE)[0], state="up")
    with pair.host():
        _configure(pair)
        with pair.peer(), IPRoute() as ip:
            wait_for_carrier(ip, ip.link_lookup(ifname=pair.PEER_INTERFACE)[0])
        host = ConntrackHost(pair)
        host.nft("-f", "-", given=_TABLE + _MUTE * mute + _DROP * drop)
        with _listening():
            yield host


def _configure(pair: NetnsPair) -> None:
    conf = Path("/proc/sys/net")
    (conf / f"ipv6/conf/{pair.HOST_INTERFACE}/accept_dad").write_text("0")
    (conf / f"ipv6/conf/{pair.HOST_INTERFACE}/disable_ipv6").write_text("0")
    for name in ("accept_ra", "accept_redirects"):
        (conf / f"ipv6/conf/{pair.HOST_INTERFACE}/{name}").write_text("0")
    (conf / "ipv4/conf/all/rp_filter").write_text("0")
    (conf / f"ipv4/conf/{pair.HOST_INTERFACE}/rp_filter").write_text("0")
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=pair.HOST_INTERFACE)[0]
        ip.link("set", index=index, state="down")
        ip.link("set", index=index, address=MAC)
        ip.link("set", index=index, state="up")
        for address in HOST.addresses:
            with suppress(FileExistsError):
                ip.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
        for gateway, family in (("10.10.10.1", socket.AF_INET), ("fd00::1", socket.AF_INET6)):
            ip.neigh("add", dst=gateway, lladdr=GATEWAY_MAC, ifindex=index, state="permanent", family=family)
            ip.route("add", dst="default", gateway=gateway, oif=index, family=family)


@contextmanager
def _listening() -> Iterator[None]:
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as tcp,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp,
    ):
        tcp.bind(("::", 80))
        tcp.listen(4096)
        udp.bind(("::", 9))
        yield


class _Sockets:
    """What the peer and the host send with."""

    def __init__(self, pair: NetnsPair) -> None:
        with pair.peer():
            self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self._wire.bind((pair.PEER_INTERFACE, 0))
        with pair.host():
            self._own4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            self._own6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def __enter__(self) -> _Sockets:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._wire, self._own4, self._own6):
            each.close()

    def send(self, turn: Turn, number: int) -> None:
        packet, is_four = turn.packet, turn.packet[0] >> 4 == 4
        if not turn.by_host:
            addresses = (
                bytes.fromhex(MAC.replace(":", "")) + bytes.fromhex(_TAG.replace(":", "")) + number.to_bytes(4, "big")
            )
            self._wire.send(addresses + (b"\x08\x00" if is_four else b"\x86\xdd") + packet)
            return
        own = self._own4 if is_four else self._own6
        own.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, number | _OWN)
        target = packet[16:20] if is_four else packet[24:40]
        own.sendto(packet, (str(ip_address(target)), 0))


@contextmanager
def _one_cpu() -> Iterator[None]:
    """Packets are received on the CPU that sent them: their order holds."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
