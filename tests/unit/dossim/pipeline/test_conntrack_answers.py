"""What the host answers, what that does to its connection tracking, and what nobody knows beforehand: its ISN."""

from __future__ import annotations

import pytest

from dossim.packet.cut import CutError, on_wire
from dossim.packet.fields import IP, IPv4
from dossim.packet.parse import parse_ipv4
from dossim.pipeline.conntrack.answers import answer
from dossim.pipeline.conntrack.entry import Seen
from dossim.pipeline.conntrack.flow import World
from dossim.pipeline.conntrack.sentences import COINS, REASONS, REMARKS, describe
from dossim.pipeline.conntrack.settings import Settings
from dossim.pipeline.conntrack.states import At, Coin, CtState, Reason, Remark
from dossim.pipeline.conntrack.table import Conntrack
from dossim.pipeline.conntrack.tcp_flow import TcpSegment, read_segment
from tests.support.frames import ipv4, ipv6
from tests.support.talk import (
    ACK,
    FIN,
    HOST,
    ME,
    ME6,
    PEER,
    PEER6,
    PSH,
    RST,
    SYN,
    Talk,
    icmp,
    icmp6,
    other,
    parsed,
    tcp,
    udp,
)

NEW, ESTABLISHED, INVALID = CtState.NEW, CtState.ESTABLISHED, CtState.INVALID
WEB, CLOSED = (1024, 80), (1024, 81)


def answered(packet: bytes, world: World | None = None) -> IP | None:
    ip = parsed(packet)
    buf = ip.payload if isinstance(ip, IPv4) else ip.buf[40:]
    protocol = ip.protocol if isinstance(ip, IPv4) else ip.next_header
    return answer(Seen(ip, protocol, buf, At.PREROUTING, 0, Settings()), HOST, world or World(isn=7_000))


def segment_of(ip: IP | None) -> TcpSegment:
    assert isinstance(ip, IPv4)
    assert (str(ip.source), str(ip.destination)) == (ME, PEER)
    return read_segment(ip.payload)


# -- what it says ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "flags", "seq", "ack"),
    [
        (tcp(SYN, 1_000, ports=CLOSED), RST | ACK, 0, 1_001),
        (tcp(SYN, 1_000, ports=CLOSED, data=bytes(5)), RST | ACK, 0, 1_006),
        (tcp(FIN, 1_000, ports=CLOSED), RST | ACK, 0, 1_001),
        (tcp(ACK, 1_000, 77, ports=CLOSED), RST, 77, 0),
        (tcp(SYN | ACK, 1_000, 77, ports=CLOSED), RST, 77, 0),
        (tcp(ACK, 1_000, 77, ports=WEB), RST, 77, 0),
        (tcp(SYN, 1_000, ports=WEB), SYN | ACK, 7_000, 1_001),
    ],
    ids=["SYN", "SYN with data", "FIN", "ACK", "SYN+ACK", "ACK to a listening port", "SYN to a listening port"],
)
def test_tcp_answers(packet: bytes, flags: int, seq: int, ack: int) -> None:
    found = segment_of(answered(packet))
    assert (found.flags, found.seq, found.ack) == (flags, seq, ack)
    assert found.buf[:4] == packet[22:24] + packet[20:22], "ports the other way"


@pytest.mark.parametrize(
    "packet",
    [
        tcp(RST, ports=CLOSED), tcp(RST | ACK, ports=WEB), tcp(SYN | FIN, ports=WEB), tcp(0, ports=WEB), udp(),
        udp(ports=(5000, 10)), icmp(0), icmp(3, bytes(40)), icmp(15), other(253),
        ipv4(bytes([13]) + bytes(10), source=PEER, destination=ME, protocol=1),
        icmp(13, b"\0\1\0\1" + bytes(12), code=1),
    ],
    ids=[
        "RST to a closed port", "RST to a listening port", "SYN+FIN to a listening port",
        "no flags to a listening port", "UDP", "UDP to a closed port", "echo reply", "ICMP error",
        "information request", "protocol 253", "timestamp request of 11 bytes",
        "timestamp request of another code",
    ],
)  # fmt: skip
def test_no_answer_that_counts(packet: bytes) -> None:
    assert answered(packet) is None


