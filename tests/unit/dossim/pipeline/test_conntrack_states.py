"""docs/conntrack.md, row by row: what connection tracking says of a packet, and why.

The kernel has the last word: ``tests/kernel/test_conntrack_states.py``.
"""

from __future__ import annotations

import pytest

from dossim.pipeline.conntrack.settings import Settings
from dossim.pipeline.conntrack.states import CtState, Reason, Remark
from tests.support.frames import ipv4, ipv6
from tests.support.talk import (
    ACK,
    ME,
    ME6,
    OTHER,
    PEER,
    PEER6,
    ROUTER6,
    SYN,
    Talk,
    chunk,
    icmp,
    icmp6,
    other,
    sctp,
    tcp,
    udp,
)  # fmt: skip
from tests.unit.dossim.conntrack_rows import ALONE, ASSOCIATIONS, SENT_UDP

PORT_UNREACHABLE = bytes(4) + SENT_UDP
NEW, ESTABLISHED, RELATED = CtState.NEW, CtState.ESTABLISHED, CtState.RELATED
INVALID, UNTRACKED = CtState.INVALID, CtState.UNTRACKED


@pytest.mark.parametrize(("packet", "state", "reason"), ALONE.values(), ids=ALONE.keys())
def test_a_packet_without_an_entry(packet: bytes, state: CtState, reason: Reason) -> None:
    (outcome,) = Talk().peer(packet).outcomes
    assert (outcome.state, outcome.reason) == (state, reason)


@pytest.mark.parametrize(("packet", "state", "reason"), ALONE.values(), ids=ALONE.keys())
def test_a_packet_that_is_dropped_leaves_no_entry(packet: bytes, state: CtState, reason: Reason) -> None:
    talk = Talk()
    talk.peer(packet, delivered=False)
    assert talk.entries() == 0
    talk.peer(packet)
    assert talk.entries() == (state is NEW), "only what is NEW makes an entry"


def test_a_later_fragment_is_invalid_and_seen_only_without_defragmentation() -> None:
    fragment = ipv4(bytes(8), source=PEER, destination=ME, protocol=17, fragment=3)
    assert Talk().peer(fragment).outcomes[0].reason is Reason.NO_PROTOCOL


def test_notrack_is_untracked_and_leaves_no_entry() -> None:
    talk = Talk()
    (outcome,) = talk.peer(tcp(SYN), untracked=True).outcomes
    assert (outcome.state, outcome.reason) == (UNTRACKED, Reason.NOTRACK)
    assert talk.entries() == 0


@pytest.mark.parametrize(
    "packet", [tcp(SYN)[:-1] + b"\1", udp(checksum=1), icmp(8, spoil=1)], ids=["TCP", "UDP", "ICMP"]
)
def test_without_nf_conntrack_checksum_a_bad_checksum_is_new(packet: bytes) -> None:
    assert Talk(Settings(checksum=False)).peer(packet).state is NEW


def test_with_tcp_loose_0_an_ack_without_an_entry_is_invalid() -> None:
    (outcome,) = Talk(Settings(tcp_loose=False)).peer(tcp(ACK)).outcomes
    assert (outcome.state, outcome.reason) == (INVALID, Reason.TCP_NOT_LOOSE)


def test_with_tcp_loose_1_it_is_picked_up_for_300_seconds() -> None:
    (outcome,) = Talk().peer(tcp(ACK)).outcomes
    assert (outcome.remark, outcome.protocol_state, outcome.timeout_s) == (Remark.TCP_PICKED_UP, "ESTABLISHED", 300)


def test_udp_is_new_until_it_is_answered() -> None:
    talk = Talk()
    assert [talk.peer(udp()).state for _ in range(3)] == [NEW, NEW, NEW]
    assert talk.host(udp(back=True)).state is ESTABLISHED
    assert talk.peer(udp()).state is ESTABLISHED


def test_an_answered_udp_flow_has_the_long_timeout_and_is_assured_after_two_seconds() -> None:
    talk = Talk()
    talk.peer(udp(), at=0)
    talk.host(udp(back=True), at=0)
    (outcome,) = talk.peer(udp(), at=2).outcomes
    assert (outcome.timeout_s, outcome.assured) == (30, False)
    (outcome,) = talk.peer(udp(), at=2.1).outcomes
    assert (outcome.timeout_s, outcome.assured) == (120, True)


def test_an_entry_ends_with_its_timeout() -> None:
    talk = Talk()
    talk.peer(udp(), at=0)
    assert talk.peer(udp(), at=29.9).outcomes[0].reason is Reason.NO_REPLY_YET
    assert talk.peer(udp(), at=59.9).outcomes[0].reason is Reason.FIRST
    assert talk.entries(at=90) == 0


