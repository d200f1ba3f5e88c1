"""Lists changed CIDR by CIDR on a fake kernel: XDP then drops the same packets as after a pass with these lists."""

from __future__ import annotations

import errno
from itertools import pairwise

import pytest

from enforcer.backends.xdp.lists import Lists
from enforcer.model.errors import KernelError
from enforcer.model.vocabulary import Backend
from enforcer.planning.plan import Plan
from tests.kernel.iptables_plans import ip_set, table
from tests.support.fakes.calls import Fault, Killed
from tests.support.host_plans import plan_of
from tests.support.reconcile import converge
from tests.unit.enforcer.backends.xdp.test_xdp_converge import BY_A, BY_B, NOTHING, OLD, UDP
from tests.unit.enforcer.backends.xdp.xdp_world import State, XdpWorld, early

A, B = ["10.0.0.1/32", "2001:db8::1/128"], ["10.0.1.0/24"]  # the sets of OLD


def plan_with(a: list[str], b: list[str]) -> Plan:
    sets = [ip_set("s:a", a), ip_set("s:b", b)]
    return early(plan_of(Backend.IPTABLES, table(BY_A, BY_B, sets=sets)))


def world_with(plan: Plan) -> XdpWorld:
    world = XdpWorld()
    converge(world, plan)
    return world


def lists_of(world: XdpWorld, plan: Plan) -> Lists:
    return Lists(world.fake.pins, plan, bpf=world.fake)


# The edits of the sets of OLD, whether they change anything, and the resulting sets.
EDITS: dict[str, tuple[str, str, list[str], bool, list[str], list[str]]] = {
    "an address added": ("add", "s:a", ["10.0.0.2/32"], True, [*A, "10.0.0.2/32"], B),
    "a net added": ("add", "s:b", ["192.0.2.0/24"], True, A, [*B, "192.0.2.0/24"]),
    "both families added": ("add", "s:b", ["10.0.0.0/8", "::/0"], True, A, [*B, "10.0.0.0/8", "::/0"]),
    "added, and in the set": ("add", "s:b", ["10.0.1.7/32"], False, A, B),
    "added, and in the other set": ("add", "s:b", ["10.0.0.1/32"], True, A, [*B, "10.0.0.1/32"]),
    "an address removed": ("remove", "s:a", ["10.0.0.1/32"], True, ["2001:db8::1/128"], B),
    "an IPv6 address removed": ("remove", "s:a", ["2001:db8::1/128"], True, ["10.0.0.1/32"], B),
    "the last net removed": ("remove", "s:b", ["10.0.1.0/24"], True, A, []),
}


@pytest.mark.parametrize("row", EDITS)
def test_a_list_is_changed_in_place(row: str) -> None:
    """The programs and pins stay the same; the next pass with these lists has nothing to do."""
    verb, name, cidrs, changes, a, b = EDITS[row]
    world, target = world_with(OLD), plan_with(a, b)
    before = world.state()
    with lists_of(world, OLD) as lists:
        assert getattr(lists, verb)(name, cidrs) is changes
    after = world.state()
    assert (after.attached, after.programs, after.pins) == (before.attached, before.programs, before.pins)
    assert (after.maps != before.maps) is changes
    fresh = world_with(target).state()
    assert world.dropped(after, after) == world.dropped(fresh, fresh)
    assert world.apply(target) == []
    assert world.holds(target)


def test_removed_addresses_that_another_cidr_of_the_set_holds_stay() -> None:
    plan = plan_with(["10.0.0.0/24", "10.0.0.1/32"], B)
    world = world_with(plan)
    before = world.state()
    with lists_of(world, plan) as lists:
        assert not lists.remove("s:a", ["10.0.0.1/32"])
        assert world.state() == before
        assert lists.remove("s:a", ["10.0.0.0/24"])
    assert world.dropped(world.state(), world.state()) < world.dropped(before, before)


def test_what_was_added_can_be_removed_again() -> None:
    world = world_with(OLD)
    before = world.dropped(world.state(), world.state())
    with lists_of(world, OLD) as lists:
        assert lists.add("s:a", ["192.0.2.0/24", "fd00::/16"])
        assert world.dropped(world.state(), world.state()) > before
        assert lists.remove("s:a", ["192.0.2.0/24", "fd00::/16"])
    assert world.dropped(world.state(), world.state()) == before
    assert world.apply(OLD) == []


def test_every_interface_of_the_plan_drops_what_is_added() -> None:
    sets = [ip_set("s:a", A), ip_set("s:b", B)]
    plan = early(
        plan_of(
            Backend.IPTABLES,
            table(BY_A, sets=sets),
            table(UDP, BY_B, BY_A, interface="eth1", sets=sets),
        )
    )
    world = world_with(plan)
    before = world.state()
    with lists_of(world, plan) as lists:
        lists.add("s:b", ["10.0.0.1/32"])  # now in both sets, as no address was before
        lists.add("s:a", ["192.0.2.1/32"])
    state = world.state()
    gained = world.dropped(state, state) - world.dropped(before, before)
    assert {name for _, name in gained} == {"eth0", "eth1"}


def test_who_changes_lists_is_told_that_there_are_none() -> None:
    world = XdpWorld()
    for plan in (OLD, NOTHING):
        world.apply(plan)
    with pytest.raises(KernelError, match="no XDP address tables are in force"):
        lists_of(world, OLD)


def test_what_is_replaced_is_used_again_only_once_no_program_reads_it() -> None:
    world = world_with(OLD)
    with lists_of(world, OLD) as lists:
        lists.add("s:a", ["192.0.2.0/24"])
        assert "wait for readers" not in world.calls.log[-3:]
        lists.reclaim()
        assert world.calls.log[-1] == "wait for readers"


def test_lists_leave_nothing_open() -> None:
    world = world_with(OLD)
    with lists_of(world, OLD) as lists:
        lists.add("s:a", ["10.0.0.2/32"])
    converge(world, NOTHING)
    assert not world.fake.alive()


@pytest.mark.parametrize("how", ["refused", "killed before", "killed after"])
def test_wherever_an_edit_fails_the_next_pass_makes_it_good(how: str) -> None:
    """At no moment are packets dropped that neither state drops, or passed that both drop."""
    errors = {"refused": lambda: KernelError("injected", number=errno.ENOMEM)}
    old, new = OLD, plan_with(A, [*B, "10.0.0.1/32"])  # a new class of addresses
    clean = world_with(OLD)
    begin, first = clean.state(), len(clean.calls.log)
    with lists_of(clean, OLD) as lists:
        opened = len(clean.calls.log) - first
        lists.add("s:b", ["10.0.0.1/32"])
    count = len(clean.calls.log) - first
    end = clean.state()
    assert count - opened >= 4, "the manifest is opened and written, and so are the rows"
    both = clean.dropped(begin, begin) & clean.dropped(end, end)
    either = clean.dropped(begin, begin) | clean.dropped(end, end)
    for number in range(opened, count):
        world = world_with(OLD)
        states: list[State] = [world.state()]
        world.calls.observe = lambda _, world=world, states=states: states.append(world.state())
        with lists_of(world, OLD) as lists:
            at = len(world.calls.log) + number - opened
            world.calls.fault = Fault(at, errors.get(how, Killed), how == "killed after")
            with pytest.raises((KernelError, Killed)):
                lists.add("s:b", ["10.0.0.1/32"])
        world.calls.fault = world.calls.observe = None
        for before, after in pairwise([*states, world.state()]):
            assert both <= world.dropped(before, after) <= either
        converge(world, old if number % 2 else new)
