"""The table of netdev ingress rendered from a plan: chains, the verdict of each rule, and the checks before them."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from enforcer.backends.nftables import expr
from enforcer.backends.nftables.blob import decode_rule, encode_rule
from enforcer.backends.nftables.netdev.render import EXTENSION_HEADERS, render
from enforcer.backends.nftables.rules import Chain, Code, Expr, Hook, NftablesSettings, Rule, Table, Verdict
from enforcer.kernel.netlink import attributes, be64, text
from enforcer.kernel.nfnetlink import Family
from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.vocabulary import Action, Backend
from enforcer.planning.plan import InterfacePlan, Plan
from enforcer.planning.xdp_run import XdpRun
from enforcer.policy.resources import Failsafe, IcmpMatch, PortRange
from enforcer.policy.ruletable import Entry, RuleTable
from tests.support.entries import SideMatch
from tests.unit.enforcer.backends.nftables.test_nftables_render import (
    FAILSAFES,
    entry,
    ports,
    table,
)

DENY, ALLOW, LOG, PASS = Action.DENY, Action.ALLOW, Action.LOG, Action.PASS
LISTED = SideMatch(ip_set="s:dos")
DENY_LISTED = entry(0, DENY, source=LISTED)
DENY_22 = entry(0, DENY, protocol=6, destination=SideMatch(ports=ports(22)))


def plan(*tables: RuleTable) -> Plan:
    plans = (InterfacePlan(item, None, Backend.IPTABLES, (), held=XdpRun(item).held(), netdev=True) for item in tables)
    return Plan("node", tuple(plans))


def rendered(*ingress: Entry, settings: NftablesSettings | None = None, **more: object) -> dict[str, Chain]:
    found = render(plan(table(*ingress, **more)), settings or NftablesSettings())
    return {chain.name: chain for chain in found.chains}


def tier(*ingress: Entry, version: int = 4, **more: object) -> tuple[Rule, ...]:
    return rendered(*ingress, **more)[f"enf-nd-{version}/eth0/default"].rules


def verdict(rule: Rule) -> Verdict | None:
    last = rule.exprs[-1].get(2) if rule.exprs and rule.exprs[-1].name == "immediate" else None
    return last if isinstance(last, Verdict) else None


def verdicts(rules: tuple[Rule, ...]) -> list[str]:
    """The verdict of each rule: the chain it jumps to, or its code; "" for none."""
    found = [verdict(rule) for rule in rules]
    return ["" if item is None else item.chain or item.code.name.lower() for item in found]


# --- the table --------------------------------------------------------------------------------------------------------


def test_an_interface_has_a_base_chain_on_its_device_and_chains_for_each_family() -> None:
    found = render(plan(table(DENY_LISTED)), NftablesSettings())
    chains = {chain.name: chain for chain in found.chains}
    assert found.family is Family.NETDEV
    assert list(chains) == ["enf-nd-4/eth0/default", "enf-nd-4/eth0", "enf-nd-6/eth0/default", "enf-nd-6/eth0",
                            "enf-nd-eth0"]  # fmt: skip
    assert [chain.hook for chain in found.chains] == [None] * 4 + [Hook(0, -300, "eth0")]
    assert verdicts(chains["enf-nd-eth0"].rules) == ["accept"] * 3 + ["enf-nd-4/eth0", "enf-nd-6/eth0"]
    assert verdicts(chains["enf-nd-4/eth0"].rules) == ["enf-nd-4/eth0/default"]
    assert sorted(spec.name[:5] for spec in found.sets) == ["enf4-", "enf6-"]


def test_two_interfaces_share_sets_and_helpers() -> None:
    found = render(plan(table(DENY_LISTED, DENY_22), table(DENY_LISTED, DENY_22, interface="eth1")), NftablesSettings())
    names = [chain.name for chain in found.chains]
    assert len(names) == len(set(names))
    assert [chain.hook.device for chain in found.chains if chain.hook] == ["eth0", "eth1"]
    assert len(found.sets) == 2


def test_without_ipv6_support_nothing_is_said_of_ipv6() -> None:
    names = rendered(DENY_22, settings=NftablesSettings(ipv6=False))
    assert not [name for name in names if name.startswith(("enf6-", "enf-nd-6/"))]


def test_an_interface_that_has_it_not_has_nothing_here() -> None:
    (item,) = plan(table(DENY_LISTED)).interfaces
    other = InterfacePlan(item.table, None, Backend.NFTABLES, (), held=1)
    assert render(Plan("node", (other,)), NftablesSettings()) == Table(Family.NETDEV)


def test_only_what_is_held_is_rendered() -> None:
    dccp = entry(1, DENY, protocol=33, destination=SideMatch(ports=ports(53)))
    names = {rule.comment for rule in tier(DENY_LISTED, dccp, entry(2, DENY, source=LISTED))}
    assert names == {DENY_LISTED.name}


def test_no_name_is_longer_than_the_kernel_takes_and_long_interfaces_stay_apart() -> None:
    long = [table(DENY_22, interface=f"interface-{number:05}") for number in range(3)]
    names = [chain.name for chain in render(plan(*long), NftablesSettings()).chains]
    assert len(names) == len(set(names))
    assert max(map(len, names)) <= 28


# --- entries ----------------------------------------------------------------------------------------------------------

DEEDS = [
    ("Deny", DENY, ["drop"], True),
    ("Allow", ALLOW, ["accept"], False),
    ("Log", LOG, ["accept"], False),
    ("Pass", PASS, ["return"], False),
]


@pytest.mark.parametrize(("action", "expected", "counts"), [row[1:] for row in DEEDS], ids=[row[0] for row in DEEDS])
def test_what_an_action_becomes(action: Action, expected: list[str], counts: bool) -> None:
    rules = tier(entry(0, action, source=LISTED), entry(1, DENY))
    assert [rule.comment for rule in rules] == ["gnp/edge ingress[0]", "gnp/edge ingress[1]"]
    assert verdicts(rules[:1]) == expected
    assert (expr.COUNTER in rules[0].exprs) is counts


INDETERMINATE6 = "enf6-indeterminate-protocol"
IN_FRONT = [
    ("a source alone", DENY_LISTED, 4, {}, ["drop"]),
    ("a source alone, IPv6", DENY_LISTED, 6, {}, ["drop"]),
    ("a protocol", entry(0, DENY, protocol=6), 4, {}, ["drop"]),
    ("a protocol, IPv6", entry(0, DENY, protocol=6), 6, {}, [INDETERMINATE6, "drop"]),
    ("not a protocol, IPv6", entry(0, DENY, not_protocol=6), 6, {}, [INDETERMINATE6, "drop"]),
    ("ports", DENY_22, 4, {}, ["enf4-indeterminate-6", "drop"]),
    ("ports, IPv6", DENY_22, 6, {}, [INDETERMINATE6, "enf6-indeterminate-6", "drop"]),
    ("an ICMP type", entry(0, DENY, protocol=1, icmp=IcmpMatch(8)), 4, {}, ["enf4-indeterminate-1", "drop"]),
    ("an ICMP type, in the other family", entry(0, DENY, protocol=1, icmp=IcmpMatch(8)), 6, {}, []),
    ("ICMP of any type", entry(0, DENY, protocol=1, icmp=IcmpMatch()), 4, {}, ["drop"]),
    (
        "a name of TCP",
        entry(0, DENY, destination=SideMatch(named_ports=("n:web",))),
        4,
        {},
        ["enf4-indeterminate-6", "enf4-indeterminate-17", "enf4-indeterminate-132", "drop"],
    ),
    ("ports, after failsafes for any source", DENY_22, 6, FAILSAFES, ["drop"]),
    ("ports, after one with a net", DENY_22, 4, {"failsafe_inbound": (Failsafe(6, 22, ip_network("10.0.0.0/8")),)},
     ["enf4-indeterminate-6", "drop"]),
    ("nothing by a contradiction, which is no entry of raw", entry(0, DENY, protocol=6, not_protocol=6), 6, {}, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("item", "version", "more", "expected"), [row[1:] for row in IN_FRONT], ids=[row[0] for row in IN_FRONT]
)
def test_what_is_checked_first(item: Entry, version: int, more: dict[str, object], expected: list[str]) -> None:
    found = rendered(item, entry(9, DENY), **more)[f"enf-nd-{version}/eth0/default"].rules
    assert verdicts(found)[:-1] == expected
    assert verdicts(found)[-1:] == ["drop"]


def test_each_tier_checks_again_because_a_pass_may_have_skipped_the_check() -> None:
    first = [entry(0, PASS, tier="first", source=LISTED), entry(1, ALLOW, tier="first", protocol=6,
                                                                destination=SideMatch(ports=ports(9)))]  # fmt: skip
    for version, expected in (
        (4, ["enf4-indeterminate-6", "drop"]),
        (6, [INDETERMINATE6, "enf6-indeterminate-6", "drop"]),
    ):
        assert verdicts(tier(*first, DENY_22, version=version)) == expected
        assert verdicts(tier(*first, DENY_22, version=version, **FAILSAFES)) == ["drop"]


def test_an_excluded_protocol_has_not_been_checked() -> None:
    other = entry(0, ALLOW, not_protocol=6, destination=SideMatch(named_ports=("n:dns",)))
    assert verdicts(tier(other, DENY_22)) == [
        "enf4-indeterminate-17",
        "enf4-indeterminate-132",
        "accept",
        "enf4-indeterminate-6",
        "drop",
    ]


def test_an_indeterminate_match_accepts_and_nothing_else_in_helpers_decides() -> None:
    chains = rendered(DENY_22, entry(1, DENY, protocol=1, icmp=IcmpMatch(8)), **FAILSAFES)
    for name, chain in chains.items():
        if "indeterminate" in name:
            assert set(verdicts(chain.rules)) <= {"accept", "return"}
    assert verdicts(chains[INDETERMINATE6].rules) == ["accept"] * len(EXTENSION_HEADERS)
    assert verdicts(chains["enf4-indeterminate-17"].rules) == ["return", "accept"]
    # The length of a first fragment is a multiple of eight bytes, that of a whole packet need not be.
    assert verdicts(chains["enf4-indeterminate-6"].rules) == ["return", "return", "accept"]


def test_nothing_is_dropped_but_by_a_rule_with_a_name() -> None:
    every = [
        *(entry(at, action, source=LISTED) for at, action in enumerate((LOG, PASS, ALLOW, DENY))),
        entry(5, DENY, protocol=17, source=SideMatch(not_ports=ports(53)), destination=LISTED),
        entry(6, DENY, destination=SideMatch(not_named_ports=("n:web", "n:dns"))),
    ]
    for chain in rendered(*every, **FAILSAFES).values():
        for rule in chain.rules:
            found = verdict(rule)
            assert (found is not None and found.code is Code.DROP) <= (
                expr.COUNTER in rule.exprs and bool(rule.comment)
            )


def test_every_rule_is_read_back_as_it_was_written() -> None:
    for chain in rendered(DENY_22, entry(1, DENY, source=LISTED), **FAILSAFES).values():
        for rule in chain.rules:
            found = decode_rule(text(2, chain.name) + be64(3, 7) + encode_rule(rule))
            assert found.rule == rule
            assert dict(attributes(encode_rule(rule)))


# --- the mark ---------------------------------------------------------------------------------------------------------

NEGATED = entry(0, DENY, destination=SideMatch(not_named_ports=("n:web",)))


def test_a_negated_name_uses_the_accept_mark_which_is_cleared_first() -> None:
    chains = rendered(NEGATED)
    assert chains["enf-nd-4/eth0"].rules[0].exprs == expr.set_mark(0x10000, on=False)
    assert expr.set_mark(0x10000, on=False)[0] not in rendered(DENY_LISTED)["enf-nd-4/eth0"].rules[0].exprs


def test_a_negated_name_without_a_mark_is_refused() -> None:
    with pytest.raises(UnsupportedRuleError, match=r"netdev ingress cannot hold gnp/edge ingress\[0\]: .* mask is 0"):
        rendered(NEGATED, settings=NftablesSettings(mark_mask=0))
    assert rendered(entry(0, ALLOW), DENY_LISTED, settings=NftablesSettings(mark_mask=0))


# --- the matches ------------------------------------------------------------------------------------------------------


def test_a_whole_transport_goes_by_the_header_and_not_by_the_frame() -> None:
    for version in (4, 6):
        for check in expr.whole_transport(version, 20):
            assert {item.get(2) for item in check if item.name == "payload"} == {1}, "NFT_PAYLOAD_NETWORK_HEADER alone"
    (udp,) = expr.whole_transport(4, 8)
    assert Expr("cmp", ((1, 1), (2, 5), (3, (28).to_bytes(2, "big")))) in udp
    fragment, whole = (item[-1].get(3) for item in expr.whole_transport(4, 20))
    assert (fragment, whole) == ((44).to_bytes(2, "big"), (40).to_bytes(2, "big"))


def test_ports_are_never_matched_in_a_packet_that_may_not_have_them() -> None:
    entries = [DENY_22, entry(1, DENY, protocol=17, source=SideMatch(ports=(PortRange(1, 9),)))]
    for version in (4, 6):
        rules = tier(*entries, version=version)
        for at, rule in enumerate(rules):
            if any(item.name == "payload" and item.get(2) == 2 for item in rule.exprs):
                assert verdicts(rules)[at - 1].startswith(f"enf{version}-indeterminate-")
