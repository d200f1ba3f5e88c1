"""Restores what another program removed or changed: logged as a warning, and rate-limited.

Without a limit, a tool that deletes what the agent restores would keep both busy forever. When the same thing is
removed for the eighth time within a minute, the repair waits two seconds, then twice as long each time, up to 32
seconds. A quiet minute resets the wait.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from enforcer.agent.guard import Guard
from enforcer.backends.base import Loss
from enforcer.enforcement.apply import Applied, ModeRefusedError, TrackedRefusedError
from enforcer.policy.resources import FelixConfiguration, Resources
from enforcer.system.log import event

_MANY = 8
_WITHIN_S = 60.0
_FIRST_PAUSE_S, _LAST_PAUSE_S = 2.0, 32.0
_MOST_LINES = 20
# A pass that changed something is followed by one that checks whether the change persisted: a second later, then at
# growing intervals while it does not.
_FIRST_CHECK_S, _LAST_CHECK_S = 1.0, 64.0


class RepairPauses:
    """When the next repair is allowed. ``clock``: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[str, deque[float]] = {}
        self._pause_s = 0.0
        self.not_before_s = 0.0

    def count(self, things: Iterable[str]) -> str:
        """Count these as removed. Returns why their repair has to wait, "" when it does not."""
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
            f"removed {_MANY} times in {often[0]:.0f} s: {often[1]}. Another program on this host keeps undoing what "
            f"is enforced: stop it. Until then the repair waits {self._pause_s:.0f} s"
        )


class Repairs:
    """Connects the guard with the passes of an agent."""

    def __init__(self, guard: Guard | None) -> None:
        """Without a guard (not available on this host now) only the resync finds changes."""
        self._guard = guard
        self._pauses = RepairPauses()
        self._resources: Resources | None = None  # of the last successful pass
        self._check_s = 0.0
        self._state: object = None  # plan, configuration and host of that pass
        self._reported = False  # the losses that the next pass restores are logged
        self.due_s: float | None = None  # time of the next repair, monotonic clock

    def is_due(self, *, notified: bool) -> bool:
        """Whether a repair is due now. ``notified``: the guard reported a possible loss."""
        losses = self._log_losses()
        if losses or notified:
            self.due_s = min(filter(None, (self.due_s, max(self._pauses.not_before_s, time.monotonic()))))
        return self.due_s is not None and time.monotonic() >= self.due_s

    def look(self) -> None:
        """Check for losses now, while the event loop does not wait for the guard."""
        if self._guard:
            self._guard.look()

    def postpone(self) -> None:
        """After a failed pass: leave the repair to the next attempt of the agent, not to a busy loop."""
        if self.due_s is not None and self.due_s <= time.monotonic():
            self.due_s = None

    def apply(self, apply: Callable[[Resources], Applied], resources: Resources, felix: FelixConfiguration) -> Applied:
        """Run one pass with ``apply``, and log which of its changes undo changes by other programs."""
        if self._guard is None:
            return self._watched(apply, resources, felix)
        with self._guard.passing(changing=resources is not self._resources):
            return self._watched(apply, resources, felix)

    def _watched(
        self, apply: Callable[[Resources], Applied], resources: Resources, felix: FelixConfiguration
    ) -> Applied:
        self._log_losses()
        self.due_s = None
        try:
            applied = apply(resources)
        except (ModeRefusedError, TrackedRefusedError) as error:  # all other work was done
            self._passed(error.applied, resources, felix)
            raise
        except BaseException:
            if resources is not self._resources:
                self._state = None  # the next pass may make the changes that this one did not
            raise
        self._passed(applied, resources, felix)
        return applied

    def _expect(self, guard: Guard, *, another: bool, changed: bool) -> None:
        """After changes, schedule a pass that checks whether they persisted. A pass for another policy counts as one
        with changes: the guard does not know what it found.
        """
        if another:
            self._check_s = _FIRST_CHECK_S
            self.due_s = time.monotonic() + self._check_s
        elif changed:
            self._check_s = min(max(2 * self._check_s, _FIRST_CHECK_S), _LAST_CHECK_S)
            self.due_s = time.monotonic() + self._check_s
        else:
            self._check_s = 0.0
            guard.unchanged()

    def _log_losses(self) -> bool:
        """Log the losses that the guard found; whether there were any."""
        losses = self._guard.noticed() if self._guard else ()
        if losses:
            _warn_about_losses(losses)
            self._reported = True
            if why := self._pauses.count(loss.what for loss in losses):
                event(logging.ERROR, why)
        return bool(losses)

    def _passed(self, applied: Applied, resources: Resources, felix: FelixConfiguration) -> None:
        state = (applied.plan, felix, [replace(item, xdp=()) for item in applied.host])
        if self._guard:
            self._expect(self._guard, another=resources is not self._resources, changed=bool(applied.changes))
            self._guard.watch(applied.plan)
        if self._reported:
            event(logging.INFO, "everything is restored", changes=len(applied.changes))
        elif applied.changes and state == self._state:
            _warn_about_changes(applied.changes)
        self._resources, self._state, self._reported = resources, state, False


def _warn_about_changes(changes: Sequence[str]) -> None:
    """Log changes that no guard reported: the pass itself found them."""
    for change in changes[:_MOST_LINES]:
        event(logging.WARNING, "restored what another program removed or changed", change=change)
    if len(changes) > _MOST_LINES:
        event(
            logging.WARNING,
            f"restored {len(changes) - _MOST_LINES} more things that another program removed or changed",
        )


def _warn_about_losses(losses: Sequence[Loss]) -> None:
    for loss in losses[:_MOST_LINES]:
        event(
            logging.WARNING,
            "another program removed or changed what is enforced",
            what=loss.what,
            by=loss.by or "unknown",
        )
    if len(losses) > _MOST_LINES:
        event(logging.WARNING, f"another program removed or changed {len(losses) - _MOST_LINES} more enforced things")
