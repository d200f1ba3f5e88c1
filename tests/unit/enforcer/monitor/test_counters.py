"""Totals of packets: never shrinking, and bounded in their labels whatever a host has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from enforcer.backends.base import EntryCount
from enforcer.model.errors import KernelError
from enforcer.model.vocabulary import Action, Backend, Direction, Stage
from enforcer.monitor import counters as module
from enforcer.monitor.bounded import OTHER, Shown
from enforcer.monitor.counters import INVALID, NO_PROFILE, CounterReader, Key, Totals, meanings
from enforcer.planning.plan import InterfacePlan, Plan, PlannedEntry, TrackedPlan
from enforcer.policy.ruletable import Entry, RuleTable
from enforcer.policy.tracked import Hook, TierChain, TrackedChain, TrackedTable

DENY = ("dos", Action.DENY)


def count(packets: int, entry: str = "a", stage: Stage = Stage.RAW, interface: str = "eth0") -> EntryCount:
    return EntryCount(interface, entry, stage, packets, 100 * packets)


def total(totals: Totals, **labels: object) -> int:
    """Packets of all totals with these labels."""
    return sum(
        packets
        for key, (packets, _) in totals.totals.items()
        if all(getattr(key, name) == value for name, value in labels.items())
    )


def known(
    *names: str, interfaces: Sequence[str] = ("eth0",), policy: str = "dos"
) -> dict[tuple[str, str], tuple[str, Action]]:
    return {(interface, name): (policy, Action.DENY) for interface in interfaces for name in names}


# --- which labels are shown -------------------------------------------------------------------------------------------


def test_the_first_so_many_are_shown_and_all_others_are_one() -> None:
    shown = Shown(2)
    shown.update({"c", "a", "b"})
    assert [shown.label(name) for name in "abc"] == ["a", "b", OTHER]


def test_a_name_keeps_its_label_while_others_come_and_go() -> None:
    shown = Shown(2)
    shown.update({"b", "c", "d"})
    shown.update({"a", "c", "d"})  # b has left: its place is a's, which is new; d stays where it is counted
    assert [shown.label(name) for name in "acd"] == ["a", "c", OTHER]


def test_a_name_that_was_away_may_take_a_free_place() -> None:
    shown = Shown(1)
    shown.update({"a", "b"})
    shown.update(set())
    shown.update({"b"})
    assert shown.label("b") == "b"


# --- totals -----------------------------------------------------------------------------------------------------------


def test_totals_sum_the_entries_of_a_policy_by_stage() -> None:
    totals = Totals()
    totals.add([count(3), count(4, "b"), count(5, stage=Stage.DRIVER)], known("a", "b"))
    assert totals.totals == {
        Key("eth0", Stage.RAW, *DENY): (7, 700),
        Key("eth0", Stage.DRIVER, *DENY): (5, 500),
    }


def test_an_entry_that_goes_takes_nothing_with_it() -> None:
    totals = Totals()
    totals.add([count(3), count(4, "b")], known("a", "b"))
    totals.add([count(5)], known("a"))
    assert total(totals) == 3 + 4 + 2


def test_a_counter_that_begins_anew_adds_what_it_has() -> None:
    totals = Totals()
    totals.add([count(30)], known("a"))
    totals.add([count(2)], known("a"))
    assert total(totals) == 32


def test_a_policy_that_goes_ends_its_series_and_others_keep_theirs() -> None:
    totals = Totals()
    totals.add([count(3), count(4, "b")], known("a") | known("b", policy="later"))
    totals.add([count(3)], known("a"))
    assert {key.policy for key in totals.totals} == {"dos"}


def test_entries_that_no_plan_knows_wait() -> None:
    totals = Totals()
    totals.add([count(3), count(9, "b")], known("a"))
    assert total(totals) == 3
    totals.add([count(3), count(9, "b")], known("a", "b"))
    assert total(totals) == 12


def test_the_number_of_series_is_bounded_and_the_sum_stays_right() -> None:
    names = [f"eth{at:03}" for at in range(100)]
    policies = [f"p{at:03}" for at in range(200)]
    meaning = {(name, policy): (policy, Action.DENY) for name in names for policy in policies}
    totals = Totals()
    totals.add([count(1, policy, interface=name) for name in names for policy in policies], meaning)
    assert len({key.interface for key in totals.totals}) == module.INTERFACES_MAX + 1
    assert len({key.policy for key in totals.totals}) == module.POLICIES_MAX + 1
    assert total(totals) == 100 * 200
    assert total(totals, interface=OTHER) == (100 - module.INTERFACES_MAX) * 200


def test_what_is_counted_together_never_shrinks() -> None:
    names = [f"eth{at:03}" for at in range(40)]
    totals = Totals()
    totals.add([count(10, interface=name) for name in names], known("a", interfaces=names))
    before = total(totals, interface=OTHER)
    assert before == 80
    totals.add([count(10, interface=name) for name in names[:33]], known("a", interfaces=names[:33]))
    assert total(totals, interface=OTHER) == before


def test_single_entries_are_the_first_ones_of_an_interface() -> None:
    names = [f"e{at:03}" for at in range(300)]
    totals = Totals(entries=True)
    totals.add([count(at, name) for at, name in enumerate(names)], known(*names))
    assert [key.entry for key in totals.by_entry] == names[: module.ENTRIES_MAX]
    assert list(totals.by_entry.values())[7] == (7, 700)
    assert not Totals().by_entry


# --- what entries mean ------------------------------------------------------------------------------------------------


def test_every_name_with_a_counter_has_a_policy_and_an_action() -> None:
    deny = Entry("gnp/dos ingress[0]", Action.DENY, policy="dos")
    allow = Entry("gnp/web ingress[0]", Action.ALLOW, policy="web")
    of_profile = Entry("profile/p ingress[0]", Action.ALLOW, tier="")
    table = RuleTable("eth0", "jasper-eth0", (deny,))
    plan = InterfacePlan(table, None, Backend.IPTABLES, (PlannedEntry(deny, Stage.RAW),))
    chain = TrackedChain(
        Hook.INPUT, (TierChain("default", (allow,)),), (TierChain("p", (of_profile,), Action.PASS),), end=Action.DENY
    )
    tracked = TrackedTable("eth0", "jasper-eth0", (chain,))
    found = meanings(Plan("jasper", (plan,), tracked=(TrackedPlan(tracked, Backend.IPTABLES, True),)))
    assert {name for _, name in found} == {deny.name, *chain.names()}
    assert {name: meaning for (_, name), meaning in found.items()} == {
        deny.name: ("dos", Action.DENY),
        allow.name: ("web", Action.ALLOW),
        of_profile.name: ("profile/p", Action.ALLOW),
        chain.invalid: (INVALID, Action.DENY),
        chain.no_profile: (NO_PROFILE, Action.DENY),
        chain.tiers[0].end(Direction.INGRESS): ("tier/default", Action.DENY),
    }
    assert not meanings(Plan("jasper", (), tracked=(TrackedPlan(tracked, Backend.IPTABLES, False),)))


# --- when the kernel is read ------------------------------------------------------------------------------------------


PLAN = Plan(
    "jasper",
    (
        InterfacePlan(
            RuleTable("eth0", "e"),
            None,
            Backend.IPTABLES,
            (PlannedEntry(Entry("a", Action.DENY, policy="dos"), Stage.RAW),),
        ),
    ),
)


class Kernel:
    def __init__(self) -> None:
        self.reads, self.error = 0, False

    def __call__(self) -> list[EntryCount]:
        self.reads += 1
        if self.error:
            raise KernelError("reading", number=12)
        return [count(self.reads)]


class Clock:
    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


def test_the_kernel_is_read_once_a_second_at_most(clock: Clock) -> None:
    kernel = Kernel()
    reader = CounterReader(kernel)
    for clock.now_s in (0.0, 0.9, 1.1, 1.2):
        reading = reader.read(PLAN, passing=False)
    assert kernel.reads == 2
    assert reading.age_s == pytest.approx(0.1)


def test_reads_that_take_long_are_rare(clock: Clock) -> None:
    kernel = Kernel()

    def slow() -> list[EntryCount]:
        clock.now_s += 0.1
        return kernel()

    reader = CounterReader(slow)
    for clock.now_s in (0.0, 1.5, 4.9, 5.1):
        reader.read(PLAN, passing=False)
    assert kernel.reads == 2


def test_while_a_pass_runs_the_last_values_are_told_with_their_age(clock: Clock) -> None:
    kernel = Kernel()
    reader = CounterReader(kernel)
    reader.read(PLAN, passing=False)
    clock.now_s = 7.0
    reading = reader.read(PLAN, passing=True)
    assert (kernel.reads, reading.age_s) == (1, 7.0)
    assert reading.totals == {Key("eth0", Stage.RAW, *DENY): (1, 100)}


def test_a_read_that_fails_is_counted_and_the_last_values_stay(clock: Clock) -> None:
    kernel = Kernel()
    reader = CounterReader(kernel)
    reader.read(PLAN, passing=False)
    kernel.error, clock.now_s = True, 5.0
    reading = reader.read(PLAN, passing=False)
    assert (reading.failures, reading.age_s) == (1, 5.0)
    assert reading.totals == {Key("eth0", Stage.RAW, *DENY): (1, 100)}


def test_before_the_first_pass_nothing_is_read(clock: Clock) -> None:
    kernel = Kernel()
    assert CounterReader(kernel).read(None, passing=False).age_s is None
    assert not kernel.reads
