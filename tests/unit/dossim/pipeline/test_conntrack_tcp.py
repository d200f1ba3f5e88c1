"""TCP in the model of connection tracking: the state table, the window, the timeouts, how an entry ends.

``net/netfilter/nf_conntrack_proto_tcp.c`` (Linux 6.18). The kernel has the last word:
``tests/kernel/test_conntrack_states.py``.
"""

from __future__ import annotations

import pytest

from dossim.pipeline.conntrack.settings import Settings
from dossim.pipeline.conntrack.states import CtDirection, CtState, Reason, Remark
from dossim.pipeline.conntrack.tcp_flow import after, before, read_segment
from dossim.pipeline.conntrack.tcp_states import Kind, TcpState, next_state
from dossim.pipeline.conntrack.verdict import Outcome, Verdict
from tests.support.talk import ACK, FIN, PSH, RST, SYN, Talk, tcp

NEW, ESTABLISHED, INVALID = CtState.NEW, CtState.ESTABLISHED, CtState.INVALID
CLIENT, SERVER = 1_001, 5_001  # the first byte of data of each
SCALE_7 = b"\x01\x03\x03\x07"
SACK_PERMITTED = b"\x01\x01\x04\x02"


def only(verdict: Verdict) -> Outcome:
    (outcome,) = verdict.outcomes
    return outcome


def opened(settings: Settings | None = None, *, window: int = 1_000) -> Talk:
    """A connection that is established, from the peer to the host."""
    talk = Talk(settings)
    assert talk.peer(tcp(SYN, CLIENT - 1, window=window)).state is NEW
    assert talk.host(tcp(SYN | ACK, SERVER - 1, CLIENT, window=window, back=True)).state is ESTABLISHED
    found = only(talk.peer(tcp(ACK, CLIENT, SERVER, window=window)))
    assert (found.protocol_state, found.assured) == ("ESTABLISHED", True)
    return talk


def data(seq: int = CLIENT, ack: int = SERVER, size: int = 100, *, back: bool = False, options: bytes = b"") -> bytes:
    return tcp(ACK | PSH, seq, ack, data=bytes(size), back=back, options=options)


# -- the state table ---------------------------------------------------------------------------------------------------


def test_every_cell_has_an_answer() -> None:
    cells = [next_state(direction, kind, state) for direction in CtDirection for kind in Kind for state in TcpState]
    assert len(cells) == 2 * 6 * 10
    assert TcpState.NONE not in cells


@pytest.mark.parametrize("kind", [Kind.SYN, Kind.SYNACK, Kind.FIN, Kind.ACK, Kind.RST, Kind.NONE])
def test_nothing_begins_with_a_reply(kind: Kind) -> None:
    assert next_state(CtDirection.REPLY, kind, TcpState.NONE) == "invalid"


def test_a_connection_from_open_to_close() -> None:
    talk = opened()
    steps = [
        (talk.peer, data(), "ESTABLISHED", 300),  # until it is acknowledged
        (talk.host, tcp(ACK, SERVER, CLIENT + 100, back=True), "ESTABLISHED", 432_000),
        (talk.peer, tcp(FIN | ACK, CLIENT + 100, SERVER), "FIN_WAIT", 120),
        (talk.host, tcp(ACK, SERVER, CLIENT + 101, back=True), "CLOSE_WAIT", 60),
        (talk.host, tcp(FIN | ACK, SERVER, CLIENT + 101, back=True), "LAST_ACK", 30),
        (talk.peer, tcp(ACK, CLIENT + 101, SERVER + 1), "TIME_WAIT", 120),
    ]
    for send, packet, state, timeout in steps:
        found = only(send(packet))
        assert (found.state, found.protocol_state, found.timeout_s) == (ESTABLISHED, state, timeout)


def test_a_syn_to_a_closed_connection_makes_a_new_entry() -> None:
    talk = opened()
    talk.peer(tcp(FIN | ACK, CLIENT, SERVER))
    talk.host(tcp(FIN | ACK, SERVER, CLIENT + 1, back=True))
    assert only(talk.peer(tcp(ACK, CLIENT + 1, SERVER + 1))).protocol_state == "TIME_WAIT"
    found = only(talk.peer(tcp(SYN, 90_000)))
    assert (found.state, found.remark, found.protocol_state) == (NEW, Remark.TCP_REOPENED, "SYN_SENT")


def test_a_syn_to_an_open_connection_is_ignored() -> None:
    found = only(opened().peer(tcp(SYN, 90_000)))
    assert (found.state, found.remark, found.protocol_state) == (ESTABLISHED, Remark.TCP_IGNORED, "ESTABLISHED")


