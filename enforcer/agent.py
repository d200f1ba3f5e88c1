"""Agent: keeps the kernel as the datastore says, until it is told to stop. Desired -> actual, again and again.

* A change in the datastore, of the host's interfaces, or a refresh interval gone by starts a pass. Passes change
  nothing that is right already.
* A faulty object never replaces a good one: its last good version stays enforced, all other objects follow their
  files, and the log says each fault once, with what becomes of it (``policy/tolerant.py``).
* An agent that starts on faulty objects has the good version its store kept of an earlier run, if it did. Otherwise it
  enforces the rest, as Calico does; when there is no rest, what is in the kernel stays as it is.
* Policy that no backend can enforce does not replace policy that is enforced.
* A pass that fails is tried again, at growing intervals; each distinct error is logged once.
* Stopping leaves the policy in the kernel, and a new agent takes it over as it is: a restart opens no hole.
"""

from __future__ import annotations

import logging
import time

from enforcer.apply import Applied, Enforcer
from enforcer.datastore.base import DataStore
from enforcer.errors import EnforcerError, Finding, PolicyError, PrivilegeError, UnsupportedRuleError
from enforcer.kernel.netlink import interfaces
from enforcer.log import event
from enforcer.policy.endpoint import is_host_interface
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Fault, Loaded
from enforcer.systemd import notify, watchdog_interval_s
from enforcer.wakeups import Wakeups, Woken
from enforcer.words import Stage

_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 60.0

Links = frozenset[tuple[object, ...]]


