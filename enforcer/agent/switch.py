"""Policy after conntrack under an agent: on trial until it is confirmed, and not switched on again once rolled back."""

from __future__ import annotations

import logging
import time

from enforcer.enforcement.apply import Enforcer
from enforcer.enforcement.confirmation import Confirmation, now_s
from enforcer.model.choices import TrackedChoice
from enforcer.system.log import event


class Switch:
    """``within_s``: how long a first switch-on waits for 'enforcer confirm'; None: for ever."""

    def __init__(self, enforcer: Enforcer, within_s: float | None) -> None:
        self._enforcer = enforcer
        self._within_s = within_s
        self._confirmation: Confirmation | None = None
        self.due_s: float | None = None  # when to check again, monotonic clock
        if enforcer.tracked is TrackedChoice.ENFORCE:
            self._confirmation = Confirmation()
            enforcer.before_tracked = self._begin

    def check(self) -> bool:
        """Whether policy after conntrack has to leave the kernel now: the enforcer's next pass then removes it."""
        self.due_s = None
        if self._confirmation is None or self._enforcer.tracked is TrackedChoice.MODEL:
            return False
        until_s = self._confirmation.until_s()
        if until_s is not None and now_s() < until_s:
            self.due_s = time.monotonic() + until_s - now_s()
            return False
        if until_s is None and not self._confirmation.was_rolled_back():
            return False
        if not self._confirmation.claim() and not self._confirmation.was_rolled_back():
            return False  # confirmed at the last moment
        self._enforcer.tracked = TrackedChoice.MODEL
        event(
            logging.ERROR,
            "normal policy was not confirmed in time and is rolled back; it is not enforced until 'enforcer apply "
            "--tracked enforce' has enforced it, or the host boots",
        )
        return True

    def is_due(self) -> bool:
        return self.due_s is not None and time.monotonic() >= self.due_s

    def _begin(self, first: bool) -> None:
        if first and self._within_s is not None and self._confirmation is not None:
            self._confirmation.begin(self._within_s)
            self.due_s = time.monotonic() + self._within_s
            event(logging.WARNING, "normal policy is on trial: run 'enforcer confirm'", within_s=self._within_s)
