"""Packets of a capture through conntrack and tracked policy: what each leaves for the next."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dossim.model.disposition import Disposition, Fate
from dossim.packet.cut import on_wire
from dossim.pipeline.explain import Explainer, Trace
from enforcer.model.vocabulary import Action, Stage
from enforcer.policy.resources import FelixConfiguration, Resources
from tests.support.frames import ME4
from tests.unit.dossim.pipeline.tracked_support import (
    ALLOW,
    BEYOND,
    DENY,
    EVERY,
    HOST,
    ICMP,
    PEER,
    TCP,
    UDP,
    echo,
    egress,
    endpoint,
    framed,
    given,
    icmp,
    ingress,
    pre_dnat,
    rule,
    tcp,
    udp,
    untracked,
)

SYN, RST, ACK = 0x02, 0x04, 0x10
OPEN = given(ingress("i", rule(Action.ALLOW, TCP), rule(Action.ALLOW, ICMP), rule(Action.ALLOW, UDP, 9)))
_FAILSAFES = ("failsafe_inbound", "failsafe_outbound")
LENIENT = FelixConfiguration("default", disable_conntrack_invalid_check=True)


def traces(policy: Resources, *frames: bytes) -> list[Trace]:
    return Explainer(policy, HOST, mode=None, tracked=True).explain_capture(frames)


def states(found: Sequence[Trace]) -> list[str]:
    """The word of each packet at conntrack."""
    return [next(hop.result.partition(":")[0] for hop in one.hops if hop.stage is Stage.CONNTRACK) for one in found]


def ends(found: Sequence[Trace]) -> list[str]:
    return [one.disposition.column for one in found]


def quoting(port: int) -> bytes:
    """Port unreachable, about what the host sent to PEER's port 1024 from this port."""
    quoted = framed(UDP, port.to_bytes(2, "big") + b"\x04\x00" + b"\x00\x0c\x00\x00", source=ME4, destination=PEER)[14:]
    return framed(ICMP, icmp(3, quoted, ident=0))


@pytest.mark.parametrize(
    ("frame", "end", "entry"),
    [
        pytest.param(tcp(SYN, 22), "delivered", None, id="a failsafe"),
        pytest.param(tcp(SYN, 23), "filter-input", "no profile ingress", id="the port beside it"),
        pytest.param(tcp(RST, 22), "filter-input", "conntrack INVALID ingress", id="56 RST without entry"),
        pytest.param(tcp(SYN, 22, checksum=False), "filter-input", "conntrack INVALID ingress", id="56 bad checksum"),
        pytest.param(udp(68), "delivered", None, id="a failsafe of UDP"),
        pytest.param(udp(destination=BEYOND), "forwarded", None, id="forwarded: no applyOnForward policy"),
        pytest.param(udp(destination="10.10.10.99"), "forwarded", None, id="forwarded, back by the same interface"),
    ],
)
def test_an_endpoint_without_policy_closes_the_host(frame: bytes, end: str, entry: str | None) -> None:
    (found,) = traces(given(), frame)
    assert (found.disposition.column, found.disposition.entry) == (end, entry)


def test_the_switch_lets_invalid_packets_go_on_to_failsafes() -> None:
    lenient = given(felix_configurations=(LENIENT,))
    assert ends(traces(lenient, tcp(RST, 22), tcp(RST, 23))) == ["delivered", "filter-input"]


def test_a_switch_decides_whether_tracked_policy_takes_part() -> None:
    assert Explainer(given(), HOST, mode=None).explain(tcp(SYN, 23)).disposition.fate is Fate.DELIVERED
    assert ends(traces(given(), tcp(SYN, 23))) == ["filter-input"]
    elsewhere = given(of=endpoint(interface="eth1"))
    (found,) = traces(elsewhere, tcp(SYN, 23))
    assert found == Explainer(elsewhere, HOST, mode=None).explain(tcp(SYN, 23)), "no endpoint governs the interface"


# -- what a packet leaves ----------------------------------------------------------------------------------------------


def test_an_answered_request_makes_the_flow_established() -> None:
    found = traces(OPEN, echo(), echo())
    assert states(found) == ["NEW", "ESTABLISHED"]
    assert [hop.result for hop in found[1].hops if hop.stage is Stage.FILTER_INPUT] == ["N1: RELATED or ESTABLISHED"]


