"""The model of connection tracking and the running kernel: every packet of a conversation has the state that the model
says, and the entries are those of the model: their state of TCP or SCTP, their status and their timeout.
"""

from __future__ import annotations

import itertools
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from dossim.model.disposition import Fate
from dossim.packet.fields import IP, Packet
from dossim.packet.parse import parse_ipv4, parse_ipv6
from dossim.pipeline import transport
from dossim.pipeline.conntrack.sentences import describe
from dossim.pipeline.conntrack.settings import Settings
from dossim.pipeline.conntrack.states import CtState
from dossim.pipeline.conntrack.table import Conntrack
from dossim.pipeline.conntrack.tuples import FlowTuple
from dossim.pipeline.conntrack.verdict import Verdict
from dossim.pipeline.stages import Context, Destination, PacketState
from tests.kernel.conftest import NetnsPair
from tests.kernel.conntrack_support import HOST, ConntrackHost, KernelEntry, Turn, conntrack_host
from tests.support.conversations import Planned, conversations, sctp_conversations, tcp_conversations
from tests.support.examples import examples
from tests.support.frames import ipv4
from tests.support.talk import ACK, ME, PEER, SYN, icmp, tcp, udp
from tests.support.unmutated import UNMUTATED
from tests.unit.dossim.conntrack_rows import ALONE, ASSOCIATIONS

pytestmark = pytest.mark.needs_root

_peers = itertools.count(1)
_CONTEXT = Context.without_policy(HOST)


@pytest.fixture
def host(netns_pair: NetnsPair) -> Iterator[ConntrackHost]:
    with conntrack_host(netns_pair) as ready:
        yield ready


@pytest.fixture
def mute_host(netns_pair: NetnsPair) -> Iterator[ConntrackHost]:
    with conntrack_host(netns_pair, mute=True) as ready:
        yield ready


def parsed(packet: bytes) -> IP:
    ip = parse_ipv4(packet) if packet[0] >> 4 == 4 else parse_ipv6(packet)
    assert ip is not None
    return ip


def modelled(table: Conntrack, turns: list[Turn], times: list[int], *, answers: bool) -> list[Verdict]:
    """What the model says of each packet."""
    verdicts = []
    for turn, time_ns in zip(turns, times, strict=True):
        ip = parsed(turn.packet)
        if turn.by_host:
            verdicts.append(table.sent(ip, time_ns))
            continue
        verdict = table.observe(ip, time_ns)
        state = PacketState(Packet(turn.packet), ip=ip, destination=Destination.LOCAL)
        if transport.check(state, _CONTEXT).to is Fate.DELIVERED:
            table.delivered(verdict, answers=answers)
        else:
            table.passed(verdict)
        verdicts.append(verdict)
    return verdicts


def fresh_peer() -> dict[int, str]:
    number = next(_peers)
    return {4: f"203.{number >> 16 & 0xFF}.{number >> 8 & 0xFF}.{number & 0xFF}", 6: f"2001:db8:7::{number:x}"}


def disagreements(host: ConntrackHost, planned: list[Planned], sysctls: Settings, *, answers: bool) -> list[str]:
    """Packets with another state than the model says, and entries that are not as the model has them."""
    peer = fresh_peer()
    turns = [Turn(each.packet(peer), each.by_host) for each in planned]
    host.forget()
    found, times = host.states(turns)
    entries, end_ns = host.entries(), time.monotonic_ns()
    table = Conntrack(HOST, sysctls)
    verdicts = modelled(table, turns, times, answers=answers)
    wrong = [
        f"{number}: {'host' if turn.by_host else 'peer'} {turn.packet.hex()}: kernel {state}, model {describe(verdict)}"
        for number, (turn, state, verdict) in enumerate(zip(turns, found, verdicts, strict=True))
        if state not in verdict.states
    ]
    addresses = {ip_address(address).packed for address in peer.values()}
    return wrong + different_entries(entries, table, addresses, end_ns)


def different_entries(
    found: dict[FlowTuple, KernelEntry], table: Conntrack, addresses: set[bytes], time_ns: int
) -> list[str]:
    """Of flows that depend on no ISN. An entry that is about to expire may be gone or not."""
    open_to_chance = {min(key, inverse) for key, inverse in _tuples(table, time_ns, certain=False)}
    expected = {key: entry for key, entry in _entries(table, time_ns).items() if entry.left_s > SLACK_S}
    wrong = []
    for key, entry in found.items():
        inverse = key.inverted()
        assert inverse is not None
        ours = expected.pop(key, None)
        if not {key.source, key.destination} & addresses or min(key, inverse) in open_to_chance:
            continue
        if entry.left_s <= SLACK_S and ours is None:
            continue
        if ours is None or not ours.is_like(entry):
            wrong.append(f"{key}: kernel {entry}, model {ours}")
    return wrong + [f"{key}: kernel none, model {entry}" for key, entry in expected.items()]