def test_echo_and_timestamp_replies() -> None:
    for request, reply in ((8, 0), (13, 14)):
        found = answered(icmp(request, b"\0\1\0\1" + bytes(12)))
        assert isinstance(found, IPv4)
        assert found.payload[0] == reply
    found6 = answered(icmp6(128))
    assert found6 is not None
    assert found6.buf[40] == 129
    assert (str(found6.source), str(found6.destination)) == (ME6, PEER6)


def test_the_syn_ack_offers_what_the_syn_offered() -> None:
    plain = segment_of(answered(tcp(SYN, ports=WEB)))
    assert (plain.options().scale, plain.options().sack_permitted) == (None, False)
    rich = segment_of(answered(tcp(SYN, ports=WEB, options=b"\x01\x03\x03\x02\x04\x02\x01\x01")))
    assert (rich.options().scale, rich.options().sack_permitted) == (7, True)


# -- what that does to the table ---------------------------------------------------------------------------------------


def test_a_closed_port_leaves_nothing() -> None:
    talk = Talk(answers=True)
    for packet in (tcp(SYN, ports=CLOSED), tcp(ACK, 5, 6, ports=CLOSED), tcp(SYN, ports=CLOSED)):
        assert talk.peer(packet).state is NEW
        assert talk.entries() == 0


def test_a_rst_that_does_not_get_out_leaves_the_entry() -> None:
    talk = Talk(answers=False)
    assert talk.peer(tcp(SYN, ports=CLOSED)).state is NEW
    assert talk.entries() == 1


def test_an_answered_ping_is_established() -> None:
    talk = Talk(answers=True)
    assert [talk.peer(icmp(8)).state for _ in range(2)] == [NEW, ESTABLISHED]


def test_udp_stays_new_whether_or_not_somebody_listens() -> None:
    talk = Talk(answers=True)
    assert [talk.peer(udp()).state for _ in range(2)] == [NEW, NEW]


def test_a_packet_that_the_transport_drops_has_an_entry_and_no_answer() -> None:
    talk = Talk(answers=True)
    datagram = parsed(ipv6(b"\x13\x88\0\x09\0\x08\0\0", source=PEER6, destination=ME6, next_header=17))
    talk.table.passed(talk.table.observe(datagram, 0))
    assert talk.entries() == 1


# -- the ISN -----------------------------------------------------------------------------------------------------------


def test_a_repeated_syn_to_a_listening_port_needs_no_isn() -> None:
    talk = Talk(answers=True)
    assert talk.peer(tcp(SYN, ports=WEB)).state is NEW
    verdict = talk.peer(tcp(SYN, ports=WEB))
    assert (verdict.state, verdict.coin) == (ESTABLISHED, None)


@pytest.mark.parametrize("ack", [0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 123_456_789])
def test_a_captured_ack_behind_a_syn_is_a_coin(ack: int) -> None:
    talk = Talk(answers=True)
    talk.peer(tcp(SYN, 1_000, ports=WEB))
    verdict = talk.peer(tcp(ACK, 1_001, ack, ports=WEB))
    assert verdict.states == {INVALID, ESTABLISHED}
    assert (verdict.state, verdict.coin) == (None, Coin.HOST_ISN)
    assert {outcome.reason for outcome in verdict.outcomes if outcome.state is INVALID} == {Reason.TCP_ACK_OVER}
    assert {outcome.remark for outcome in verdict.outcomes if outcome.state is ESTABLISHED} == {Remark.TCP_ACK_UNDER}
    assert describe(verdict).endswith(COINS[Coin.HOST_ISN])


def test_it_is_one_coin_for_each_flow() -> None:
    talk = Talk(answers=True)
    talk.peer(tcp(SYN, 1_000, ports=WEB))
    verdict = talk.table.observe(parsed(tcp(ACK, 1_001, 5, ports=WEB)), 0)
    talk.table.delivered(verdict, states={ESTABLISHED})
    pushed = talk.peer(tcp(ACK | PSH, 1_001, 5, data=b"GET", ports=WEB))
    alike = [
        (first.outcome.state, second.outcome.state)
        for first, second in zip(verdict.branches, pushed.branches, strict=True)
    ]
    assert set(alike) == {(ESTABLISHED, ESTABLISHED), (INVALID, INVALID)}


