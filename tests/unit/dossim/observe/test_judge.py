"""judge: each kind of evidence, and the fate that follows from it."""

from __future__ import annotations

import numpy as np
import pytest

from dossim.model.disposition import Fate
from dossim.observe.journey import JOURNEY, Checkpoint, End
from dossim.observe.judgement import Observations, judge
from enforcer.model.vocabulary import Stage

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
    checkpoints: Checkpoint, end: End, place: str = "", reason: str = "", *, came_ns: int = 0, left_ns: int = 0
) -> tuple[int, int, int, int, int, int, int]:
    return (PLACE.get(place, 0), came_ns, left_ns, int(checkpoints), NUMBER.get(reason, 0), int(end), int(end != 0))


def judged(*rows: tuple[int, ...], datagrams: dict[int, object] | None = None) -> Observations:
    return judge(np.array(list(rows), JOURNEY), datagrams or {}, {})


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
    assert [observations.disposition(i).column for i in (0, 1)] == ["raw", "raw"]  # type: ignore[union-attr]


def test_a_fragment_that_left_no_trace_of_its_own_still_has_its_datagram() -> None:
    observations = judged(
        journey(HOOKS, End.NONE, came_ns=1),
        journey(IN, End.KFREE, "tcp_v4_rcv", "NO_SOCKET", came_ns=2, left_ns=2),
        datagrams={0: "a", 1: "a"},
    )
    assert observations.disposition(0).fate is Fate.DELIVERED  # type: ignore[union-attr]


def test_a_fragment_of_a_later_datagram_with_the_same_id_is_not_mixed_up() -> None:
    observations = judged(
        journey(IN, End.KFREE, "tcp_v4_rcv", "NO_SOCKET", came_ns=1, left_ns=2),
        journey(HOOKS, End.KFREE, "ip_expire", "FRAG_REASM_TIMEOUT", came_ns=3),
        journey(HOOKS, End.NONE, came_ns=4),
        datagrams={0: "a", 1: "a", 2: "a"},
    )
    assert observations.disposition(1).stage is Stage.DEFRAG  # type: ignore[union-attr]
    assert observations.disposition(2) is None, "no datagram left defragmentation after it came"


def test_a_fragment_that_the_ipv6_hook_refuses_is_no_part_of_the_datagram() -> None:
    observations = judged(
        journey(HOOKS, End.KFREE, "nf_hook_slow", "NETFILTER_DROP", came_ns=1),
        journey(IN, End.KFREE, "tcp_v4_rcv", "NO_SOCKET", came_ns=2, left_ns=2),
        datagrams={0: "a", 1: "a"},
    )
    assert observations.disposition(0).stage is Stage.DEFRAG  # type: ignore[union-attr]


def test_a_frame_that_was_not_sent_is_unobserved_and_says_why() -> None:
    records = np.zeros(2, JOURNEY)
    observations = judge(records, {}, {1: "too short"})
    assert observations.disposition(1) is None
    assert observations.evidence(1) == "not sent: too short"