def test_a_syn_ack_to_the_ignored_syn_begins_the_connection_again() -> None:
    talk = opened()
    talk.peer(tcp(SYN, 90_000))
    found = only(talk.host(tcp(SYN | ACK, 70_000, 90_001, back=True)))
    assert (found.remark, found.protocol_state) == (None, "SYN_RECV")
    assert only(talk.peer(tcp(ACK, 90_001, 70_001))).protocol_state == "ESTABLISHED"


@pytest.mark.parametrize(
    ("packet", "back"),
    [
        (tcp(SYN | ACK, CLIENT, SERVER), False),
        (tcp(SYN, SERVER, CLIENT, back=True), True),
    ],
    ids=["SYN+ACK of the client", "SYN of the server"],
)
def test_what_an_open_connection_does_not_allow_is_invalid(packet: bytes, back: bool) -> None:
    talk = opened()
    found = only(talk.host(packet) if back else talk.peer(packet))
    assert (found.state, found.reason) == (INVALID, Reason.TCP_STATE)


def test_an_ack_before_the_syn_ack_is_invalid() -> None:
    talk = Talk()
    talk.peer(tcp(SYN))
    assert only(talk.peer(tcp(ACK, 1_001, 1))).reason is Reason.TCP_STATE


def test_a_repeated_syn_does_not_keep_the_entry() -> None:
    talk = Talk()
    talk.peer(tcp(SYN), at=0)
    assert only(talk.peer(tcp(SYN), at=119)).reason is Reason.NO_REPLY_YET
    assert only(talk.peer(tcp(SYN), at=120)).reason is Reason.FIRST


def test_both_sides_open_at_once() -> None:
    talk = Talk()
    talk.peer(tcp(SYN, CLIENT - 1))
    assert only(talk.host(tcp(SYN, SERVER - 1, back=True))).protocol_state == "SYN_SENT2"
    assert only(talk.peer(tcp(SYN | ACK, CLIENT - 1, SERVER))).protocol_state == "SYN_RECV"
    assert only(talk.host(tcp(SYN | ACK, SERVER - 1, CLIENT, back=True))).remark is Remark.TCP_IGNORED
    assert only(talk.host(tcp(ACK, SERVER, CLIENT, back=True))).protocol_state == "ESTABLISHED"


# -- RST ---------------------------------------------------------------------------------------------------------------


def test_a_rst_as_the_only_reply_removes_the_entry() -> None:
    talk = Talk()
    talk.peer(tcp(SYN, 1_000))
    found = only(talk.host(tcp(RST | ACK, 0, 1_001, back=True)))
    assert (found.state, found.remark) == (ESTABLISHED, Remark.TCP_DELETED)
    assert talk.entries() == 0


def test_a_rst_after_a_reply_closes_the_connection() -> None:
    talk = opened()
    found = only(talk.host(tcp(RST, SERVER, back=True)))
    assert (found.state, found.protocol_state, found.timeout_s) == (ESTABLISHED, "CLOSE", 10)
    assert talk.entries() == 1


def test_a_rst_below_what_was_acknowledged_is_invalid_unless_those_are_ignored() -> None:
    old = tcp(RST, SERVER - 1, back=True)
    assert only(opened().host(old)).reason is Reason.TCP_RST_OLD
    assert only(opened(Settings(tcp_ignore_invalid_rst=True)).host(old)).state is ESTABLISHED


def test_a_rst_that_is_not_exact_leaves_the_connection_open() -> None:
    found = only(opened().host(tcp(RST, SERVER + 7, back=True)))
    assert (found.state, found.protocol_state) == (ESTABLISHED, "ESTABLISHED")


# -- the window --------------------------------------------------------------------------------------------------------


def test_sequence_numbers_are_compared_modulo_2_32() -> None:
    assert before(0xFFFF_FFFF, 0)
    assert after(5, 0xFFFF_FFF0)
    assert not before(7, 7)
    assert not after(7, 7)


