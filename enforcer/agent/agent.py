"""Agent: keeps the kernel equal to the datastore until it is stopped. A reconciliation loop, desired -> actual.

* A change of the datastore or of the host's interfaces, or an expired refresh interval, starts a pass. A pass changes
  nothing that is already right.
* A faulty object never replaces a good one: its last good version stays enforced, and all other objects follow their
  files. Each fault is logged once, with its outcome (``policy/tolerant.py``).
* An agent that starts with faulty objects takes their last good version from disk, if an earlier run stored one.
  Otherwise it enforces the rest, as Calico does. If nothing is left, the kernel state stays unchanged.
* Policy that no backend can enforce does not replace enforced policy. At the first start, where nothing is enforced
  yet, the policies that cannot be enforced are skipped and logged by name, and all others are enforced.
* A failed pass is retried with exponential backoff, whatever the exception. Each distinct error is logged once, with
  its traceback at level debug. Only a first pass without privilege ends the agent.
* What another program removes or changes is detected, logged and restored (``guard.py``, ``repairs.py``), even while
  reading the policy hangs, for example on a file server that does not answer.
* An emergency act leaves the kernel at its end, whether or not the datastore answers (``expiry.py``).
* Policy after conntrack can be on trial (``switch.py``): what is not confirmed in time leaves the kernel again.
* Stopping leaves the policy in the kernel, and the next agent takes it over: a restart leaves no gap. A pass that does
  not end in time is abandoned; the next agent completes it.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from enforcer.agent.backoff import BackOff
from enforcer.agent.event_loop import EventLoop, Events
from enforcer.agent.exit_deadline import cancel_exit, exit_within
from enforcer.agent.expiry import Expiry
from enforcer.agent.guard import Guard
from enforcer.agent.log import AgentLog
from enforcer.agent.partial import enforceable_rest
from enforcer.agent.repairs import Repairs
from enforcer.agent.state import AgentState
from enforcer.agent.switch import Switch
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
_READ_WITHIN_S = 5.0  # a longer read is logged
_TICK_S = 10.0  # the longest sleep of the event loop
_CANNOT_READ = "cannot read the policy; the enforced policy stays"

Links = frozenset[tuple[object, ...]]


class Agent:
    """Waits in the main thread and acts in its network namespace."""

    def __init__(
        self,
        store: DataStore,
        enforcer: Enforcer,
        *,
        detach_on_exit: bool = False,
        confirm_within_s: float | None = None,
        state: AgentState | None = None,
        expiry: Expiry | None = None,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        """``state``: where it records what it does; by default nobody reads that. ``expiry``: what ends emergency
        acts. ``on_start``: called after the first pass, whether or not it succeeded.
        """
        self._store = store
        self._state = state or AgentState(enforcer.node, store)
        self._enforcer = enforcer
        self._detach_on_exit = detach_on_exit
        self._switch = Switch(enforcer, confirm_within_s)
        self._expiry = expiry or Expiry()
        self._on_start = on_start
        self._log = AgentLog()
        self._started = False  # the first pass is over
        self._read_last: Resources | None = None  # by the last snapshot
        self._is_complete = False  # the last read succeeded, and nothing of it has to be read again
        self._wanted: Resources | None = None  # the newest that could be read
        self._good: Resources | None = None  # the newest that is enforced
        self._earlier: Resources | None = None  # enforced by an earlier run; loaded on first use
        self._left_out: frozenset[str] = frozenset()  # policies missing from what is enforced
        self._repairs = Repairs(None)
        self._links: Links = frozenset()
        self._reading = BackOff()
        self._enforcing = BackOff()
        self._passing = threading.Lock()
        self._reading_since_s: float | None = None
        self._due_s: float | None = None  # time of the next pass, monotonic clock

    def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raises PrivilegeError when the process lacks the privilege, and HostError when
        the policy should be removed at the end and cannot be.
        """
        event(logging.INFO, "watching", store=self._store.describe(), node=self._enforcer.node)
        try:
            with self._open_event_loop() as loop, self._guard(loop):
                self._first_pass(loop)
                self._on_start()
                notify("READY=1")
                while not loop.stopped_by:
                    self._iterate(loop)
                self._shut_down(loop.stopped_by)
        finally:
            cancel_exit()

    def _open_event_loop(self) -> EventLoop:
        """The event loop; retried while no file descriptors are available."""
        while True:
            try:
                return EventLoop(self._store, on_stop=self._on_stop, on_change=self._state.change_seen)
            except OSError as error:
                self._log.error_once("cannot start; trying again", error)
                time.sleep(BackOff.FIRST_S)

    def _first_pass(self, loop: EventLoop) -> None:
        """The first pass."""
        self._switch.check()
        try:
            loop.work(self._start, meanwhile=self._state.ticked)
        except PrivilegeError:
            raise
        except Exception as error:
            self._recover_from(error)
        self._started = True

    @contextmanager
    def _guard(self, loop: EventLoop) -> Iterator[None]:
        """Detect changes by other programs. Where this is impossible now, only the resync finds them."""
        try:
            guard = Guard(self._enforcer.backends().drivers, on_loss=self._state.lost)
        except (OSError, EnforcerError) as error:
            self._log.error_once("cannot watch for changes by other programs; the resync finds them", error)
            yield
            return
        with guard:
            self._repairs = Repairs(guard)
            self._state.watched(guard.parts)
            loop.add_sources(guard.sources())
            yield

    def _iterate(self, loop: EventLoop) -> None:
        """Wait for events, then handle them."""
        try:
            passes = (self._due_s, self._repairs.due_s, self._switch.due_s)
            until = min(filter(None, (*passes, self._expiry.due_s)), default=None)
            events = loop.wait(until, every_s=min(watchdog_interval_s() or _TICK_S, _TICK_S), tick=self._tick)
            if not events.stop:
                loop.work(lambda: self._react(events), meanwhile=self._repair_while_reading)
        except Exception as error:
            self._recover_from(error)

    def _repair_while_reading(self) -> None:
        """Restore what other programs remove while another thread reads the policy, which may hang."""
        self._state.ticked()
        since_s, good = self._reading_since_s, self._good
        if since_s is None or good is None:
            return
        _ping_watchdog()
        if time.monotonic() >= since_s + _READ_WITHIN_S:
            self._log.log_once(
                logging.ERROR, "reading the policy takes too long; the enforced policy stays and is still guarded"
            )
        try:
            self._repairs.look()
            ends = self._switch.is_due() and self._switch.check()
            ends |= self._expiry.changes(good)
            if ends or self._repairs.is_due(notified=False) or self._links_now() != self._links:
                self._links = self._links_now()
                self._apply(good)
        except Exception as error:
            self._repairs.postpone()
            self._log.error_once("not everything is enforced; trying again", error)

    def _tick(self) -> None:
        self._state.ticked()
        _ping_watchdog()

    def _recover_from(self, error: Exception) -> None:
        """Continue after any exception: an agent that ends enforces nothing new. The work may be incomplete."""
        self._log.error_once("the agent's event loop failed; continuing", error)
        self._state.pass_failed(error)
        self._reading.failed()
        self._due_s = self._next_pass_s()
        time.sleep(BackOff.FIRST_S)

    # -- in a thread of its own ----------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._retrying(self._reading, _CANNOT_READ):
            self._read()
        with self._retrying(self._enforcing, "not everything is enforced; trying again"):
            self._enforce()

    def _react(self, events: Events) -> None:
        if not events.any and self._looks_only() and not (self._wanted and self._expiry.changes(self._wanted)):
            return
        if events.resync:
            self._store.refresh()
        if events.policy or events.resync or self._reading.wait_s:
            with self._retrying(self._reading, _CANNOT_READ):
                self._read()
        with self._retrying(self._enforcing, "not everything is enforced; trying again"):
            due = self._repairs.is_due(notified=events.losses) or not events.any
            due |= self._switch.is_due() and self._switch.check()
            if due or events.policy or events.resync or self._links_now() != self._links:
                self._enforce()
        gc.collect()  # columns of large sets are in cycles, and a policy that changes seldom collects seldom

    def _looks_only(self) -> bool:
        """Whether the wait ended for nothing but to see whether an emergency act has ended."""
        look_s, now_s = self._expiry.due_s, time.monotonic()
        passes = (self._due_s, self._repairs.due_s, self._switch.due_s)
        return look_s is not None and look_s <= now_s and all(due_s is None or due_s > now_s for due_s in passes)

    @contextmanager
    def _retrying(self, back_off: BackOff, message: str) -> Iterator[None]:
        """Log any exception and schedule a retry; only missing privilege at the start is raised."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, PrivilegeError) and not self._started:
                raise
            back_off.failed()
            self._repairs.postpone()
            (self._state.read_failed if back_off is self._reading else self._state.pass_failed)(error)
            if not self._enforcer.stopping.is_set():
                self._log.error_once(message, error)
        self._due_s = self._next_pass_s()

    def _read(self) -> None:
        """Read the datastore: valid objects as they are, faulty ones in their last good version."""
        self._is_complete = False
        self._state.read_begins()
        with self._reading_files():
            loaded = self._store.snapshot(self._wanted or Resources())
        self._reading.succeeded()
        self._state.read(loaded)
        self._log.log_faults(loaded)
        self._accept(loaded)

    def _accept(self, loaded: Loaded) -> None:
        if self._wanted is None and loaded.faults and loaded.empty:
            self._log.log_once(logging.ERROR, "no policy could be read; the kernel state stays unchanged")
        else:
            self._wanted = self._read_last = loaded.resources
            self._is_complete = not loaded.again
            self._state.configured(loaded.resources.felix_for(self._enforcer.node))

    def _enforce(self) -> None:
        if self._wanted is None:
            return
        try:
            self._links = self._links_now()
            applied = self._apply(self._wanted)
        except (UnsupportedRuleError, PolicyError) as error:  # the author must fix it: a retry does not help
            self._enforcing.succeeded()
            self._state.pass_failed(error)
            if not self._enforce_rest(self._wanted, error):
                self._log.error_once("policy cannot be enforced; the last good one stays", error)
                self._wanted = self._fall_back(self._wanted)
        except (HostError, OSError, MemoryError):  # the host: more may be enforced later
            raise
        except Exception:
            self._fall_back(self._wanted)
            raise
        else:
            self._pass_succeeded(applied)

    def _apply(self, resources: Resources) -> Applied:
        with self._passing, self._state.applying():
            live = self._expiry.live(resources)
            applied = self._repairs.apply(self._enforcer.apply, live, live.felix_for(self._enforcer.node))
            self._state.applied(applied, live, self._expiry.decision)
            return applied

    def _fall_back(self, failed: Resources) -> Resources | None:
        """Enforce the last good policy instead of one that cannot be enforced: of this run, else of an earlier one."""
        good = self._good or self._last_good()
        if good is None or good is failed or good == Resources():
            return self._good
        try:
            applied = self._apply(good)
        except Exception as error:
            self._log.error_once("the last good policy cannot be enforced either", error)
            return self._good
        if self._good is None or applied.changes:
            self._log.applied(applied)
        self._good = good
        return good

    def _last_good(self) -> Resources:
        if self._earlier is None:
            self._earlier = self._store.last_good()
        return self._earlier

    def _enforce_rest(self, failed: Resources, error: EnforcerError) -> bool:
        """Enforce all policies except those that cannot be enforced, if that removes nothing that is enforced: at the
        first start, and later while no other policy has to be skipped. Returns whether it did.
        """
        if self._good is None and self._last_good() != Resources():
            return False
        if self._good is not None and not self._left_out:
            return False
        found = enforceable_rest(self._enforcer, failed, without=None if self._good is None else self._left_out)
        if found is None:
            return False
        rest, refused = found
        applied = self._apply(rest)
        if applied.changes or self._good is None:
            self._log.applied(applied)
        names = ", ".join(f"GlobalNetworkPolicy {name}" for name in refused)
        self._log.error_once(f"cannot be enforced, skipped: {names}; all other policies are enforced", error)
        for warning in applied.warnings:
            self._log.log_once(logging.WARNING, warning)
        self._good, self._wanted, self._left_out = rest, rest, frozenset(refused)
        return True

    def _pass_succeeded(self, applied: Applied) -> None:
        if self._enforcing.wait_s:
            self._log.recovered()
        self._enforcing.succeeded()
        new = self._wanted is not self._good
        self._good = self._wanted
        if new:
            self._left_out = frozenset()
            self._log.forget()
        if applied.changes or new:
            self._log.applied(applied)
        for warning in applied.warnings:
            self._log.log_once(logging.WARNING, warning)
        if self._good is self._read_last:
            if self._is_complete:
                self._state.up_to_date()
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
        """When the next pass is due without an event, on the monotonic clock; None: never."""
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
        """The state of the host's interfaces that passes depend on. Workload interfaces change all the time and are
        ignored.
        """
        felix = (self._wanted or Resources()).felix_for(self._enforcer.node)
        return frozenset(item.shape for item in interfaces() if is_host_interface(item.name, felix))

    # -- shutdown ------------------------------------------------------------------------------------------------------

    def _on_stop(self, signal_name: str) -> None:
        """Signal handler: stop waiting, and exit in time whatever the process is doing."""
        self._enforcer.stopping.set()
        exit_within(
            _STOP_WITHIN_S,
            code=HostError.exit_code if self._detach_on_exit else 0,
            message="stopped during a pass; the policy stays in the kernel, and the next pass completes it",
        )

    def _shut_down(self, why: str) -> None:
        notify("STOPPING=1")
        if not self._detach_on_exit:
            event(logging.INFO, "stopping; the policy stays in the kernel ('enforcer detach' removes it)", signal=why)
            return
        exit_within(
            _DETACH_WITHIN_S, code=HostError.exit_code, message="stopped before all of the policy could be removed"
        )
        self._state.withdrawn()
        removed = self._enforcer.detach()
        event(logging.INFO, "stopping; the policy was removed", signal=why, removed=len(removed))


def _ping_watchdog() -> None:
    notify("WATCHDOG=1")
