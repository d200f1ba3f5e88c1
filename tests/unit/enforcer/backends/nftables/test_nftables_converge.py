"""The reconciler of nf_tables on a fake kernel: from every state to every plan, without a gap, whatever fails."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace

import pytest
from hypothesis import given, settings

from enforcer.backends.nftables.rules import NETS, TABLE
from enforcer.kernel.nfnetlink import Family, Message
from enforcer.model.vocabulary import Backend
from enforcer.planning.plan import Plan
from tests.contract.nft_commands import (
    DROP,
    PREROUTING,
    delete_chain,
    delete_rule,
    delete_table,
    flush,
    jump,
    new_chain,
    new_rule,
    new_set,
    new_table,
)
from tests.kernel.iptables_plans import RICH, ip_set
from tests.support.examples import examples
from tests.support.fakes.nft import FakeNfTables
from tests.support.host_plans import TIMELY, changes, plan_of, timely
from tests.support.reconcile import check_change, check_faults, converge
from tests.unit.enforcer.backends.nftables.nft_world import NftWorld

CHANGES = changes(Backend.NFTABLES)
PLAN, NOTHING = plan_of(Backend.NFTABLES, RICH), plan_of(Backend.NFTABLES)
CHANGED = {"s:deny": ip_set("s:deny", ["203.0.113.0/25", "192.0.2.0/24", "2001:db8:bad::/47"])}
FOREIGN = (new_table("somebody"), new_table(family=Family.INET), new_chain("enf-x", table="somebody"))


@pytest.mark.parametrize("row", TIMELY)
def test_members_come_and_go_in_time(row: str) -> None:
    change = timely(row, Backend.NFTABLES)
    check_change(NftWorld, *change)
    check_faults(NftWorld, *change)


@settings(max_examples=examples(15, nightly=1500))
@given(CHANGES)
def test_a_change_has_no_hole(change: tuple[Plan, Plan]) -> None:
    check_change(NftWorld, *change)


@pytest.mark.slow
@settings(max_examples=examples(6, nightly=600))
@given(CHANGES)
def test_wherever_it_fails_there_is_no_hole_and_the_next_pass_mends_it(change: tuple[Plan, Plan]) -> None:
    check_faults(NftWorld, *change)


@settings(max_examples=examples(15, nightly=1500))
@given(CHANGES)
def test_no_packet_is_under_way_from_one_transaction_to_the_next(change: tuple[Plan, Plan]) -> None:
    world = NftWorld()
    for plan in change:
        first = len(world.calls.log)
        world.apply(plan)
        wrote = [call for call in world.calls.log[first:] if call in ("commit", "wait for packets")]
        assert wrote == ["commit", *["wait for packets", "commit"] * (len(wrote) // 2)][: len(wrote)]


# --- what others do ---------------------------------------------------------------------------------------------------


def do(fake: FakeNfTables, *messages: Message) -> None:
    fake.commit(messages, fake.number)


def _a_set(fake: FakeNfTables) -> str:
    return next(name for name, item in fake.tables[Family.IP, TABLE].sets.items() if len(item.elements) > 1)


def _a_rule(fake: FakeNfTables, chain: str) -> int:
    return fake.tables[Family.IP, TABLE].chains[chain].rules[0].handle


BASE = "enf-PREROUTING"
EDITS: dict[str, Callable[[FakeNfTables], None]] = {
    "a table gone": lambda fake: do(fake, delete_table()),
    "both gone": lambda fake: do(fake, delete_table(), delete_table(family=Family.IP6)),
    "switched off": lambda fake: do(fake, new_table(dormant=1)),
    "unhooked": lambda fake: do(fake, delete_rule(BASE)),
    "a base chain gone": lambda fake: do(fake, delete_chain(BASE)),
    "another base chain": lambda fake: do(fake, new_chain("mine", PREROUTING), new_rule("mine")),
    "a rule gone": lambda fake: do(fake, delete_rule(BASE, _a_rule(fake, BASE))),
    "a rule in front": lambda fake: do(fake, new_rule("enf-pi-eth0/security", DROP, flags=0x400)),
    "a jump from a chain of theirs": lambda fake: do(
        fake, new_chain("theirs"), new_rule("theirs", jump("enf-pi-eth0/security"))
    ),
    "a chain emptied": lambda fake: do(fake, delete_rule("enf-pi-eth0/security")),
    "a stray set": lambda fake: do(fake, new_set("stray", NETS[6])),
    "a set emptied": lambda fake: do(fake, flush(_a_set(fake))),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_pass_repairs_what_another_program_did(edit: str) -> None:
    world = NftWorld()
    converge(world, PLAN)
    EDITS[edit](world.fake)
    assert not world.holds(PLAN)
    converge(world, PLAN)
    EDITS[edit](world.fake)
    converge(world, NOTHING)


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS)
def test_what_another_program_does_during_a_pass_is_repaired_by_it_or_the_next(edit: str) -> None:
    """Before the calls of a pass from one plan to another; at night before each, else before every second one."""
    other = plan_of(Backend.NFTABLES, replace(RICH, ingress=RICH.ingress[2:], sets=CHANGED))
    step = examples(2, nightly=1)
    world = NftWorld()
    converge(world, PLAN)
    number, mended = list(EDITS).index(edit) % step, set[Hashable]()
    while _disturbed(world.copy(), other, number, EDITS[edit], mended):
        number += step
    assert number > 3


def _disturbed(
    world: NftWorld, plan: Plan, number: int, edit: Callable[[FakeNfTables], None], mended: set[Hashable]
) -> bool:
    """Whether the pass makes that many calls. ``mended``: what was repaired; what is left is added."""

    def intrude(call: int) -> None:
        if call == number:
            world.calls.intrude = None
            edit(world.fake)

    world.calls.intrude = intrude
    world.apply(plan)
    reached, world.calls.intrude = world.calls.intrude is None, None
    left = world.everything()
    if left not in mended:
        converge(world, plan)
        mended.add(left)
    return reached


@settings(max_examples=examples(6, nightly=600))
@given(CHANGES)
def test_tables_of_others_are_untouched(change: tuple[Plan, Plan]) -> None:
    world = NftWorld()
    do(world.fake, *FOREIGN)
    before = world.foreign()
    for plan in (*change, NOTHING):
        converge(world, plan)
        assert world.foreign() == before
    assert world.fake.tables == before
