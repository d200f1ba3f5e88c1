"""Hypothesis strategies for resources and hosts: everything that untracked policy can express, over few addresses,
ports and labels.

Names, labels and addresses come from small pools shared with :mod:`tests.support.frames`, so that selectors select,
tiers collide and rules match often. All generated resources are valid for Calico.

Each strategy is created once: Hypothesis takes longer to validate a new one than to draw from it.
"""

from __future__ import annotations

from functools import cache
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from hypothesis import strategies as st

from dossim.model.host import Host, Listener
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action
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
    Port,
    PortRange,
    Profile,
    Resources,
    Rule,
    Tier,
)
from tests.support.frames import ME4, ME6, PORTS, choice

NODE, INTERFACE = "jasper", "eth0"

LABEL_KEYS = ("role", "list")
LABEL_VALUES = ("deny", "host", "")
SELECTORS = (
    "all()", "list == 'deny'", "list != 'deny'", "has(role)", "!has(role)", "role in {'deny', 'host'}",
    "role == 'host'", "list == 'nothing'", "has(projectcalico.org/namespace)", "list starts with 'd' && !has(role)",
)  # fmt: skip
NETS4 = (
    "203.0.113.0/24", "203.0.113.7/32", "198.51.100.0/25", "192.0.2.0/24", "0.0.0.0/0", "10.10.10.0/24", "224.0.0.0/4",
    "10.10.10.10/32",
)  # fmt: skip
NETS6 = ("2001:db8::/32", "2001:db8::7/128", "2001:db8:bad::/48", "fd00::/64", "::/0", "ff00::/8", "fd00::10/128")
EXPECTED_IPS = (ME4, ME6, "192.0.2.33", "fd00::77")
FEW_NETS4, FEW_NETS6 = NETS4[:5], NETS6[:5]
ENTITY_PARTS = ("nets", "not_nets", "selector", "not_selector", "scope", "ports")
NAMESPACES = ("all()", "global()", "env == 'prod'", "has(env)", "env != 'prod'")
PORT_NAMES = ("http", "dns", "nowhere")
PROFILES = ("edge", "site", "nowhere")
TIERS = ("default", "security", "absent", "kube-admin", "kube-baseline")  # the last two exist without a document
DEFAULT_TIER = Tier("default", order=1_000_000.0)
ORDERS = (None, 1.0, 2.0, 10.0)


@cache
def hosts() -> st.SearchStrategy[Host]:
    """Hosts with the addresses that frames are sent to; some forward, some filter reverse paths."""
    return st.builds(
        Host,
        node=st.just(NODE),
        interface=st.just(INTERFACE),
        addresses=choice(
            (
                (ip_interface(f"{ME4}/24"), ip_interface(f"{ME6}/64")),
                (ip_interface(f"{ME4}/32"), ip_interface(f"{ME6}/128")),
                (ip_interface(f"{ME4}/31"),),
                (ip_interface(f"{ME6}/64"),),
            )
        ),
        forward=st.booleans(),
        routes=choice(((), (ip_network("192.0.2.0/24"), ip_network("2001:db8:5::/64")))),
        listen=st.just((Listener(6, 80), Listener(17, 9))),
        rp_filter=choice((0, 0, 0, 1, 2)),
        mtu=choice((1500, 1500, 1280)),
    )


@cache
def labels() -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(choice(LABEL_KEYS), choice(LABEL_VALUES))


