"""The reconciler of legacy tables and ipsets on a fake kernel: every change without a gap, whatever fails."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace

import pytest
from hypothesis import given, settings

from enforcer.backends.iptables.members import members_of
from enforcer.backends.iptables.rules import SetType, TableId, TableName
from enforcer.model.errors import KernelError
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Backend
from enforcer.planning.plan import Plan
from tests.kernel.iptables_plans import RICH, ip_set
from tests.support.examples import examples
from tests.support.fakes.xtables import FakeXtables
from tests.support.host_plans import TIMELY, changes, plan_of, timely
from tests.support.reconcile import check_change, check_faults, converge
from tests.unit.enforcer.backends.iptables.xtables_world import XtablesWorld

CHANGES = changes(Backend.IPTABLES)
PLAN, NOTHING = plan_of(Backend.IPTABLES, RICH), plan_of(Backend.IPTABLES)
CHANGED = {"s:deny": ip_set("s:deny", ["203.0.113.0/25", "192.0.2.0/24", "2001:db8:bad::/47"])}
OTHER = plan_of(Backend.IPTABLES, replace(RICH, ingress=RICH.ingress[2:], sets=CHANGED))
RAW = TableId(4, TableName.RAW)


@pytest.mark.parametrize("row", TIMELY)
def test_members_come_and_go_in_time(row: str) -> None:
    change = timely(row, Backend.IPTABLES)
    check_change(XtablesWorld, *change)
    check_faults(XtablesWorld, *change)


@settings(max_examples=examples(15, nightly=1500))
@given(CHANGES)
def test_a_change_has_no_hole(change: tuple[Plan, Plan]) -> None:
    check_change(XtablesWorld, *change)


@pytest.mark.slow
@settings(max_examples=examples(3, nightly=300))
@given(CHANGES)
def test_wherever_it_fails_there_is_no_hole_and_the_next_pass_mends_it(change: tuple[Plan, Plan]) -> None:
    check_faults(XtablesWorld, *change)


@pytest.mark.slow
def test_wherever_a_change_of_everything_fails() -> None:
    assert check_faults(XtablesWorld, PLAN, OTHER) > 20
    assert check_faults(XtablesWorld, PLAN, NOTHING) > 10


# --- what others do ---------------------------------------------------------------------------------------------------


def _edit(change: Callable[[dict[str, tuple[tuple[bytes, str], ...]]], None]) -> Callable[[FakeXtables], None]:
    def edit(fake: FakeXtables) -> None:
        if RAW in fake.tables:
            chains = dict(fake.tables[RAW].chains)
            change(chains)
            fake.tables[RAW] = replace(fake.tables[RAW], chains=chains)

    return edit


def _set_of(fake: FakeXtables) -> str | None:
    return next((name for name, item in fake.sets.items() if len(item.members) > 1), None)


def _emptied(fake: FakeXtables) -> None:
    if name := _set_of(fake):
        fake.sets[name] = replace(fake.sets[name], members=frozenset())


def _small(fake: FakeXtables) -> None:
    """A set whose maximum size is its number of members."""
    if name := _set_of(fake):
        item = fake.sets[name]
        some = frozenset(sorted(item.members)[:1])
        fake.sets[name] = replace(item, header=replace(item.header, maxelem=1), members=some)


def _with_options(fake: FakeXtables) -> None:
    if name := _set_of(fake):
        item = fake.sets[name]
        fake.sets[name] = replace(item, header=replace(item.header, options=1), members=item.members)


TIER = "enf-pi-eth0/security"
EDITS: dict[str, Callable[[FakeXtables], None]] = {
    "unhooked": _edit(lambda chains: chains.update(PREROUTING=())),
    "hooked twice": _edit(lambda chains: chains.update(PREROUTING=chains["PREROUTING"] * 2)),
    "a chain emptied": _edit(lambda chains: chains.update({TIER: ()})),
    "a rule gone": _edit(lambda chains: chains.update({TIER: chains.get(TIER, ())[1:]})),
    "rules in another order": _edit(lambda chains: chains.update({TIER: chains.get(TIER, ())[::-1]})),
    "a set emptied": _emptied,
    "a set with room for one": _small,
    "a set with options": _with_options,
    "a stray set": lambda fake: "enf4-stray" in fake.sets or fake.create("enf4-stray", SetType.NET, 4, 1, limit=1),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_pass_repairs_what_another_program_did(edit: str) -> None:
    for wanted in (PLAN, OTHER, NOTHING):
        world = XtablesWorld()
        converge(world, PLAN)
        before = world.state()
        EDITS[edit](world.fake)
        assert world.state() != before
        converge(world, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS)
def test_what_another_program_does_during_a_pass_is_repaired_by_the_next(edit: str) -> None:
    world = XtablesWorld()
    converge(world, PLAN)
    number, mended = 0, set[Hashable]()
    while _disturbed(world.copy(), number, EDITS[edit], mended):
        number += 1
    assert number > 10


def _disturbed(world: XtablesWorld, number: int, edit: Callable[[FakeXtables], None], mended: set[Hashable]) -> bool:
    """Whether the pass makes that many calls. ``mended``: what was repaired; what is left is added."""

    def intrude(call: int) -> None:
        if call == number:
            world.calls.intrude = None
            edit(world.fake)

    world.calls.intrude = intrude
    try:
        world.apply(OTHER)
    except KernelError:
        assert edit is _small, "only a set with too little room makes a pass fail"
    reached, world.calls.intrude = world.calls.intrude is None, None
    left = world.everything()
    if left not in mended:
        converge(world, OTHER)
        mended.add(left)
    return reached


def test_sets_and_chains_of_others_are_untouched() -> None:
    world = XtablesWorld()
    world.fake.create("theirs", SetType.NET, 4, 5, limit=9)
    world.fake.add("theirs", 4, members_of(Nets.of(["192.0.2.0/24"]), 4))
    _edit(lambda chains: chains.update(theirs=()))(world.fake)
    with world.fake.open(RAW) as snapshot:
        snapshot.create_chain("theirs")
        snapshot.commit()
    before = world.state()
    for plan in (PLAN, OTHER, NOTHING):
        converge(world, plan)
        assert world.fake.sets["theirs"] == before.sets["theirs"]
        assert world.fake.tables[RAW].chains["theirs"] == ()
    assert world.fake.tables[RAW] == before.tables[RAW]
    assert world.fake.sets == before.sets