# The peer may send from CLIENT to CLIENT + 1,000 (the host's window); the host has sent nothing yet.
WINDOW: dict[str, tuple[bytes, CtState, Reason | None, Remark | None]] = {
    "in the window": (data(), ESTABLISHED, None, None),
    "at the end of the window": (data(CLIENT + 1_000), ESTABLISHED, None, None),
    "begins after the end of the window, by little": (
        data(CLIENT + 1_001, size=10), ESTABLISHED, None, Remark.TCP_OVERSHOT),
    "a window beyond the window": (data(CLIENT + 2_001), INVALID, Reason.TCP_SEQ_OVER, None),
    "already acknowledged data": (data(CLIENT - 1_200), ESTABLISHED, None, Remark.TCP_SEQ_UNDER),
    "acknowledges the last byte": (data(ack=SERVER), ESTABLISHED, None, None),
    "acknowledges a byte that was not sent": (data(ack=SERVER + 1), INVALID, Reason.TCP_ACK_OVER, None),
    "acknowledges what was acknowledged": (data(ack=SERVER - 66_000), ESTABLISHED, None, None),
    "acknowledges what was acknowledged long ago": (
        data(ack=SERVER - 66_001), ESTABLISHED, None, Remark.TCP_ACK_UNDER),
}  # fmt: skip


@pytest.mark.parametrize(("packet", "state", "reason", "remark"), WINDOW.values(), ids=WINDOW.keys())
def test_the_window(packet: bytes, state: CtState, reason: Reason | None, remark: Remark | None) -> None:
    found = only(opened().peer(packet))
    assert (found.state, found.remark) == (state, remark)
    assert reason is None or found.reason is reason


@pytest.mark.parametrize(("packet", "state", "reason", "remark"), WINDOW.values(), ids=WINDOW.keys())
def test_with_be_liberal_nothing_is_out_of_it(
    packet: bytes, state: CtState, reason: Reason | None, remark: Remark | None
) -> None:
    found = only(opened(Settings(tcp_be_liberal=True)).peer(packet))
    assert (found.state, found.remark) == (ESTABLISHED, None)


def test_a_connection_that_was_picked_up_has_no_window() -> None:
    talk = Talk()
    talk.peer(tcp(ACK, CLIENT, SERVER))
    assert only(talk.peer(data(CLIENT + (1 << 30)))).state is NEW


def test_both_sides_must_offer_window_scaling() -> None:
    def beyond_the_unscaled_window(peer: bytes, host: bytes) -> CtState | None:
        talk = Talk()
        talk.peer(tcp(SYN, CLIENT - 1, options=peer))
        talk.host(tcp(SYN | ACK, SERVER - 1, CLIENT, options=host, back=True))
        talk.peer(tcp(ACK, CLIENT, SERVER))
        talk.host(tcp(ACK, SERVER, CLIENT, back=True))  # offers 1,000 << scale
        return talk.peer(data(CLIENT + 100_000)).state

    assert beyond_the_unscaled_window(SCALE_7, SCALE_7) is ESTABLISHED
    assert beyond_the_unscaled_window(SCALE_7, b"") is INVALID
    assert beyond_the_unscaled_window(b"", SCALE_7) is INVALID


def test_a_sack_counts_only_if_its_receiver_permitted_it() -> None:
    block = b"\x01\x01\x05\x0a" + (SERVER + 500).to_bytes(4, "big") + (SERVER + 600).to_bytes(4, "big")

    def beyond_what_was_sent(permitted: bytes) -> CtState | None:
        talk = Talk()
        talk.peer(tcp(SYN, CLIENT - 1, options=SACK_PERMITTED))
        talk.host(tcp(SYN | ACK, SERVER - 1, CLIENT, options=permitted, back=True))
        return talk.peer(tcp(ACK, CLIENT, SERVER, options=block)).state

    assert beyond_what_was_sent(SACK_PERMITTED) is INVALID
    assert beyond_what_was_sent(b"") is ESTABLISHED


def test_a_fin_and_a_rst_out_of_the_window_shorten_the_life_of_the_entry() -> None:
    talk = opened()
    assert talk.peer(tcp(FIN | ACK, CLIENT + (1 << 20), SERVER)).state is INVALID
    assert talk.host(tcp(FIN | ACK, SERVER + (1 << 20), CLIENT, back=True)).state is INVALID
    assert talk.entries(at=299) == 1
    assert talk.entries(at=300) == 0


def test_an_ack_that_is_repeated_shortens_the_timeout() -> None:
    talk = opened()
    timeouts = [only(talk.peer(tcp(ACK, CLIENT, SERVER))).timeout_s for _ in range(4)]
    assert timeouts == [432_000, 432_000, 300, 300]


def test_options_that_end_early_are_read_as_far_as_they_go() -> None:
    segment = read_segment(tcp(SYN, options=b"\x03\x03\x0f\x04\x02\x08\x0a\0")[20:])
    assert (segment.options().scale, segment.options().sack_permitted) == (14, True)
    assert read_segment(tcp(SYN, options=b"\0\x03\x03\x07")[20:]).options().scale is None
