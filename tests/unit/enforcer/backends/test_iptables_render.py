"""The raw table a plan becomes: reviewed reference files, and the laws each rule keeps.

``UPDATE_REFERENCE=1 pytest ...`` writes the reference files anew; read the difference before committing it.
"""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.backends.iptables.match import port_matches
from enforcer.backends.iptables.names import CHAIN_LENGTH, SET_LENGTH, ChainKind, chain_name, scratch_name, set_name
from enforcer.backends.iptables.render import Rendering, Settings, comments, render
from enforcer.backends.iptables.rules import (
    COMMENT_LENGTH,
    PORT_SLOTS,
    Comment,
    Log,
    PortsMatch,
    Rule,
    Side,
    save_line,
)
from enforcer.errors import InternalError, UnsupportedRuleError
from enforcer.plan import InterfacePlan, Plan
from enforcer.policy.nets import Nets
from enforcer.policy.resources import (
    DEFAULT_FAILSAFE_INBOUND,
    DEFAULT_FAILSAFE_OUTBOUND,
    Failsafe,
    IcmpMatch,
    PortRange,
)
from enforcer.policy.ruletable import AddressMatch, Entry, IpSet, RuleTable
from enforcer.words import Action, Backend, Direction

REFERENCE = Path(__file__).parent / "reference"

DENY_LIST = IpSet("s:dos", "dos-deny-list == 'true'", Nets.of(["203.0.113.0/24", "0.0.0.0/0", "2001:db8:bad::/48"]))
OTHER_LIST = IpSet("s:partner", "partner == 'true'", Nets.of(["198.51.100.0/24"]))


def entry(index: int, action: Action, *, policy: str = "edge", direction: Direction = Direction.INGRESS, **match):
    return Entry(f"gnp/{policy} {direction}[{index}]", action, policy=policy, direction=direction, index=index, **match)


def nets(*cidrs: str):
    return tuple(ip_network(cidr) for cidr in cidrs)


def ports(*numbers: int | tuple[int, int]) -> tuple[PortRange, ...]:
    return tuple(PortRange(item, item) if isinstance(item, int) else PortRange(*item) for item in numbers)


def table(interface: str, *ingress: Entry, egress: tuple[Entry, ...] = (), inbound=(), outbound=()) -> RuleTable:
    sets = {item.id: item for item in (DENY_LIST, OTHER_LIST)}
    return RuleTable(interface, "hep", ingress, egress, inbound, outbound, sets)


def plan(*tables: RuleTable, backend: Backend = Backend.IPTABLES) -> Plan:
    return Plan("node", tuple(InterfacePlan(item, None, backend, ()) for item in tables))


FROM_DENY_LIST = AddressMatch(ip_set="s:dos")

