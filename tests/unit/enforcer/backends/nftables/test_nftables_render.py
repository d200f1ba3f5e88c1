"""The tables rendered from a plan, and properties of their rules."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import numpy as np
import pytest

from enforcer.backends.nftables import expr
from enforcer.backends.nftables.blob import decode_rule, encode_rule
from enforcer.backends.nftables.entry_rules import NO_ICMP, NO_PORTS, NO_PROTOCOL
from enforcer.backends.nftables.match import SetRegistry
from enforcer.backends.nftables.members import named_members, net_members, none_of, pack, parse, port_members
from enforcer.backends.nftables.render import render
from enforcer.backends.nftables.rules import NAMED_PORTS, NETS, PORTS, Chain, NftablesSettings, Rule, SetType, Table
from enforcer.kernel.netlink import attribute, attributes, be64, text
from enforcer.model.errors import InternalError, UnsupportedRuleError
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action, Backend, Direction
from enforcer.planning.plan import InterfacePlan, Plan
from enforcer.policy.resources import (
    DEFAULT_FAILSAFE_INBOUND,
    DEFAULT_FAILSAFE_OUTBOUND,
    Failsafe,
    IcmpMatch,
    PortRange,
)
from enforcer.policy.ruletable import Entry, IpSet, PortSet, RuleTable
from tests.support.entries import SideMatch, entry_of

DENY_LIST = IpSet("s:dos", "dos-deny-list == 'true'", Nets.of(["203.0.113.0/24", "2001:db8:bad::/48"]))
WEB = PortSet("n:web", "web", 6, ((ip_address("10.0.0.1"), 80), (ip_address("2001:db8::1"), 80)))
DNS = PortSet("n:dns", "dns", 17, ((ip_address("10.0.0.1"), 53),))


def entry(index: int, action: Action, *, direction: Direction = Direction.INGRESS, **match: object) -> Entry:
    # For mypy: of several types
    return entry_of(f"gnp/edge {direction}[{index}]", action, policy="edge", direction=direction, index=index, **match)  # type: ignore[arg-type]


def ports(*numbers: int) -> tuple[PortRange, ...]:
    return tuple(PortRange(item, item) for item in numbers)


def table(*ingress: Entry, interface: str = "eth0", **more: object) -> RuleTable:
    sets, port_sets = {DENY_LIST.id: DENY_LIST}, {item.id: item for item in (WEB, DNS)}
    # For mypy: of several types
    return RuleTable(interface, "hep", ingress, sets=sets, port_sets=port_sets, **more)  # type: ignore[arg-type]


def plan(*tables: RuleTable, backend: Backend = Backend.NFTABLES) -> Plan:
    return Plan("node", tuple(InterfacePlan(item, None, backend, ()) for item in tables))


def rendered(
    *ingress: Entry, version: int = 4, settings: NftablesSettings | None = None, **more: object
) -> dict[str, Chain]:
    found = render(plan(table(*ingress, **more)), settings or NftablesSettings())[(4, 6).index(version)]
    return {chain.name: chain for chain in found.chains}


def tier(*ingress: Entry, version: int = 4, **more: object) -> tuple[Rule, ...]:
    return rendered(*ingress, version=version, **more)["enf-pi-eth0/default"].rules


def targets(rules: tuple[Rule, ...]) -> list[str]:
    return [expr.jumps(rule.exprs) for rule in rules]


FAILSAFES = {"failsafe_inbound": DEFAULT_FAILSAFE_INBOUND, "failsafe_outbound": DEFAULT_FAILSAFE_OUTBOUND}
DENY_22 = entry(0, Action.DENY, protocol=6, destination=SideMatch(ports=ports(22)))
DENY_ECHO = entry(0, Action.DENY, protocol=1, icmp=IcmpMatch(8))


# --- checks for packets too short for a match ---

READABLE = [
    ("ports", DENY_22, 4, {}, [NO_PORTS, ""]),
    ("ports, IPv6", DENY_22, 6, {}, [NO_PROTOCOL, NO_PORTS, ""]),
    ("a protocol", entry(0, Action.DENY, protocol=6), 4, {}, [""]),
    ("a protocol, IPv6", entry(0, Action.DENY, protocol=6), 6, {}, [NO_PROTOCOL, ""]),
    ("not a protocol, IPv6", entry(0, Action.DENY, not_protocol=6), 6, {}, [NO_PROTOCOL, ""]),
    ("an ICMP type", DENY_ECHO, 4, {}, [NO_ICMP, ""]),
    ("a source", entry(0, Action.DENY, source=SideMatch(ip_set="s:dos")), 6, {}, [""]),
    ("ports, after failsafes for any source", DENY_22, 6, FAILSAFES, [""]),
    ("ICMP, after failsafes for any source", DENY_ECHO, 4, FAILSAFES, [NO_ICMP, ""]),
    (
        "ports, after a failsafe with a net",
        DENY_22,
        4,
        {"failsafe_inbound": (Failsafe(6, 22, ip_network("10.0.0.0/8")),)},
        [NO_PORTS, ""],
    ),
    (
        "ports, after a failsafe for another protocol",
        DENY_22,
        4,
        {"failsafe_inbound": (Failsafe(17, 22),)},
        [NO_PORTS, ""],
    ),
]


@pytest.mark.parametrize(
    ("item", "version", "more", "expected"), [row[1:] for row in READABLE], ids=[row[0] for row in READABLE]
)
def test_the_test_for_unreadable_headers_is_rendered_once(
    item: Entry, version: int, more: dict[str, object], expected: list[str]
) -> None:
    assert targets(tier(item, version=version, **more)) == expected


def test_every_match_on_the_transport_first_checks_that_it_is_present() -> None:
    """A load of 1, 2 or 4 bytes would read the data of a later fragment as a header."""
    entries = [
        DENY_22,
        entry(0, Action.DENY, protocol=6, destination=SideMatch(not_ports=ports(1, 3, 5))),
        DENY_ECHO,
        entry(1, Action.LOG, protocol=6, source=SideMatch(ports=ports(7), named_ports=("n:web",))),
        entry(2, Action.DENY, destination=SideMatch(not_named_ports=("n:web",))),
    ]
    for chain in rendered(*entries, **FAILSAFES).values():
        for rule in chain.rules:
            loads = [item for item in rule.exprs if item.name == "payload" and item.get(2) == 2]
            assert not loads or loads[0].get(4) == 3, rule


# --- entries ---


def test_an_entry_with_a_number_and_a_name_has_a_rule_for_each() -> None:
    both = entry(0, Action.DENY, protocol=6, destination=SideMatch(ports=ports(22), named_ports=("n:web",)))
    rules = [rule for rule in tier(both) if rule.comment]
    assert [rule.comment for rule in rules] == [both.name] * 2
    assert ["lookup" in {item.name for item in rule.exprs} for rule in rules] == [False, True]


def test_names_of_two_protocols_have_a_rule_for_each() -> None:
    both = entry(0, Action.DENY, destination=SideMatch(named_ports=("n:web", "n:dns")))
    assert [rule.comment for rule in tier(both)] == [both.name] * 2


def test_a_negated_name_uses_the_accept_mark_and_takes_it_off_again() -> None:
    setting, asking, clearing = tier(entry(0, Action.PASS, destination=SideMatch(not_named_ports=("n:web",))))
    assert setting.exprs[-3:] == expr.set_mark(0x10000, on=True)
    assert expr.marked(0x10000, inverted=True)[-1] in asking.exprs
    assert clearing.exprs == (*expr.marked(0x10000), *expr.set_mark(0x10000, on=False))
    assert (setting.comment, clearing.comment) == ("", "")


def test_a_name_of_any_length_is_read_back_from_the_rules_in_front() -> None:
    long = replace(DENY_22, name="gnp/" + "ä" * 253 + " ingress[7]")
    rules = [rule for rule in tier(long) if rule.comment]
    assert "".join(rule.comment for rule in rules) == long.name
    assert [bool(rule.exprs) for rule in rules] == [False] * (len(rules) - 1) + [True]
    assert all(len(encode_rule(rule)) < 1000 for rule in rules)


def test_an_interface_of_another_backend_has_nothing_here() -> None:
    assert not any(item.wanted for item in render(plan(table(DENY_22), backend=Backend.IPTABLES), NftablesSettings()))


def test_without_ipv6_support_the_other_table_is_to_go() -> None:
    four, six = render(plan(table(DENY_22)), NftablesSettings(ipv6=False))
    assert four.wanted
    assert six == Table(six.family)


UNSUPPORTED = [
    (
        entry(0, Action.ALLOW),
        {"mark_mask": 0},
        r"nftables cannot enforce gnp/edge ingress\[0\]: Allow sets a mark, and the mark mask is 0",
    ),
    (
        entry(0, Action.DENY, destination=SideMatch(not_named_ports=("n:web",))),
        {"mark_mask": 0},
        "a negated named port needs a mark, and the mark mask is 0",
    ),
    (
        entry(0, Action.DENY, destination=SideMatch(ports=ports(22))),
        {},
        "nftables cannot enforce gnp/edge ingress.0.: it matches ports, but no protocol that has ports",
    ),
    (
        entry(0, Action.DENY, source=SideMatch(nets=(ip_network("10.0.0.0/8"), ip_network("11.0.0.0/8")))),
        {"max_set_size": 1},
        "nftables cannot enforce a list of nets: it has 2 IPv4 members, and a set may have 1; raise maxIpsetSize",
    ),
]


@pytest.mark.parametrize(("item", "settings", "message"), UNSUPPORTED)
def test_what_cannot_be_expressed_is_refused(item: Entry, settings: dict[str, int], message: str) -> None:
    with pytest.raises(UnsupportedRuleError, match=message):
        rendered(item, settings=NftablesSettings(**settings))  # type: ignore[arg-type]  # of several types


def test_two_tables_that_disagree_about_a_selector_are_a_bug() -> None:
    registry = SetRegistry(4)
    registry.selector(DENY_LIST, lenient=False)
    with pytest.raises(InternalError, match="two sets of members"):
        registry.selector(replace(DENY_LIST, nets=Nets.of(["10.0.0.0/8"])), lenient=False)


# --- the kernel's bytes ---


def test_what_is_written_is_what_is_read() -> None:
    entries = [
        entry(0, Action.LOG, protocol=17, source=SideMatch(nets=(ip_network("10.0.0.0/9"),), ports=ports(7, 9))),
        entry(1, Action.ALLOW, destination=SideMatch(not_named_ports=("n:web",), ports=(PortRange(1, 9),)), protocol=6),
        DENY_ECHO,
    ]
    for version in (4, 6):
        for chain in rendered(*entries, version=version, **FAILSAFES).values():
            for rule in chain.rules:
                data = text(2, chain.name) + be64(3, 7) + encode_rule(rule)
                found = decode_rule(data)
                assert (found.rule, found.chain, found.handle) == (rule, chain.name, 7)


def test_a_rule_with_an_expression_we_never_use_is_none_of_ours() -> None:
    strange = text(2, "c") + be64(3, 7) + attribute(4, attribute(1, text(1, "numgen") + attribute(2, b"")))
    assert decode_rule(strange).rule is None


MEMBERS = [
    (NETS[4], net_members(Nets.of(["0.0.0.0/0"]), 4)),
    (NETS[4], net_members(Nets.of(["10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8", "255.255.255.255/32"]), 4)),
    (NETS[6], net_members(Nets.of(["::/0"]), 6)),
    (NETS[6], net_members(Nets.of(["2001:db8::/32", "2001:db8::1/128", "ffff::/16", "::/128"]), 6)),
    (PORTS, port_members([PortRange(0, 0), PortRange(1, 5), PortRange(4, 9), PortRange(80, 65535)])),
    (NAMED_PORTS[4], named_members([WEB, DNS], 4)),
    (NAMED_PORTS[6], named_members([WEB, DNS], 6)),
    (NETS[4], none_of(NETS[4])),
]


@pytest.mark.parametrize(("kind", "members"), MEMBERS)
def test_members_are_read_as_they_were_packed(kind: SetType, members: np.ndarray) -> None:
    found = parse(pack(members, kind), kind)
    assert found is not None
    assert np.array_equal(found, members)


def test_nets_that_cover_each_other_are_one_interval_and_neighbours_stay_two() -> None:
    assert len(net_members(Nets.of(["10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8"]), 4)) == 2


def test_a_member_with_more_than_its_key_is_foreign() -> None:
    (piece,) = pack(named_members([WEB], 4), NAMED_PORTS[4])
    with_timeout = attribute(
        1, b"".join(attribute(kind, value) for kind, value in attributes(piece[4:])) + be64(4, 1000)
    )
    assert parse([with_timeout], NAMED_PORTS[4]) is None
    assert parse([piece, with_timeout], NAMED_PORTS[4]) is None


def test_intervals_that_overlap_are_none_of_ours() -> None:
    wide, narrow = (net_members(Nets.of([cidr]), 4) for cidr in ("10.0.0.0/8", "10.1.0.0/16"))
    assert parse([*pack(wide, NETS[4]), *pack(narrow, NETS[4])], NETS[4]) is None
