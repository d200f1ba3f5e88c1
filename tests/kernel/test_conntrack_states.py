"""The model of connection tracking and the running kernel: every packet of a conversation has the state that the model
says, and as many entries are left.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from dossim.model.disposition import Fate
from dossim.packet.fields import IP, Packet
from dossim.packet.parse import parse_ipv4, parse_ipv6
from dossim.pipeline import transport
from dossim.pipeline.conntrack.sentences import describe
from dossim.pipeline.conntrack.settings import Settings
from dossim.pipeline.conntrack.states import CtState
from dossim.pipeline.conntrack.table import Conntrack
from dossim.pipeline.stages import Context, Destination, PacketState
from tests.kernel.conftest import NetnsPair
from tests.kernel.conntrack_support import HOST, ConntrackHost, Turn, conntrack_host
from tests.support.conversations import Planned, conversations, tcp_conversations
from tests.support.examples import examples

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


def modelled(table: Conntrack, turns: list[Turn], times: list[int], *, answers: bool) -> list[str | frozenset[CtState]]:
    """What the model says: the states that each packet may have."""
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
    peer = fresh_peer()
    turns = [Turn(each.packet(peer), each.by_host) for each in planned]
    host.forget()
    found, times = host.states(turns)
    verdicts = modelled(Conntrack(HOST, sysctls), turns, times, answers=answers)
    return [
        f"{number}: {'host' if turn.by_host else 'peer'} {turn.packet.hex()}: kernel {state}, model {describe(verdict)}"
        for number, (turn, state, verdict) in enumerate(zip(turns, found, verdicts, strict=True))
        if state not in verdict.states
    ]


@pytest.mark.slow
def test_tcp_from_both_sides(mute_host: ConntrackHost) -> None:
    @settings(max_examples=examples(150, nightly=5_000), suppress_health_check=list(HealthCheck))
    @given(tcp_conversations())
    def agree(planned: list[Planned]) -> None:
        assert not (wrong := disagreements(mute_host, planned, Settings(), answers=False)), "\n".join(wrong)

    agree()


@pytest.mark.slow
def test_all_protocols_from_both_sides(mute_host: ConntrackHost) -> None:
    @settings(max_examples=examples(150, nightly=5_000), suppress_health_check=list(HealthCheck))
    @given(conversations())
    def agree(planned: list[Planned]) -> None:
        assert not (wrong := disagreements(mute_host, planned, Settings(), answers=False)), "\n".join(wrong)

    agree()


@pytest.mark.slow
def test_the_host_answers(host: ConntrackHost) -> None:
    @settings(max_examples=examples(150, nightly=5_000), suppress_health_check=list(HealthCheck))
    @given(conversations(peer_only=True, ports=(81, 80)))
    def agree(planned: list[Planned]) -> None:
        assert not (wrong := disagreements(host, planned, Settings(), answers=True)), "\n".join(wrong)

    agree()
