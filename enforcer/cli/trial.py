"""``enforcer apply --confirm-within``: apply, wait for 'enforcer confirm', else roll back.

The command waits itself, as the enforcer starts no process. Whatever ends it rolls back, SIGHUP of a connection that is
cut among it; SIGKILL alone does not: then the next 'enforcer apply' or agent of this network namespace does.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from enforcer.cli.support import echo
from enforcer.model.choices import TrackedChoice
from enforcer.model.errors import EnforcerError, HostError

if TYPE_CHECKING:
    from enforcer.enforcement.apply import Applied, Enforcer
    from enforcer.enforcement.confirmation import Confirmation
    from enforcer.policy.resources import Resources

ROLLED_BACK = 1  # the exit code
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_EVERY_S = 0.1
_ATTEMPTS = 5


def apply_on_trial(
    driver: Enforcer, resources: Resources, confirmation: Confirmation, within_s: float, show: Callable[[Applied], None]
) -> int:
    """The exit code: 0 confirmed, 1 rolled back. ``show`` prints what was applied."""
    began: list[bool] = []

    def begin(first: bool) -> None:
        confirmation.begin(within_s)
        began.append(first)

    driver.before_tracked = begin
    with _noted_signals() as noted:
        try:
            applied = driver.apply(resources)
            if not began:
                show(applied)
                return 0
            show(applied)
            echo(_what_to_do(within_s), err=True)
            why = _wait(confirmation, noted)
        except BaseException:
            if began and confirmation.claim():
                _roll_back(driver, resources)
            raise
        if why is None:
            echo("confirmed: normal policy stays enforced", err=True)
            return 0
        if confirmation.claim():
            _roll_back(driver, resources)
        elif not confirmation.was_rolled_back():
            return 0  # confirmed at the last moment
        with suppress(Exception):  # the terminal may have gone
            echo(f"rolled back: {why}; normal policy is not enforced", err=True)
        return ROLLED_BACK


def _what_to_do(within_s: float) -> str:
    return (
        f"normal policy is enforced, and rolled back in {within_s:.0f} s unless confirmed. Open a new connection to "
        f"this host and run there: enforcer confirm"
    )


def _wait(confirmation: Confirmation, noted: list[str]) -> str | None:
    """Why it is to be rolled back; None once it is confirmed."""
    from enforcer.enforcement.confirmation import now_s

    while not noted:
        until_s = confirmation.until_s()
        if until_s is None:
            return "another process did it" if confirmation.was_rolled_back() else None
        if now_s() >= until_s:
            return "nobody confirmed in time"
        time.sleep(_LOOK_EVERY_S)
    return noted[0]


def _roll_back(driver: Enforcer, resources: Resources) -> None:
    """Everything but policy after conntrack stays. Raises what the last attempt raised."""
    driver.tracked = TrackedChoice.MODEL
    for attempt in range(_ATTEMPTS):
        try:
            driver.apply(resources)
            return
        except (EnforcerError, OSError) as error:
            if attempt == _ATTEMPTS - 1:
                raise HostError(f"cannot roll back: {error}; run 'enforcer detach'") from error
            time.sleep(1.0)


@contextmanager
def _noted_signals() -> Iterator[list[str]]:
    """The names of signals that came: none of them ends the process in between."""
    noted: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(signal.Signals(number).name)

    handlers = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield noted
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
