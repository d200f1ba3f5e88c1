"""What every consumer of a RuleTable does with a kind of condition: matches on it, refuses it, or leaves it to raw.

None matches more packets than the entry: XDP would then drop what raw passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any, get_args

import pytest

from dossim.lint.boxes import Space
from dossim.predict.compiled import rows_of
from enforcer.backends.iptables.render import render as render_iptables
from enforcer.backends.iptables.settings import IptablesSettings
from enforcer.backends.nftables.netdev.render import render as render_netdev
from enforcer.backends.nftables.render import render as render_nftables
from enforcer.backends.nftables.rules import NftablesSettings, Table
from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.backends.xdp.compile.rows import address_rows, atoms, render
from enforcer.backends.xdp.offload import render_offload
from enforcer.emergency.effect import Match, match_of
from enforcer.model.choices import ModeChoice
from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.facts import HostFacts, InterfaceFacts, Probe
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action, Answer, Backend, Direction, Mode, Side, Stage
from enforcer.planning.plan import InterfacePlan, Plan, make_plan
from enforcer.planning.xdp_capability import NETDEV, XDP
from enforcer.planning.xdp_run import XdpRun
from enforcer.policy.conditions import Condition, Icmp, InNets, InSet, Ports, Protocol, families_of, name_of
from enforcer.policy.resources import FelixConfiguration, PortRange
from enforcer.policy.ruletable import Entry, IpSet, PortSet, RuleTable
from tests.support.entries import obstacle_sentences, said_by

TEN = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
NOBODY = ip_network("192.0.2.1/32").network_address


@dataclass(frozen=True)
class OneMore:
    """A kind of condition that no consumer handles."""

    value: int


@dataclass(frozen=True)
class Sample:
    """A condition, the other conditions that it needs, and the consumers that deliberately do not match on it: they
    refuse it by name, and an early stage leaves it to raw.
    """

    condition: Any
    beside: tuple[Condition, ...] = ()
    refused_by: tuple[str, ...] = ()

    def __str__(self) -> str:
        return str(self.condition)

    @property
    def having(self) -> tuple[Condition, ...]:
        return (*self.beside, self.condition)


SAMPLES = [
    Sample(Protocol(6)),
    Sample(InNets(Side.SOURCE, TEN)),
    Sample(InNets(Side.DESTINATION, TEN)),
    Sample(InSet(Side.SOURCE, "s:a")),
    Sample(InSet(Side.DESTINATION, "s:a")),
    Sample(Ports(Side.SOURCE, (PortRange(1, 9),)), (Protocol(6),)),
    Sample(Ports(Side.DESTINATION, (PortRange(1, 9),), ("n:web",)), (Protocol(6),)),
    Sample(Ports(Side.DESTINATION, (), ("n:web",)), (Protocol(6),)),
    Sample(Icmp(8), (Protocol(1),)),
    Sample(Icmp(128, 0), (Protocol(58),)),
]
# A kind of condition without ``negated`` has no negation.
SAMPLES += [
    replace(item, condition=replace(item.condition, negated=True))
    for item in SAMPLES
    if hasattr(item.condition, "negated")
]


def test_there_is_a_sample_of_every_kind() -> None:
    assert {type(item.condition) for item in SAMPLES} == set(get_args(Condition))


def entry(*conditions: object, name: str = "gnp/x ingress[0]") -> Entry:
    return Entry(name, Action.DENY, conditions=conditions)  # type: ignore[arg-type]  # checked when it runs


def table(*entries: Entry) -> RuleTable:
    sets = {"s:a": IpSet("s:a", "has(a)", Nets.of(["203.0.113.0/24", "2001:db8:1::/48"]))}
    port_sets = {"n:web": PortSet("n:web", "web", 6, ((NOBODY, 80),))}
    return RuleTable("eth0", "hep", entries, sets=sets, port_sets=port_sets)


def plan_with(found: RuleTable, backend: Backend, mode: Mode | None = None, *, netdev: bool = False) -> Plan:
    """A plan in which the early stage holds every entry, independent of the planner."""
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
    rows = rows_of(found, Direction.INGRESS)
    return rows.entries, rows.conditions, rows.ranges, rows.names, [str(nets) for nets in rows.nets]


def lint(found: RuleTable) -> object:
    boxes = [box for item in found.ingress for box in Space(found).boxes(item)]
    addresses = [
        [(found.first.tolist(), found.last.tolist()) for found in (box.source, box.destination)] for box in boxes
    ]
    return addresses, [(box.version, box.masks, box.exact) for box in boxes]


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


# One that no consumer handles, so that all refuse it.
UNKNOWN = Sample(OneMore(1), refused_by=tuple(MATCHING))
EARLY = {"XDP": XDP, "netdev ingress": NETDEV}


def pair(who: str, sample: Sample) -> tuple[object, object]:
    """A consumer's result for an entry with the condition, and for the same entry without it."""
    families = (4, 6) if sample is UNKNOWN else families_of(None, sample.having)
    having, without = (replace(entry(*found), families=families) for found in (sample.having, sample.beside))
    return MATCHING[who](table(having)), MATCHING[who](table(without))


