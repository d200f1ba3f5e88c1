"""judge: each kind of evidence, and the fate that follows from it."""

from __future__ import annotations

import numpy as np
import pytest

from dossim.model.disposition import Fate
from dossim.observe import abi
from dossim.observe.evidence import DroppedBy
from dossim.observe.journey import JOURNEY, Checkpoint, End
from dossim.observe.judgement import Observations, judge
from enforcer.model.errors import UnsupportedKernelError
from enforcer.model.vocabulary import CtState, Stage

REASONS = {2: "NOT_SPECIFIED", 3: "NO_SOCKET", 6: "TCP_CSUM", 12: "NETFILTER_DROP", 95: "FRAG_REASM_TIMEOUT"}
NUMBER = {name: number for number, name in REASONS.items()}
SYMBOLS = {
    1: "veth_xdp_rcv_skb",
    2: "do_xdp_generic",
    3: "ip_rcv_core",
    4: "nf_hook_slow",
    5: "arp_process",
    6: "tcp_v4_rcv",
    7: "veth_xmit",
    8: "ip_expire",
    9: "skb_release_data",
    10: "ip_error",
    11: "nft_do_chain",
}
PLACE = {name: address for address, name in SYMBOLS.items()}

C = Checkpoint
HOOKS = C.RECEIVE | C.PRE_DEFRAG
RAW_PASSED = HOOKS | C.POST_DEFRAG | C.POST_RAW
ROUTED = RAW_PASSED | C.POST_CONNTRACK | C.POST_MANGLE | C.PRE_ROUTE
IN = ROUTED | C.INPUT_FIRST | C.INPUT_LAST


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dossim.observe.judgement.drop_reasons", lambda: REASONS)
    monkeypatch.setattr("dossim.observe.judgement.resolve", lambda addresses: SYMBOLS)


def journey(
    checkpoints: Checkpoint,
    end: End,
    place: str = "",
    reason: str = "",
    *,
    came_ns: int = 0,
    left_ns: int = 0,
    ctinfo: int = 0,
    mark: int = 0,
) -> tuple[object, ...]:
    head = (PLACE.get(place, 0), came_ns, left_ns, int(checkpoints), mark, NUMBER.get(reason, 0))
    return (*head, int(end), int(end != 0), ctinfo, (0, 0, 0))


def judged(
    *rows: tuple[object, ...], datagrams: dict[int, object] | None = None, conntrack_drops: int | None = None
) -> Observations:
    return judge(np.array(list(rows), JOURNEY), datagrams or {}, {}, conntrack_drops)