def test_an_echo_reply_belongs_to_its_request() -> None:
    talk = Talk()
    assert talk.peer(icmp(8)).state is NEW
    assert talk.host(icmp(0, back=True)).state is ESTABLISHED
    assert talk.peer(icmp(8)).state is ESTABLISHED
    assert talk.host(icmp(0, b"\0\2\0\1", back=True)).state is INVALID, "another id"


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (icmp(3, PORT_UNREACHABLE, code=3), RELATED, Reason.QUOTES_FLOW),
        (icmp(11, PORT_UNREACHABLE), RELATED, Reason.QUOTES_FLOW),
        (icmp(3, PORT_UNREACHABLE[: 4 + 24]), RELATED, Reason.QUOTES_FLOW),
        (icmp(3, PORT_UNREACHABLE[: 4 + 23]), INVALID, Reason.ICMP_QUOTE_SHORT),
        (icmp(3, b"\0\0\0\0" + udp(ports=(5001, 9), back=True)), INVALID, Reason.ICMP_QUOTE_UNKNOWN),
        (icmp(3, PORT_UNREACHABLE, destination=OTHER), INVALID, Reason.ICMP_QUOTE_OTHER),
        (icmp(3, b"\0\0\0\0" + udp()), INVALID, Reason.ICMP_QUOTE_OTHER),
        (icmp(3, PORT_UNREACHABLE, spoil=1), INVALID, Reason.ICMP_CHECKSUM),
    ],
    ids=[
        "port unreachable", "time exceeded", "quotes the ports", "quotes less", "quotes another flow",
        "sent to another than the quoted sender", "quotes what the sender of the error sent", "bad checksum",
    ],
)  # fmt: skip
def test_an_icmp_error_belongs_to_the_flow_it_quotes(error: bytes, state: CtState, reason: Reason) -> None:
    talk = Talk()
    talk.host(SENT_UDP)
    (outcome,) = talk.peer(error).outcomes
    assert (outcome.state, outcome.reason) == (state, reason)
    assert talk.peer(error, at=30).state is INVALID, "and does not keep the entry"


def test_an_icmp_error_is_not_a_reply() -> None:
    talk = Talk()
    talk.peer(udp())
    assert talk.host(icmp(3, b"\0\0\0\0" + udp(), back=True)).state is RELATED
    assert talk.peer(udp()).state is NEW


def test_a_redirect_belongs_to_the_flow_it_quotes() -> None:
    talk = Talk()
    quoted = ipv6(bytes(8), source=ME6, destination=PEER6, next_header=253)
    talk.host(quoted)
    redirect = icmp6(137, bytes(36) + b"\4\7" + bytes(6) + quoted, source=ROUTER6, hop_limit=255)
    assert talk.peer(redirect).state is RELATED


def test_protocols_without_a_tracker_are_one_flow_for_each_pair_of_addresses() -> None:
    talk = Talk()
    assert talk.peer(other(253)).state is NEW
    assert talk.host(other(253, b"anything", back=True)).state is ESTABLISHED
    assert talk.peer(other(254)).state is NEW


def test_an_sctp_association() -> None:
    talk = Talk()
    assert talk.peer(sctp(0, chunk(1, tag=5))).outcomes[0].protocol_state == "CLOSED"
    assert talk.host(sctp(5, chunk(2, tag=6), back=True)).outcomes[0].protocol_state == "COOKIE_WAIT"
    assert talk.peer(sctp(6, chunk(10))).outcomes[0].protocol_state == "COOKIE_ECHOED"
    (outcome,) = talk.host(sctp(5, chunk(11), back=True)).outcomes
    assert (outcome.state, outcome.protocol_state, outcome.timeout_s) == (ESTABLISHED, "ESTABLISHED", 210)
    assert talk.peer(sctp(6, chunk(0))).state is ESTABLISHED
    (outcome,) = talk.peer(sctp(7, chunk(0))).outcomes
    assert (outcome.state, outcome.reason) == (INVALID, Reason.SCTP_TAG)


@pytest.mark.parametrize("packets", ASSOCIATIONS.values(), ids=ASSOCIATIONS.keys())
def test_tags_and_chunks_of_sctp(packets: list[tuple[bool, bytes, CtState]]) -> None:
    talk = Talk()
    found = [(talk.host if by_host else talk.peer)(packet).state for by_host, packet, _ in packets]
    assert found == [state for _, _, state in packets]