@pytest.mark.parametrize("who", MATCHING)
@pytest.mark.parametrize("sample", [*SAMPLES, UNKNOWN], ids=str)
def test_a_condition_makes_a_difference_or_is_refused_by_name(who: str, sample: Sample) -> None:
    if who in sample.refused_by:
        with pytest.raises(UnsupportedRuleError, match=f"cannot match on {name_of(sample.condition)}"):
            pair(who, sample)
        return
    having, without = pair(who, sample)
    assert having != without


@pytest.mark.parametrize("who", MATCHING)
def test_the_same_entry_makes_no_difference(who: str) -> None:
    """Otherwise the tests above would prove nothing."""
    sample = Sample(InSet(Side.SOURCE, "s:a"), (InNets(Side.SOURCE, TEN),))
    assert pair(who, sample) == pair(who, sample)


@pytest.mark.parametrize("who", EARLY)
@pytest.mark.parametrize("sample", [*SAMPLES, UNKNOWN], ids=str)
def test_what_a_stage_before_raw_refuses_is_left_to_raw(who: str, sample: Sample) -> None:
    (sentence,) = obstacle_sentences(table(entry(*sample.having)), None, EARLY[who])
    assert bool(sentence) is (who in sample.refused_by)


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_a_device_holds_a_list_of_sources_and_says_why_not_the_rest(sample: Sample) -> None:
    found, condition = table(entry(*sample.having)), sample.condition
    is_list = isinstance(condition, InNets | InSet) and condition.side is Side.SOURCE and not condition.negated
    assert XdpRun(found).held(Mode.OFFLOAD) == int(is_list)
    if is_list:
        assert device(found) != device(table(entry()))
        return
    assert "match" in obstacle_sentences(found, Mode.OFFLOAD)[0]
    with pytest.raises(Exception, match="in a device, which does not match on"):
        device(found)


@pytest.mark.parametrize("sample", [*SAMPLES, UNKNOWN], ids=str)
def test_an_entry_with_more_conditions_denies_no_network_wholly_that_fewer_do_not(sample: Sample) -> None:
    """So no act, and no export, claims too much."""
    found = table(entry(*sample.having))
    nets = [ip_network(text) for text in ("10.0.0.0/8", "203.0.113.0/24", "198.51.100.0/24")]
    if sample is UNKNOWN:
        with pytest.raises(UnsupportedRuleError, match="cannot match on OneMore"):
            match_of(found, found.ingress[0], nets[0])
        return
    lists = [item for item in sample.having if isinstance(item, InNets | InSet) and item.side is Side.SOURCE]
    wholly = {str(net) for net in nets if match_of(found, found.ingress[0], net) is Match.ALL}
    assert bool(wholly) is (len(lists) == len(sample.having))


# -- one that no consumer handles
# --------------------------------------------------------------------------------------------

SECOND = table(entry(Protocol(17), name="first"), entry(Protocol(6), OneMore(1), name="unknown"), entry(name="last"))


def test_a_device_refuses_it_by_name() -> None:
    with pytest.raises(UnsupportedRuleError, match="cannot match on OneMore"):
        device(table(entry(OneMore(1))))


def test_the_compiler_has_to_know_of_which_families_it_is() -> None:
    with pytest.raises(UnsupportedRuleError, match="cannot match on OneMore"):
        families_of(None, [OneMore(1)])  # type: ignore[list-item]  # an unknown one


@pytest.mark.parametrize("holder", [XDP, NETDEV])
def test_the_stages_before_raw_leave_it_to_raw_and_all_after_it(holder: str) -> None:
    reason = "matches on OneMore, which is left to raw"
    assert obstacle_sentences(SECOND, None, holder) == ["", reason, f"after unknown, which {holder} does not hold"]
    assert XdpRun(SECOND).held() == 1


@pytest.mark.parametrize("mode", [*ModeChoice])
def test_a_plan_has_it_in_raw_alone(mode: ModeChoice) -> None:
    yes = Probe(Answer.YES)
    interface = InterfaceFacts("eth0", 2, modes=dict.fromkeys(Mode, yes), netdev_ingress=yes)
    facts = HostFacts("node", interfaces=(interface,), backends=dict.fromkeys(Backend, yes))
    found = make_plan([SECOND], facts, felix=FelixConfiguration("default"), choice=mode, netdev=True)
    _, planned, last = found.interfaces[0].entries
    assert planned.stage is last.stage is Stage.RAW
    assert "unknown" not in [item.name for item in found.interfaces[0].early_entries]
    if found.interfaces[0].mode is not Mode.OFFLOAD:
        assert "OneMore" in planned.reason or mode is ModeChoice.OFFLOAD
