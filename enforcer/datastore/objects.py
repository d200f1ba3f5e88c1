"""A DataStore over a source of objects: holds the last version of each, and reads only what has changed.

Whatever the source does, nothing that is held is dropped but by an object's deletion: a source that is away leaves
everything as it is, and the first snapshot of an agent whose source is away is what an earlier run stored.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from enforcer.datastore.base import StoreState
from enforcer.datastore.lastgood import LastGood, Texts
from enforcer.datastore.report import EVENTS, RESYNCS, StoreCounts
from enforcer.datastore.updates import Changed, Listed, Lost, ObjectSource, Resynced, Update
from enforcer.model.errors import EnforcerError, Finding, Position
from enforcer.policy.collect import Source
from enforcer.policy.objects import PLURALS, StoredObject, collected, read_object
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Fault, Loaded, merged
from enforcer.system.log import event
from enforcer.system.stop import Stop

_FIRST_WITHIN_S = 5.0  # for the first answer of the source, be it a failure; then the last good policy is enforced
_PROBLEMS_MAX = 10  # of one time away: an endpoint may give another reason each time


class ObjectStore:
    """A DataStore. ``state``: the directory for the last good version."""

    def __init__(self, source: ObjectSource, *, state: Path | None = None) -> None:
        self._source = source
        self._kept = LastGood(state, (source.kind, *source.identity())) if state else None
        self._lock = threading.Lock()
        self._answered = threading.Event()  # the source was listed, or could not be
        self._objects: dict[str, StoredObject] | None = None  # by path; None: never listed
        self._read: dict[str, tuple[str, Source]] = {}  # path: the revision that was read, and the result
        self._good: dict[str, StoredObject] | None = None  # of the last snapshot, if it had no fault
        self._saved: dict[str, StoredObject] | None = None
        self._save_problem = ""
        self._problems: set[str] = set()  # logged since the source was last followed
        self._is_first = True
        self._state = StoreState(source.kind, source.describe(), False, time.time(), 0.0)
        self._events: Counter[tuple[str, str]] = Counter({(kind, what): 0 for kind in PLURALS for what in EVENTS})
        self._lists: Counter[str] = Counter(dict.fromkeys(RESYNCS, 0))
        self._losses = 0
        if self._kept:
            self._kept.clean()

    def has_last_good(self) -> bool:
        """Whether an earlier run stored a policy."""
        return self.last_good() != Resources()

    def changes(self, stop: Stop) -> Iterator[None]:
        """Yields when objects changed."""
        for update in self._source.follow(stop):
            if self._take(update):
                yield

    def _take(self, update: Update) -> bool:
        """Hold what the source says; whether a snapshot may differ."""
        if isinstance(update, Resynced):
            with self._lock:
                self._lists[update.reason] += 1
            return False
        with self._lock:
            self._note(update)
            match update:
                case Listed(objects=objects, another=another):
                    if another:
                        self._read = {}
                    before = self._objects
                    self._objects = {item.path: item for item in objects}
                    changed = another or before is None or _revisions(before) != _revisions(self._objects)
                case Changed(put=put, gone=gone):
                    held = {path: item for path, item in (self._objects or {}).items() if path not in gone}
                    self._objects = held | {item.path: item for item in put}
                    self._events.update((item.plural, "put") for item in put)
                    self._events.update((path.partition("/")[0], "delete") for path in gone)
                    changed = True
                case Lost():
                    self._losses += 1
                    changed = False
                case _:
                    changed = False
        self._answered.set()
        return changed

    def _note(self, update: Update) -> None:
        """Log that the source is lost or back, and note it in the state."""
        state, now_s = self._state, time.time()
        if problem := update.problem if isinstance(update, (Lost, Changed)) else "":
            if state.connected:
                self._problems = set()
            if problem not in self._problems and len(self._problems) < _PROBLEMS_MAX:
                self._problems.add(problem)
                event(
                    logging.ERROR,
                    "the datastore cannot be followed; what is enforced stays",
                    datastore=state.where,
                    problem=problem,
                )
            since = state.since if not state.connected else now_s
            self._state = replace(state, connected=False, since=since, problem=problem)
            return
        if not state.connected:
            away_s = round(now_s - state.since, 1) if state.problem else 0
            event(logging.INFO, "following the datastore", datastore=state.where, away_s=away_s)
        since = state.since if state.connected else now_s
        revision = update.revision if isinstance(update, (Listed, Changed)) else state.revision
        self._state = replace(state, connected=True, since=since, contact=now_s, problem="", revision=revision)

    def snapshot(self, last_good: Resources) -> Loaded:
        """All objects that are held, faulty ones from ``last_good``.

        Waits for the first answer of the source only. If there is none, the policy of an earlier run is used.
        """
        self._answered.wait(_FIRST_WITHIN_S)
        with self._lock:
            objects, problem = self._objects, self._state.problem
        loaded = self._without_the_source(last_good, problem) if objects is None else self._loaded(objects, last_good)
        if objects is not None and self._is_first:
            self._is_first = False
            if loaded.faults and self._kept is not None:
                loaded = self._loaded(objects, self._kept.read(self._parsed))
        with self._lock:
            self._state = self._state.after(loaded)
        self._good = objects if not loaded.faults else None
        return loaded

    def _loaded(self, objects: dict[str, StoredObject], last_good: Resources) -> Loaded:
        read: dict[str, tuple[str, Source]] = {}
        for path, item in sorted(objects.items()):
            known = self._read.get(path)
            read[path] = known if known and known[0] == item.revision else (item.revision, self._source_of(item))
        self._read = read
        return merged(collected(source for _, source in read.values()), last_good)

    def _source_of(self, item: StoredObject) -> Source:
        return read_object(item, self._source.kind)

    def _without_the_source(self, last_good: Resources, problem: str) -> Loaded:
        """What is known without the source, with a fault that says so."""
        known = last_good if last_good != Resources() else self.last_good()
        outcome = (
            "nothing is known of the policy"
            if known == Resources()
            else "the last good policy, stored by an earlier run, is enforced"
        )
        finding = Finding(
            Position(f"{self._source.kind}: {self._state.where}"),
            "",
            problem or f"no answer within {_FIRST_WITHIN_S:.0f} s",
        )
        return Loaded(known, (Fault(finding, outcome),))

    def last_good(self) -> Resources:
        return self._kept.read(self._parsed) if self._kept else Resources()

    def _parsed(self, texts: Texts) -> Resources:
        sources = []
        for path, text in texts:
            plural, _, name = path.partition("/")
            namespace, _, name = name.rpartition("/")
            if plural in PLURALS:
                sources.append(self._source_of(StoredObject(plural, namespace, name, text.encode(), "")))
        return collected(sources).sound()

    def refresh(self) -> None:
        self._source.refresh()

    def keep(self) -> None:
        """Store the objects of the last snapshot on disk, if it had no fault."""
        if self._kept is None or self._good is None or self._saved is self._good:
            return
        good = self._good
        try:
            self._kept.save([(path, item.text.decode()) for path, item in sorted(good.items())])
            self._saved, self._save_problem = good, ""
        except (OSError, EnforcerError) as error:
            if str(error) != self._save_problem:
                event(logging.WARNING, "cannot store the last good policy on disk for a restart", problem=str(error))
            self._save_problem = str(error)

    def state(self) -> StoreState:
        return self._state

    def counts(self) -> StoreCounts:
        """What came from the source since the start."""
        with self._lock:
            return StoreCounts(dict(self._events), {**self._lists}, {"lost": self._losses})

    def describe(self) -> str:
        return self._source.describe()


def _revisions(objects: dict[str, StoredObject]) -> dict[str, str]:
    return {path: item.revision for path, item in objects.items()}