# The model is asked after the kernel has answered.
SLACK_S = 5


def _tuples(table: Conntrack, time_ns: int, *, certain: bool) -> list[tuple[FlowTuple, FlowTuple]]:
    return [
        (entry.original, entry.reply)
        for worlds in table.entries(time_ns)
        if (len(worlds) == 1) is certain
        for entry in worlds
        if entry is not None
    ]


def _entries(table: Conntrack, time_ns: int) -> dict[FlowTuple, KernelEntry]:
    return {
        entry.original: KernelEntry(
            seen_reply=entry.seen_reply,
            assured=entry.assured,
            state=None if protocol is None else protocol.state,
            left_s=int(entry.expires_s(time_ns)),
            tags=None if entry.sctp is None else (entry.sctp.tags[0], entry.sctp.tags[1]),
        )
        for worlds in table.entries(time_ns)
        if len(worlds) == 1
        for entry in worlds
        if entry is not None
        for protocol in (entry.tcp or entry.sctp,)
    }


# A failing conversation is not made smaller: that takes minutes in the kernel. The message names packet and reason.
EACH = settings(backend=UNMUTATED, suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.generate))


@pytest.mark.slow
def test_tcp_from_both_sides(mute_host: ConntrackHost) -> None:
    @settings(EACH, max_examples=examples(50, nightly=5_000))
    @given(tcp_conversations())
    def agree(planned: list[Planned]) -> None:
        assert not (wrong := disagreements(mute_host, planned, Settings(), answers=False)), "\n".join(wrong)

    agree()


@pytest.mark.slow
def test_sctp_from_both_sides(mute_host: ConntrackHost) -> None:
    @settings(EACH, max_examples=examples(20, nightly=5_000))
    @given(sctp_conversations())
    def agree(planned: list[Planned]) -> None:
        assert not (wrong := disagreements(mute_host, planned, Settings(), answers=False)), "\n".join(wrong)

    agree()


@pytest.mark.slow
def test_all_protocols_from_both_sides(mute_host: ConntrackHost) -> None:
    @settings(EACH, max_examples=examples(25, nightly=5_000))
    @given(conversations())
    def agree(planned: list[Planned]) -> None:
        assert not (wrong := disagreements(mute_host, planned, Settings(), answers=False)), "\n".join(wrong)

    agree()


@pytest.mark.slow
def test_the_host_answers(host: ConntrackHost) -> None:
    @settings(EACH, max_examples=examples(25, nightly=5_000))
    @given(conversations(peer_only=True, ports=(81, 80)))
    def agree(planned: list[Planned]) -> None:
        assert not (wrong := disagreements(host, planned, Settings(), answers=True)), "\n".join(wrong)

    agree()


@pytest.mark.slow
@pytest.mark.parametrize(
    "sysctls",
    [
        Settings(tcp_loose=False),
        Settings(tcp_be_liberal=True),
        Settings(tcp_ignore_invalid_rst=True),
        Settings(checksum=False),
    ],
    ids=["tcp_loose=0", "tcp_be_liberal=1", "tcp_ignore_invalid_rst=1", "checksum=0"],
)
def test_the_sysctls(mute_host: ConntrackHost, sysctls: Settings) -> None:
    for name in ("tcp_loose", "tcp_be_liberal", "tcp_ignore_invalid_rst", "checksum"):
        mute_host.set(name, int(getattr(sysctls, name)))

    @settings(EACH, max_examples=examples(17, nightly=1_000))
    @given(conversations())
    def agree(planned: list[Planned]) -> None:
        assert not (wrong := disagreements(mute_host, planned, sysctls, answers=False)), "\n".join(wrong)

    agree()


def test_packets_that_arrive_alone(netns_pair: NetnsPair) -> None:
    """The rows, without the model; each is dropped, so that none finds the entry of another."""
    with conntrack_host(netns_pair, mute=True, drop=True) as host:
        found, _ = host.states([Turn(packet) for packet, _, _ in ALONE.values()])
        expected = {sentence: state for sentence, (_, state, _) in ALONE.items()}
        assert dict(zip(ALONE, found, strict=True)) == expected
        assert host.count() == 0, "a packet that is dropped leaves no entry"