@pytest.mark.parametrize(
    ("policy", "second"),
    [
        pytest.param(egress("e", rule(Action.DENY, ICMP), do_not_track=True), "NEW", id="denied in raw"),
        pytest.param(egress("e", rule(Action.ALLOW, ICMP), do_not_track=True), "NEW", id="allowed, untracked"),
        pytest.param(egress("e", rule(Action.DENY, TCP), do_not_track=True), "ESTABLISHED", id="of another protocol"),
        pytest.param(egress("e", DENY), "ESTABLISHED", id="a tracked Deny comes after conntrack"),
    ],
)
def test_an_answer_that_raw_keeps_from_conntrack_is_none(policy: object, second: str) -> None:
    given_ = given(*OPEN.policies, policy)  # type: ignore[arg-type]  # checked when it runs
    assert states(traces(given_, echo(), echo())) == ["NEW", second]


def test_a_group_is_not_answered_by_its_own_address() -> None:
    assert states(traces(OPEN, echo(destination="10.10.10.255"), echo(destination="10.10.10.255"))) == ["NEW", "NEW"]


def test_what_policy_denies_leaves_no_entry() -> None:
    assert states(traces(given(), udp(), quoting(9))) == ["NEW", "INVALID"]
    assert states(traces(OPEN, udp(), quoting(9), quoting(10))) == ["NEW", "RELATED", "INVALID"]


def test_an_icmp_error_of_a_known_flow_passes_and_of_an_unknown_one_does_not() -> None:
    """57: although policy allows ICMP."""
    assert ends(traces(OPEN, udp(), quoting(9), quoting(10))) == ["delivered", "delivered", "filter-input"]


def test_a_closed_port_leaves_nothing() -> None:
    found = traces(OPEN, tcp(SYN, 81), tcp(SYN, 81))
    assert [hop.result for hop in found[1].hops if hop.stage is Stage.CONNTRACK] == ["NEW: no entry"]


def test_a_forwarded_packet_leaves_an_entry_and_a_dropped_one_does_not() -> None:
    frame = udp(destination=BEYOND)
    denied = given(ingress("i", DENY, apply_on_forward=True))
    for policy, second in ((given(), "NEW: an entry without a reply so far"), (denied, "NEW: no entry")):
        found = traces(policy, frame, frame)
        assert [hop.result for hop in found[1].hops if hop.stage is Stage.CONNTRACK] == [second]


def test_an_untracked_allow_leaves_nothing_and_is_accepted_everywhere() -> None:
    policy = given(untracked("u", rule(Action.ALLOW, UDP)), ingress("i", DENY), pre_dnat("d", DENY))
    found = traces(policy, udp(), udp())
    assert states(found) == ["UNTRACKED", "UNTRACKED"]
    assert {hop.stage: hop.result for hop in found[1].hops if hop.stage in (Stage.MANGLE, Stage.FILTER_INPUT)} == {
        Stage.MANGLE: "M2: it has the accept mark",
        Stage.FILTER_INPUT: "I2: it has the accept mark",
    }
    assert ends(found) == ["delivered", "delivered"]


def test_what_a_pre_dnat_policy_allows_needs_no_normal_policy() -> None:
    """41."""
    found = traces(given(pre_dnat("a", rule(Action.ALLOW, UDP, 9))), udp(9), udp(10))
    assert ends(found) == ["delivered", "filter-input"]
    assert [hop.entry for hop in found[0].hops if hop.stage is Stage.MANGLE] == ["gnp/a ingress[0]"]


def test_a_denial_names_its_rule_and_where_it_stands() -> None:
    (found,) = traces(given(pre_dnat("d", DENY)), udp())
    assert found.disposition == Disposition(Fate.DROPPED, Stage.MANGLE, "gnp/d ingress[0]", "gnp/d ingress[0]")
    (hop,) = [hop for hop in found.hops if hop.stage is Stage.MANGLE]
    assert (hop.entry, hop.position) == ("gnp/d ingress[0]", DENY.position)


def test_a_forwarded_packet_shows_both_chains() -> None:
    policy = given(ingress("i", ALLOW, apply_on_forward=True), of=EVERY)
    (found,) = traces(policy, udp(destination=BEYOND))
    (hop,) = [hop for hop in found.hops if hop.stage is Stage.FILTER_FORWARD]
    assert (hop.result, hop.entry) == ("F6: left to the host's own rules", "gnp/i ingress[0]")
    assert hop.note == "W5: gnp/i ingress[0] allows it; W9: no applyOnForward egress policy decides"


# -- order -------------------------------------------------------------------------------------------------------------


