"""Settling on a plan: the kernel has the last word on modes, so plan, try, and plan again without what it refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from enforcer.backends.base import ApplyResult, BackendDriver
from enforcer.errors import HostError, UnsupportedKernelError
from enforcer.facts import HostFacts, InterfaceFacts
from enforcer.memory import Memory
from enforcer.mode import ModeChoice, RawChoice
from enforcer.plan import InterfacePlan, Plan, make_plan
from enforcer.policy.resources import FelixConfiguration
from enforcer.policy.ruletable import RuleTable
from enforcer.words import Mode


@dataclass(frozen=True)
class Wish:
    """What is to be enforced, on what host.

    ``enforced`` are the interfaces enforced before, with their XDP mode. ``absent`` are not there: raw is made ready
    for them, whatever mode was asked for, so that they are protected from their first packet on.
    """

    tables: Sequence[RuleTable]
    facts: HostFacts
    felix: FelixConfiguration
    choice: ModeChoice
    enforced: Mapping[str, Mode | None]
    absent: frozenset[str] = frozenset()
    raw: RawChoice = RawChoice.AUTO
    netdev: bool = False


@dataclass
class Settlement:
    """``impossible``: interfaces that refuse the mode asked for by name, and the sentence that says so."""

    plan: Plan
    changes: list[str] = field(default_factory=list)
    impossible: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def settle(wish: Wish, driver: BackendDriver, memory: Memory, *, dry_run: bool) -> Settlement:
    """Apply XDP until nothing is refused any more. Ends: each round rules out a mode of an interface."""
    changes: list[str] = []
    while True:
        settlement = plan_for(wish, memory)
        result = _apply(driver, settlement.plan, dry_run=dry_run)
        changes += result.changes
        unexpected = _learn(wish, settlement.plan, result.refused, memory)
        if len(unexpected) == len(result.refused):
            settlement.changes = changes
            settlement.warnings = unexpected
            return settlement


def plan_for(wish: Wish, memory: Memory) -> Settlement:
    """The plan as far as is known. An interface that refuses the mode asked for stays in the one it is in, if any."""
    facts = memory.with_refusals(wish.facts)
    planned: list[InterfacePlan] = []
    impossible: dict[str, str] = {}
    for table in wish.tables:
        choice = ModeChoice.AUTO if table.interface in wish.absent else wish.choice
        try:
            planned += _make_plan(table, facts, wish, choice).interfaces
        except UnsupportedKernelError as error:
            impossible[table.interface] = str(error)
            planned += _as_it_is(table, facts, wish)
    return Settlement(Plan(facts.node, tuple(planned)), impossible=impossible)


def _make_plan(table: RuleTable, facts: HostFacts, wish: Wish, choice: ModeChoice) -> Plan:
    return make_plan([table], facts, felix=wish.felix, choice=choice, raw=wish.raw, netdev=wish.netdev)


def _as_it_is(table: RuleTable, facts: HostFacts, wish: Wish) -> tuple[InterfacePlan, ...]:
    if table.interface not in wish.enforced:
        return ()
    for choice in (ModeChoice.of(wish.enforced[table.interface]), ModeChoice.RAW):
        try:
            return _make_plan(table, facts, wish, choice).interfaces
        except UnsupportedKernelError:
            continue
    return ()


def _apply(driver: BackendDriver, plan: Plan, *, dry_run: bool) -> ApplyResult:
    """A driver that cannot work at all on this host refuses every interface that wants it."""
    try:
        return driver.apply(plan, dry_run=dry_run)
    except HostError as error:
        wanting = [item.interface for item in plan.interfaces if item.mode]
        return ApplyResult(refused=dict.fromkeys(wanting or ["XDP"], str(error)))


def _learn(wish: Wish, plan: Plan, refused: Mapping[str, str], memory: Memory) -> list[str]:
    """Remember refused modes; returns the refusals that rule out none, as sentences."""
    unexpected: list[str] = []
    for name, reason in refused.items():
        planned = plan.interface(name)
        if planned is None or planned.mode is None:
            unexpected.append(f"{name}: {reason}")
        else:
            memory.refuse(wish.facts.interface(name) or InterfaceFacts(name), planned.mode, reason)
    return unexpected
