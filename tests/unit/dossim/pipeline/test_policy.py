"""Untracked policy in ``explain``: which endpoint governs, the order of the rules, and what each action
does.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from dossim.model.disposition import Disposition
from dossim.model.host import Host
from dossim.packet.fields import Transport
from dossim.pipeline.explain import Explainer, Trace
from dossim.pipeline.match_key import MatchKey
from dossim.pipeline.policy import Policy, Verdict
from enforcer.model.errors import Position, UnsupportedRuleError
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action, Direction, Stage
from enforcer.policy.resources import (
    EndpointPort,
    EntityRule,
    Failsafe,
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    IcmpMatch,
    NamedPort,
    NetworkSet,
    PortRange,
    Profile,
    Resources,
    Rule,
    Tier,
)
from tests.support.frames import ME4, ME6, ethernet, ipv4, ipv6, segment

HOST = Host("jasper", addresses=(ip_interface(f"{ME4}/24"), ip_interface(f"{ME6}/64")))
LISTED, OTHER, LISTED6, OTHER6 = "203.0.113.7", "8.8.8.8", "2001:db8:bad::1", "2600::1"
SET = GlobalNetworkSet("bad", labels={"list": "deny"}, nets=Nets.of(["203.0.113.0/24", "2001:db8:bad::/48"]))
ENDPOINT = HostEndpoint("jasper-eth0", labels={"role": "host"}, node="jasper", interface_name="eth0")
NO_FAILSAFES = FelixConfiguration("default", failsafe_inbound=(), failsafe_outbound=())
TCP, UDP, ICMP, SCTP = 6, 17, 1, 132

DENY_LISTED = Rule(Action.DENY, source=EntityRule(selector="list == 'deny'"))
ANY = Rule(Action.DENY)


def packet(
    source: str = LISTED, *, protocol: int = TCP, sport: int = 1024, dport: int = 80, cut: int | None = None
) -> bytes:
    """A packet to the host; ``cut``: the bytes to keep of its transport header."""
    destination = ME6 if ":" in source else ME4
    buf = segment(protocol, source, destination, (sport, dport), b"")[:cut]
    if ":" in source:
        return ethernet(ipv6(buf, source=source, destination=destination, next_header=protocol), 0x86DD)
    return ethernet(ipv4(buf, source=source, destination=destination, protocol=protocol), 0x0800)


def policy(name: str, *rules: Rule, **fields: Any) -> GlobalNetworkPolicy:
    return GlobalNetworkPolicy(name, ingress=rules, do_not_track=True, apply_on_forward=True, **fields)


def resources(*policies: GlobalNetworkPolicy, **fields: Any) -> Resources:
    usual: dict[str, Any] = {
        "host_endpoints": (ENDPOINT,),
        "global_network_sets": (SET,),
        "felix_configurations": (NO_FAILSAFES,),
    }
    return Resources(policies=policies, **usual | fields)


def trace(given: Resources, frame: bytes) -> Trace:
    return Explainer(given, HOST, mode=None).explain(frame)


def end(given: Resources, frame: bytes) -> Disposition:
    return trace(given, frame).disposition


def denied_by(given: Resources, frame: bytes) -> str | None:
    return end(given, frame).entry


# -- which rules apply -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "applies"),
    [
        pytest.param({}, True, id="an untracked ingress policy"),
        pytest.param({"do_not_track": False}, False, id="a tracked one"),
        pytest.param({"types": ("Egress",)}, False, id="one of egress only"),
        pytest.param({"types": ("Ingress", "Egress")}, True, id="one of both directions"),
        pytest.param({"selector": "role == 'host'"}, True, id="one that selects the endpoint"),
        pytest.param({"selector": "role == 'other'"}, False, id="one that selects others"),
        pytest.param({"selector": "!has(absent)"}, True, id="one that selects by a missing label"),
    ],
)
def test_a_policy_applies_to_the_endpoints_it_selects(fields: dict[str, Any], applies: bool) -> None:
    made = GlobalNetworkPolicy("p", **{"ingress": (ANY,), "do_not_track": True} | fields)
    assert (denied_by(resources(made), packet()) == "gnp/p ingress[0]") is applies


def endpoint(name: str, **fields: Any) -> HostEndpoint:
    return HostEndpoint(name, **{"node": "jasper", "interface_name": "eth0", "labels": {"is": name}} | fields)


@pytest.mark.parametrize(
    ("endpoints", "governing"),
    [
        pytest.param([endpoint("b"), endpoint("a")], "a", id="the smaller name of two that match"),
        pytest.param([endpoint("a", node="opal"), endpoint("b")], "b", id="not one of another node"),
        pytest.param([endpoint("a", interface_name="eth1"), endpoint("b")], "b", id="not one of another interface"),
        pytest.param(
            [endpoint("a", interface_name="", expected_ips=(ip_address(ME4),)), endpoint("b")],
            "a", id="one by its address, named before",
        ),
        pytest.param(
            [endpoint("a", interface_name="eth1", expected_ips=(ip_address(ME4),)), endpoint("b")],
            "b", id="no address of an endpoint that names another interface",
        ),
        pytest.param([endpoint("a", interface_name="*"), endpoint("b")], "b", id="a specific one before the wildcard"),
        pytest.param([endpoint("b", interface_name="*"), endpoint("a", interface_name="*")], "a", id="a wildcard"),
        pytest.param([endpoint("a", interface_name="", expected_ips=(ip_address(OTHER),))], None, id="none"),
    ],
)  # fmt: skip
def test_the_governing_endpoint(endpoints: list[HostEndpoint], governing: str | None) -> None:
    made = [policy(item.name, ANY, selector=f"is == '{item.name}'") for item in endpoints]
    found = denied_by(resources(*made, host_endpoints=tuple(endpoints)), packet())
    assert found == (f"gnp/{governing} ingress[0]" if governing else None)


# -- order -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "tiers"),
    [
        pytest.param({"order": 1.0}, {"order": 2.0}, (), id="the lower order"),
        pytest.param({"order": 9.0}, {"order": None}, (), id="an order before none"),
        pytest.param({"order": 1.0}, {"order": 1.0}, (), id="the name between equal orders"),
        pytest.param({"order": -1.0}, {"order": 0.0}, (), id="negative orders"),
        pytest.param({"tier": "z"}, {"tier": "y"}, (Tier("z", order=1.0), Tier("y", order=2.0)),
                     id="the tier's order"),
        pytest.param({"tier": "y"}, {"tier": "z"}, (Tier("z"), Tier("y")), id="the tier's name between none and none"),
        pytest.param({"tier": "z"}, {"tier": "default"}, (Tier("z", order=999_999.0),), id="default is at a million"),
        pytest.param({"tier": "default"}, {"tier": "z"}, (Tier("z", order=1_000_001.0),), id="and before a later one"),
        pytest.param({"tier": "z"}, {"tier": "absent"}, (Tier("z"),), id="a tier that exists before one that does not"),
        pytest.param({"tier": "kube-admin"}, {"tier": "default"}, (), id="kube-admin is there without a document"),
        pytest.param({"tier": "default"}, {"tier": "kube-baseline"}, (), id="and kube-baseline, after default"),
        pytest.param({"tier": "kube-baseline"}, {"tier": "absent"}, (), id="but before one that does not exist"),
        pytest.param({"tier": "y", "order": 9.0}, {"tier": "z", "order": 1.0},
                     (Tier("y", order=1.0), Tier("z", order=2.0)), id="the tier before the policy's order"),
    ],
)  # fmt: skip
def test_policies_are_evaluated_in_order(
    first: dict[str, Any], second: dict[str, Any], tiers: tuple[Tier, ...]
) -> None:
    for given in ((("a", first), ("b", second)), (("b", second), ("a", first))):
        made = resources(*(policy(name, ANY, **fields) for name, fields in given), tiers=tiers)
        assert denied_by(made, packet()) == "gnp/a ingress[0]"


@pytest.mark.parametrize("first", ["dos-x", "dos.x"])
def test_a_name_that_begins_with_another_comes_before_it(first: str) -> None:
    """Calico compares "name/namespace/kind", and "-" and "." come before "/"."""
    made = resources(*(policy(name, ANY) for name in ("dos", first)))
    assert denied_by(made, packet()) == f"gnp/{first} ingress[0]"


def test_rules_are_evaluated_as_written_and_the_entry_has_its_position() -> None:
    placed = Rule(Action.DENY, position=Position("dos.yaml", 12, 5))
    found = trace(resources(policy("p", Rule(Action.LOG), placed)), packet())
    hop = next(hop for hop in found.hops if hop.stage is Stage.RAW)
    assert (hop.entry, str(hop.position)) == ("gnp/p ingress[1]", "dos.yaml:12:5")
    assert "logged by gnp/p ingress[0]" in hop.note


# -- actions -----------------------------------------------------------------------------------------------------------

SECOND_TIER = (Tier("first", order=1.0), Tier("second", order=2.0))


@pytest.mark.parametrize(
    ("policies", "entry"),
    [
        pytest.param([policy("a", ANY)], "gnp/a ingress[0]", id="Deny drops"),
        pytest.param([policy("a", Rule(Action.ALLOW), ANY)], None, id="Allow ends it"),
        pytest.param([policy("a", Rule(Action.ALLOW), tier="first"), policy("b", ANY, tier="second")], None,
                     id="Allow ends it for all tiers"),
        pytest.param([policy("a", Rule(Action.LOG), ANY)], "gnp/a ingress[1]", id="Log goes on"),
        pytest.param([policy("a", Rule(Action.PASS), ANY), policy("b", ANY)], None,
                     id="Pass skips the rest of its tier, other policies too"),
        pytest.param([policy("a", Rule(Action.PASS), ANY, tier="first"), policy("b", ANY, tier="second")],
                     "gnp/b ingress[0]", id="Pass goes on with the next tier"),
        pytest.param([policy("a", DENY_LISTED, tier="first")], "gnp/a ingress[0]", id="a match"),
        pytest.param([policy("a", Rule(Action.DENY, protocol=UDP), tier="first")], None,
                     id="no match goes on, tracked, whatever the tier's default action"),
    ],
)  # fmt: skip
def test_actions(policies: list[GlobalNetworkPolicy], entry: str | None) -> None:
    assert denied_by(resources(*policies, tiers=SECOND_TIER), packet()) == entry


# -- matches -----------------------------------------------------------------------------------------------------------


def nets(*texts: str) -> tuple[Any, ...]:
    return tuple(map(ip_network, texts))


@pytest.mark.parametrize(
    ("fields", "matching", "other"),
    [
        pytest.param({"protocol": UDP}, packet(protocol=UDP), packet(), id="protocol"),
        pytest.param({"not_protocol": UDP}, packet(), packet(protocol=UDP), id="not protocol"),
        pytest.param({"ip_version": 4}, packet(), packet(LISTED6), id="IP version"),
        pytest.param({"protocol": ICMP}, packet(LISTED6, protocol=ICMP), packet(protocol=UDP),
                     id="protocol 1 by number is of both families"),
        pytest.param({"protocol": ICMP, "icmp": IcmpMatch(8)}, packet(protocol=ICMP, sport=8),
                     packet(LISTED6, protocol=ICMP, sport=8), id="ICMP types are IPv4's"),
        pytest.param({"source": EntityRule(nets=nets("203.0.113.0/24"))}, packet(), packet(OTHER), id="source net"),
        pytest.param({"source": EntityRule(nets=nets("8.0.0.0/8", "203.0.113.0/24"))}, packet(), packet("9.9.9.9"),
                     id="one of two source nets"),
        pytest.param({"source": EntityRule(not_nets=nets("8.0.0.0/8"))}, packet(), packet(OTHER),
                     id="source not in net"),
        pytest.param({"source": EntityRule(not_nets=nets("8.0.0.0/8"))}, packet(), packet(LISTED6),
                     id="a negated net makes the rule its family's"),
        pytest.param({"destination": EntityRule(nets=nets(f"{ME4}/32"))}, packet(), packet(LISTED6),
                     id="destination net"),
        pytest.param({"source": EntityRule(selector="list == 'deny'")}, packet(), packet(OTHER), id="selector"),
        pytest.param({"source": EntityRule(selector="list == 'deny'")}, packet(LISTED6), packet(OTHER6),
                     id="selector, IPv6"),
        pytest.param({"source": EntityRule(not_selector="list == 'deny'")}, packet(OTHER), packet(),
                     id="notSelector alone matches whom nobody knows"),
        pytest.param({"source": EntityRule(selector="has(list)", not_selector="list == 'x'")}, packet(), packet(OTHER),
                     id="notSelector with a selector narrows it"),
        pytest.param({"source": EntityRule(selector="list == 'deny'", nets=nets("203.0.113.0/25"))},
                     packet(), packet("203.0.113.200"), id="selector and net, both"),
        pytest.param({"source": EntityRule(selector="role == 'peer'")}, packet("192.0.2.1"), packet("192.0.2.2"),
                     id="expected addresses of another node's endpoint"),
        pytest.param({"source": EntityRule(namespace_selector="all()")}, packet("198.51.100.1"), packet(),
                     id="sets of a namespace"),
        pytest.param({"source": EntityRule(selector="has(list)", namespace_selector="global()")},
                     packet(), packet("198.51.100.1"), id="sets of no namespace"),
        pytest.param({"protocol": TCP, "destination": EntityRule(ports=(PortRange(80, 90),))},
                     packet(dport=90), packet(dport=91), id="destination ports"),
        pytest.param({"protocol": TCP, "source": EntityRule(ports=(PortRange(1, 1), PortRange(5, 5)))},
                     packet(sport=5), packet(sport=4), id="source ports"),
        pytest.param({"protocol": TCP, "destination": EntityRule(not_ports=(PortRange(80, 90),))},
                     packet(dport=79), packet(dport=80), id="not ports"),
        pytest.param({"protocol": SCTP, "destination": EntityRule(ports=(PortRange(80, 80),))},
                     packet(protocol=SCTP), packet(protocol=SCTP, dport=81), id="SCTP ports"),
        pytest.param({"protocol": ICMP, "icmp": IcmpMatch(8)}, packet(protocol=ICMP, sport=8),
                     packet(protocol=ICMP, sport=0), id="ICMP type"),
        pytest.param({"protocol": ICMP, "icmp": IcmpMatch(8, 1)}, packet(protocol=ICMP, sport=8, dport=1),
                     packet(protocol=ICMP, sport=8, dport=0), id="ICMP code"),
        pytest.param({"protocol": ICMP, "not_icmp": IcmpMatch(8)}, packet(protocol=ICMP, sport=0),
                     packet(protocol=ICMP, sport=8), id="not ICMP type"),
    ],
)  # fmt: skip
def test_matches(fields: dict[str, Any], matching: bytes, other: bytes) -> None:
    peer = HostEndpoint("opal", labels={"role": "peer"}, node="opal", expected_ips=(ip_address("192.0.2.1"),))
    namespaced = NetworkSet("n", labels={"list": "deny"}, namespace="web", nets=Nets.of(["198.51.100.0/24"]))
    made = resources(
        policy("p", Rule(Action.DENY, **fields)), host_endpoints=(ENDPOINT, peer), network_sets=(namespaced,)
    )
    assert (denied_by(made, matching), denied_by(made, other)) == ("gnp/p ingress[0]", None)


PORT_RULE = Rule(Action.ALLOW, protocol=TCP, destination=EntityRule(ports=(PortRange(443, 443),)))
OTHER_PORT_RULE = Rule(Action.ALLOW, protocol=TCP, source=EntityRule(nets=nets("8.0.0.0/8")),
                       destination=EntityRule(ports=(PortRange(443, 443),)))  # fmt: skip
ICMP_RULE = Rule(Action.ALLOW, protocol=ICMP, icmp=IcmpMatch(8))


@pytest.mark.parametrize(
    ("rule", "frame", "dropped"),
    [
        pytest.param(PORT_RULE, packet(cut=3), True, id="three bytes of TCP at a rule about ports"),
        pytest.param(PORT_RULE, packet(cut=4), False, id="four bytes: xt_multiport needs no more"),
        pytest.param(PORT_RULE, packet(protocol=UDP, cut=3), False, id="another protocol is not evaluated"),
        pytest.param(OTHER_PORT_RULE, packet(cut=3), False, id="another source is not evaluated"),
        pytest.param(ICMP_RULE, packet(protocol=ICMP, cut=7), True, id="seven bytes of ICMP at a rule about its type"),
        pytest.param(ICMP_RULE, packet(protocol=ICMP, cut=8), False, id="eight bytes"),
        pytest.param(Rule(Action.ALLOW, protocol=ICMP), packet(protocol=ICMP, cut=1), False, id="a rule about ICMP"),
        pytest.param(
            Rule(Action.ALLOW, protocol=TCP),
            ethernet(ipv6(b"\x11", source=LISTED6, destination=ME6, next_header=60), 0x86DD),
            True, id="IPv6 headers that break off, at a rule about the protocol",
        ),
        pytest.param(
            Rule(Action.LOG),
            ethernet(ipv6(b"\x11", source=LISTED6, destination=ME6, next_header=60), 0x86DD),
            False, id="IPv6 headers that break off, at a rule about nothing",
        ),
    ],
)  # fmt: skip
def test_too_short_for_the_question_is_dropped_by_no_entry(rule: Rule, frame: bytes, dropped: bool) -> None:
    found = end(resources(policy("p", rule)), frame)
    assert (found.stage is Stage.RAW, found.entry) == (dropped, None)
    if dropped:
        assert "cannot be evaluated" in found.reason


# -- failsafes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inbound", "outbound", "frame", "passes"),
    [
        pytest.param([Failsafe(TCP, 22)], [], packet(dport=22), True, id="inbound, by destination port"),
        pytest.param([Failsafe(TCP, 22)], [], packet(sport=22), False, id="inbound, not by source port"),
        pytest.param([Failsafe(TCP, 22)], [], packet(dport=22, protocol=UDP), False, id="of its protocol only"),
        pytest.param(
            [], [Failsafe(UDP, 53)], packet(sport=53, protocol=UDP), True, id="answers to outbound, by source port"
        ),
        pytest.param([], [Failsafe(UDP, 53)], packet(dport=53, protocol=UDP), False, id="not by destination port"),
        pytest.param([Failsafe(TCP, 22, ip_network("203.0.113.0/24"))], [], packet(dport=22), True, id="from its net"),
        pytest.param([Failsafe(TCP, 22, ip_network("8.0.0.0/8"))], [], packet(dport=22), False, id="not from others"),
        pytest.param([Failsafe(TCP, 22, ip_network("8.0.0.0/8"))], [], packet(LISTED6, dport=22), False, id="nor IPv6"),
        pytest.param([Failsafe(TCP, 22)], [], packet(LISTED6, dport=22), True, id="IPv6 too"),
    ],
)
def test_failsafes(inbound: list[Failsafe], outbound: list[Failsafe], frame: bytes, passes: bool) -> None:
    felix = FelixConfiguration("default", failsafe_inbound=tuple(inbound), failsafe_outbound=tuple(outbound))
    found = denied_by(resources(policy("p", ANY), felix_configurations=(felix,)), frame)
    assert found == (None if passes else "gnp/p ingress[0]")


def test_without_a_rule_failsafes_are_not_looked_at() -> None:
    """Only an interface with untracked ingress policy has chains in raw."""
    made = resources(felix_configurations=())
    assert end(made, packet(cut=3)).stage is Stage.SOCKET
    assert end(resources(policy("p", Rule(Action.LOG)), felix_configurations=()), packet(cut=3)).stage is Stage.RAW


@pytest.mark.parametrize(
    "fields",
    [
        {"destination": EntityRule(services={"name": "s"})},
        {"source": EntityRule(service_accounts={"names": ["a"]})},
        {"http": {"methods": ["GET"]}},
    ],
)
def test_what_one_packet_cannot_tell_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedRuleError, match=r"gnp/p ingress\[0\]"):
        Explainer(resources(policy("p", Rule(Action.ALLOW, **fields))), HOST, mode=None)


# -- named ports, profiles, namespaces ---------------------------------------------------------------------------------

SERVED = HostEndpoint(
    "served",
    {"role": "host"},
    node="jasper",
    interface_name="eth0",
    expected_ips=(ip_address(ME4), ip_address(ME6)),
    ports=(EndpointPort("http", TCP, 80), EndpointPort("http", UDP, 8080), EndpointPort("admin", TCP, 443)),
)
HTTP = EntityRule(ports=(NamedPort("http"),))
NOT_HTTP = EntityRule(not_ports=(NamedPort("http"),))


@pytest.mark.parametrize(
    ("fields", "matching", "other"),
    [
        pytest.param({"destination": HTTP}, packet(dport=80), packet(dport=8080), id="TCP's without a protocol"),
        pytest.param(
            {"destination": HTTP},
            packet(dport=8080, protocol=UDP),
            packet(dport=80, protocol=UDP),
            id="and UDP's without a protocol",
        ),
        pytest.param(
            {"destination": HTTP, "protocol": TCP},
            packet(dport=80),
            packet(dport=8080, protocol=UDP),
            id="only TCP's where the rule says so",
        ),
        pytest.param(
            {"destination": HTTP, "protocol": UDP},
            packet(dport=8080, protocol=UDP),
            packet(dport=80, protocol=UDP),
            id="UDP's where the rule says so",
        ),
        pytest.param({"destination": HTTP}, packet(LISTED6, dport=80), packet(LISTED6, dport=443), id="IPv6"),
        pytest.param({"destination": HTTP}, packet(cut=20), packet(cut=19), id="the whole TCP header must be there"),
        pytest.param({"destination": NOT_HTTP}, packet(cut=19), packet(cut=20), id="else it is no named port"),
        pytest.param(
            {"destination": NOT_HTTP}, packet(dport=80, protocol=UDP), packet(), id="nor is another protocol's"
        ),
        pytest.param(
            {"destination": EntityRule(ports=(NamedPort("http"), PortRange(443, 443))), "protocol": TCP},
            packet(dport=443),
            packet(dport=444),
            id="a number with it",
        ),
        pytest.param(
            {"destination": EntityRule(ports=(NamedPort("http"), NamedPort("admin"))), "protocol": TCP},
            packet(dport=443),
            packet(dport=444),
            id="a name with it",
        ),
        pytest.param(
            {"destination": EntityRule(ports=(PortRange(1, 999),), not_ports=(NamedPort("http"),)), "protocol": TCP},
            packet(dport=81),
            packet(dport=80),
            id="a name taken out of a range",
        ),
        pytest.param({"source": HTTP}, packet(ME4, sport=80), packet(sport=80), id="the source's endpoint"),
    ],
)
def test_named_ports(fields: dict[str, Any], matching: bytes, other: bytes) -> None:
    given = resources(policy("p", Rule(Action.DENY, **fields)), host_endpoints=(SERVED,))
    assert [denied_by(given, matching), denied_by(given, other)] == ["gnp/p ingress[0]", None]


def test_a_number_is_evaluated_before_a_name() -> None:
    """Matching on it needs four bytes: a packet with fewer is dropped by the match (hotdrop), not by the rule."""
    both = EntityRule(ports=(NamedPort("http"), PortRange(443, 443)))
    given = resources(policy("p", Rule(Action.DENY, protocol=TCP, destination=both)), host_endpoints=(SERVED,))
    ended = end(given, packet(cut=3))
    assert (ended.stage, ended.entry) == (Stage.RAW, None)
    assert denied_by(given, packet(dport=443, cut=4)) == "gnp/p ingress[0]"


def test_labels_come_from_profiles_too() -> None:
    endpoint = HostEndpoint(
        "jasper-eth0", {"role": "host"}, node="jasper", interface_name="eth0", profiles=("edge", "late")
    )
    profiles = (
        Profile("late", labels_to_apply={"site": "late"}),
        Profile("edge", labels_to_apply={"role": "edge", "site": "lab"}),
    )
    for selector, applies in (("site == 'lab'", True), ("role == 'host'", True), ("role == 'edge'", False)):
        given = resources(policy("p", ANY, selector=selector), host_endpoints=(endpoint,), profiles=profiles)
        assert denied_by(given, packet()) == ("gnp/p ingress[0]" if applies else None)


def test_a_namespace_is_selected_by_the_labels_of_its_profile() -> None:
    listed = NetworkSet("n", namespace="web", nets=Nets.of(["203.0.113.0/24"]))
    profiles = (Profile("kns.web", labels_to_apply={"pcns.env": "prod"}),)
    for scope, applies in (("env == 'prod'", True), ("env == 'test'", False), ("has(env) && all()", True)):
        rule = Rule(Action.DENY, source=EntityRule(namespace_selector=scope))
        given = resources(policy("p", rule), network_sets=(listed,), global_network_sets=(), profiles=profiles)
        assert denied_by(given, packet()) == ("gnp/p ingress[0]" if applies else None), scope


# -- egress ------------------------------------------------------------------------------------------------------------


def egress(*rules: Rule, **felix: Any) -> Policy:
    given = resources(
        policy("p", ANY, egress=rules, types=("Ingress", "Egress")),
        felix_configurations=(
            FelixConfiguration("default", **({"failsafe_inbound": (), "failsafe_outbound": ()} | felix)),
        ),
    )
    addresses = [ip_address(ME4)]
    return Policy.of(given, node="jasper", interface="eth0", addresses=addresses, direction=Direction.EGRESS)


def sent(destination: str, *, sport: int = 1024, dport: int = 80) -> MatchKey:
    buf = sport.to_bytes(2, "big") + dport.to_bytes(2, "big") + bytes(16)
    return MatchKey(4, ip_address(ME4), ip_address(destination), Transport(TCP, 20, buf))


def test_egress_rules_are_evaluated_for_sent_packets() -> None:
    found = egress(Rule(Action.DENY, destination=EntityRule(selector="list == 'deny'"))).decide(sent(LISTED))
    assert (found.verdict, found.decided_by and found.decided_by.name) == (Verdict.DENY, "gnp/p egress[0]")
    allowed = egress(Rule(Action.DENY, source=EntityRule(selector="list == 'deny'"))).decide(sent(LISTED))
    assert allowed.verdict is Verdict.GO_ON


def test_outbound_failsafes_by_destination_port_and_answers_to_inbound_ones_by_source_port() -> None:
    away = ip_network("203.0.113.0/24")
    rules = egress(
        ANY, failsafe_outbound=(Failsafe(TCP, 53, away),), failsafe_inbound=(Failsafe(TCP, 22, away),)
    )  # fmt: skip
    goes_on = {"dport 53": sent(LISTED, dport=53), "sport 22": sent(LISTED, sport=22)}
    denied = {
        "dport 22": sent(LISTED, dport=22),
        "sport 53": sent(LISTED, sport=53),
        "elsewhere": sent(OTHER, dport=53),
    }
    assert {name for name, seen in goes_on.items() if rules.decide(seen).verdict is Verdict.GO_ON} == set(goes_on)
    assert {name for name, seen in denied.items() if rules.decide(seen).verdict is Verdict.DENY} == set(denied)


# -- consequences of an Allow ------------------------------------------------------------------------------------------


def hops(given: Resources, frame: bytes) -> dict[str, tuple[str, str]]:
    return {str(hop.stage): (hop.result, hop.note) for hop in trace(given, frame).hops}


def test_after_an_allow_nothing_is_tracked_and_later_tables_accept() -> None:
    found = hops(resources(policy("p", Rule(Action.ALLOW))), packet())
    assert found["conntrack"][0] == "not tracked (NOTRACK in raw)"
    assert found["mangle"][0] == found["filter-input"][0] == "accepted at once: it has the accept mark"
    assert "no NAT" in found["nat"][0]
    other = hops(resources(policy("p", Rule(Action.PASS))), packet())
    assert {other[stage][0] for stage in ("conntrack", "mangle", "nat", "filter-input")} == {"passes"}
