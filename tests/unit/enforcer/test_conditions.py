"""What every consumer of a RuleTable does with a kind of condition: it matches on it, or refuses, or leaves it to raw.

None matches more packets than the entry says: for XDP that would be to drop what raw lets pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any, get_args

import pytest

from dossim.lint.boxes import Space
from dossim.predict.phases import Phases
from enforcer.backends.iptables.render import render as render_iptables
from enforcer.backends.iptables.settings import IptablesSettings
from enforcer.backends.nftables.netdev.render import render as render_netdev
from enforcer.backends.nftables.render import render as render_nftables
from enforcer.backends.nftables.rules import NftablesSettings, Table
from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.backends.xdp.compile.rows import address_rows, atoms, render
from enforcer.backends.xdp.offload import render_offload
from enforcer.model.choices import ModeChoice
from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.facts import HostFacts, InterfaceFacts, Probe
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action, Answer, Backend, Mode, Side, Stage
from enforcer.planning.plan import InterfacePlan, Plan, make_plan
from enforcer.planning.xdp_capability import NETDEV, XDP
from enforcer.planning.xdp_run import XdpRun
from enforcer.policy.conditions import Condition, Icmp, InNets, InSet, Ports, Protocol, families_of
from enforcer.policy.resources import FelixConfiguration, PortRange
from enforcer.policy.ruletable import Entry, IpSet, PortSet, RuleTable
from tests.support.entries import obstacle_sentences, said_by

TEN = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
NOBODY = ip_network("192.0.2.1/32").network_address


@dataclass(frozen=True)
class Dscp:
    """A kind of condition that nothing knows."""

    value: int


# (what must be there besides it, the condition)
SAMPLES: list[tuple[tuple[Condition, ...], Condition]] = [
    ((), Protocol(6)),
    ((), InNets(Side.SOURCE, TEN)),
    ((), InNets(Side.DESTINATION, TEN)),
    ((), InSet(Side.SOURCE, "s:a")),
    ((), InSet(Side.DESTINATION, "s:a")),
    ((Protocol(6),), Ports(Side.SOURCE, (PortRange(1, 9),))),
    ((Protocol(6),), Ports(Side.DESTINATION, (PortRange(1, 9),), ("n:web",))),
    ((Protocol(6),), Ports(Side.DESTINATION, (), ("n:web",))),
    ((Protocol(1),), Icmp(8)),
    ((Protocol(58),), Icmp(128, 0)),
]
SAMPLES += [(beside, replace(condition, negated=True)) for beside, condition in SAMPLES]  # type: ignore[call-arg]


def test_there_is_a_sample_of_every_kind() -> None:
    assert {type(condition) for _, condition in SAMPLES} == set(get_args(Condition))


def entry(*conditions: object, name: str = "gnp/x ingress[0]") -> Entry:
    return Entry(name, Action.DENY, conditions=conditions)  # type: ignore[arg-type]


def table(*entries: Entry) -> RuleTable:
    sets = {"s:a": IpSet("s:a", "has(a)", Nets.of(["203.0.113.0/24", "2001:db8:1::/48"]))}
    port_sets = {"n:web": PortSet("n:web", "web", 6, ((NOBODY, 80),))}
    return RuleTable("eth0", "hep", entries, sets=sets, port_sets=port_sets)


def plan_with(found: RuleTable, backend: Backend, mode: Mode | None = None, *, netdev: bool = False) -> Plan:
    """A plan in which the early stage holds every entry, whatever the planner would say."""
    early = len(found.ingress) if mode or netdev else 0
    return Plan("node", (InterfacePlan(found, mode, backend, (), held=early, netdev=netdev),))


def of_nftables(*tables: Table) -> object:
    return [(item.chains, [(spec.name, spec.members.tobytes()) for spec in item.sets]) for item in tables]


def iptables(found: RuleTable) -> object:
    return render_iptables(plan_with(found, Backend.IPTABLES), IptablesSettings()).chains


def nftables(found: RuleTable) -> object:
    return of_nftables(*render_nftables(plan_with(found, Backend.NFTABLES), NftablesSettings()))


def netdev(found: RuleTable) -> object:
    return of_nftables(render_netdev(plan_with(found, Backend.NFTABLES, netdev=True), NftablesSettings()))


def xdp(found: RuleTable) -> object:
    (plan,) = plan_with(found, Backend.IPTABLES, Mode.NATIVE).interfaces
    return repr(render(plan)), address_rows(plan, {0: frozenset(), 1: frozenset(atoms(plan))})


def device(found: RuleTable) -> object:
    (plan,) = plan_with(found, Backend.IPTABLES, Mode.OFFLOAD).interfaces
    return render_offload(plan, receiver=Receiver(bytes(6))).maps


def predict(found: RuleTable) -> object:
    return [Phases.of(item) for item in found.ingress]


def lint(found: RuleTable) -> object:
    return [vars(box) for item in found.ingress for box in Space(found).boxes(item)]


def said(found: RuleTable) -> object:
    return [said_by(item) for item in found.ingress]


MATCHING: dict[str, Callable[[RuleTable], object]] = {
    "iptables": iptables,
    "nftables": nftables,
    "netdev ingress": netdev,
    "XDP": xdp,
    "predict": predict,
    "lint": lint,
    "the tests": said,
}


@pytest.mark.parametrize("who", MATCHING)
@pytest.mark.parametrize(("beside", "condition"), SAMPLES, ids=[str(condition) for _, condition in SAMPLES])
def test_a_condition_makes_a_difference(who: str, beside: tuple[Condition, ...], condition: Condition) -> None:
    families = families_of(None, (*beside, condition))
    without, having = entry(*beside), entry(*beside, condition)
    consumer = MATCHING[who]
    assert consumer(table(replace(having, families=families))) != consumer(table(replace(without, families=families)))


@pytest.mark.parametrize(("beside", "condition"), SAMPLES, ids=[str(condition) for _, condition in SAMPLES])
def test_a_device_holds_a_list_of_sources_and_says_why_not_the_rest(
    beside: tuple[Condition, ...], condition: Any
) -> None:
    found = table(entry(*beside, condition))
    is_list = isinstance(condition, InNets | InSet) and condition.side is Side.SOURCE and not condition.negated
    assert XdpRun(found).held(Mode.OFFLOAD) == int(is_list)
    if is_list:
        assert device(found) != device(table(entry()))
        return
    assert "match" in obstacle_sentences(found, Mode.OFFLOAD)[0]
    with pytest.raises(Exception, match="in a device, which does not match on"):
        device(found)


# -- one that nothing knows --------------------------------------------------------------------------------------------

UNKNOWN = table(entry(Protocol(17), name="first"), entry(Protocol(6), Dscp(46), name="unknown"), entry(name="last"))


@pytest.mark.parametrize("consumer", [*MATCHING.values(), device], ids=[*MATCHING, "a device"])
def test_who_does_not_know_a_condition_refuses_it_by_name(consumer: Callable[[RuleTable], object]) -> None:
    with pytest.raises(UnsupportedRuleError, match="cannot match on Dscp"):
        consumer(table(entry(Dscp(46))))


def test_the_compiler_has_to_know_of_which_families_it_is() -> None:
    with pytest.raises(UnsupportedRuleError, match="cannot match on Dscp"):
        families_of(None, [Dscp(46)])  # type: ignore[list-item]


@pytest.mark.parametrize("holder", [XDP, NETDEV])
def test_the_stages_before_raw_leave_it_to_raw_and_all_after_it(holder: str) -> None:
    reason = "matches on Dscp, which is left to raw"
    assert obstacle_sentences(UNKNOWN, None, holder) == ["", reason, f"after unknown, which {holder} does not hold"]
    assert XdpRun(UNKNOWN).held() == 1


@pytest.mark.parametrize("mode", [*ModeChoice])
def test_a_plan_has_it_in_raw_alone(mode: ModeChoice) -> None:
    yes = Probe(Answer.YES)
    interface = InterfaceFacts("eth0", 2, modes=dict.fromkeys(Mode, yes), netdev_ingress=yes)
    facts = HostFacts("node", interfaces=(interface,), backends=dict.fromkeys(Backend, yes))
    found = make_plan([UNKNOWN], facts, felix=FelixConfiguration("default"), choice=mode, netdev=True)
    _, planned, last = found.interfaces[0].entries
    assert planned.stage is last.stage is Stage.RAW
    assert "unknown" not in [item.name for item in found.interfaces[0].early_entries]
    if found.interfaces[0].mode is not Mode.OFFLOAD:
        assert "Dscp" in planned.reason or mode is ModeChoice.OFFLOAD
