"""Agent: keeps the kernel as the datastore says, until it is told to stop. Desired -> actual, again and again.

* A change in the datastore, of the host's interfaces, or a refresh interval gone by starts a pass. Passes change
  nothing that is right already.
* A faulty object never replaces a good one: its last good version stays enforced, all other objects follow their
  files, and the log says each fault once, with what becomes of it (``policy/tolerant.py``).
* An agent that starts on faulty objects has the good version its store kept of an earlier run, if it did. Otherwise it
  enforces the rest, as Calico does; when there is no rest, what is in the kernel stays as it is.
* Policy that no backend can enforce does not replace policy that is enforced. Where there is none to stay (the first
  start), the policies that cannot be enforced are left out, by name, and all others are enforced.
* A pass that fails, with whatever exception, is tried again, at growing intervals; each distinct error is logged once,
  with its traceback at level debug. Only a first pass without privilege ends the agent.
* What somebody else takes away or changes is noticed, said and put back (``guard.py``, ``repairs.py``); also while
  reading the policy does not end, as with a file server that does not answer.
* Stopping leaves the policy in the kernel, and a new agent takes it over as it is: a restart opens no hole. A pass that
  does not end in time is left where it is; the next agent finishes it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from enforcer.agent.backoff import BackOff
from enforcer.agent.ending import end_within, never_mind
from enforcer.agent.event_loop import Wakeups, Woken
from enforcer.agent.guard import Guard
from enforcer.agent.leftout import rest_of
from enforcer.agent.log import AgentLog
from enforcer.agent.repairs import Repairs
from enforcer.agent.systemd import notify, watchdog_interval_s
from enforcer.datastore.base import DataStore
from enforcer.enforcement.apply import Applied, Enforcer
from enforcer.kernel.rtnetlink import interfaces
from enforcer.model.errors import EnforcerError, HostError, PolicyError, PrivilegeError, UnsupportedRuleError
from enforcer.policy.endpoint import is_host_interface
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Loaded
from enforcer.system.log import event

_STOP_WITHIN_S = 1.5
_DETACH_WITHIN_S = 30.0
_READ_WITHIN_S = 5.0  # then it is said that it takes longer

Links = frozenset[tuple[object, ...]]


class Agent:
    """Waits in the main thread, and works in its network namespace."""

    def __init__(self, store: DataStore, enforcer: Enforcer, *, detach_on_exit: bool = False) -> None:
        self._store = store
        self._enforcer = enforcer
        self._detach_on_exit = detach_on_exit
        self._log = AgentLog()
        self._started = False  # the first pass is over
        self._read_last: Resources | None = None  # by the last snapshot
        self._wanted: Resources | None = None  # the newest that could be read
        self._good: Resources | None = None  # the newest that is enforced
        self._earlier: Resources | None = None  # what was enforced in an earlier run, once it was asked for
        self._left_out: frozenset[str] = frozenset()  # the policies that the newest enforced is without
        self._repairs = Repairs(None)
        self._links: Links = frozenset()
        self._reading = BackOff()
        self._enforcing = BackOff()
        self._passing = threading.Lock()
        self._reading_since_s: float | None = None
        self._due_s: float | None = None  # when the next pass is to be, on the monotonic clock

    def run(self) -> None:
        """Work until SIGTERM or SIGINT. Raises PrivilegeError when the process may not do this at all, and HostError
        when the policy was to be removed at the end and could not be.
        """
        event(logging.INFO, "watching", store=self._store.describe(), node=self._enforcer.node)
        try:
            with self._wakeups() as wakeups, self._guard(wakeups):
                self._begin(wakeups)
                notify("READY=1")
                while not wakeups.stopped_by:
                    self._turn(wakeups)
                self._leave(wakeups.stopped_by)
        finally:
            never_mind()

    def _wakeups(self) -> Wakeups:
        """What to wait with; without descriptors for it, later."""
        while True:
            try:
                return Wakeups(self._store, on_stop=self._on_stop)
            except OSError as error:
                self._log.complain("cannot start; trying again", error)
                time.sleep(BackOff.FIRST_S)

    def _begin(self, wakeups: Wakeups) -> None:
        """The first pass."""
        try:
            wakeups.work(self._start)
        except PrivilegeError:
            raise
        except Exception as error:
            self._go_on_after(error)
        self._started = True

    @contextmanager
    def _guard(self, wakeups: Wakeups) -> Iterator[None]:
        """Notice what others take away; where this host has no means for that now, the resync has to find it."""
        try:
            guard = Guard(self._enforcer.pin_root)
        except (OSError, EnforcerError) as error:
            self._log.complain("cannot watch for changes by others; the resync will find them", error)
            yield
            return
        with guard:
            self._repairs = Repairs(guard)
            wakeups.also_wait_for(guard.sources())
            yield

    def _turn(self, wakeups: Wakeups) -> None:
        """Wait, and do what is to be done."""
        try:
            until = min(filter(None, (self._due_s, self._repairs.due_s)), default=None)
            woken = wakeups.wait(until, every_s=watchdog_interval_s(), tick=_alive)
            if not woken.stop:
                wakeups.work(lambda: self._react(woken), meanwhile=self._watch_over)
        except Exception as error:
            self._go_on_after(error)

    def _watch_over(self) -> None:
        """While another thread reads the policy, which may take for ever: put back what others take away."""
        since_s, good = self._reading_since_s, self._good
        if since_s is None or good is None:
            return
        _alive()
        if time.monotonic() >= since_s + _READ_WITHIN_S:
            self._log.say(logging.ERROR, "reading the policy does not end; what is enforced stays, and is watched over")
        try:
            self._repairs.look()
            if self._repairs.are_due(woken=False) or self._links_now() != self._links:
                self._links = self._links_now()
                self._apply(good)
        except Exception as error:
            self._repairs.put_off()
            self._log.complain("not everything is enforced; trying again", error)

    def _go_on_after(self, error: Exception) -> None:
        """Whatever it is: an agent that ends enforces nothing new. What was to be done may not have been."""
        self._log.complain("the agent's own loop failed; going on", error)
        self._reading.failed()
        self._due_s = self._next_pass_s()
        time.sleep(BackOff.FIRST_S)

    # -- in a thread of its own ----------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._surviving(self._reading, "the policy cannot be read; what is enforced stays"):
            self._read()
        with self._surviving(self._enforcing, "not everything is enforced; trying again"):
            self._enforce()

    def _react(self, woken: Woken) -> None:
        if woken.policy or woken.resync or self._reading.wait_s:
            with self._surviving(self._reading, "the policy cannot be read; what is enforced stays"):
                self._read()
        with self._surviving(self._enforcing, "not everything is enforced; trying again"):
            due = self._repairs.are_due(woken=woken.losses) or not woken.any
            if due or woken.policy or woken.resync or self._links_now() != self._links:
                self._enforce()

    @contextmanager
    def _surviving(self, back_off: BackOff, message: str) -> Iterator[None]:
        """Whatever is raised inside is logged, and tried again; but a lack of privilege at the start."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, PrivilegeError) and not self._started:
                raise
            back_off.failed()
            self._repairs.put_off()
            if not self._enforcer.stopping.is_set():
                self._log.complain(message, error)
        self._due_s = self._next_pass_s()

    def _read(self) -> None:
        """Take what the datastore has now: what is right of it, and of the rest the last good version."""
        with self._reading_files():
            loaded = self._store.snapshot(self._wanted or Resources())
        self._reading.went_well()
        self._log.tell_faults(loaded)
        self._take(loaded)

    def _take(self, loaded: Loaded) -> None:
        if self._wanted is None and loaded.faults and loaded.empty:
            self._log.say(logging.ERROR, "nothing of the policy could be read; what is in the kernel stays as it is")
        else:
            self._wanted = self._read_last = loaded.resources

    def _enforce(self) -> None:
        if self._wanted is None:
            return
        try:
            self._links = self._links_now()
            applied = self._apply(self._wanted)
        except (UnsupportedRuleError, PolicyError) as error:  # the author's to mend: trying again is no use
            self._enforcing.went_well()
            if not self._enforce_rest(self._wanted, error):
                self._log.complain("policy cannot be enforced; the last good one stays", error)
                self._wanted = self._stand_in(self._wanted)
        except (HostError, OSError, MemoryError):  # the surroundings: more of it may be enforced later
            raise
        except Exception:
            self._stand_in(self._wanted)
            raise
        else:
            self._succeeded(applied)

    def _apply(self, resources: Resources) -> Applied:
        with self._passing:
            return self._repairs.apply(self._enforcer.apply, resources, resources.felix_for(self._enforcer.node))

    def _stand_in(self, failed: Resources) -> Resources | None:
        """Enforce the last good policy in place of one that cannot be: of this run, else of an earlier one."""
        good = self._good or self._last_good()
        if good is None or good is failed or good == Resources():
            return self._good
        try:
            applied = self._apply(good)
        except Exception as error:
            self._log.complain("the last good policy cannot be enforced either", error)
            return self._good
        if self._good is None or applied.changes:
            self._log.tell(applied)
        self._good = good
        return good

    def _last_good(self) -> Resources:
        if self._earlier is None:
            self._earlier = self._store.last_good()
        return self._earlier

    def _enforce_rest(self, failed: Resources, error: EnforcerError) -> bool:
        """Enforce all but the policies that cannot be, where that takes nothing away: before anything was enforced, in
        this run or an earlier one; afterwards as long as no other policy has to be left out. Whether it did.
        """
        if self._good is None and self._last_good() != Resources():
            return False
        if self._good is not None and not self._left_out:
            return False
        found = rest_of(self._enforcer, failed, without=None if self._good is None else self._left_out)
        if found is None:
            return False
        rest, refused = found
        applied = self._apply(rest)
        if applied.changes or self._good is None:
            self._log.tell(applied)
        names = ", ".join(f"GlobalNetworkPolicy {name}" for name in refused)
        self._log.complain(f"left out, as it cannot be enforced: {names}; all other policies are enforced", error)
        for warning in applied.warnings:
            self._log.say(logging.WARNING, warning)
        self._good, self._wanted, self._left_out = rest, rest, frozenset(refused)
        return True

    def _succeeded(self, applied: Applied) -> None:
        if self._enforcing.wait_s:
            self._log.recovered()
        self._enforcing.went_well()
        new = self._wanted is not self._good
        self._good = self._wanted
        if new:
            self._left_out = frozenset()
            self._log.forget()
        if applied.changes or new:
            self._log.tell(applied)
        for warning in applied.warnings:
            self._log.say(logging.WARNING, warning)
        if self._good is self._read_last:
            with self._reading_files():
                self._store.keep()

    @contextmanager
    def _reading_files(self) -> Iterator[None]:
        self._reading_since_s = time.monotonic()
        try:
            yield
        finally:
            self._reading_since_s = None

    def _next_pass_s(self) -> float | None:
        """When the next pass is due if nothing happens, on the monotonic clock; None: never."""
        intervals = [self._reading.wait_s, self._enforcing.wait_s]
        if self._wanted is not None:
            felix = self._wanted.felix_for(self._enforcer.node)
            intervals += (
                felix.xdp_refresh_interval_s,
                felix.ipsets_refresh_interval_s,
                felix.table_refresh_interval_s,
            )
        wanted = [interval for interval in intervals if interval > 0]  # 0 switches one off
        return time.monotonic() + min(wanted) if wanted else None

    def _links_now(self) -> Links:
        """What matters of the host's interfaces; those of workloads come and go all the time and do not."""
        felix = (self._wanted or Resources()).felix_for(self._enforcer.node)
        return frozenset(item.shape for item in interfaces() if is_host_interface(item.name, felix))

    # -- the end -------------------------------------------------------------------------------------------------------

    def _on_stop(self, signal_name: str) -> None:
        """A signal handler: from now on nothing is waited for, and the process ends in time whatever it is at."""
        self._enforcer.stopping.set()
        end_within(
            _STOP_WITHIN_S,
            code=HostError.exit_code if self._detach_on_exit else 0,
            message="stopped before what was going on had ended; the policy stays in the kernel as it is, and the next "
            "pass finishes it",
        )

    def _leave(self, why: str) -> None:
        notify("STOPPING=1")
        if not self._detach_on_exit:
            event(logging.INFO, "stopping; the policy stays in the kernel ('enforcer detach' removes it)", signal=why)
            return
        end_within(
            _DETACH_WITHIN_S, code=HostError.exit_code, message="stopped before all of the policy could be removed"
        )
        removed = self._enforcer.detach()
        event(logging.INFO, "stopping; the policy is removed", signal=why, removed=len(removed))


def _alive() -> None:
    notify("WATCHDOG=1")
