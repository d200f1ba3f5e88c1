"""Follows Calico's objects in the Kubernetes API: one thread for each kind, brought together here.

The API has no point in time of several kinds, so what is enforced begins when all kinds have been listed. What is not
believed, because it would lift protection by accident: an API in which Calico has nothing at all, another cluster, and
a kind that is not served any more.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

from enforcer.datastore.kubernetes.client import Client, Connections, KubernetesError, StoppedError
from enforcer.datastore.kubernetes.cluster import Cluster, NotBelievedError
from enforcer.datastore.kubernetes.config import KubernetesConfig
from enforcer.datastore.kubernetes.follower import Clocks, Follower, State
from enforcer.datastore.kubernetes.kinds import CALICO, Kind, followed
from enforcer.datastore.updates import Changed, Contact, Listed, Lost, Resynced, Update
from enforcer.policy.objects import StoredObject

_POLL_S = 0.2  # how soon waiting ends after a stop
_GATHER_S = 1.0  # failures of several kinds within this time are one
_CONTACT_EVERY_S = 5.0
_DOUBT_S = 10.0  # the check of a datastore that has nothing is repeated
_SHOWN_MAX = 3  # problems in one message

_FOR_ALL = CALICO[0]


class KubernetesSource:
    """An ObjectSource. ``node``: whose Node object is followed."""

    kind = "kubernetes"

    def __init__(self, config: KubernetesConfig, node: str, clocks: Clocks | None = None) -> None:
        self._config, self._clocks = config, clocks or Clocks()
        self._kinds = followed(node)
        self._cluster = Cluster(config.group)
        self._held: dict[str, StoredObject] | None = None  # by path, what was yielded
        self._connections = Connections()
        self._followers: list[Follower] = []

    def describe(self) -> str:
        return str(self._config.server)

    def identity(self) -> tuple[str, ...]:
        return (str(self._config.server), self._config.group)

    def follow(self, stop: threading.Event) -> Iterator[Update]:
        states: queue.SimpleQueue[State] = queue.SimpleQueue()
        self._connections = connections = Connections()
        self._followers = [
            Follower(kind, self._config, self._cluster, connections, states.put, self._clocks, stop)
            for kind in self._kinds
        ]
        for follower in self._followers:
            threading.Thread(target=follower.run, name=f"kubernetes-{follower.kind.plural}", daemon=True).start()
        try:
            yield from _Merge(self, states, connections).updates(stop)
        finally:
            connections.end()

    def refresh(self) -> None:
        for follower in self._followers:
            follower.relist()
        self._connections.interrupt()


class _Merge:
    """What the threads report, as one sequence of updates."""

    def __init__(self, source: KubernetesSource, states: queue.SimpleQueue[State], connections: Connections) -> None:
        self._source, self._states, self._connections = source, states, connections
        self._latest: dict[Kind, State] = {}
        self._doubt = ""  # why what all kinds say together is not believed
        self._doubt_due_s = 0.0
        self._said: set[str] = set()  # problems since everything was followed
        self._say_due_s: float | None = None
        self._contact_s = 0.0

    def updates(self, stop: threading.Event) -> Iterator[Update]:
        while not stop.is_set():
            heard: list[State] = []
            with suppress(queue.Empty):
                heard.append(self._states.get(timeout=_POLL_S))
                while True:
                    heard.append(self._states.get_nowait())
            self._latest |= {state.kind: state for state in heard}
            yield from (Resynced(state.resync) for state in heard if state.resync is not None)
            try:
                yield from self._changes()
            except StoppedError:
                return
            yield from self._contact()

    def _problems(self) -> dict[str, list[str]]:
        """Each problem, with the kinds that have it."""
        found: dict[str, list[str]] = {}
        for kind, state in self._latest.items():
            if state.problem:
                found.setdefault(state.problem, []).append(kind.plural)
        if self._doubt:
            found[self._doubt] = []
        return found

    def _summary(self) -> str:
        problems = self._problems()
        shown = [
            problem if len(kinds) != 1 else f"{kinds[0]}: {problem}" for problem, kinds in sorted(problems.items())
        ]
        more = len(shown) - _SHOWN_MAX
        return "; ".join([*shown[:_SHOWN_MAX], *([f"and {more} more"] if more > 0 else [])])

    # -- what is there ---------------------------------------------------------------------------------------------

    def _changes(self) -> Iterator[Update]:
        """The objects of all kinds, as far as they are believed and differ from what was yielded."""
        kinds = self._source._kinds
        if any(kind not in self._latest or self._latest[kind].objects is None for kind in kinds):
            return
        now = {path: item for kind in kinds for path, item in (self._latest[kind].objects or {}).items()}
        before = self._source._held
        if not self._is_believed():
            return
        self._source._held = now
        revision = self._revision()
        if before is None:
            self._said = set()
            yield Listed(tuple(now.values()), revision)
            return
        put = tuple(item for path, item in now.items() if before.get(path) is not item)
        gone = tuple(path for path in before if path not in now)
        if put or gone:
            yield Changed(put, gone, revision, self._summary() if self._said else "")

    def _is_believed(self) -> bool:
        """Whether Calico has something here: a datastore without a policy is, one that was emptied is not."""
        if any(self._latest[kind].objects for kind in CALICO):
            self._doubt = ""
            return True
        if self._source._held is not None and not _has_calico(self._source._held) and not self._doubt:
            return True  # believed before
        if time.monotonic() < self._doubt_due_s:
            return not self._doubt
        self._doubt_due_s = time.monotonic() + random.uniform(0.5, 1.0) * _DOUBT_S
        try:
            with Client(self._source._config, self._connections) as client:
                self._source._cluster.require_something(client)
            self._doubt = ""
        except (KubernetesError, NotBelievedError) as error:
            self._doubt = str(error)
        return not self._doubt

    def _revision(self) -> str:
        """The newest of all kinds, where they are numbers."""
        found = [state.revision for state in self._latest.values()]
        return max((text for text in found if text.isdecimal()), key=int, default="")

    # -- whether it is followed ------------------------------------------------------------------------------------

    def _contact(self) -> Iterator[Update]:
        """That the API is lost, once for each problem, or answers again."""
        problems = self._problems()
        now_s = time.monotonic()
        if problems.keys() - self._said:
            self._say_due_s = self._say_due_s or now_s + _GATHER_S
            if now_s >= self._say_due_s:
                self._say_due_s = None
                self._said |= problems.keys()
                yield Lost(self._summary())
            return
        self._say_due_s = None
        if not problems and self._source._held is not None and (self._said or now_s >= self._contact_s):
            self._said = set()
            self._contact_s = now_s + _CONTACT_EVERY_S
            yield Contact()


def _has_calico(objects: dict[str, StoredObject]) -> bool:
    plurals = {kind.plural for kind in CALICO}
    return any(item.plural in plurals for item in objects.values())
