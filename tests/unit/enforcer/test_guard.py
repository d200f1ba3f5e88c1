"""When the guard records the present state as the desired one: it is not free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest

from enforcer.agent.guard import Guard
from enforcer.backends.base import BackendDriver, Loss, Watch
from enforcer.planning.plan import Plan

PLAN = Plan("node", ())


@dataclass
class World:
    """A driver that is its own watch."""

    watched: str = "kernel"
    lost: list[str] = field(default_factory=list)
    recorded: int = 0
    error: Exception | None = None

    def watch(self) -> Watch:
        return self

    def serves(self, plan: Plan) -> bool:
        return True

    def fileno(self) -> int:
        return -1

    def begin(self) -> bool:
        return False

    def pause(self) -> None: ...

    def close(self) -> None: ...

    def remember(self) -> tuple[Loss, ...]:
        self.recorded += 1
        return ()

    def losses(self, *, thorough: bool = False) -> list[Loss]:
        if self.error:
            raise self.error
        found, self.lost = self.lost, []
        return [Loss(item) for item in found]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def guard(world: World) -> Iterator[Guard]:
    with Guard([cast(BackendDriver, world)]) as guard:
        unchanged(guard)
        world.recorded = 0
        yield guard


def unchanged(guard: Guard) -> None:
    with guard.passing():
        guard.watch(PLAN)
        guard.unchanged()


def test_passes_without_changes_record_nothing_anew(guard: Guard, world: World) -> None:
    unchanged(guard)
    unchanged(guard)
    assert not world.recorded


def test_a_pass_with_changes_records_what_it_left(guard: Guard, world: World) -> None:
    with guard.passing():
        pass
    assert world.recorded == 1
    unchanged(guard)
    assert world.recorded == 1


def test_a_loss_is_recorded_before_the_pass_whoever_found_it(guard: Guard, world: World) -> None:
    world.lost = ["a rule"]
    unchanged(guard)
    assert world.recorded == 1
    world.lost = ["a set"]
    guard.look()
    unchanged(guard)
    assert world.recorded == 2
    assert [loss.what for loss in guard.noticed()] == ["a rule", "a set"]


def test_after_a_look_that_failed_the_state_is_recorded(guard: Guard, world: World) -> None:
    world.error = OSError("no memory")
    guard.look()
    world.error = None
    unchanged(guard)
    assert world.recorded == 1
