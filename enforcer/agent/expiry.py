"""Acts that have ended leave what is enforced: the edge of ``emergency/expiry.py``, with clocks and a file.

What the clocks said when each act was first seen is kept in the state directory, for this boot: an agent's restart ends
nothing early, and does not begin the waiting anew.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import NamedTemporaryFile

from enforcer.emergency.expiry import (
    Clock,
    ClockState,
    Decision,
    Sighting,
    Sightings,
    decide,
    sightings,
    without,
)
from enforcer.emergency.times import written
from enforcer.model.errors import HostError
from enforcer.policy.resources import Resources
from enforcer.system import clock, directories
from enforcer.system import files as system_files
from enforcer.system.files import UnreadableError
from enforcer.system.log import event

LOOK_EVERY_S = 30.0  # while acts with an end are enforced: the wall clock may have been set
_FILE = "emergency-seen.json"
_DISTRUST = {
    ClockState.UNSYNCHRONIZED: "the kernel says that the clock is not synchronized (adjtimex)",
    ClockState.BEHIND: "the clock is behind the newest emergency act",
}


def now() -> Clock:
    return Clock(time.time(), clock.boot_s(), clock.is_synchronized())


class Expiry:
    """``state``: the directory of the file; None: nothing is kept."""

    def __init__(self, state: Path | None = None, read_clock: Callable[[], Clock] = now) -> None:
        self._path = state / _FILE if state else None
        self._clock = read_clock
        self._seen: Sightings | None = None  # None: not read yet
        self._ended: frozenset[str] = frozenset()
        self._live: tuple[Resources, frozenset[str], Resources] | None = None  # of the last call
        self._state: ClockState | None = None
        self._save_problem = ""
        self.due_s: float | None = None  # when to look again, monotonic clock
        self.decision = Decision()

    def live(self, resources: Resources) -> Resources:
        """The resources without the acts that have ended; the same object as before while neither changes."""
        decision = self._decide(resources)
        self._log(resources, decision)
        self.decision, self._ended = decision, decision.ended
        known = self._live
        if known is None or known[0] is not resources or known[1] != decision.ended:
            self._live = known = (resources, decision.ended, without(resources, decision.ended))
        return known[2]

    def changes(self, resources: Resources) -> bool:
        """Whether :meth:`live` would return something else now than the last time."""
        return self._decide(resources).ended != self._ended

    def _decide(self, resources: Resources) -> Decision:
        reading = self._clock()
        before = self._read() if self._seen is None else self._seen
        seen = sightings(resources, reading, before)
        if seen != before:
            self._save(seen)
        self._seen = seen
        decision = decide(resources, reading, seen)
        self.due_s = None
        if decision.next_end_s is not None:
            wait_s = LOOK_EVERY_S if decision.wake_s is None else max(0.0, decision.wake_s - reading.boot_s)
            self.due_s = time.monotonic() + min(wait_s, LOOK_EVERY_S)
        return decision

    def _log(self, resources: Resources, decision: Decision) -> None:
        for name in sorted(decision.ended - self._ended):
            event(logging.INFO, "an emergency act has ended", object=name)
        there = {item.name for item in resources.global_network_sets}
        for name in sorted(self._ended - decision.ended):
            if name in there:
                event(logging.WARNING, "an emergency act that had ended counts again", object=name)
        if decision.state is not self._state:
            if decision.state in _DISTRUST:
                event(
                    logging.WARNING,
                    "emergency acts end only when their whole duration has passed here",
                    problem=_DISTRUST[decision.state],
                    next_end=written(decision.next_end_s) if decision.next_end_s is not None else "",
                )
            elif self._state in _DISTRUST and decision.state is ClockState.TRUSTED:
                event(logging.INFO, "emergency acts end by the clock again")
            self._state = decision.state

    # -- what was seen before this agent started ---------------------------------------------------------------------

    def _read(self) -> Sightings:
        """What an agent before this one has seen in this boot."""
        if self._path is None:
            return {}
        with suppress(OSError, HostError, UnreadableError, ValueError, TypeError, KeyError, AttributeError):
            directories.is_there(self._path.parent)
            data = json.loads(system_files.read(str(self._path)))
            if data["boot_id"] and data["boot_id"] == clock.boot_id():
                return {name: _sighting(item) for name, item in data["seen"].items()}
        return {}

    def _save(self, seen: Sightings) -> None:
        if self._path is None:
            return
        data = {"boot_id": clock.boot_id(), "seen": {name: asdict(item) for name, item in seen.items()}}
        try:
            directories.make(self._path.parent)
            with NamedTemporaryFile("w", dir=self._path.parent, prefix=f".{_FILE}-", delete=False) as new:
                try:
                    new.write(json.dumps(data))
                    new.flush()
                    os.replace(new.name, self._path)
                except BaseException:
                    os.unlink(new.name)
                    raise
            self._save_problem = ""
        except (OSError, HostError) as error:
            if str(error) != self._save_problem:
                event(
                    logging.WARNING,
                    "cannot store when emergency acts were first seen: after a restart they may end later",
                    problem=str(error),
                )
            self._save_problem = str(error)


def _sighting(item: dict[str, object]) -> Sighting:
    """Raises ValueError, TypeError, KeyError."""
    created = item["created_s"]
    wall_s, boot_s = (float(str(item[key])) for key in ("wall_s", "boot_s"))
    return Sighting(wall_s, boot_s, None if created is None else int(str(created)))
