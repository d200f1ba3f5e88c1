"""The raw table rendered from a plan: reviewed reference files, and properties of each rule.

``UPDATE_REFERENCE=1 pytest ...`` rewrites the reference files; review the diff before committing it.
"""

from __future__ import annotations

import os
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from enforcer.backends.iptables.render import Rendering, render
from enforcer.backends.iptables.rules import (
    Log,
    SetSpec,
    SetType,
    TableId,
    TableName,
    save_line,
)
from enforcer.backends.iptables.settings import IptablesSettings
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

REFERENCE = Path(__file__).parent / "reference"

DENY_LIST = IpSet("s:dos", "dos-deny-list == 'true'", Nets.of(["203.0.113.0/24", "0.0.0.0/0", "2001:db8:bad::/48"]))
RAW4 = TableId(4, TableName.RAW)
OTHER_LIST = IpSet("s:partner", "partner == 'true'", Nets.of(["198.51.100.0/24"]))


def port_set(name: str, *members: tuple[str, int], protocol: int = 6) -> PortSet:
    return PortSet(f"n:{name}", name, protocol, tuple((ip_address(address), port) for address, port in members))


PORT_SETS = (
    port_set("web", ("10.0.0.1", 80), ("2001:db8::1", 80)),
    port_set("admin", ("10.0.0.1", 8443), ("10.0.0.2", 8443)),
    port_set("dns", ("10.0.0.1", 53), protocol=17),
    port_set("nobody"),
)
WEB = SideMatch(named_ports=("n:web",))


def entry(index: int, action: Action, *, policy: str = "edge", direction: Direction = Direction.INGRESS, **match):
    return entry_of(
        f"gnp/{policy} {direction}[{index}]", action, policy=policy, direction=direction, index=index, **match
    )


def nets(*cidrs: str):
    return tuple(ip_network(cidr) for cidr in cidrs)


def ports(*numbers: int | tuple[int, int]) -> tuple[PortRange, ...]:
    return tuple(PortRange(item, item) if isinstance(item, int) else PortRange(*item) for item in numbers)


def table(interface: str, *ingress: Entry, egress: tuple[Entry, ...] = (), inbound=(), outbound=()) -> RuleTable:
    sets = {item.id: item for item in (DENY_LIST, OTHER_LIST)}
    port_sets = {item.id: item for item in PORT_SETS}
    return RuleTable(interface, "hep", ingress, egress, inbound, outbound, sets, port_sets)


def plan(*tables: RuleTable, backend: Backend = Backend.IPTABLES) -> Plan:
    return Plan("node", tuple(InterfacePlan(item, None, backend, ()) for item in tables))


