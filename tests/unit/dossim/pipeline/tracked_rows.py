"""Rows of tracked policy: what a packet of each state meets at each hook, and the row that decides.

The numbers in the ids are those of the list that the rows were made from, Calico's own tests (docs/conformance.md); OWN
and NEIGHBOURS are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dossim.pipeline.match_key import MatchKey
from enforcer.model.vocabulary import Action, CtState
from enforcer.policy.resources import (
    Failsafe,
    FelixConfiguration,
    IcmpMatch,
    Profile,
    Resources,
    Rule,
    Tier,
)
from tests.support.frames import ME4, ME6
from tests.unit.dossim.pipeline.tracked_support import (
    ALLOW,
    ALLOW_ALL,
    BEYOND,
    DENY,
    EVERY,
    ICMP,
    ICMPV6,
    OTHER,
    PASS,
    PEER,
    SECURITY,
    TCP,
    UDP,
    egress,
    endpoint,
    given,
    ingress,
    key,
    pre_dnat,
    rule,
)

NEW, ESTABLISHED, RELATED = CtState.NEW, CtState.ESTABLISHED, CtState.RELATED
INVALID, UNTRACKED = CtState.INVALID, CtState.UNTRACKED


@dataclass(frozen=True)
class Row:
    """``decides``: ``deny N9``, or ``accept N5 gnp/p ingress[0]`` where a rule did."""

    id: str
    policy: Resources
    hook: str
    packet: MatchKey
    decides: str
    state: CtState = NEW
    marked: bool = False


def out(protocol: int = TCP, port: int = 80, *, to: str = PEER) -> MatchKey:
    return key(protocol, port, source=ME4, destination=to)


def through(protocol: int = TCP, port: int = 80, *, source: str = PEER) -> MatchKey:
    return key(protocol, port, source=source, destination=BEYOND)


NOTHING = given()
SENDS = given(egress("e", rule(Action.ALLOW), tier="security"), tiers=(SECURITY,))
RECEIVES = given(ingress("i", rule(Action.ALLOW, source=PEER), tier="security"), tiers=(SECURITY,))
REFUSES = given(ingress("i", rule(Action.DENY, source=PEER), tier="security"), tiers=(SECURITY,))
ONE_PROTOCOL = given(ingress("i", rule(Action.ALLOW, 253)), egress("e", rule(Action.ALLOW, 253)))
PROFILE = given(of=endpoint("allow-all"), profiles=(ALLOW_ALL,))
NO_SENDING = given(egress("e", DENY), of=endpoint("allow-all"), profiles=(ALLOW_ALL,))
NO_RECEIVING = given(ingress("i", DENY), of=endpoint("allow-all"), profiles=(ALLOW_ALL,))
FORWARDS = given(
    ingress("i", rule(Action.ALLOW, source=PEER), apply_on_forward=True),
    egress("e", rule(Action.ALLOW), apply_on_forward=True),
)

CALICO = [
    Row("1 an endpoint alone closes the host: protocol 253", NOTHING, "input", key(253), "deny N9"),
    Row("1 protocol 254 out", NOTHING, "output", out(254), "deny N9"),
    Row("2 outbound failsafe", NOTHING, "output", out(port=6443), "accept N3"),
    Row("2 the port beside it", NOTHING, "output", out(port=6444), "deny N9"),
    Row("2 the protocol beside it", NOTHING, "output", out(UDP, 6443), "deny N9"),
    Row("3 Typha", NOTHING, "output", out(port=5473), "accept N3"),
    Row("4 another port, in", NOTHING, "input", key(port=8055), "deny N9"),
    Row("4 another port, out", NOTHING, "output", out(port=8055), "deny N9"),
    Row("5 egress allowed, sender", SENDS, "output", out(), "accept N5 gnp/e egress[0]"),
    Row("5 egress allowed, receiver has nothing", NOTHING, "input", key(), "deny N9"),
    Row("5 egress policy leaves ingress to profiles", SENDS, "input", key(), "deny N9"),
    Row("6 ingress allowed", RECEIVES, "input", key(), "accept N5 gnp/i ingress[0]"),
    Row("6 of any protocol", RECEIVES, "input", key(253), "accept N5 gnp/i ingress[0]"),
    Row("6 of another sender", RECEIVES, "input", key(source=OTHER), "deny N6"),
    Row("6 the answer", RECEIVES, "output", out(253), "accept N1", ESTABLISHED),
    Row("6 but nothing begins there", RECEIVES, "output", out(253), "deny N9"),
    Row("7 ingress denied", REFUSES, "input", key(), "deny N5 gnp/i ingress[0]"),
    Row("8 a connection that is open goes on", REFUSES, "input", key(), "accept N1", ESTABLISHED),
    Row("9 one protocol, in", ONE_PROTOCOL, "input", key(253), "accept N5 gnp/i ingress[0]"),
    Row("9 the next one, in", ONE_PROTOCOL, "input", key(254), "deny N6"),
    Row("9 one protocol, out", ONE_PROTOCOL, "output", out(253), "accept N5 gnp/e egress[0]"),
    Row("9 the next one, out", ONE_PROTOCOL, "output", out(254), "deny N6"),
    Row("10 without applyOnForward nothing forwarded is policed", REFUSES, "forward", through(), "accept F5"),
    Row("11 a profile that allows all, in", PROFILE, "input", key(254), "accept N8 profile/allow-all ingress[0]"),
    Row("11 out", PROFILE, "output", out(254), "accept N8 profile/allow-all egress[0]"),
    Row("12 profile and egress Deny, out", NO_SENDING, "output", out(), "deny N5 gnp/e egress[0]"),
    Row("12 in", NO_SENDING, "input", key(), "accept N8 profile/allow-all ingress[0]"),
    Row("13 profile and ingress Deny, in", NO_RECEIVING, "input", key(), "deny N5 gnp/i ingress[0]"),
    Row("13 out", NO_RECEIVING, "output", out(), "accept N8 profile/allow-all egress[0]"),
    Row("14 forwarded from the one source", FORWARDS, "forward", through(), "accept F5"),
    Row("14 from another", FORWARDS, "forward", through(source=OTHER), "deny W6"),
    Row("15 everything: in", given(of=EVERY), "input", key(254), "deny N9"),
    Row("15 everything: failsafe", given(of=EVERY), "input", key(port=22), "accept N3"),
    Row("31 preDNAT Deny", given(pre_dnat("d", DENY)), "mangle", key(port=32010), "deny M3d gnp/d ingress[0]"),
]

PINHOLE = given(pre_dnat("d", DENY, order=20), pre_dnat("a", rule(Action.ALLOW, TCP, 32010), order=10))
AFTER_DNAT = given(pre_dnat("d", DENY, order=20), pre_dnat("a", rule(Action.ALLOW, TCP, 8055), order=10))
PINHOLE_ALL = replace(PINHOLE, host_endpoints=(EVERY,))
CALICO += [
    Row("32 the pinhole", PINHOLE, "mangle", key(port=32010), "accept-marked M3d gnp/a ingress[0]"),
    Row("32 beside it", PINHOLE, "mangle", key(port=32011), "deny M3d gnp/d ingress[0]"),
    Row("33 the port after DNAT is no pinhole", AFTER_DNAT, "mangle", key(port=32010), "deny M3d gnp/d ingress[0]"),
    Row("34 of every interface", given(pre_dnat("d", DENY), of=EVERY), "mangle", key(), "deny M3d gnp/d ingress[0]"),
    Row("35 its pinhole", PINHOLE_ALL, "mangle", key(port=32010), "accept-marked M3d gnp/a ingress[0]"),
    Row("35 beside it", PINHOLE_ALL, "mangle", key(port=32011), "deny M3d gnp/d ingress[0]"),
    Row("38 no endpoint, mangle", given(of=endpoint(interface="eth1")), "mangle", key(), "return M5"),
    Row("38 no endpoint, filter", given(of=endpoint(interface="eth1")), "input", key(), "return I6"),
    Row("39 an endpoint", NOTHING, "input", key(port=8055), "deny N9"),
    Row("40 preDNAT Allow of another port", given(pre_dnat("a", rule(Action.ALLOW, TCP, 9))), "mangle", key(),
        "return M3e"),
    Row("41 what preDNAT allowed needs no normal policy", NOTHING, "input", key(), "accept I2", NEW, True),
    Row("42 profile, forwarded", PROFILE, "forward", through(), "accept F5"),
    Row("42 both interfaces governed", replace(PROFILE, host_endpoints=(EVERY,)), "forward", through(), "accept F5"),
    Row("44 AoF Deny on every interface", given(ingress("d", DENY, apply_on_forward=True), of=EVERY), "forward",
        through(), "deny W5 gnp/d ingress[0]"),
    Row("45 udp/68 is inbound only", NOTHING, "output", out(UDP, 68), "deny N9"),
    Row("45 tcp/2379 in", NOTHING, "input", key(port=2379), "accept N3"),
    Row("45 tcp/2379 out", NOTHING, "output", out(port=2379), "accept N3"),
    Row("45 tcp/22 in only", NOTHING, "output", out(port=22), "deny N9"),
    Row("48 without policy the host's own rules decide", given(of=endpoint(interface="eth1")), "forward", through(),
        "return F6"),
]  # fmt: skip

TIERS = (Tier("first", order=1), Tier("second", order=2))
PASSED = given(
    ingress("p", rule(Action.PASS, TCP), rule(Action.DENY, UDP), tier="first"),
    ingress("q", rule(Action.ALLOW, TCP, 80), tier="second"),
    tiers=TIERS,
)


def soft(action: Action, *profiles: str) -> Resources:
    """A tier with this defaultAction whose policy decides only tcp/80."""
    tier = Tier("first", order=1, default_action=action)
    policy = ingress("p", rule(Action.ALLOW, TCP, 80), tier="first")
    return given(policy, of=endpoint(*profiles), tiers=(tier,), profiles=(ALLOW_ALL,))


def felix(**fields: object) -> dict[str, object]:
    # For mypy: of several types
    return {"felix_configurations": (FelixConfiguration("default", **fields),)}  # type: ignore[arg-type]


FAILSAFE = Failsafe(TCP, 2222)
CALICO += [
    Row("49 Pass goes to the next tier", PASSED, "input", key(), "accept N5 gnp/q ingress[0]"),
    Row("49 which ends with a Deny", PASSED, "input", key(port=81), "deny N6"),
    Row("49 Deny ends at once", PASSED, "input", key(UDP), "deny N5 gnp/p ingress[1]"),
    Row("49 no match never gets to the next tier", PASSED, "input", key(254), "deny N6"),
    Row("50 defaultAction Pass", soft(Action.PASS, "allow-all"), "input", key(port=81),
        "accept N8 profile/allow-all ingress[0]"),
    Row("50 without profile", soft(Action.PASS), "input", key(port=81), "deny N9"),
    Row("50 set back", soft(Action.DENY, "allow-all"), "input", key(port=81), "deny N6"),
    Row("51 failsafes of our own", given(**felix(failsafe_inbound=(FAILSAFE,))), "input", key(port=2222), "accept N3"),
    Row("51 replace the defaults", given(**felix(failsafe_inbound=(FAILSAFE,))), "input", key(port=22), "deny N9"),
    Row("51 none at all", given(**felix(failsafe_inbound=())), "input", key(port=22), "deny N9"),
    Row("56 INVALID stands before failsafes", NOTHING, "input", key(port=22), "deny N2", INVALID),
    Row("56 unless switched off", given(**felix(disable_conntrack_invalid_check=True)), "input", key(port=22),
        "accept N3", INVALID),
    Row("56 then policy decides", given(**felix(disable_conntrack_invalid_check=True)), "input", key(), "deny N9",
        INVALID),
    Row("57 an ICMP error of a known flow", NOTHING, "input", key(ICMP), "accept N1", RELATED),
    Row("57 of an unknown one, though ICMP is allowed", given(ingress("i", rule(Action.ALLOW, ICMP))), "input",
        key(ICMP), "deny N2", INVALID),
    Row("58 untracked Allow and normal Deny", REFUSES, "input", key(), "accept I2", UNTRACKED, True),
    Row("58 untracked Pass and normal Deny", REFUSES, "input", key(), "deny N5 gnp/i ingress[0]"),
    Row("58 untracked Allow in mangle", given(pre_dnat("d", DENY)), "mangle", key(), "accept-marked M2", UNTRACKED,
        True),
    Row("59 preDNAT Deny of an open connection", given(pre_dnat("d", DENY)), "mangle", key(), "accept M1", ESTABLISHED),
    Row("59 of one that begins", given(pre_dnat("d", DENY)), "mangle", key(), "deny M3d gnp/d ingress[0]"),
    Row("60 AoF ingress only, and egress of the same interface", given(
        ingress("i", rule(Action.ALLOW, source=PEER), apply_on_forward=True), of=EVERY), "forward", through(),
        "return F6"),
]  # fmt: skip

OWN = [
    Row("preDNAT: INVALID", given(pre_dnat("a", ALLOW)), "mangle", key(), "deny M3b", INVALID),
    Row("preDNAT: without such a policy INVALID passes mangle", NOTHING, "mangle", key(), "return M5", INVALID),
    Row("preDNAT: failsafe", given(pre_dnat("d", DENY)), "mangle", key(port=22), "accept M3c"),
    Row("preDNAT: no end of tier", given(pre_dnat("a", rule(Action.ALLOW, UDP), tier="security"), tiers=(SECURITY,)),
        "mangle", key(), "return M3e"),
    Row("preDNAT: of RELATED nothing is asked", given(pre_dnat("d", DENY)), "mangle", key(ICMP), "accept M1", RELATED),
    Row("forward: established", FORWARDS, "forward", through(source=OTHER), "accept W1", ESTABLISHED),
    Row("forward: INVALID, even without applyOnForward", NOTHING, "forward", through(), "deny W2", INVALID),
    Row("forward: no failsafes", given(ingress("i", rule(Action.ALLOW, UDP), apply_on_forward=True)), "forward",
        through(port=22), "deny W6"),
    Row("forward: an accept mark spares the first chain", FORWARDS, "forward", through(source=OTHER), "accept F5",
        NEW, True),
    Row("forward: but not the second", given(egress("e", DENY, apply_on_forward=True), of=EVERY), "forward", through(),
        "deny W5 gnp/e egress[0]", NEW, True),
    Row("forward: all tiers passed", given(ingress("i", PASS, apply_on_forward=True)), "forward", through(),
        "return F6"),
    Row("output: accept mark", given(egress("e", DENY)), "output", out(), "accept O1", UNTRACKED, True),
    Row("output: no endpoint", given(of=endpoint(interface="eth1")), "output", out(), "return O6"),
    Row("foreign NOTRACK is denied by default", NOTHING, "input", key(), "deny N9", UNTRACKED),
    Row("a profile that does not exist denies", given(of=endpoint("gone", "allow-all"), profiles=(ALLOW_ALL,)),
        "input", key(), "deny N8"),
    Row("after one that allows", given(of=endpoint("allow-all", "gone"), profiles=(ALLOW_ALL,)), "input", key(),
        "accept N8 profile/allow-all ingress[0]"),
    Row("Pass in a profile leaves it", given(of=endpoint("p", "allow-all"), profiles=(
        Profile("p", ingress=(PASS, DENY)), ALLOW_ALL)), "input", key(), "accept N8 profile/allow-all ingress[0]"),
    Row("a tier that does not exist denies at its end", given(
        ingress("i", rule(Action.ALLOW, UDP), tier="gone"), of=endpoint("allow-all"), profiles=(ALLOW_ALL,)),
        "input", key(), "deny N6"),
    Row("kube-baseline passes at its end", given(
        ingress("i", rule(Action.ALLOW, UDP), tier="kube-baseline"), of=endpoint("allow-all"), profiles=(ALLOW_ALL,)),
        "input", key(), "accept N8 profile/allow-all ingress[0]"),
    Row("too short for a failsafe's port", given(**felix(disable_conntrack_invalid_check=True)), "input",
        key(buf=b"\0\0"), "deny N3", INVALID),
    Row("too short for an ICMP type", given(ingress("i", Rule(Action.ALLOW, protocol=ICMP, icmp=IcmpMatch(8))),
        **felix(disable_conntrack_invalid_check=True)), "input", key(ICMP, buf=b"\x08\0"), "deny N5", INVALID),
]  # fmt: skip


def neighbour(number: int) -> MatchKey:
    """An ICMPv6 message of this type."""
    return key(ICMPV6, source="fe80::1", destination=ME6, buf=bytes([number, *[0] * 23]))


ND = neighbour(135)
NEIGHBOURS = [
    *(Row(f"type {number}", NOTHING, "input", neighbour(number), "accept N0", UNTRACKED)
      for number in (130, 131, 132, 133, 134, 135, 136, 143)),
    *(Row(f"type {number}, beside them", NOTHING, "input", neighbour(number), "deny N9", UNTRACKED)
      for number in (129, 137, 142, 144)),
    Row("what the host asks", NOTHING, "output", ND, "accept N0", UNTRACKED),
    Row("a bad checksum is INVALID", NOTHING, "input", ND, "deny N2", INVALID),
    Row("before normal policy", given(ingress("d", DENY)), "input", ND, "accept N0", UNTRACKED),
    Row("not before preDNAT policy", given(pre_dnat("d", DENY)), "mangle", ND, "deny M3d gnp/d ingress[0]", UNTRACKED),
    Row("the number in ICMP", NOTHING, "input", key(ICMP, buf=bytes([135, *[0] * 7])), "deny N9", UNTRACKED),
]  # fmt: skip