@pytest.mark.parametrize("packets", ASSOCIATIONS.values(), ids=ASSOCIATIONS.keys())
def test_tags_and_chunks_of_sctp(mute_host: ConntrackHost, packets: list[tuple[bool, bytes, CtState]]) -> None:
    """The rows, without the model."""
    found, _ = mute_host.states([Turn(packet, by_host) for by_host, packet, _ in packets])
    assert found == [state for _, _, state in packets]


def test_an_answered_udp_flow_is_not_assured_at_once(mute_host: ConntrackHost) -> None:
    turns = [Turn(udp()), Turn(udp(back=True), by_host=True), Turn(udp())]
    found, times = mute_host.states(turns)
    entries, end_ns = mute_host.entries(), time.monotonic_ns()
    assert found == [CtState.NEW, CtState.ESTABLISHED, CtState.ESTABLISHED]
    table = Conntrack(HOST)
    modelled(table, turns, times, answers=False)
    assert not different_entries(entries, table, {ip_address(PEER).packed}, end_ns)


def test_the_reply_to_a_timestamp_request_has_code_0(host: ConntrackHost) -> None:
    requests = [icmp(13, ident + bytes(14), code=code) for ident, code in ((b"\0\1", 0), (b"\0\2", 1))]
    turns = [Turn(packet) for packet in requests * 2]
    found, times = host.states(turns)
    assert found == [CtState.NEW, CtState.NEW, CtState.ESTABLISHED, CtState.NEW]
    assert [verdict.state for verdict in modelled(Conntrack(HOST), turns, times, answers=True)] == found


def test_a_captured_ack_behind_a_syn_is_a_coin(host: ConntrackHost) -> None:
    """Of many flows some are INVALID and some ESTABLISHED, and the model says that nobody knows which."""
    flows = 64
    opening = [tcp(SYN, 1_000, ports=(1024 + flow, 80)) for flow in range(flows)]
    acks = [tcp(ACK, 1_001, flow * 67_108_864, ports=(1024 + flow, 80)) for flow in range(flows)]
    turns = [Turn(packet) for packet in (*opening, *acks)]
    found, times = host.states(turns)
    verdicts = modelled(Conntrack(HOST), turns, times, answers=True)
    assert {verdict.state for verdict in verdicts[:flows]} == {CtState.NEW} == set(found[:flows])
    assert all(verdict.states == {CtState.INVALID, CtState.ESTABLISHED} for verdict in verdicts[flows:])
    assert set(found[flows:]) == {CtState.INVALID, CtState.ESTABLISHED}


@contextmanager
def joined(pair: NetnsPair) -> Iterator[None]:
    """A socket of the host in a group of each version: the kernel sends a report of IGMP and one of MLD."""
    with (
        pair.host(),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as four,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six,
    ):
        index = socket.if_nametoindex(pair.HOST_INTERFACE).to_bytes(4, sys.byteorder)
        four.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, bytes([239, 1, 1, 1]) + bytes(4) + index)
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, ip_address("ff02::4711").packed + index)
        yield


_REPORTS = """
table inet reports {
  chain four { type filter hook output priority -149; policy accept; meta l4proto igmp counter; }
  chain six { type filter hook output priority -149; policy accept; icmpv6 type mld2-listener-report counter; }
}
"""


def test_a_report_that_the_kernel_sends_has_no_number(host: ConntrackHost) -> None:
    """Its mark is another number: of bytes."""
    host.nft("-f", "-", given=_REPORTS)
    with joined(host.pair):
        host.wait_for_count("reports", "four")
        host.wait_for_count("reports", "six")
        assert host.seen() == {}


def test_a_mute_host_sends_no_report(mute_host: ConntrackHost) -> None:
    mute_host.nft("-f", "-", given=_REPORTS)
    with joined(mute_host.pair):
        mute_host.wait_for_count("mute", "own")
    for chain in ("four", "six"):
        assert "counter packets 0 " in mute_host.nft("list", "chain", "inet", "reports", chain)
    assert mute_host.seen() == {}


def test_a_datagram_is_seen_once_when_its_last_fragment_arrives(host: ConntrackHost) -> None:
    whole = udp(data=bytes(24))[20:]
    pieces = [
        ipv4(whole[at : at + 16], source=PEER, destination=ME, protocol=17, ident=7, fragment=at // 8 | 0x2000 * more)
        for at, more in ((16, False), (0, True))
    ]
    last = host.sent + 1
    host.send([Turn(piece) for piece in pieces])
    assert host.wait_for([last]) == {last: CtState.NEW}
