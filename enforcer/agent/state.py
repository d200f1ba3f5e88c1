"""What the agent knows about its own work: written by the agent, read by metrics, health and ``enforcer status``.

The agent's threads write single facts; readers take a :class:`View`, which never changes. No method blocks or raises.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from enforcer.agent.log import one_line
from enforcer.datastore.base import DataStore, StoreState
from enforcer.datastore.report import Counting, StoreCounts
from enforcer.emergency.expiry import Decision
from enforcer.enforcement.apply import Applied
from enforcer.planning.plan import Plan
from enforcer.policy.resources import FelixConfiguration, Resources
from enforcer.policy.tolerant import Loaded

APPLY_BOUNDS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
CHANGED, UNCHANGED, FAILED = RESULTS = ("changed", "unchanged", "failed")


@dataclass(frozen=True)
class Histogram:
    """``counts``: how many values were at most each bound, and above the last one; not cumulative."""

    counts: tuple[int, ...] = (0,) * (len(APPLY_BOUNDS_S) + 1)
    total_s: float = 0.0

    def with_value(self, value_s: float) -> Histogram:
        at = bisect_left(APPLY_BOUNDS_S, value_s)
        counts = (*self.counts[:at], self.counts[at] + 1, *self.counts[at + 1 :])
        return Histogram(counts, self.total_s + value_s)


@dataclass(frozen=True)
class View:
    """A snapshot. Times ending in ``_at_s`` are seconds since 1970, durations and ages seconds.

    ``ticked_ago_s``: since the event loop last ran. ``passing_for_s``: how long the present pass has taken; None: there
    is none. ``passed``: a pass has succeeded since the start, and its policy stays. ``plan``, ``ranges``,
    ``resources``: of the last pass that succeeded; the ranges of addresses in the tables of XDP, by IP version;
    without the emergency acts that had ended, as ``emergency`` says. ``out_of_date_s``: age of the oldest change that
    is seen and not enforced. ``problem``: why not everything is enforced.
    """

    node: str
    started_at_s: float
    store: StoreState
    counts: StoreCounts
    felix: FelixConfiguration
    ticked_ago_s: float
    passing_for_s: float | None
    passed: bool
    plan: Plan | None
    ranges: Mapping[int, int]
    resources: Resources
    enforced_at_s: float | None
    out_of_date_s: float
    problem: str
    applies: Mapping[str, int]
    apply_s: Histogram
    propagation_s: Histogram
    losses: Mapping[str, int]
    emergency: Decision


@dataclass
class AgentState:
    """``store`` is asked for its own state when a reader asks."""

    node: str
    store: DataStore
    on_felix: Callable[[], None] = lambda: None  # called after the FelixConfiguration has changed
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        now_s = time.monotonic()
        self._started_at_s = time.time()
        self._ticked_s = now_s
        self._pass_since_s: float | None = None
        self._passed = False
        self._plan: Plan | None = None
        self._ranges: Mapping[int, int] = {}
        self._resources = Resources()
        self._felix = FelixConfiguration("default")
        self._enforced_at_s: float | None = None
        self._seen_s: float | None = None  # the oldest change that no read includes, monotonic clock
        self._read_s: float | None = None  # the oldest change that a read includes and no pass has enforced
        self._failing_s: float | None = now_s  # since when not everything is enforced for another reason
        self._problems = {"read": "", "pass": ""}
        self._unreadable = 0  # reads that failed, or could not open something
        self._applies = Counter(dict.fromkeys(RESULTS, 0))
        self._apply_s = Histogram()
        self._propagation_s = Histogram()
        self._losses: Counter[str] = Counter()
        self._emergency = Decision()

    # -- written by the agent ------------------------------------------------------------------------------------------

    def ticked(self) -> None:
        """The event loop runs."""
        self._ticked_s = time.monotonic()

    def change_seen(self) -> None:
        """The datastore may have changed."""
        with self._lock:
            self._seen_s = self._seen_s or time.monotonic()

    def read_begins(self) -> None:
        with self._lock:
            self._read_s = min(filter(None, (self._read_s, self._seen_s)), default=None)
            self._seen_s = None

    def read(self, loaded: Loaded) -> None:
        """A read has ended. What could not be opened is read again later."""
        with self._lock:
            self._problems["read"] = ""
            self._unreadable += loaded.again

    def read_failed(self, error: BaseException) -> None:
        with self._lock:
            self._problems["read"] = _text(error)
            self._failing_s = self._failing_s or time.monotonic()
            self._unreadable += 1

    def configured(self, felix: FelixConfiguration) -> None:
        """What this node's FelixConfiguration says now."""
        if felix != self._felix:
            self._felix = felix
            with suppress(Exception):  # readers must not stop the agent
                self.on_felix()

    @contextmanager
    def applying(self) -> Iterator[None]:
        """Wrap each pass; in it call :meth:`applied`. A pass that raises has failed."""
        began_s = self._pass_since_s = time.monotonic()
        applied = self._applies[CHANGED] + self._applies[UNCHANGED]
        try:
            yield
        finally:
            with self._lock:
                self._pass_since_s = None
                self._apply_s = self._apply_s.with_value(time.monotonic() - began_s)
                if self._applies[CHANGED] + self._applies[UNCHANGED] == applied:
                    self._applies[FAILED] += 1
                    self._failing_s = self._failing_s or time.monotonic()

    def applied(self, applied: Applied, resources: Resources, emergency: Decision) -> None:
        with self._lock:
            self._emergency = emergency
            self._applies[CHANGED if applied.changes else UNCHANGED] += 1
            self._plan, self._ranges, self._resources, self._passed = applied.plan, applied.ranges, resources, True
            self._enforced_at_s = time.time()

    def up_to_date(self) -> None:
        """The last read is enforced, and nothing of it is to be read again."""
        with self._lock:
            if self._read_s is not None:
                self._propagation_s = self._propagation_s.with_value(time.monotonic() - self._read_s)
            self._read_s = self._failing_s = None
            self._problems["pass"] = ""

    def pass_failed(self, error: BaseException) -> None:
        with self._lock:
            self._problems["pass"] = _text(error)
            self._failing_s = self._failing_s or time.monotonic()

    def withdrawn(self) -> None:
        """The policy is being removed."""
        with self._lock:
            self._passed, self._problems["pass"] = False, "the agent stops and removes the policy"

    def lost(self, part: str, count: int) -> None:
        """Another program removed or changed so many things that a backend holds."""
        with self._lock:
            self._losses[part] += count

    def watched(self, parts: Sequence[str]) -> None:
        """The parts of the kernel where such changes are noticed."""
        with self._lock:
            for part in parts:
                self._losses[part] += 0

    # -- read ----------------------------------------------------------------------------------------------------------

    def view(self) -> View:
        counts = self.store.counts() if isinstance(self.store, Counting) else StoreCounts()
        store = self.store.state()
        with self._lock:
            now_s = time.monotonic()
            waiting = min(filter(None, (self._seen_s, self._read_s, self._failing_s)), default=now_s)
            since_s = self._pass_since_s
            return View(
                node=self.node,
                started_at_s=self._started_at_s,
                store=store,
                counts=replace(counts, errors={"unreadable": self._unreadable, **counts.errors}),
                felix=self._felix,
                ticked_ago_s=now_s - self._ticked_s,
                passing_for_s=None if since_s is None else now_s - since_s,
                passed=self._passed,
                plan=self._plan,
                ranges=self._ranges,
                resources=self._resources,
                enforced_at_s=self._enforced_at_s,
                out_of_date_s=now_s - waiting,
                problem=self._problems["read"] or self._problems["pass"],
                applies=dict(self._applies),
                apply_s=self._apply_s,
                propagation_s=self._propagation_s,
                losses=dict(self._losses),
                emergency=self._emergency,
            )


def _text(error: BaseException) -> str:
    with suppress(Exception):  # there may be no memory for it
        return one_line(error)
    return "an error"