class Agent:
    """Runs in the main thread and acts in its network namespace."""

    def __init__(self, store: DataStore, enforcer: Enforcer, *, detach_on_exit: bool = False) -> None:
        self._store = store
        self._enforcer = enforcer
        self._detach_on_exit = detach_on_exit
        self._wanted: Resources | None = None  # the newest that could be read
        self._good: Resources | None = None  # the newest that is enforced
        self._links: Links = frozenset()
        self._retry_s = 0.0  # 0: the last pass went well
        self._due_s: float | None = None  # when the next pass is to be, on the monotonic clock
        self._said: set[str] = set()  # problems and warnings logged since they last were none
        self._faults: frozenset[Fault] = frozenset()  # what was wrong with what was read last

    def run(self) -> None:
        """Work until SIGTERM or SIGINT. Raises PrivilegeError when the process may not do this at all."""
        event(logging.INFO, "watching", store=self._store.describe(), node=self._enforcer.node)
        with Wakeups(self._store) as wakeups:
            self._read()
            self._enforce()
            notify("READY=1")
            woken = Woken()
            while not woken.stop:
                woken = wakeups.wait(self._due_s, every_s=watchdog_interval_s(), tick=_alive)
                if not woken.stop:
                    self._react(woken)
        self._leave(woken.stop)

    def _react(self, woken: Woken) -> None:
        if woken.policy or woken.resync:
            self._read()
        due = not woken.any
        if due or woken.policy or woken.resync or self._links_now() != self._links:
            self._enforce()

    def _read(self) -> None:
        """Take what the datastore has now: what is right of it, and of the rest the last good version."""
        try:
            loaded = self._store.snapshot(self._wanted or Resources())
        except EnforcerError as error:
            self._complain("the datastore cannot be read; what is enforced stays", error)
            return
        self._tell_faults(loaded)
        if self._wanted is None and loaded.faults and loaded.empty:
            self._say(logging.ERROR, "nothing of the policy could be read; what is in the kernel stays as it is")
        else:
            self._wanted = loaded.resources

    def _tell_faults(self, loaded: Loaded) -> None:
        """Say what is newly wrong, and when nothing is any more."""
        if not loaded.faults:
            self._said.clear()
            if self._faults:
                event(logging.INFO, "healthy again: everything in the policy is accepted")
        for fault in loaded.faults:
            if fault not in self._faults:
                event(logging.ERROR, "policy not accepted", problem=_first_line(fault.finding), outcome=fault.outcome)
        self._faults = frozenset(loaded.faults)
        if loaded.faults:
            notify(f"STATUS={self._ailing()}")

    def _ailing(self) -> str:
        return f"{len(self._faults)} faults in the policy, see the log" if self._faults else ""

    def _enforce(self) -> None:
        if self._wanted is None:
            return
        try:
            self._links = self._links_now()
            applied = self._enforcer.apply(self._wanted)
        except PrivilegeError:
            raise
        except EnforcerError as error:
            self._failed(error)
        else:
            self._succeeded(applied)
        self._due_s = self._next_pass_s()

    def _failed(self, error: EnforcerError) -> None:
        if isinstance(error, (UnsupportedRuleError, PolicyError)):  # the author's to mend: trying again is no use
            self._complain("policy cannot be enforced; the last good one stays", error)
            self._wanted = self._good
        else:
            self._retry_s = min(max(self._retry_s * 2, _FIRST_RETRY_S), _LAST_RETRY_S)
            self._complain("not everything is enforced; trying again", error)

    def _succeeded(self, applied: Applied) -> None:
        if self._retry_s:
            event(logging.INFO, "recovered: everything is enforced again")
            self._said.clear()
        self._retry_s = 0.0
        new = self._wanted is not self._good
        self._good = self._wanted
        if applied.changes or new:
            _tell(applied)
            doing = f"enforcing on {len(applied.plan.interfaces)} interfaces"
            notify("STATUS=" + "; ".join(filter(None, [doing, self._ailing()])))
        for warning in applied.warnings:
            self._say(logging.WARNING, warning)

    def _next_pass_s(self) -> float | None:
        """When the next pass is due if nothing happens, on the monotonic clock; None: never."""
        if self._wanted is None:
            return None
        felix = self._wanted.felix_for(self._enforcer.node)
        intervals = (felix.xdp_refresh_interval_s, felix.ipsets_refresh_interval_s, felix.table_refresh_interval_s)
        wanted = [interval for interval in (*intervals, self._retry_s) if interval > 0]  # 0 switches one off
        return time.monotonic() + min(wanted) if wanted else None

    def _links_now(self) -> Links:
        """What matters of the host's interfaces; those of workloads come and go all the time and do not."""
        felix = (self._wanted or Resources()).felix_for(self._enforcer.node)
        return frozenset(item.shape for item in interfaces() if is_host_interface(item.name, felix))

    def _complain(self, message: str, error: EnforcerError) -> None:
        problem = _one_line(error)
        notify(f"STATUS={message}: {problem}")
        if problem not in self._said:
            self._said.add(problem)
            event(logging.ERROR, message, problem=problem)

    def _say(self, level: int, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            event(level, message)

    def _leave(self, why: str) -> None:
        notify("STOPPING=1")
        if not self._detach_on_exit:
            event(logging.INFO, "stopping; the policy stays in the kernel ('enforcer detach' removes it)", signal=why)
            return
        removed = self._enforcer.detach()
        event(logging.INFO, "stopping; the policy is removed", signal=why, removed=len(removed))


def _alive() -> None:
    notify("WATCHDOG=1")


def _tell(applied: Applied) -> None:
    """A line for each interface, and one of all together."""
    plans = applied.plan.interfaces
    for change in applied.changes:
        event(logging.DEBUG, change)
    for item in plans:
        event(
            logging.INFO,
            "enforced",
            interface=item.interface,
            endpoint=item.table.endpoint,
            stage=item.early or Stage.RAW,
            entries=len(item.entries),
            entries_in_xdp=len(item.xdp_entries),
            not_earlier="; ".join(f"{mode}: {reason}" for mode, reason in item.mode_reasons) or "-",
        )
    event(logging.INFO, "policy is in the kernel", interfaces=len(plans), changes=len(applied.changes))


def _one_line(error: EnforcerError) -> str:
    if isinstance(error, PolicyError):
        return "; ".join(_first_line(finding) for finding in error.findings)
    return "; ".join(str(error).splitlines())


def _first_line(finding: Finding) -> str:
    return str(finding).partition("\n")[0]