def test_a_datagram_comes_when_its_last_fragment_does() -> None:
    whole = icmp(8, bytes(24))
    first = framed(ICMP, whole[:16], fragment=0x2000, ident=5)
    last = framed(ICMP, whole[16:], fragment=0x0002, ident=5)
    assert states(traces(OPEN, first, echo(), last)) == ["ESTABLISHED", "NEW", "ESTABLISHED"]
    assert states(traces(OPEN, first, last, echo())) == ["NEW", "NEW", "ESTABLISHED"]


# -- sets of ends ------------------------------------------------------------------------------------------------------


def test_what_the_hosts_isn_decides_is_a_set_of_ends() -> None:
    _, found = traces(OPEN, tcp(SYN), tcp(ACK, seq=1_001, ack=5))
    delivered, dropped = Disposition(Fate.DELIVERED), Disposition(Fate.DROPPED, Stage.FILTER_INPUT)
    assert found.disposition.ends == {(Fate.DELIVERED, None), (Fate.DROPPED, Stage.FILTER_INPUT)}
    assert found.disposition.agrees(delivered)
    assert found.disposition.agrees(dropped)
    assert not found.disposition.agrees(Disposition(Fate.DROPPED, Stage.MANGLE))
    assert str(found.disposition) == (
        "delivered or dropped at filter-input by conntrack INVALID ingress; "
        "it depends on the initial sequence number that the host chose for this connection"
    )


def test_where_every_state_ends_alike_there_is_one_end() -> None:
    lenient = given(*OPEN.policies, felix_configurations=(LENIENT,))
    _, found = traces(lenient, tcp(SYN), tcp(ACK, seq=1_001, ack=5))
    assert (found.disposition.fate, found.disposition.others) == (Fate.DELIVERED, ())
    _, closed = traces(OPEN, tcp(SYN, 81), tcp(ACK, 81, seq=1_001, ack=5))
    assert closed.disposition.others == (), "a closed port's number is not the host's to choose"


WHOLE = tcp()
CUT = on_wire(WHOLE[:40], len(WHOLE))


@pytest.mark.parametrize(
    ("policy", "stage"),
    [
        pytest.param(OPEN, Stage.FILTER_INPUT, id="allowed, unless its checksum is bad"),
        pytest.param(given(ingress("i", ALLOW), felix_configurations=(LENIENT,)), Stage.SOCKET, id="all pass"),
    ],
)
def test_a_cut_packet_is_undetermined_from_where_its_state_counts(policy: Resources, stage: Stage) -> None:
    (found,) = traces(policy, CUT)
    assert (found.disposition.fate, found.disposition.stage) == (Fate.UNDETERMINED, stage)
    assert "cut by the capture" in found.disposition.reason


@pytest.mark.parametrize(
    ("policy", "stage"),
    [
        pytest.param(given(), "filter-input", id="a default deny"),
        pytest.param(given(pre_dnat("d", DENY)), "mangle", id="preDNAT Deny"),
    ],
)
def test_a_cut_packet_that_is_dropped_in_any_state_is_dropped_and_leaves_nothing(policy: Resources, stage: str) -> None:
    assert ends(traces(policy, CUT, CUT)) == [stage, stage]


def test_a_cut_packet_that_raw_has_taken_out_of_tracking_is_untracked() -> None:
    policies = untracked("u", ALLOW), egress("e", DENY, apply_on_forward=True)
    none = FelixConfiguration("default", failsafe_inbound=(), failsafe_outbound=(), written=frozenset(_FAILSAFES))
    policy = given(*policies, of=EVERY, felix_configurations=(none,))
    whole = udp(destination=BEYOND)
    found = traces(policy, on_wire(whole[:36], len(whole)), on_wire(whole[:36], len(whole)))
    assert states(found) == ["UNTRACKED", "UNTRACKED"]
    assert [one.disposition.entry for one in found] == ["gnp/e egress[0]", "gnp/e egress[0]"]


def test_a_cut_packet_of_a_flow_may_be_established() -> None:
    policy = given(ingress("i", rule(Action.ALLOW, UDP, 9), rule(Action.DENY, UDP)))
    whole = udp(9)
    _, same, other = traces(policy, whole, on_wire(whole[:42], len(whole)), on_wire(udp(10)[:42], len(whole)))
    assert same.disposition.fate is Fate.UNDETERMINED
    assert (other.disposition.fate, other.disposition.stage) == (Fate.DROPPED, Stage.FILTER_INPUT)


def test_after_a_cut_packet_the_state_of_its_flow_is_open() -> None:
    _, same, other = traces(OPEN, CUT, tcp(ACK, seq=1_001), tcp(SYN, sport=1025))
    assert same.disposition.fate is Fate.UNDETERMINED
    assert other.disposition.fate is Fate.DELIVERED
