"""What somebody else took away from what is enforced: said as a warning, and put back, but not for ever at full speed.

A second tool that deletes what we put back would otherwise keep both busy for ever. When the same thing is gone for the
eighth time within a minute, it is put back only after a while, and after twice that while the time after, half a minute
at most. A quiet minute ends that.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from enforcer.agent.guard import Guard, Loss
from enforcer.enforcement.apply import Applied, ModeRefusedError
from enforcer.kernel.rtnetlink import interfaces
from enforcer.planning.plan import Plan
from enforcer.policy.resources import FelixConfiguration, Resources
from enforcer.system.log import event

_MANY = 8
_WITHIN_S = 60.0
_FIRST_PAUSE_S, _LAST_PAUSE_S = 2.0, 32.0
_MOST_LINES = 20
# A pass that changed something is followed by one that sees whether it stayed so: a second later, and where it never
# does, at growing intervals.
_FIRST_CHECK_S, _LAST_CHECK_S = 1.0, 64.0


class Pauses:
    """When the next repair may be. ``clock``: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[str, deque[float]] = {}
        self._pause_s = 0.0
        self.not_before_s = 0.0

    def count(self, things: Iterable[str]) -> str:
        """These are gone, perhaps again; why they have to wait, "" when they do not."""
        now_s = self._clock()
        for thing, times in list(self._times.items()):
            if now_s - times[-1] > _WITHIN_S + self._pause_s:
                del self._times[thing]
        if not self._times:
            self._pause_s = 0.0
        often: tuple[float, str] | None = None
        for thing in things:
            times = self._times.setdefault(thing, deque(maxlen=_MANY))
            times.append(now_s)
            span_s = now_s - times[0]
            if len(times) == _MANY and span_s <= _WITHIN_S + _MANY * self._pause_s:
                often = often or (span_s, thing)
        if often is None:
            return ""
        self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LAST_PAUSE_S)
        self.not_before_s = now_s + self._pause_s
        return (
            f"taken away {_MANY} times in {often[0]:.0f} s: {often[1]}. Another program of this host keeps undoing "
            f"what is enforced: stop it. Until then it is put back only after {self._pause_s:.0f} s"
        )


class Repairs:
    """Between a guard and the passes of an agent."""

    def __init__(self, guard: Guard | None) -> None:
        """Without a guard (this host cannot have one now) the regular resync finds what it finds."""
        self._guard = guard
        self._pauses = Pauses()
        self._resources: Resources | None = None  # of the last pass that went well
        self._check_s = 0.0
        self._state: object = None  # what that pass was to make, and on what host
        self._told = False  # what the next pass puts back has been said
        self.due_s: float | None = None  # when something is to be put back, on the monotonic clock

    def are_due(self, *, woken: bool) -> bool:
        """Whether something is to be put back now. ``woken``: the guard says that there may be."""
        losses = self._tell_losses()
        if losses or woken:
            self.due_s = min(filter(None, (self.due_s, max(self._pauses.not_before_s, time.monotonic()))))
        return self.due_s is not None and time.monotonic() >= self.due_s

    def look(self) -> None:
        """See now what is gone, where nobody waits for the guard to say so."""
        if self._guard:
            self._guard.look()

    def put_off(self) -> None:
        """A pass failed: what was due then is tried again with the agent's next attempt, not at once and for ever."""
        if self.due_s is not None and self.due_s <= time.monotonic():
            self.due_s = None

    def apply(self, apply: Callable[[Resources], Applied], resources: Resources, felix: FelixConfiguration) -> Applied:
        """One pass, as ``apply`` does it; says what of its changes undoes what others did."""
        if self._guard is None:
            return self._watched(apply, resources, felix)
        with self._guard.passing():
            return self._watched(apply, resources, felix)

    def _watched(
        self, apply: Callable[[Resources], Applied], resources: Resources, felix: FelixConfiguration
    ) -> Applied:
        self._tell_losses()
        self.due_s = None
        host = [replace(item, xdp=()) for item in interfaces()]
        try:
            applied = apply(resources)
        except ModeRefusedError as error:  # everything else was done
            self._passed(error.applied, resources, (error.applied.plan, felix, host))
            raise
        except BaseException:
            if resources is not self._resources:
                self._state = None  # what the next pass changes may be what this one did not
            raise
        self._passed(applied, resources, (applied.plan, felix, host))
        return applied

    def _expect(self, guard: Guard, applied: Applied) -> None:
        """Have the guard watch what is there now, or first see whether it is what was put there."""
        if applied.changes:
            self._check_s = min(max(2 * self._check_s, _FIRST_CHECK_S), _LAST_CHECK_S)
            self.due_s = time.monotonic() + self._check_s
        else:
            self._check_s = 0.0
            guard.unchanged()
        guard.watch(applied.plan)

    def _tell_losses(self) -> bool:
        """Say what the guard noticed, if it noticed anything."""
        losses = self._guard.noticed() if self._guard else ()
        if losses:
            _warn(losses)
            self._told = True
            if why := self._pauses.count(loss.what for loss in losses):
                event(logging.ERROR, why)
        return bool(losses)

    def _passed(self, applied: Applied, resources: Resources, state: tuple[Plan, FelixConfiguration, object]) -> None:
        if self._guard:
            self._expect(self._guard, applied)
        if self._told:
            event(logging.INFO, "everything is in the kernel again", changes=len(applied.changes))
        elif applied.changes and state == self._state:
            _warn_of(applied.changes)
        self._resources, self._state, self._told = resources, state, False


def _warn_of(changes: Sequence[str]) -> None:
    """Nobody noticed before what was taken away: what had to be done says it."""
    for change in changes[:_MOST_LINES]:
        event(logging.WARNING, "put back what somebody took away or changed", change=change)
    if len(changes) > _MOST_LINES:
        event(logging.WARNING, f"put back {len(changes) - _MOST_LINES} more things that somebody took away or changed")


def _warn(losses: Sequence[Loss]) -> None:
    for loss in losses[:_MOST_LINES]:
        event(
            logging.WARNING, "somebody took away or changed what is enforced", what=loss.what, by=loss.by or "unknown"
        )
    if len(losses) > _MOST_LINES:
        event(logging.WARNING, f"somebody took away or changed {len(losses) - _MOST_LINES} more things of ours")
