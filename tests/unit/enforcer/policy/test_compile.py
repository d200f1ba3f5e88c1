"""compile_table: order, selectors, sets, families, failsafes, and what it refuses."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from enforcer.model.errors import Position, UnsupportedRuleError
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action, Direction, Side
from enforcer.policy.compile import Compiler, compile_table, compile_tracked
from enforcer.policy.conditions import Icmp, InNets, Protocol
from enforcer.policy.load import load_text
from enforcer.policy.resources import (
    EndpointPort,
    EntityRule,
    Failsafe,
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    NamedPort,
    NetworkSet,
    PortRange,
    Profile,
    Resources,
    Rule,
    Tier,
)
from enforcer.policy.ruletable import IpSet, RuleTable
from enforcer.policy.selector import parse
from enforcer.policy.tracked import Hook
from tests.support.entries import SideMatch, said_by
from tests.unit.enforcer.policy.documents import HOW_TO
from tests.unit.enforcer.policy.documents import rule as read_rule

DENY = Rule(Action.DENY)
ENDPOINT = HostEndpoint("hep", {"role": "edge"}, node="jasper", interface_name="eth0")


def gnp(name: str, *rules: Rule, **fields: Any) -> GlobalNetworkPolicy:
    untracked: dict[str, Any] = {"do_not_track": True, "apply_on_forward": True, "ingress": rules or (DENY,)}
    return GlobalNetworkPolicy(name, **untracked | fields)


def table(*items: Any, interface: str = "eth0", addresses: tuple[str, ...] = ()) -> RuleTable:
    everything = (ENDPOINT, *items)

    def of(kind: type) -> tuple[Any, ...]:
        return tuple(item for item in everything if type(item) is kind)

    resources = Resources(
        of(HostEndpoint),
        of(GlobalNetworkSet),
        of(NetworkSet),
        of(GlobalNetworkPolicy),
        of(Tier),
        of(Profile),
        of(FelixConfiguration),
    )
    return compile_table(
        resources, node="jasper", interface=interface, addresses=[ip_address(item) for item in addresses]
    )


def names(found: RuleTable) -> list[str]:
    return [entry.name for entry in found.ingress]


def test_the_how_to_compiles_to_one_entry() -> None:
    found = compile_table(load_text(HOW_TO, "dos.yaml"), node="jasper", interface="eth0")
    (entry,) = found.ingress
    assert found.endpoint == "production-host"
    assert found.egress == ()
    assert (entry.name, entry.action, entry.position) == (
        "gnp/dos-mitigation ingress[0]",
        Action.DENY,
        Position("dos.yaml", 34, 7),
    )
    (ip_set,) = found.sets.values()
    assert said_by(entry).source == SideMatch(ip_set=ip_set.id)
    assert ip_set.id == parse("dos-deny-list == 'true'").uid
    assert ip_set.selector == 'dos-deny-list == "true"'
    assert ip_set.nets == Nets.of(["203.0.113.0/24", "2001:db8::/32"])
    assert ip_set.members == ("gns/dos-mitigation",)


ORDERS: list[tuple[str, list[Any], list[str]]] = [
    ("by order, none last, then by name",
     [gnp("d"), gnp("c"), gnp("b", order=5.0), gnp("a", order=10.0)], ["b", "a", "c", "d"]),
    ("negative orders come first", [gnp("a", order=0.0), gnp("b", order=-1.0)], ["b", "a"]),
    ("tiers by order before policies by order",
     [gnp("a", order=1.0), gnp("b", order=2.0, tier="t"), Tier("t", order=10.0)], ["b", "a"]),
    ("the default tier has order 1000000",
     [gnp("a"), gnp("b", tier="late"), Tier("late", order=1_000_001.0), gnp("c", tier="soon"), Tier("soon",
      order=999_999.0)],
     ["c", "a", "b"]),
    ("equal orders of tiers: by name", [gnp("a", tier="u"), gnp("b", tier="t"), Tier("u", order=1.0), Tier("t",
     order=1.0)],
     ["b", "a"]),
    ("a tier without order after those with one", [gnp("a", tier="n"), gnp("b", tier="t"), Tier("n"), Tier("t",
     order=2e6)],
     ["b", "a"]),
    ("a name that begins with another: '-' and '.' are before '/'",
     [gnp("dos"), gnp("dos-x"), gnp("dos.x"), gnp("dos0")], ["dos-x", "dos.x", "dos", "dos0"]),
    ("kube-admin and kube-baseline are there without a document",
     [gnp("a"), gnp("b", tier="kube-baseline"), gnp("c", tier="kube-admin"), gnp("d", tier="no")],
     ["c", "a", "b", "d"]),
    ("tiers that are not defined last, by name", [gnp("a", tier="no"), gnp("b", tier="na"), gnp("c", tier="n"),
     Tier("n")],
     ["c", "b", "a"]),
]  # fmt: skip


@pytest.mark.parametrize(("items", "order"), [row[1:] for row in ORDERS], ids=[row[0] for row in ORDERS])
def test_entries_are_in_evaluation_order(items: list[Any], order: list[str]) -> None:
    assert names(table(*items)) == [f"gnp/{name} ingress[0]" for name in order]


def test_rules_keep_their_order_and_index() -> None:
    found = table(gnp("a", Rule(Action.LOG), Rule(Action.PASS), Rule(Action.ALLOW)))
    assert [(entry.index, entry.action) for entry in found.ingress] == [
        (0, Action.LOG),
        (1, Action.PASS),
        (2, Action.ALLOW),
    ]


SELECTS: list[tuple[str, dict[str, Any], bool]] = [
    ("an empty selector selects all", {}, True),
    ("its labels", {"selector": "role == 'edge'"}, True),
    ("other labels", {"selector": "role == 'core'"}, False),
    ("a policy that is not untracked", {"do_not_track": False}, False),
    ("preDNAT policy", {"do_not_track": False, "pre_dnat": True}, False),
    ("a policy for egress alone", {"types": ("Egress",)}, False),
    ("all namespaces: a host is in none", {"namespace_selector": "all()"}, False),
    ("all namespaces, said twice", {"selector": "all()", "namespace_selector": "all()"}, False),
    ("namespaces with a label", {"namespace_selector": "role == 'edge'"}, False),
    ("namespaces without a label", {"namespace_selector": "role != 'edge'"}, True),
    ("service accounts with a label", {"service_account_selector": "has(role)"}, False),
    ("service accounts without a label", {"service_account_selector": "!has(role)"}, True),
]


@pytest.mark.parametrize(("fields", "selected"), [row[1:] for row in SELECTS], ids=[row[0] for row in SELECTS])
def test_which_policies_apply(fields: dict[str, Any], selected: bool) -> None:
    assert names(table(gnp("a", **fields))) == (["gnp/a ingress[0]"] if selected else [])


def test_types_decide_directions_whatever_rules_there_are() -> None:
    found = table(gnp("a", egress=(DENY, DENY), types=("Egress",)))
    assert found.ingress == ()
    assert [(entry.name, entry.direction) for entry in found.egress] == [
        ("gnp/a egress[0]", Direction.EGRESS),
        ("gnp/a egress[1]", Direction.EGRESS),
    ]


def test_without_a_governing_endpoint_the_table_is_empty() -> None:
    assert table(gnp("a"), interface="eth1") == RuleTable("eth1")


def test_the_endpoint_may_be_found_by_address() -> None:
    endpoint = HostEndpoint("a", node="jasper", expected_ips=(ip_address("10.0.0.1"),))
    assert table(endpoint, gnp("a"), interface="eth7", addresses=("10.0.0.1",)).endpoint == "a"


# --- selectors of rules -----------------------------------------------------------------------------------------------

SETS = (
    GlobalNetworkSet("g1", {"deny": "yes"}, nets=Nets.of(["192.0.2.0/24"])),
    GlobalNetworkSet("g2", {"deny": "yes", "trusted": "yes"}, nets=Nets.of(["198.51.100.0/24", "192.0.2.0/24"])),
    NetworkSet("n1", {"deny": "yes"}, namespace="team", nets=Nets.of(["203.0.113.0/24"])),
    HostEndpoint("ruby", {"deny": "yes"}, node="ruby", interface_name="eth0", expected_ips=(ip_address("10.0.0.9"),)),
)
G1, G2, N1, RUBY = "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "10.0.0.9/32"

RESOLVED: list[tuple[str, EntityRule, str | None, str | None, list[str]]] = [
    ("no selector, no set", EntityRule(), None, None, []),
    ("sets of all kinds, and HostEndpoints of all nodes", EntityRule(selector="has(deny)"), "has(deny)", None,
     [G1, G2, N1, RUBY]),
    ("nothing matches: an empty set", EntityRule(selector="has(nothing)"), "has(nothing)", None, []),
    ("a namespaced set has its namespace as label", EntityRule(selector="projectcalico.org/namespace == 'team'"),
     'projectcalico.org/namespace == "team"', None, [N1]),
    ("both selectors make one set", EntityRule(selector="has(deny)", not_selector="has(trusted)"),
     "(has(deny) && !has(trusted))", None, [G1, N1, RUBY]),
    ("a negated selector alone is a negated set", EntityRule(not_selector="has(trusted)"), None, "has(trusted)", [G1,
     G2]),
    ("namespaceSelector all() is: in some namespace", EntityRule(selector="has(deny)", namespace_selector="all()"),
     "(has(projectcalico.org/namespace) && has(deny))", None, [N1]),
    ("namespaceSelector global() is: in none", EntityRule(selector="has(deny)", namespace_selector="global()"),
     "(!has(projectcalico.org/namespace) && has(deny))", None, [G1, G2, RUBY]),
    ("namespaceSelector alone", EntityRule(namespace_selector="all()"), "has(projectcalico.org/namespace)", None, [N1]),
    ("all three", EntityRule(selector="has(deny)", not_selector="has(trusted)", namespace_selector="global()"),
     "((!has(projectcalico.org/namespace) && has(deny)) && !has(trusted))", None, [G1, RUBY]),
    ("namespaceSelector narrows a negated selector", EntityRule(not_selector="has(deny)", namespace_selector="all()"),
     "(has(projectcalico.org/namespace) && !has(deny))", None, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("entity", "positive", "negative", "nets"), [row[1:] for row in RESOLVED], ids=[row[0] for row in RESOLVED]
)
@pytest.mark.parametrize("side", ["source", "destination"])
def test_selectors_become_sets(
    entity: EntityRule, positive: str | None, negative: str | None, nets: list[str], side: str
) -> None:
    found = table(*SETS, gnp("a", Rule(Action.DENY, **{side: entity})))  # type: ignore[arg-type]  # of several types
    match = getattr(said_by(found.ingress[0]), side)
    sets = {None: None} | {uid: ip_set.selector for uid, ip_set in found.sets.items()}
    assert (sets[match.ip_set], sets[match.not_ip_set]) == (positive, negative)
    assert [ip_set.nets for ip_set in found.sets.values()] == ([Nets.of(nets)] if positive or negative else [])


def test_rules_with_the_same_selector_share_a_set_that_names_its_members() -> None:
    selected = Rule(Action.DENY, source=EntityRule(selector="deny == 'yes'"))
    respelled = Rule(Action.DENY, source=EntityRule(selector='(deny=="yes")'))
    found = table(*SETS, gnp("a", selected, respelled), gnp("b", selected))
    assert len(found.sets) == 1
    assert found.sets[parse("deny == 'yes'").uid].members == ("gns/g1", "gns/g2", "ns/team/n1", "hep/ruby")


FAMILIES = [
    ("written", "{action: Deny, ipVersion: 6}", (6,)),
    ("of its nets", "{action: Deny, source: {nets: [10.0.0.0/8]}}", (4,)),
    ("of its negated nets", "{action: Deny, destination: {notNets: ['fd00::/8']}}", (6,)),
    ("of ICMP", "{action: Deny, protocol: ICMP}", (4,)),
    ("of ICMPv6", "{action: Deny, protocol: ICMPv6, icmp: {type: 128}}", (6,)),
    ("not of what it is not", "{action: Deny, notProtocol: ICMP}", (4, 6)),
    ("of both", "{action: Deny, protocol: TCP, source: {selector: has(deny)}}", (4, 6)),
    ("of none: protocol and notProtocol are the same", "{action: Deny, protocol: TCP, notProtocol: 6}", ()),
]


@pytest.mark.parametrize(("text", "families"), [row[1:] for row in FAMILIES], ids=[row[0] for row in FAMILIES])
def test_the_families_of_an_entry(text: str, families: tuple[int, ...]) -> None:
    assert table(*SETS, gnp("a", read_rule(text))).ingress[0].families == families


def test_everything_else_of_a_rule_is_kept() -> None:
    text = """{action: Allow, protocol: ICMP, notProtocol: 2, icmp: {type: 3, code: 1}, notICMP: {type: 8},
        source: {nets: [10.0.0.0/8], notNets: [10.1.0.0/16]}}"""
    rule = read_rule(text)
    entry = table(gnp("a", rule, tier="t")).ingress[0]
    assert (entry.tier, entry.policy, entry.families) == ("t", "a", (4,))
    assert entry.conditions == (
        Protocol(1),
        Protocol(2, negated=True),
        InNets(Side.SOURCE, rule.source.nets),
        InNets(Side.SOURCE, rule.source.not_nets, negated=True),
        Icmp(3, 1),
        Icmp(8, negated=True),
    )
    ports = read_rule("{action: Deny, protocol: TCP, destination: {ports: [80, '90:99'], notPorts: [95]}}")
    assert said_by(table(gnp("a", ports)).ingress[0]).destination == SideMatch(
        ports=(PortRange(80, 80), PortRange(90, 99)), not_ports=(PortRange(95, 95),)
    )


def test_failsafes_are_those_of_the_node() -> None:
    default = FelixConfiguration("default", failsafe_inbound=(Failsafe(6, 1),))
    own = FelixConfiguration("node.jasper", failsafe_inbound=(Failsafe(6, 2),), failsafe_outbound=())
    assert table(gnp("a"), default).failsafe_inbound == (Failsafe(6, 1),)
    assert table(gnp("a"), default).failsafe_outbound == FelixConfiguration("").failsafe_outbound
    assert table(gnp("a"), default, own).failsafe_inbound == (Failsafe(6, 2),)
    assert table(gnp("a"), default, own).failsafe_outbound == ()


# --- profiles and named ports -----------------------------------------------------------------------------------------


def test_an_endpoint_inherits_labels_from_its_profiles_its_own_and_the_first_profiles_win() -> None:
    endpoint = HostEndpoint(
        "a", {"own": "1"}, node="jasper", interface_name="eth1", profiles=("first", "second", "not-there")
    )
    first = Profile("first", labels_to_apply={"own": "2", "shared": "first"})
    second = Profile("second", labels_to_apply={"shared": "second", "more": "second"})
    other = Profile("other", labels_to_apply={"more": "other"})
    wanted = gnp("p", selector="own == '1' && shared == 'first' && more == 'second'")
    assert names(table(endpoint, first, second, other, wanted, interface="eth1")) == ["gnp/p ingress[0]"]
    assert names(table(endpoint, first, other, wanted, interface="eth1")) == []


@pytest.mark.parametrize("known", [True, False], ids=["a profile", "a name without a profile"])
def test_a_profile_that_an_endpoint_names_twice_is_evaluated_once(known: bool) -> None:
    """Its counters would count each packet twice, because entries are counted by name."""
    endpoint = HostEndpoint("a", node="jasper", interface_name="eth0", profiles=("twice", "twice"))
    profiles = (Profile("twice", ingress=(DENY,)),) if known else ()
    found = compile_tracked(Resources((endpoint,), profiles=profiles), node="jasper", interface="eth0")
    chain = found.at(Hook.INPUT) if found else None
    assert chain is not None
    assert [profile.name for profile in chain.profiles] == ["twice"]


def test_a_namespace_is_selected_by_the_labels_of_its_profile() -> None:
    items = (
        NetworkSet("inside", namespace="web", nets=Nets.of(["198.51.100.0/24"])),
        NetworkSet("outside", namespace="db", nets=Nets.of(["192.0.2.0/24"])),
        GlobalNetworkSet("global", nets=Nets.of(["203.0.113.0/24"])),
        Profile("kns.web", labels_to_apply={"pcns.env": "prod"}),
        Profile("kns.db", labels_to_apply={"pcns.env": "test", "env": "prod"}),
    )

    def members(scope: str) -> set[str]:
        found = table(*items, gnp("p", Rule(Action.DENY, source=EntityRule(namespace_selector=scope))))
        (ip_set,) = found.sets.values()
        return set(ip_set.members)

    assert members("env == 'prod'") == {"ns/web/inside"}
    assert members("has(env)") == {"ns/web/inside", "ns/db/outside"}
    assert members("env != 'prod'") == {"ns/db/outside", "gns/global"}
    assert members("all()") == {"ns/web/inside", "ns/db/outside"}
    assert members("global()") == {"gns/global"}


WEB = HostEndpoint(
    "web",
    {"role": "web"},
    node="opal",
    interface_name="eth0",
    expected_ips=(ip_address("192.0.2.1"), ip_address("2001:db8::1")),
    ports=(EndpointPort("http", 6, 80), EndpointPort("http", 17, 8080), EndpointPort("admin", 6, 22)),
)


def named(protocol: int | None = None, **entity: Any) -> RuleTable:
    return table(WEB, gnp("p", Rule(Action.DENY, protocol=protocol, destination=EntityRule(**entity))))


@pytest.mark.parametrize(("protocol", "port"), [(6, 80), (17, 8080), (132, None)], ids=["TCP", "UDP", "none"])
def test_a_named_port_stands_for_the_endpoints_that_have_it(protocol: int | None, port: int | None) -> None:
    found = named(protocol, ports=(NamedPort("http"),))
    ((identity, port_set),) = found.port_sets.items()
    assert said_by(found.ingress[0]).destination == SideMatch(named_ports=(identity,))
    assert port_set.protocol == protocol
    assert port_set.members == (tuple((address, port) for address in WEB.expected_ips) if port else ())


def test_a_named_port_without_protocol_is_that_of_every_protocol() -> None:
    found = named(ports=(NamedPort("http"),))
    assert [(item.protocol, {port for _, port in item.members}) for item in found.port_sets.values()] == [
        (6, {80}),
        (17, {8080}),
    ]
    assert said_by(found.ingress[0]).destination == SideMatch(named_ports=tuple(found.port_sets))
    only_tcp = named(ports=(NamedPort("admin"),))
    assert [item.protocol for item in only_tcp.port_sets.values()] == [6]
    nobody = named(ports=(NamedPort("nowhere"),))
    assert [(item.protocol, item.members) for item in nobody.port_sets.values()] == [(6, ())]


def test_the_id_of_a_named_port_is_calicos() -> None:
    digest = hashlib.sha224(f"n:{parse('all()').uid},tcp,http".encode()).digest()
    assert list(named(6, ports=(NamedPort("http"),)).port_sets) == [
        "n:" + base64.urlsafe_b64encode(digest).decode().rstrip("=")
    ]


def test_a_named_port_takes_the_selectors_place_unless_there_are_numbers_too() -> None:
    alone = destination_of(named(6, ports=(NamedPort("http"),), selector="role == 'web'"))
    assert alone.ip_set is None
    assert len(alone.named_ports) == 1
    both = said_by(
        named(6, ports=(NamedPort("http"), PortRange(1, 2)), selector="role == 'web'").ingress[0]
    ).destination
    assert both.ip_set == parse("role == 'web'").uid
    assert both.named_ports == alone.named_ports
    assert both.ports == (PortRange(1, 2),)


def test_a_named_port_is_looked_for_where_the_selector_looks() -> None:
    def count(**entity: Any) -> list[int]:
        return [len(item.members) for item in named(6, ports=(NamedPort("http"),), **entity).port_sets.values()]

    assert count(selector="role == 'db'") == [0]
    assert count(selector="role == 'web'", not_selector="role == 'web'") == [0]
    assert count(not_selector="role == 'web'") == [2]  # a separate match that the rule has in addition


def destination_of(found: RuleTable) -> SideMatch:
    return said_by(found.ingress[0]).destination


def test_a_negated_named_port() -> None:
    found = said_by(
        named(6, not_ports=(NamedPort("http"), NamedPort("http"), NamedPort("nowhere"))).ingress[0]
    ).destination
    assert len(found.not_named_ports) == 2
    assert found.ports == found.not_ports == found.named_ports == ()


# --- compiling again --------------------------------------------------------------------------------------------------


def test_only_what_depends_on_a_changed_set_is_put_together_again() -> None:
    def state(*cidrs: str) -> Resources:
        sets = (
            GlobalNetworkSet("one", {"list": "one"}, nets=Nets.of(cidrs)),
            GlobalNetworkSet("two", {"list": "two"}, nets=Nets.of(["198.51.100.0/24"])),
            GlobalNetworkSet("three", {"list": "three"}, nets=Nets.of(["192.0.2.0/24"])),
        )
        rules = [
            Rule(Action.DENY, source=EntityRule(selector=text))
            for text in ("list == 'one'", "list == 'two'", "list in {'one', 'two'}", "list in {'two', 'three'}")
        ]
        return Resources((ENDPOINT,), sets, policies=(gnp("p", *rules),))

    compiler = Compiler()

    def compiled(resources: Resources) -> list[IpSet]:
        found = compiler.compile(resources, node="jasper", interface="eth0")
        assert found == compile_table(resources, node="jasper", interface="eth0")
        return [found.sets[said_by(entry).source.ip_set or ""] for entry in found.ingress]

    before = compiled(state("203.0.113.0/24"))
    same = compiled(state("203.0.113.0/24"))
    assert [new is old for new, old in zip(same, before, strict=True)] == [True, True, True, True]
    after = compiled(state("203.0.113.0/25"))
    assert [new is old for new, old in zip(after, before, strict=True)] == [False, True, False, True]
    assert after[0].nets == Nets.of(["203.0.113.0/25"])


def test_the_same_resources_give_the_same_table() -> None:
    """By identity: renderings are kept as long as the table is the same."""
    resources, compiler = load_text(HOW_TO), Compiler()
    where = {"node": "jasper", "interface": "eth0"}
    first = compiler.compile(resources, **where)
    assert compiler.compile(resources, **where) is first
    assert compiler.compile(resources, node="another", interface="eth0") != first
    changed = replace(resources, policies=())
    assert not compiler.compile(changed, **where).ingress
    assert compiler.compile(resources, **where) == first


def test_a_set_that_gains_or_loses_a_member_is_put_together_again() -> None:
    one = GlobalNetworkSet("one", {"list": "deny"}, nets=Nets.of(["203.0.113.0/24"]))
    two = GlobalNetworkSet("two", {"list": "deny"}, nets=Nets.of(["198.51.100.0/24"]))
    policy = gnp("p", Rule(Action.DENY, source=EntityRule(selector="list == 'deny'")))
    compiler = Compiler()
    for sets in ((one,), (one, two), (two,), (), (one, two)):
        found = compiler.compile(Resources((ENDPOINT,), sets, policies=(policy,)), node="jasper", interface="eth0")
        (ip_set,) = found.sets.values()
        assert ip_set.nets == Nets.union([item.nets for item in sets])


# --- what cannot be expressed -----------------------------------------------------------------------------------------

UNSUPPORTED: list[tuple[str, Rule, str]] = [
    ("services", Rule(Action.DENY, source=EntityRule(services={"name": "a"})), "source.services"),
    ("service accounts", Rule(Action.DENY, source=EntityRule(service_accounts={"names": ()})),
     "source.serviceAccounts"),
    ("http", Rule(Action.ALLOW, http={}), "http: "),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "what"), [row[1:] for row in UNSUPPORTED], ids=[row[0] for row in UNSUPPORTED])
def test_what_cannot_be_expressed_is_refused(rule: Rule, what: str) -> None:
    with pytest.raises(UnsupportedRuleError) as caught:
        table(gnp("a", rule))
    assert str(caught.value).startswith("<inline>: gnp/a ingress[0]: untracked policy cannot be enforced with ")
    assert what in str(caught.value)


def test_all_rules_that_cannot_be_expressed_are_listed_with_their_places() -> None:
    bad = [Rule(Action.ALLOW, http={}, position=Position("x.yaml", line, 5)) for line in (7, 9)]
    with pytest.raises(UnsupportedRuleError) as caught:
        table(gnp("a", bad[0], DENY, bad[1]), gnp("b", DENY, egress=(bad[0],), types=("Ingress", "Egress")))
    assert [line.split(": untracked")[0] for line in str(caught.value).splitlines()] == [
        "x.yaml:7:5: gnp/a ingress[0]",
        "x.yaml:9:5: gnp/a ingress[2]",
        "x.yaml:7:5: gnp/b egress[0]",
    ]


def test_rules_of_policies_that_do_not_apply_are_ignored() -> None:
    assert names(table(gnp("a", Rule(Action.ALLOW, http={}), do_not_track=False), gnp("b"))) == ["gnp/b ingress[0]"]


def test_tracked_policies_that_select_the_endpoint_are_named_with_the_hooks_calico_enforces_them_at() -> None:
    def tracked(name: str, **fields: Any) -> GlobalNetworkPolicy:
        return gnp(name, **{"do_not_track": False, "apply_on_forward": False} | fields)

    found = table(
        gnp("untracked"),
        tracked("d", types=("Egress",)),
        tracked("c", apply_on_forward=True, types=("Ingress", "Egress")),
        tracked("b", pre_dnat=True, apply_on_forward=True),
        tracked("a"),
        tracked("other", selector="role == 'db'"),
    )
    assert {item.name: item.hooks for item in found.tracked} == {
        "gnp/a": ("filter INPUT",),
        "gnp/b": ("mangle PREROUTING",),
        "gnp/c": ("filter INPUT", "filter OUTPUT", "filter FORWARD"),
        "gnp/d": ("filter OUTPUT",),
    }
    assert names(found) == ["gnp/untracked ingress[0]"]