PLANS = {
    "how-to": (  # the policy of Calico's how-to, failsafes of a default configuration
        plan(
            table(
                "eth0",
                entry(0, Action.DENY, policy="dos-mitigation", source=FROM_DENY_LIST),
                inbound=DEFAULT_FAILSAFE_INBOUND,
                outbound=DEFAULT_FAILSAFE_OUTBOUND,
            )
        ),
        Settings(),
    ),
    "actions-and-tiers": (
        plan(
            table(
                "eth0",
                entry(0, Action.LOG, tier="security", protocol=17),
                entry(1, Action.PASS, tier="security", source=AddressMatch(nets=nets("192.0.2.0/24"))),
                entry(2, Action.DENY, tier="security", source=FROM_DENY_LIST),
                entry(0, Action.ALLOW, tier="a-tier-with-a-very-long-name", protocol=6),
                egress=(entry(0, Action.ALLOW, direction=Direction.EGRESS, tier="security", protocol=6),),
            ),
            table("wlp0s20f3u1u2u3", entry(0, Action.DENY, source=AddressMatch(ip_set="s:partner"))),
        ),
        Settings(mark_mask=0x0FF00000, log_prefix="%t/%n says"),
    ),
    "nets": (
        plan(
            table(
                "eth0",
                entry(0, Action.DENY, source=AddressMatch(nets=nets("192.0.2.0/24"))),
                entry(1, Action.DENY, source=AddressMatch(nets=nets("192.0.2.0/24", "198.51.100.7/32"))),
                entry(2, Action.DENY, source=AddressMatch(nets=nets("0.0.0.0/0"))),
                entry(3, Action.DENY, source=AddressMatch(nets=nets("10.0.0.0/8"), not_nets=nets("10.1.0.0/16"))),
                entry(4, Action.DENY, source=AddressMatch(not_nets=nets("10.0.0.0/8"))),
                entry(5, Action.DENY, source=AddressMatch(not_nets=nets("0.0.0.0/0"))),
                entry(6, Action.DENY, destination=AddressMatch(nets=nets("2001:db8::/32"))),
                entry(
                    7, Action.DENY, source=FROM_DENY_LIST, destination=AddressMatch(nets=nets("10.0.0.1/32", "::1/128"))
                ),
                entry(
                    8, Action.DENY, ip_version=6, source=AddressMatch(ip_set="s:dos", not_nets=nets("2001:db8::/64"))
                ),
            )
        ),
        Settings(),
    ),
    "ports-and-protocols": (
        plan(
            table(
                "eth0",
                entry(0, Action.DENY, protocol=6, destination=AddressMatch(ports=ports(80, (8000, 8080)))),
                entry(1, Action.DENY, protocol=132, source=AddressMatch(not_ports=ports(1, 2))),
                entry(2, Action.DENY, protocol=136, destination=AddressMatch(ports=ports(53), not_ports=ports(54))),
                entry(3, Action.DENY, protocol=17, destination=AddressMatch(ports=ports(*range(1, 60, 2)))),
                entry(4, Action.DENY, protocol=17, destination=AddressMatch(ports=ports(*range(1, 60)))),
                entry(5, Action.DENY, protocol=6, source=AddressMatch(not_ports=ports(*range(1, 40, 2)))),
                entry(6, Action.DENY, protocol=253),
                entry(7, Action.DENY, not_protocol=6),
                entry(8, Action.DENY, protocol=1, icmp=IcmpMatch(8)),
                entry(9, Action.DENY, protocol=1, not_icmp=IcmpMatch(3, 4)),
                entry(10, Action.DENY, protocol=58, icmp=IcmpMatch(128, 0)),
                entry(11, Action.DENY, protocol=1),
                entry(12, Action.DENY, protocol=1, icmp=IcmpMatch()),
            )
        ),
        Settings(),
    ),
    "failsafes": (  # a net of the other family drops the failsafe here; ports of one protocol and net share a rule
        plan(
            table(
                "eth0",
                entry(0, Action.DENY),
                egress=(entry(0, Action.DENY, direction=Direction.EGRESS),),
                inbound=(Failsafe(6, 22), Failsafe(6, 179, ip_network("10.0.0.0/8")), Failsafe(6, 6443)),
                outbound=(Failsafe(17, 53, ip_network("fd00::/8")), Failsafe(17, 67)),
            )
        ),
        Settings(),
    ),
    "ipv6-off": (plan(table("eth0", entry(0, Action.DENY, source=FROM_DENY_LIST))), Settings(ipv6=False)),
    "nothing": (plan(table("eth0", inbound=DEFAULT_FAILSAFE_INBOUND)), Settings()),
    "another-backend": (plan(table("eth0", entry(0, Action.DENY)), backend=Backend.NFTABLES), Settings()),
}


def text_of(rendering: Rendering) -> str:
    lines: list[str] = []
    for version, chains in rendering.chains.items():
        lines.append(f"# IPv{version}")
        lines += [save_line(chain.name, rule, version) for chain in chains for rule in chain.rules]
    lines.append("# sets")
    lines += [f"{item.name} {item.nets}" for item in rendering.sets]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", PLANS)
def test_rendered_as_reviewed(name: str) -> None:
    path = REFERENCE / f"iptables-{name}.txt"
    text = text_of(render(*PLANS[name]))
    if os.environ.get("UPDATE_REFERENCE"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", PLANS)
def test_each_entry_is_at_most_one_rule_in_each_family(name: str) -> None:
    wanted, settings = PLANS[name]
    for chains in render(wanted, settings).chains.values():
        named = [(chain.name, rule.comment) for chain in chains for rule in chain.rules if rule.comment]
        assert len(named) == len(set(named))


def test_chains_come_after_the_chains_they_jump_to() -> None:
    for wanted, settings in PLANS.values():
        for chains in render(wanted, settings).chains.values():
            seen: set[str] = set()
            for chain in chains:
                targets = {getattr(rule.target, "chain", None) for rule in chain.rules} - {None}
                assert targets <= seen
                seen.add(chain.name)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        pytest.param(
            entry(0, Action.DENY, destination=AddressMatch(ports=ports(80))), "ports", id="ports, no protocol"
        ),
        pytest.param(
            entry(0, Action.DENY, protocol=1, source=AddressMatch(not_ports=ports(80))), "ports", id="ports of ICMP"
        ),
        pytest.param(entry(0, Action.DENY, icmp=IcmpMatch(8)), "ICMP type", id="ICMP type, no protocol"),
        pytest.param(entry(0, Action.DENY, not_protocol=1, icmp=IcmpMatch(8)), "ICMP type", id="ICMP type of not ICMP"),
    ],
)
def test_what_raw_cannot_say_is_refused_with_every_such_entry(bad: Entry, sentence: str) -> None:
    other = entry(9, Action.DENY, icmp=IcmpMatch(0))
    with pytest.raises(UnsupportedRuleError, match=sentence) as caught:
        render(plan(table("eth0", bad, entry(1, Action.DENY), other)), Settings())
    assert "ingress[0]" in str(caught.value)
    assert "ingress[9]" in str(caught.value)
    assert "ingress[1]" not in str(caught.value)