@cache
def nets(pool: tuple[str, ...], *, max_size: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    some = st.lists(choice(pool), max_size=max_size, unique=True)
    return some.map(lambda found: tuple(map(ip_network, found)))


@cache
def port_ranges() -> st.SearchStrategy[PortRange]:
    return st.tuples(choice(PORTS), choice(PORTS)).map(lambda pair: PortRange(min(pair), max(pair)))


@cache
def ports(*, by_number: bool, max_size: int) -> st.SearchStrategy[tuple[Port, ...]]:
    """Ports of one side: names, and also numbers if the protocol has ports."""
    names: st.SearchStrategy[Port] = choice(PORT_NAMES).map(NamedPort)
    one = st.one_of(port_ranges(), port_ranges(), names) if by_number else names
    return st.lists(one, max_size=max_size, unique=True).map(tuple)


@cache
def failsafes() -> st.SearchStrategy[tuple[Failsafe, ...]]:
    one = st.builds(
        Failsafe,
        protocol=choice((6, 17, 132)),
        port=choice(PORTS),
        net=choice((None, None, ip_network("203.0.113.0/24"), ip_network("2001:db8::/32"))),
    )
    return st.lists(one, max_size=2).map(tuple)


@cache
@st.composite
def entity_rules(draw: st.DrawFn, *, family: int | None, has_ports: bool | None) -> EntityRule:
    """One side of a rule: empty, or with one to three fields.

    ``has_ports``: whether the protocol has ports; with False they are matched by name only, with None not at all.
    """
    parts = draw(st.sets(choice(ENTITY_PARTS), max_size=2))
    pool = NETS6 if family == 6 else NETS4
    fields: dict[str, Any] = {}
    if "nets" in parts and family:
        fields["nets"] = draw(nets(pool))
    if "not_nets" in parts and family:
        fields["not_nets"] = draw(nets(tuple(net for net in pool if not net.endswith("/0"))))
    if "selector" in parts:
        fields["selector"] = draw(choice(SELECTORS))
    if "not_selector" in parts:
        fields["not_selector"] = draw(choice(SELECTORS))
    if "scope" in parts:
        fields["namespace_selector"] = draw(choice(NAMESPACES))
    if "ports" in parts and has_ports is not None:
        fields["ports"] = draw(ports(by_number=has_ports, max_size=2))
        fields["not_ports"] = draw(ports(by_number=has_ports, max_size=1))
    return EntityRule(**fields)


@cache
@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """A rule of any kind; two of three are plain deny lists, as is common, which devices can hold too.

    One of eighteen has a named port of some endpoint: by chance alone, hundreds of policies would have none.
    """
    kind = draw(st.integers(0, 17))
    if kind == 17:
        named = EntityRule(selector="all()", ports=(NamedPort(draw(choice(PORT_NAMES[:2]))),))
        return Rule(draw(_mostly_deny()), protocol=draw(choice((None, 6, 17, 132))), destination=named)
    if kind < 12:
        family = draw(choice((4, 6)))
        listed = EntityRule(nets=draw(nets(FEW_NETS4 if family == 4 else FEW_NETS6, max_size=2)))
        selected = EntityRule(selector=draw(choice(SELECTORS[1:])))
        return Rule(draw(_mostly_deny()), source=draw(st.sampled_from((listed, selected))))
    protocol = draw(choice((None, None, 6, 17, 1, 58, 132, 253)))
    family = draw(choice((None, 4, 6)))
    # The name ICMP or ICMPv6 limits a rule to its family; the number does only if the rule matches on types.
    of_icmp = {1: 4, 58: 6}.get(protocol or 0)
    by_name = of_icmp is not None and draw(st.booleans())
    family = of_icmp if by_name else family
    is_icmp = of_icmp is not None and family in (None, of_icmp)
    icmp = choice((None, IcmpMatch(8), IcmpMatch(8, 0), IcmpMatch(3, 1), IcmpMatch(2), IcmpMatch()))
    has_ports = None if protocol not in (None, 6, 17, 132) else protocol is not None
    sides = entity_rules(family=family, has_ports=has_ports)
    return Rule(
        draw(choice(tuple(Action))),
        ip_version=family if by_name else draw(choice((None, None if of_icmp not in (None, family) else family))),
        protocol=protocol,
        not_protocol=draw(choice((None, None, 6, 17))),
        icmp=draw(icmp) if is_icmp else None,
        not_icmp=draw(icmp) if is_icmp else None,
        source=draw(sides),
        destination=draw(sides) if draw(st.integers(0, 3)) == 0 else EntityRule(),
    )


@cache
def _mostly_deny() -> st.SearchStrategy[Action]:
    return choice((*[Action.DENY] * 6, Action.ALLOW, Action.PASS, Action.LOG))


@cache
@st.composite
def policies(draw: st.DrawFn, number: int, *, egress: bool = False) -> GlobalNetworkPolicy:
    """``egress``: most have rules of this direction, where else one of ten has."""
    types = (
        (("Ingress",), ("Ingress", "Egress"), ("Egress",))
        if egress
        else (*[("Ingress",)] * 6, ("Ingress", "Egress"), ("Egress",))
    )
    untracked = draw(st.integers(0, 9)) > 0
    return GlobalNetworkPolicy(
        draw(choice((f"p{number}", f"p-{number}", f"p{number}-a", f"p.{number}", f"p0-{number}", f"p0.{number}"))),
        tier=draw(choice(TIERS)),
        order=draw(choice(ORDERS)),
        selector=draw(choice((*["all()", ""] * 8, *SELECTORS))),
        types=draw(choice(types)),
        ingress=tuple(draw(st.lists(rules(), min_size=1, max_size=3))),
        egress=tuple(draw(st.lists(rules(), min_size=egress, max_size=1 + egress))),
        do_not_track=untracked,
        apply_on_forward=untracked,
        namespace_selector=draw(choice((*[""] * 12, "all()", "!has(x)", "has(x)"))),
        service_account_selector=draw(choice((*[""] * 20, "all()", "!has(x)"))),
    )


@cache
@st.composite
def host_endpoints(draw: st.DrawFn, number: int) -> HostEndpoint:
    """The first (number 0) usually governs the interface; others may take it away."""
    nodes = (NODE,) if number == 0 else (NODE, "opal")
    interfaces = (*[INTERFACE] * 4, "*", "") if number == 0 else (INTERFACE, "", "*", "eth1")
    expected = draw(st.sets(choice(EXPECTED_IPS)))
    return HostEndpoint(
        f"h{draw(st.integers(0, 9))}{number}",
        labels=draw(labels()),
        node=draw(choice(nodes)),
        interface_name=draw(choice(interfaces if expected else tuple(name for name in interfaces if name))),
        expected_ips=tuple(map(ip_address, sorted(expected))),
        profiles=tuple(draw(st.lists(choice(PROFILES), max_size=2))),
        ports=tuple(draw(st.lists(endpoint_ports(), max_size=3))),
    )


@cache
def endpoint_ports() -> st.SearchStrategy[EndpointPort]:
    names, protocols = choice(PORT_NAMES[:2]), choice((6, 6, 17, 132))
    return st.builds(EndpointPort, names, protocols, choice(PORTS))


@cache
@st.composite
def profiles(draw: st.DrawFn) -> tuple[Profile, ...]:
    """The profiles that endpoints name, and that of the one namespace, whose labels have a prefix."""
    found = [Profile(name, labels_to_apply=draw(labels())) for name in PROFILES[:2]]
    if draw(st.booleans()):
        env = draw(choice(("prod", "test")))
        found.append(Profile("kns.web", labels_to_apply={"pcns.env": env, **draw(labels())}))
    return tuple(found)


@cache
def tiers() -> st.SearchStrategy[tuple[Tier, ...]]:
    """The existing tiers: the default one explicit or not; another before it, after it or of equal order, or none."""
    security = st.builds(Tier, st.just("security"), order=choice((1.0, 10.0, 1_000_000.0, 2_000_000.0)))
    both = st.tuples(st.sampled_from(((), (DEFAULT_TIER,))), st.lists(security, max_size=1))
    return both.map(lambda found: (*found[0], *found[1]))


@cache
def set_nets() -> st.SearchStrategy[Nets]:
    return st.lists(choice(NETS4 + NETS6), max_size=4).map(Nets.of)


@cache
@st.composite
def resources(draw: st.DrawFn, *, egress: bool = False) -> Resources:
    """Everything that the policy of :data:`NODE` can consist of. ``egress``: as of :func:`policies`."""
    felix = FelixConfiguration(
        "default",
        failsafe_inbound=draw(failsafes()),
        failsafe_outbound=draw(failsafes()),
        written=frozenset({"failsafe_inbound", "failsafe_outbound"}),
    )
    some_sets = range(draw(st.integers(0, 3)))
    return Resources(
        host_endpoints=tuple(draw(host_endpoints(n)) for n in range(draw(st.integers(1, 3)))),
        global_network_sets=tuple(
            GlobalNetworkSet(f"g{n}", labels=draw(labels()), nets=draw(set_nets())) for n in some_sets
        ),
        network_sets=tuple(
            NetworkSet(f"n{n}", labels=draw(labels()), namespace="web", nets=draw(set_nets()))
            for n in range(draw(st.integers(0, 1)))
        ),
        policies=tuple(draw(policies(n, egress=egress)) for n in range(draw(st.integers(1, 4)))),
        tiers=draw(tiers()),
        profiles=draw(profiles()),
        felix_configurations=draw(st.sampled_from(((), (felix,), (felix,), (felix,)))),
    )