FROM_DENY_LIST = SideMatch(ip_set="s:dos")

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
        IptablesSettings(),
    ),
    "actions-and-tiers": (
        plan(
            table(
                "eth0",
                entry(0, Action.LOG, tier="security", protocol=17),
                entry(1, Action.PASS, tier="security", source=SideMatch(nets=nets("192.0.2.0/24"))),
                entry(2, Action.DENY, tier="security", source=FROM_DENY_LIST),
                entry(0, Action.ALLOW, tier="a-tier-with-a-very-long-name", protocol=6),
                egress=(entry(0, Action.ALLOW, direction=Direction.EGRESS, tier="security", protocol=6),),
            ),
            table("wlp0s20f3u1u2u3", entry(0, Action.DENY, source=SideMatch(ip_set="s:partner"))),
        ),
        IptablesSettings(mark_mask=0x0FF00000, log_prefix="%t/%n says"),
    ),
    "nets": (
        plan(
            table(
                "eth0",
                entry(0, Action.DENY, source=SideMatch(nets=nets("192.0.2.0/24"))),
                entry(1, Action.DENY, source=SideMatch(nets=nets("192.0.2.0/24", "198.51.100.7/32"))),
                entry(2, Action.DENY, source=SideMatch(nets=nets("0.0.0.0/0"))),
                entry(3, Action.DENY, source=SideMatch(nets=nets("10.0.0.0/8"), not_nets=nets("10.1.0.0/16"))),
                entry(4, Action.DENY, source=SideMatch(not_nets=nets("10.0.0.0/8"))),
                entry(5, Action.DENY, source=SideMatch(not_nets=nets("0.0.0.0/0"))),
                entry(6, Action.DENY, destination=SideMatch(nets=nets("2001:db8::/32"))),
                entry(
                    7, Action.DENY, source=FROM_DENY_LIST, destination=SideMatch(nets=nets("10.0.0.1/32", "::1/128"))
                ),
                entry(8, Action.DENY, ip_version=6, source=SideMatch(ip_set="s:dos", not_nets=nets("2001:db8::/64"))),
            )
        ),
        IptablesSettings(),
    ),
    "ports-and-protocols": (
        plan(
            table(
                "eth0",
                entry(0, Action.DENY, protocol=6, destination=SideMatch(ports=ports(80, (8000, 8080)))),
                entry(1, Action.DENY, protocol=132, source=SideMatch(not_ports=ports(1, 2))),
                entry(2, Action.DENY, protocol=136, destination=SideMatch(ports=ports(53), not_ports=ports(54))),
                entry(3, Action.DENY, protocol=17, destination=SideMatch(ports=ports(*range(1, 60, 2)))),
                entry(4, Action.DENY, protocol=17, destination=SideMatch(ports=ports(*range(1, 60)))),
                entry(5, Action.DENY, protocol=6, source=SideMatch(not_ports=ports(*range(1, 40, 2)))),
                entry(6, Action.DENY, protocol=253),
                entry(7, Action.DENY, not_protocol=6),
                entry(8, Action.DENY, protocol=1, icmp=IcmpMatch(8)),
                entry(9, Action.DENY, protocol=1, not_icmp=IcmpMatch(3, 4)),
                entry(10, Action.DENY, protocol=58, icmp=IcmpMatch(128, 0)),
                entry(11, Action.DENY, protocol=1),
                entry(12, Action.DENY, protocol=1, icmp=IcmpMatch()),
            )
        ),
        IptablesSettings(),
    ),
    "failsafes": (  # a failsafe with a net of the other family is omitted; ports of one protocol and net share a rule
        plan(
            table(
                "eth0",
                entry(0, Action.DENY),
                egress=(entry(0, Action.DENY, direction=Direction.EGRESS),),
                inbound=(Failsafe(6, 22), Failsafe(6, 179, ip_network("10.0.0.0/8")), Failsafe(6, 6443)),
                outbound=(Failsafe(17, 53, ip_network("fd00::/8")), Failsafe(17, 67)),
            )
        ),
        IptablesSettings(),
    ),
    "named-ports": (  # ports by number and by name need two rules, disjoint for Log; Deny and Allow use separate sets
        plan(
            table(
                "eth0",
                entry(0, Action.DENY, destination=WEB),
                entry(1, Action.DENY, protocol=6, destination=SideMatch(named_ports=("n:web", "n:admin"))),
                entry(2, Action.DENY, protocol=6, destination=SideMatch(named_ports=("n:admin", "n:web"))),
                entry(3, Action.ALLOW, source=FROM_DENY_LIST, destination=WEB),
                entry(4, Action.DENY, destination=SideMatch(not_named_ports=("n:web",))),
                entry(5, Action.DENY, protocol=6, destination=SideMatch(ports=ports(22), named_ports=("n:web",))),
                entry(6, Action.LOG, protocol=6, destination=SideMatch(ports=ports(22), named_ports=("n:web",))),
                entry(
                    7,
                    Action.LOG,
                    protocol=6,
                    source=SideMatch(ports=ports((1, 9)), named_ports=("n:admin",)),
                    destination=SideMatch(ports=ports(22), named_ports=("n:web",), not_ports=ports(23)),
                ),
                entry(
                    8,
                    Action.PASS,
                    protocol=6,
                    source=SideMatch(not_named_ports=("n:nobody",)),
                    destination=SideMatch(not_ports=ports(22), not_named_ports=("n:web",)),
                ),
                entry(9, Action.DENY, protocol=17, destination=SideMatch(named_ports=("n:dns",))),
                entry(10, Action.DENY, destination=SideMatch(named_ports=("n:nobody",))),
            )
        ),
        IptablesSettings(),
    ),
    "allow-egress": (  # of one family, so the other's mangle and filter tables are not touched
        plan(
            table(
                "eth0",
                entry(0, Action.DENY),
                egress=(
                    entry(
                        0,
                        Action.ALLOW,
                        direction=Direction.EGRESS,
                        destination=SideMatch(nets=nets("2001:db8::/32")),
                    ),
                ),
            )
        ),
        IptablesSettings(),
    ),
    "ipv6-off": (plan(table("eth0", entry(0, Action.DENY, source=FROM_DENY_LIST))), IptablesSettings(ipv6=False)),
    "nothing": (plan(table("eth0", inbound=DEFAULT_FAILSAFE_INBOUND)), IptablesSettings()),
    "another-backend": (plan(table("eth0", entry(0, Action.DENY)), backend=Backend.NFTABLES), IptablesSettings()),
}


