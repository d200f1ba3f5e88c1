"""Hypothesis strategies for resources and hosts: everything that untracked policy can express, over few addresses,
ports and labels.

Names, labels and addresses come from small pools shared with :mod:`tests.support.frames`, so that selectors select,
tiers collide and rules match often. All generated resources are valid for Calico.

They are made of :class:`tests.support.choices.Choices`.
"""

from __future__ import annotations

from functools import cache, partial
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
from tests.support.choices import Choices, built
from tests.support.frames import ME4, ME6, PORTS

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


# What a host may have.
ADDRESSES = (
    (ip_interface(f"{ME4}/24"), ip_interface(f"{ME6}/64")),
    (ip_interface(f"{ME4}/32"), ip_interface(f"{ME6}/128")),
    (ip_interface(f"{ME4}/31"),),
    (ip_interface(f"{ME6}/64"),),
)
ROUTES = ((), (ip_network("192.0.2.0/24"), ip_network("2001:db8:5::/64")))
LISTENERS = (Listener(6, 80), Listener(17, 9))
FAILSAFE_NETS = (None, None, ip_network("203.0.113.0/24"), ip_network("2001:db8::/32"))

INGRESS, BOTH, EGRESS = ("Ingress",), ("Ingress", "Egress"), ("Egress",)
MOSTLY_DENY = (*[Action.DENY] * 6, Action.ALLOW, Action.PASS, Action.LOG)
ICMP_MATCHES = (None, IcmpMatch(8), IcmpMatch(8, 0), IcmpMatch(3, 1), IcmpMatch(2), IcmpMatch())

_network = cache(ip_network)


@cache
def hosts() -> st.SearchStrategy[Host]:
    """Hosts with the addresses that frames are sent to; some forward, some filter reverse paths."""
    return built(_host, 8)


@cache
def rules() -> st.SearchStrategy[Rule]:
    """As :func:`rule_of`."""
    return built(rule_of, 32)


@cache
def resources(*, egress: bool = False) -> st.SearchStrategy[Resources]:
    """Everything that the policy of :data:`NODE` can consist of. ``egress``: most policies have rules of that direction
    too, where else one of ten has.
    """
    return built(partial(resources_of, egress=egress), 272)


def _host(choices: Choices) -> Host:
    return Host(
        NODE,
        INTERFACE,
        addresses=choices.of(ADDRESSES),
        forward=choices.one_in(2),
        routes=choices.of(ROUTES),
        listen=LISTENERS,
        rp_filter=choices.of((0, 0, 0, 1, 2)),
        mtu=choices.of((1500, 1500, 1280)),
    )


def resources_of(choices: Choices, *, egress: bool = False) -> Resources:
    felix = FelixConfiguration(
        "default",
        failsafe_inbound=_failsafes(choices),
        failsafe_outbound=_failsafes(choices),
        written=frozenset({"failsafe_inbound", "failsafe_outbound"}),
    )
    return Resources(
        host_endpoints=tuple(_host_endpoint(choices, number) for number in range(1 + choices.below(3))),
        global_network_sets=tuple(
            GlobalNetworkSet(f"g{number}", labels=_labels(choices), nets=_set_nets(choices))
            for number in range(choices.below(4))
        ),
        network_sets=tuple(
            NetworkSet(f"n{number}", labels=_labels(choices), namespace="web", nets=_set_nets(choices))
            for number in range(choices.below(2))
        ),
        policies=tuple(_policy(choices, number, egress) for number in range(1 + choices.below(4))),
        tiers=_tiers(choices),
        profiles=_profiles(choices),
        felix_configurations=(felix,) if choices.below(4) else (),
    )


def _failsafes(choices: Choices) -> tuple[Failsafe, ...]:
    def one() -> Failsafe:
        return Failsafe(protocol=choices.of((6, 17, 132)), port=choices.of(PORTS), net=choices.of(FAILSAFE_NETS))

    return tuple(choices.some(one, 0, 2))


def _labels(choices: Choices) -> dict[str, str]:
    return {key: choices.of(LABEL_VALUES) for key in choices.among(LABEL_KEYS)}


def _set_nets(choices: Choices) -> Nets:
    return Nets.of(choices.some(partial(choices.of, NETS4 + NETS6), 0, 4))


def _tiers(choices: Choices) -> tuple[Tier, ...]:
    """The existing tiers: the default one explicit or not; another before it, after it or of equal order, or none."""
    found = (DEFAULT_TIER,) * choices.below(2)
    if choices.below(2):
        found += (Tier("security", order=choices.of((1.0, 10.0, 1_000_000.0, 2_000_000.0))),)
    return found


def _profiles(choices: Choices) -> tuple[Profile, ...]:
    """The profiles that endpoints name, and that of the one namespace, whose labels have a prefix."""
    found = [Profile(name, labels_to_apply=_labels(choices)) for name in PROFILES[:2]]
    if choices.below(2):
        env = choices.of(("prod", "test"))
        found.append(Profile("kns.web", labels_to_apply={"pcns.env": env, **_labels(choices)}))
    return tuple(found)