def test_tables_that_disagree_on_a_set_are_a_bug() -> None:
    one = table("eth0", entry(0, Action.DENY, source=FROM_DENY_LIST))
    changed = IpSet("s:dos", DENY_LIST.selector, Nets.of(["10.0.0.0/8"]))
    other = RuleTable("eth1", "hep", one.ingress, sets={"s:dos": changed})
    with pytest.raises(InternalError, match="disagree"):
        render(plan(one, other), Settings())


# --- names ----------------------------------------------------------------------------------------


@given(st.sampled_from(ChainKind), st.text("abc-/", min_size=1, max_size=15), st.text("abc-", max_size=260))
def test_chain_names_fit_and_are_stable(kind: ChainKind, interface: str, tier: str) -> None:
    name = chain_name(kind, interface, tier)
    assert len(name) <= CHAIN_LENGTH
    assert name == chain_name(kind, interface, tier)


def test_long_names_that_differ_at_the_end_stay_apart() -> None:
    first, second = (chain_name(ChainKind.TIER_IN, "eth0", "x" * 40 + end) for end in "ab")
    assert first != second


@pytest.mark.parametrize("version", [4, 6])
def test_set_names_fit_and_show_whose_they_are(version: int) -> None:
    name = set_name(version, b"s:some-selector")
    assert name.startswith(f"enf{version}-")
    assert scratch_name(name).startswith(f"enf{version}-")
    assert len(scratch_name(name)) <= SET_LENGTH
    assert scratch_name(name) != name


# --- ports ----------------------------------------------------------------------------------------

port_ranges = st.builds(
    lambda one, other: PortRange(min(one, other), max(one, other)), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)
)
single_ports = st.builds(lambda port: PortRange(port, port), st.integers(0, 0xFFFF))


def holds(matches: tuple[PortsMatch, ...], port: int) -> bool:
    return all(any(port in item for item in match.ports) != match.inverted for match in matches)


@given(st.lists(port_ranges | single_ports, min_size=1, max_size=50), st.data())
def test_port_matches_hold_for_exactly_the_ports_of_the_list(listed: list[PortRange], data: st.DataObject) -> None:
    matches = port_matches(Side.SOURCE, listed)
    assert matches
    edges = {edge for item in listed for edge in (item.first - 1, item.first, item.last, item.last + 1)}
    for port in {*edges, 0, 0xFFFF, data.draw(st.integers(0, 0xFFFF))} - {-1, 0x10000}:
        assert holds(matches, port) == any(port in item for item in listed)
    for match in matches:
        assert 0 < sum(1 if item.first == item.last else 2 for item in match.ports) <= PORT_SLOTS


@pytest.mark.parametrize(("count", "rules"), [(0, 0), (15, 1), (16, 2)], ids=["none", "as many as fit", "one more"])
def test_ports_beyond_the_slots_of_one_match(count: int, rules: int) -> None:
    assert len(port_matches(Side.SOURCE, ports(*range(10, 10 + 3 * count, 3)))) == (rules if count < 16 else 3)


# --- texts ----------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=600))
def test_a_comment_of_any_length_is_read_back_whole(text: str) -> None:
    matches = comments(text)
    assert Rule(Log("x"), matches=tuple(matches)).comment == text
    assert all(isinstance(item, Comment) and len(item.text.encode()) <= COMMENT_LENGTH for item in matches)


@pytest.mark.parametrize(
    ("template", "prefix"),
    [
        ("calico-packet", "calico-packet: "),
        ("%t %k %n", "default gnp edge: "),
        ("%p", "edge: "),
        ("x" * 40, "x" * 27 + ": "),
        ("é" * 20, "é" * 13 + ": "),
    ],
    ids=["plain", "tier, kind, name", "name", "cut to what LOG holds", "cut between characters"],
)
def test_log_prefix(template: str, prefix: str) -> None:
    rendering = render(plan(table("eth0", entry(0, Action.LOG))), Settings(log_prefix=template))
    targets = [rule.target for chain in rendering.chains[4] for rule in chain.rules]
    assert Log(prefix) in targets
