"""Properties that every reconciler of raw must keep between one plan and the next, for every kernel interface.

A packet that both plans drop is dropped at every moment: before, between and after the calls, and wherever a call
fails or the process is killed. The next pass completes what failed, and a pass without changes does nothing.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Set
from itertools import pairwise
from typing import Any, TypeVar

import pytest

from enforcer.model.errors import KernelError
from enforcer.planning.plan import Plan
from tests.support.fakes.calls import Calls, Fault, Killed

Met = Set[Any]


class World(ABC):
    """A fake kernel, and the reconciler that writes to it."""

    calls: Calls

    @abstractmethod
    def apply(self, plan: Plan) -> list[str]:
        """One pass of the reconciler; returns a description of each change."""

    @abstractmethod
    def state(self) -> Any:
        """A snapshot of the kernel's whole state."""

    @abstractmethod
    def copy(self: W) -> W:
        """Another kernel in the same state, whose calls begin with number 0, and what the process remembers of it."""

    @abstractmethod
    def everything(self) -> Hashable:
        """All that a pass depends on besides its plan: after equal ones it does the same."""

    @abstractmethod
    def holds(self, plan: Plan) -> bool:
        """Whether the kernel's state equals the rendered plan."""

    @abstractmethod
    def dropped(self, rules: Any, sets: Any, among: Met | None = None) -> Met:
        """The packets (of these, or of all) that the rules of one state drop with the sets of another."""

    def value(self, rules: Any, sets: Any) -> Hashable | None:
        """What :meth:`dropped` depends on, so that equal states are evaluated once; None if they cannot be compared."""
        return None


W = TypeVar("W", bound="World")
R = TypeVar("R")
S = TypeVar("S")


def remembering(render: Callable[[Plan, S], R]) -> Callable[[Plan, S], R]:
    """What was rendered of the last few plans, as a backend remembers it of the last: a test makes hundreds of passes
    with two plans.
    """
    last: list[tuple[Plan, S, R]] = []

    def of(plan: Plan, settings: S) -> R:
        for known, its, rendered in last:
            if known is plan and its == settings:
                return rendered
        last.insert(0, (plan, settings, render(plan, settings)))
        del last[4:]
        return last[0][2]

    return of


def converge(world: World, plan: Plan) -> None:
    """One pass reaches the plan, a second one changes nothing."""
    world.apply(plan)
    assert world.holds(plan)
    before = world.state()
    assert world.apply(plan) == []
    assert world.state() == before


def settled(world: World, plan: Plan) -> None:
    """Like :func:`converge`, after a pass: most often the next one already changes nothing."""
    before = world.state()
    if world.apply(plan):  # what the pass before it left to it
        before = world.state()
        assert world.apply(plan) == []
    assert world.state() == before
    assert world.holds(plan)


def watched(world: World, run: Callable[[], object]) -> list[Any]:
    """All states during the pass, including the first and the last."""
    states = [world.state()]
    world.calls.observe = lambda _: states.append(world.state())
    try:
        run()
    finally:
        world.calls.observe = None
    return states


def no_hole(world: World, states: list[Any], must: Met, known: set[Hashable] | None = None) -> None:
    """What must be dropped is dropped in each state, and by the rules of one state with the sets of the next.

    ``known``: the values of states that drop all of this; those found here are added.
    """
    known = set() if known is None else known
    alike: set[tuple[int, int]] = set()  # the states are in the list, so no two of them have the same id
    for before, after in pairwise(states):
        for rules in (before, after):
            value = world.value(rules, after)
            if value in known or (id(rules), id(after)) in alike:
                continue
            missing = must - world.dropped(rules, after, must)
            assert not missing, f"let through: {sorted(map(str, missing))[:3]}"
            alike.add((id(rules), id(after)))
            if value is not None:
                known.add(value)


def check_change(make: Callable[[], World], old: Plan, new: Plan) -> None:
    """From one plan to the other without a gap; afterwards there is nothing left to do."""
    world = make()
    converge(world, old)
    states = watched(world, lambda: world.apply(new))
    must = world.dropped(states[0], states[0]) & world.dropped(states[-1], states[-1])
    no_hole(world, states, must)
    converge(world, new)


FAULTS: dict[str, tuple[Callable[[], BaseException], bool]] = {
    "refused": (lambda: KernelError("injected", number=errno.ENOMEM), False),
    "killed before": (Killed, False),
    "killed after": (Killed, True),
}


def check_faults(make: Callable[[], World], old: Plan, new: Plan) -> int:
    """Each call of the pass fails, in each way. Returns how many failed.

    What the next pass does is looked at once for all failures that leave the same behind.
    """
    begin = make()
    converge(begin, old)
    clean, before = begin.copy(), begin.everything()
    mended = {before: watched(clean, lambda: clean.apply(new))}  # what fails without an effect
    count, states = len(clean.calls.log), mended[before]
    converge(clean, new)
    must = clean.dropped(states[0], states[0]) & clean.dropped(states[-1], states[-1])
    known: set[Hashable] = set()
    for number in range(count):
        for error, after in FAULTS.values():
            world = begin.copy()
            states = _failing(world, new, Fault(number, error, after))
            left = world.everything()
            if left not in mended:
                mended[left] = watched(world, lambda world=world: world.apply(new))
                settled(world, new)
            no_hole(world, [*states, *mended[left]], must, known)
    return count


def _failing(world: World, plan: Plan, fault: Fault) -> list[Any]:
    """All states during a pass that fails."""

    def failing() -> None:
        with pytest.raises((KernelError, Killed)):
            world.apply(plan)

    world.calls.fault = fault
    states = watched(world, failing)
    world.calls.fault = None
    return states