def text_of(rendering: Rendering) -> str:
    lines: list[str] = []
    for table_id, chains in rendering.chains.items():
        lines.append(f"# {table_id}")
        lines += [save_line(chain.name, rule, table_id.version) for chain in chains for rule in chain.rules]
    lines.append("# sets")
    lines += [f"{item.name} {item.nets if item.type is SetType.NET else ports_text(item)}" for item in rendering.sets]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", PLANS)
def test_rendered_as_reviewed(name: str) -> None:
    path = REFERENCE / f"{name}.txt"
    text = text_of(render(*PLANS[name]))
    if os.environ.get("UPDATE_REFERENCE"):
        path.write_text(text)
    assert text == path.read_text()


def ports_text(spec: SetSpec) -> str:
    return f"[{', '.join(f'{item.address},{item.protocol}:{item.port}' for item in spec.ports)}]"


@pytest.mark.parametrize("name", sorted(PLANS.keys() - {"named-ports"}))
def test_each_entry_is_at_most_one_rule_in_each_family(name: str) -> None:
    wanted, settings = PLANS[name]
    for chains in render(wanted, settings).chains.values():
        named = [(chain.name, rule.comment) for chain in chains for rule in chain.rules if rule.comment]
        assert len(named) == len(set(named))


@pytest.mark.parametrize(
    ("limit", "too_many"),
    [
        pytest.param(3, [], id="as many as fit"),
        pytest.param(2, ["n:web"], id="one more, named ports"),
        pytest.param(1, ["n:web", "s:dos"], id="two of them"),
    ],
)
def test_a_set_beyond_the_limit_is_refused_by_name_with_both_numbers(limit: int, too_many: list[str]) -> None:
    both = SideMatch(named_ports=("n:web", "n:admin"))
    wanted = plan(table("eth0", entry(0, Action.DENY, source=FROM_DENY_LIST, destination=both)))
    sentences = {
        "s:dos": f"selector dos-deny-list == 'true': it has 2 IPv4 members, and an ipset may have {limit}; raise max",
        "n:web": f"named ports admin, web: it has 3 IPv4 members, and an ipset may have {limit}; raise maxIpsetSize",
    }
    if not too_many:
        assert render(wanted, IptablesSettings(max_set_size=limit)).sets
        return
    with pytest.raises(UnsupportedRuleError) as caught:
        render(wanted, IptablesSettings(max_set_size=limit))
    assert [name for name, sentence in sentences.items() if sentence in str(caught.value)] == sorted(
        too_many, reverse=True
    )


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
        pytest.param(entry(0, Action.DENY, destination=SideMatch(ports=ports(80))), "ports", id="ports, no protocol"),
        pytest.param(
            entry(0, Action.DENY, protocol=1, source=SideMatch(not_ports=ports(80))), "ports", id="ports of ICMP"
        ),
        pytest.param(entry(0, Action.DENY, icmp=IcmpMatch(8)), "ICMP type", id="ICMP type, no protocol"),
        pytest.param(entry(0, Action.DENY, not_protocol=1, icmp=IcmpMatch(8)), "ICMP type", id="ICMP type of not ICMP"),
    ],
)
def test_what_raw_cannot_say_is_refused_with_every_such_entry(bad: Entry, sentence: str) -> None:
    other = entry(9, Action.DENY, icmp=IcmpMatch(0))
    with pytest.raises(UnsupportedRuleError, match=sentence) as caught:
        render(plan(table("eth0", bad, entry(1, Action.DENY), other)), IptablesSettings())
    assert "ingress[0]" in str(caught.value)
    assert "ingress[9]" in str(caught.value)
    assert "ingress[1]" not in str(caught.value)


def test_allow_without_a_mark_to_set_is_refused_because_every_packet_would_have_it() -> None:
    settings = IptablesSettings(mark_mask=0)
    with pytest.raises(UnsupportedRuleError, match=r"ingress\[1\]: Allow sets a mark, and iptablesMarkMask is 0"):
        render(plan(table("eth0", entry(0, Action.DENY), entry(1, Action.ALLOW))), settings)
    assert render(plan(table("eth0", entry(0, Action.DENY))), settings).chains


def test_tables_that_disagree_on_a_set_are_a_bug() -> None:
    one = table("eth0", entry(0, Action.DENY, source=FROM_DENY_LIST))
    changed = IpSet("s:dos", DENY_LIST.selector, Nets.of(["10.0.0.0/8"]))
    other = RuleTable("eth1", "hep", one.ingress, sets={"s:dos": changed})
    with pytest.raises(InternalError, match="disagree"):
        render(plan(one, other), IptablesSettings())


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
    rendering = render(plan(table("eth0", entry(0, Action.LOG))), IptablesSettings(log_prefix=template))
    targets = [rule.target for chain in rendering.chains[RAW4] for rule in chain.rules]
    assert Log(prefix) in targets