ROWS = {
    "freed in the driver's XDP": (C(0), End.KFREE, "veth_xdp_rcv_skb", "NOT_SPECIFIED", "driver"),
    "freed in generic XDP": (C.RECEIVE, End.KFREE, "do_xdp_generic", "NOT_SPECIFIED", "generic"),
    "freed by a chain in front of IP": (C.RECEIVE, End.KFREE, "nft_do_chain", "NETFILTER_DROP", "netdev-ingress"),
    "freed by its hook's caller": (C.RECEIVE, End.KFREE, "nf_hook_slow", "NETFILTER_DROP", "netdev-ingress"),
    "freed by the header checks": (C.RECEIVE, End.KFREE, "ip_rcv_core", "NOT_SPECIFIED", "ip-input"),
    "ARP consumed": (C.RECEIVE, End.CONSUME, "arp_process", "", "delivered"),
    "dropped between -399 and -299": (HOOKS | C.POST_DEFRAG, End.KFREE, "nf_hook_slow", "NETFILTER_DROP", "raw"),
    "dropped between -299 and -199": (RAW_PASSED, End.KFREE, "nf_hook_slow", "NETFILTER_DROP", "conntrack"),
    "dropped between -199 and -149": (
        RAW_PASSED | C.POST_CONNTRACK,
        End.KFREE,
        "nf_hook_slow",
        "NETFILTER_DROP",
        "mangle",
    ),
    "dropped after -149": (
        RAW_PASSED | C.POST_CONNTRACK | C.POST_MANGLE,
        End.KFREE,
        "nf_hook_slow",
        "NETFILTER_DROP",
        "nat",
    ),
    "no route": (ROUTED, End.KFREE, "ip_error", "NOT_SPECIFIED", "route"),
    "filtered on input": (ROUTED | C.INPUT_FIRST, End.KFREE, "nf_hook_slow", "NETFILTER_DROP", "filter-input"),
    "filtered on forward": (ROUTED | C.FORWARD_FIRST, End.KFREE, "nf_hook_slow", "NETFILTER_DROP", "filter-forward"),
    "no socket listens": (IN, End.KFREE, "tcp_v4_rcv", "NO_SOCKET", "delivered"),
    "bad checksum": (IN, End.KFREE, "tcp_v4_rcv", "TCP_CSUM", "socket"),
    "not confirmed by conntrack": (IN, End.KFREE, "nf_hook_slow", "NETFILTER_DROP", "conntrack"),
    "waiting in a socket": (IN, End.NONE, "", "", "delivered"),
    "sent on": (ROUTED | C.FORWARD_FIRST | C.FORWARD_LAST | C.POSTROUTING, End.NONE, "", "", "forwarded"),
    "no sign of it at all": (C(0), End.NONE, "", "", None),
    "lost on the way to the interface": (C(0), End.KFREE, "veth_xmit", "NOT_SPECIFIED", None),
    "passed raw and vanished": (RAW_PASSED, End.NONE, "", "", None),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_evidence_and_what_it_proves(row: tuple[Checkpoint, End, str, str, str | None]) -> None:
    checkpoints, end, place, reason, expected = row
    observations = judged(journey(checkpoints, end, place, reason))
    disposition = observations.disposition(0)
    assert (disposition.column if disposition else None) == expected
    assert bool(observations.unobserved[0]) == (expected is None)


def test_a_fragment_shares_the_end_of_its_datagram() -> None:
    observations = judged(
        journey(HOOKS | C.POST_DEFRAG, End.KFREE, "nf_hook_slow", "NETFILTER_DROP", came_ns=1, left_ns=5),
        journey(HOOKS, End.KFREE, "skb_release_data", "NETFILTER_DROP", came_ns=4),
        datagrams={0: "a", 1: "a"},
    )
    # For mypy: not None here
    assert [observations.disposition(i).column for i in (0, 1)] == ["raw", "raw"]  # type: ignore[union-attr]


def test_a_fragment_that_left_no_trace_of_its_own_still_has_its_datagram() -> None:
    observations = judged(
        journey(HOOKS, End.NONE, came_ns=1),
        journey(IN, End.KFREE, "tcp_v4_rcv", "NO_SOCKET", came_ns=2, left_ns=2),
        datagrams={0: "a", 1: "a"},
    )
    assert observations.disposition(0).fate is Fate.DELIVERED  # type: ignore[union-attr]  # not None here


def test_a_fragment_of_a_later_datagram_with_the_same_id_is_not_mixed_up() -> None:
    observations = judged(
        journey(IN, End.KFREE, "tcp_v4_rcv", "NO_SOCKET", came_ns=1, left_ns=2),
        journey(HOOKS, End.KFREE, "ip_expire", "FRAG_REASM_TIMEOUT", came_ns=3),
        journey(HOOKS, End.NONE, came_ns=4),
        datagrams={0: "a", 1: "a", 2: "a"},
    )
    assert observations.disposition(1).stage is Stage.DEFRAG  # type: ignore[union-attr]  # not None here
    assert observations.disposition(2) is None, "no datagram left defragmentation after it came"


def test_a_fragment_that_the_ipv6_hook_refuses_is_no_part_of_the_datagram() -> None:
    observations = judged(
        journey(HOOKS, End.KFREE, "nf_hook_slow", "NETFILTER_DROP", came_ns=1),
        journey(IN, End.KFREE, "tcp_v4_rcv", "NO_SOCKET", came_ns=2, left_ns=2),
        datagrams={0: "a", 1: "a"},
    )
    assert observations.disposition(0).stage is Stage.DEFRAG  # type: ignore[union-attr]  # not None here


def test_a_frame_that_was_not_sent_is_unobserved_and_says_why() -> None:
    records = np.zeros(2, JOURNEY)
    observations = judge(records, {}, {1: "too short"})
    assert observations.disposition(1) is None
    assert str(observations.evidence(1)) == "not sent: too short"


# --- what conntrack said -------------------------------------------------------------------------------------------

AT_FILTER = ROUTED | C.INPUT_FIRST
ENTRY = abi.CTINFO_ENTRY
STATES = {
    "a new connection": (ENTRY | abi.CTINFO_NEW, CtState.NEW, False),
    "an established one": (ENTRY | abi.CTINFO_ESTABLISHED, CtState.ESTABLISHED, False),
    "an answer": (ENTRY | abi.CTINFO_ESTABLISHED_REPLY, CtState.ESTABLISHED, True),
    "related": (ENTRY | abi.CTINFO_RELATED, CtState.RELATED, False),
    "related, in the reply direction": (ENTRY | abi.CTINFO_RELATED_REPLY, CtState.RELATED, True),
    "no entry": (0, CtState.INVALID, False),
    "not tracked": (abi.CTINFO_UNTRACKED, CtState.UNTRACKED, False),
}


@pytest.mark.parametrize("row", STATES.values(), ids=STATES.keys())
def test_the_state_of_a_packet(row: tuple[int, CtState, bool]) -> None:
    ctinfo, state, reply = row
    found = judged(journey(AT_FILTER, End.KFREE, "nf_hook_slow", "NETFILTER_DROP", ctinfo=ctinfo)).evidence(0)
    assert (found.state, found.is_reply) == (state, reply)
    assert f"last checkpoint input_first, ctstate {state}" in str(found)


def test_what_did_not_get_past_conntrack_has_no_state() -> None:
    found = judged(journey(RAW_PASSED, End.KFREE, "nf_hook_slow", "NETFILTER_DROP")).evidence(0)
    assert found.state is None
    assert "ctstate" not in str(found)


@pytest.mark.parametrize("info", [5, 6, 7])
def test_a_state_that_no_kernel_has_is_no_guess(info: int) -> None:
    with pytest.raises(UnsupportedKernelError, match=f"calls it {info}"):
        judged(journey(IN, End.NONE, ctinfo=ENTRY | info))


def test_a_fragment_has_state_and_mark_of_its_datagram() -> None:
    found = judged(
        journey(HOOKS, End.KFREE, "skb_release_data", "NETFILTER_DROP", came_ns=1),
        journey(IN, End.NONE, came_ns=2, left_ns=3, ctinfo=ENTRY | abi.CTINFO_NEW, mark=0x40),
        datagrams={0: "a", 1: "a"},
    )
    assert [(found.ct_state(number), found.evidence(number).mark) for number in (0, 1)] == [(CtState.NEW, 0x40)] * 2


# --- whose rule it was ---------------------------------------------------------------------------------------------

DENY = 0xFFFE0000
DROPPERS = {
    "our mark": (AT_FILTER, End.KFREE, 0x20000, DroppedBy.OURS),
    "our mark, and others beside it": (AT_FILTER, End.KFREE, 0x8002_0001, DroppedBy.OURS),
    "no mark": (AT_FILTER, End.KFREE, 0, DroppedBy.OTHERS),
    "the bit of an Allow": (AT_FILTER, End.KFREE, 0x10000, DroppedBy.OTHERS),
    "bits outside the mask": (AT_FILTER, End.KFREE, 0xFFFF, DroppedBy.OTHERS),
    "our mark in mangle": (RAW_PASSED | C.POST_CONNTRACK, End.KFREE, 0x20000, DroppedBy.OURS),
    "our mark in FORWARD": (ROUTED | C.FORWARD_FIRST, End.KFREE, 0x20000, DroppedBy.OURS),
    "in raw, where no mark is set": (HOOKS | C.POST_DEFRAG, End.KFREE, 0x20000, None),
    "at conntrack": (RAW_PASSED, End.KFREE, 0x20000, None),
    "delivered": (IN, End.NONE, 0x20000, None),
    "unobserved": (C(0), End.NONE, 0x20000, None),
}


@pytest.mark.parametrize("row", DROPPERS.values(), ids=DROPPERS.keys())
@pytest.mark.parametrize("place", ["nf_hook_slow", "nft_do_chain"])
def test_whose_rule_dropped_it(row: tuple[Checkpoint, End, int, DroppedBy | None], place: str) -> None:
    checkpoints, end, mark, by = row
    found = judged(journey(checkpoints, end, place, "NETFILTER_DROP", mark=mark))
    assert found.dropped_by(0, DENY) is by
    assert f"mark {mark:#x}" in str(found.evidence(0)) or not mark


# --- what conntrack itself dropped ---------------------------------------------------------------------------------

FULL = (RAW_PASSED, End.KFREE, "nf_hook_slow", "NETFILTER_DROP")


@pytest.mark.parametrize(
    ("drops", "says"),
    [
        (None, "last checkpoint post_raw"),
        (2, "last checkpoint post_raw; conntrack itself counted 2 drops"),
        (1, "last checkpoint post_raw; conntrack itself counted 1 of 2 drops: another hook drops there, too"),
    ],
    ids=["no counter", "all of them", "not all of them"],
)
def test_a_full_table_is_proved_by_conntracks_counter(drops: int | None, says: str) -> None:
    """A packet that is not confirmed has passed that place, and counts elsewhere."""
    unconfirmed = journey(IN, End.KFREE, "nf_hook_slow", "NETFILTER_DROP", ctinfo=ENTRY | abi.CTINFO_NEW)
    found = judged(journey(*FULL), journey(*FULL), unconfirmed, conntrack_drops=drops)
    # For mypy: not None here
    assert [found.disposition(number).column for number in range(3)] == ["conntrack"] * 3  # type: ignore[union-attr]
    assert str(found.evidence(0)).endswith(says)
    assert "counted" not in str(found.evidence(2))