def test_where_all_worlds_agree_there_is_no_coin() -> None:
    talk = Talk(answers=True)
    talk.peer(tcp(SYN, 1_000, ports=WEB))
    assert talk.peer(tcp(RST, 1_001, ports=WEB)).state is ESTABLISHED
    verdict = talk.peer(tcp(SYN, 90_000, ports=WEB))
    assert (verdict.state, verdict.outcomes[0].remark) == (NEW, Remark.TCP_REOPENED)


def test_another_flow_of_the_same_port_is_not_concerned() -> None:
    talk = Talk(answers=True)
    talk.peer(tcp(SYN, 1_000, ports=WEB))
    assert talk.peer(tcp(SYN, 1_000, ports=(1025, 80))).state is NEW
    assert talk.entries() == 2


def test_the_hosts_timer_repeats_its_syn_ack() -> None:
    """A SYN after a RST of which the host's half-open connection knows nothing is answered by the timer alone."""
    for seconds, state in ((0.9, "SYN_SENT"), (1.1, "SYN_RECV")):
        talk = Talk(answers=True)
        talk.peer(tcp(SYN, 1_000, ports=WEB), at=0)
        talk.peer(tcp(RST | ACK, 1_001, 0, ports=WEB), at=0.1)
        assert talk.peer(tcp(SYN, 66_500, ports=WEB), at=0.2).outcomes[0].remark is Remark.TCP_REOPENED
        assert talk.peer(tcp(SYN, 66_500, ports=WEB), at=seconds).outcomes[0].protocol_state == state


@pytest.mark.parametrize(("seq", "ends"), [(1_001, True), (1_002, False)], ids=["exact", "not exact"])
def test_only_an_exact_rst_ends_the_hosts_half_open_connection(seq: int, ends: bool) -> None:
    world = World(isn=7_000)
    answered(tcp(SYN, 1_000, ports=WEB), world)
    assert answered(tcp(RST, seq, ports=WEB), world) is None
    assert (world.embryo is None) is ends


# -- captures that cut -------------------------------------------------------------------------------------------------


def cut(packet: bytes, kept: int) -> IP:
    ip = parse_ipv4(on_wire(packet[:kept], len(packet)))
    assert ip is not None
    return ip


def test_a_cut_packet_opens_its_flow_and_no_other() -> None:
    table = Conntrack(HOST)
    with pytest.raises(CutError):
        table.observe(cut(tcp(SYN, ports=CLOSED, data=bytes(100)), 60), 0)
    verdict = table.observe(parsed(tcp(ACK, ports=CLOSED)), 0)
    assert (verdict.states, verdict.coin) == ({NEW, ESTABLISHED, INVALID}, Coin.CAPTURE_CUT)
    assert table.observe(parsed(tcp(SYN | FIN, ports=CLOSED)), 0).state is INVALID, "by its flags, whatever the entry"
    assert table.observe(parsed(tcp(ACK, ports=(9, 81))), 0).state is NEW


def test_a_cut_packet_of_an_unknown_flow_opens_all_between_its_addresses() -> None:
    table = Conntrack(HOST)
    table.passed(table.observe(parsed(udp()), 0))
    with pytest.raises(CutError):
        table.observe(cut(udp((7, 8)), 22), 0)
    assert table.observe(parsed(udp()), 0).states == {NEW, ESTABLISHED}, "a flow that was there"
    assert table.observe(parsed(udp((1, 2))), 0).states == {NEW, ESTABLISHED}, "one that was not"
    assert table.observe(parsed(tcp(SYN)), 0).state is NEW, "another protocol"


def test_what_is_known_decides_a_cut_packet() -> None:
    table = Conntrack(HOST, Settings(checksum=False))
    assert table.observe(cut(udp(data=bytes(100)), 60), 0).state is NEW
    assert table.observe(cut(tcp(SYN | FIN, data=bytes(100)), 60), 0).state is INVALID


# -- words -------------------------------------------------------------------------------------------------------------


def test_every_reason_has_a_sentence() -> None:
    assert set(REASONS) == set(Reason)
    assert set(REMARKS) == set(Remark)
    assert set(COINS) == set(Coin)


def test_an_invalid_packet_is_described_with_its_numbers() -> None:
    assert describe(Talk().peer(tcp(SYN | FIN))) == "INVALID: TCP flags that no segment has together (FIN+SYN)"
    assert describe(Talk().peer(tcp(SYN))) == "NEW: no entry"