def _host_endpoint(choices: Choices, number: int) -> HostEndpoint:
    """The first (number 0) usually governs the interface; others may take it away."""
    nodes = (NODE,) if number == 0 else (NODE, "opal")
    interfaces = (*[INTERFACE] * 4, "*", "") if number == 0 else (INTERFACE, "", "*", "eth1")
    expected = choices.among(EXPECTED_IPS)
    return HostEndpoint(
        f"h{choices.below(10)}{number}",
        labels=_labels(choices),
        node=choices.of(nodes),
        interface_name=choices.of(interfaces if expected else tuple(name for name in interfaces if name)),
        expected_ips=tuple(map(ip_address, sorted(expected))),
        profiles=tuple(choices.some(partial(choices.of, PROFILES), 0, 2)),
        ports=tuple(choices.some(partial(_endpoint_port, choices), 0, 3)),
    )


def _endpoint_port(choices: Choices) -> EndpointPort:
    return EndpointPort(choices.of(PORT_NAMES[:2]), choices.of((6, 6, 17, 132)), choices.of(PORTS))


def _policy(choices: Choices, number: int, egress: bool) -> GlobalNetworkPolicy:
    types = (INGRESS, BOTH, EGRESS) if egress else (*[INGRESS] * 6, BOTH, EGRESS)
    untracked = not choices.one_in(10)
    rule = partial(rule_of, choices)
    return GlobalNetworkPolicy(
        choices.of((f"p{number}", f"p-{number}", f"p{number}-a", f"p.{number}", f"p0-{number}", f"p0.{number}")),
        tier=choices.of(TIERS),
        order=choices.of(ORDERS),
        selector=choices.of((*["all()", ""] * 8, *SELECTORS)),
        types=choices.of(types),
        ingress=tuple(choices.some(rule, 1, 3)),
        egress=tuple(choices.some(rule, int(egress), 1 + int(egress))),
        do_not_track=untracked,
        apply_on_forward=untracked,
        namespace_selector=choices.of((*[""] * 12, "all()", "!has(x)", "has(x)")),
        service_account_selector=choices.of((*[""] * 20, "all()", "!has(x)")),
    )


def rule_of(choices: Choices) -> Rule:
    """A rule of any kind; two of three are plain deny lists, as is common, which devices can hold too.

    One of eighteen has a named port of some endpoint: by chance alone, hundreds of policies would have none.
    """
    kind = choices.below(18)
    if kind == 17:
        named = EntityRule(selector="all()", ports=(NamedPort(choices.of(PORT_NAMES[:2])),))
        return Rule(choices.of(MOSTLY_DENY), protocol=choices.of((None, 6, 17, 132)), destination=named)
    if kind < 12:
        return Rule(choices.of(MOSTLY_DENY), source=_plain_list(choices))
    protocol = choices.of((None, None, 6, 17, 1, 58, 132, 253))
    family = choices.of((None, 4, 6))
    # The name ICMP or ICMPv6 limits a rule to its family; the number does only if the rule matches on types.
    of_icmp = {1: 4, 58: 6}.get(protocol or 0)
    by_name = of_icmp is not None and bool(choices.below(2))
    family = of_icmp if by_name else family
    is_icmp = of_icmp is not None and family in (None, of_icmp)
    has_ports = None if protocol not in (None, 6, 17, 132) else protocol is not None
    return Rule(
        choices.of(tuple(Action)),
        ip_version=family if by_name else choices.of((None, None if of_icmp not in (None, family) else family)),
        protocol=protocol,
        not_protocol=choices.of((None, None, 6, 17)),
        icmp=choices.of(ICMP_MATCHES) if is_icmp else None,
        not_icmp=choices.of(ICMP_MATCHES) if is_icmp else None,
        source=_entity_rule(choices, family, has_ports),
        destination=_entity_rule(choices, family, has_ports) if choices.one_in(4) else EntityRule(),
    )


def _plain_list(choices: Choices) -> EntityRule:
    if choices.below(2):
        return EntityRule(selector=choices.of(SELECTORS[1:]))
    return EntityRule(nets=_nets(choices, choices.of((FEW_NETS4, FEW_NETS6)), 2))


def _entity_rule(choices: Choices, family: int | None, has_ports: bool | None) -> EntityRule:
    """One side of a rule: empty, or with one to three fields.

    ``has_ports``: whether the protocol has ports; with False they are matched by name only, with None not at all.
    """
    parts = choices.among(ENTITY_PARTS, 2)
    pool = NETS6 if family == 6 else NETS4
    fields: dict[str, Any] = {}
    if "nets" in parts and family:
        fields["nets"] = _nets(choices, pool, 3)
    if "not_nets" in parts and family:
        fields["not_nets"] = _nets(choices, tuple(net for net in pool if not net.endswith("/0")), 3)
    if "selector" in parts:
        fields["selector"] = choices.of(SELECTORS)
    if "not_selector" in parts:
        fields["not_selector"] = choices.of(SELECTORS)
    if "scope" in parts:
        fields["namespace_selector"] = choices.of(NAMESPACES)
    if "ports" in parts and has_ports is not None:
        fields["ports"] = _ports(choices, has_ports, 2)
        fields["not_ports"] = _ports(choices, has_ports, 1)
    return EntityRule(**fields)


def _nets(choices: Choices, pool: tuple[str, ...], most: int) -> tuple[Any, ...]:
    return tuple(map(_network, choices.among(pool, most)))


def _ports(choices: Choices, by_number: bool, most: int) -> tuple[Port, ...]:
    """Ports of one side: names, and also numbers if the protocol has ports; each once."""

    def one() -> Port:
        if by_number and choices.below(3):
            first, last = sorted((choices.of(PORTS), choices.of(PORTS)))
            return PortRange(first, last)
        return NamedPort(choices.of(PORT_NAMES))

    return tuple(dict.fromkeys(choices.some(one, 0, most)))
