"""Follows Calico's objects in etcd.

One list of all kinds, in pages at one revision, then a watch for each kind over one stream, which another endpoint
resumes where it broke. Liveness is our own: a read on the same connection, because a stopped member keeps its
connections open, and gRPC alone notices that after a minute. A read and not a progress request, which some releases of
etcd leave unanswered (etcd issue 17507). What is not believed, because it would lift protection by accident: a
datastore that holds nothing at all, and another cluster.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from enforcer.datastore.etcd import keys
from enforcer.datastore.etcd.client import (
    Client,
    EtcdError,
    Header,
    Span,
    StoppedError,
    Watched,
    WatchEvent,
    prefix,
)
from enforcer.datastore.etcd.config import Endpoint, EtcdConfig
from enforcer.datastore.etcd.listing import Listing
from enforcer.datastore.jitter import about, back_off_s, relist_s
from enforcer.datastore.report import Resync
from enforcer.datastore.updates import Changed, Contact, Listed, Lost, Resynced, Update
from enforcer.policy.objects import StoredObject
from enforcer.system.log import event

_STEADY_S = 10.0  # a connection that lasted longer was a good one: the next failure is the first again
_SHORT_ATTEMPTS = 2  # after one that did not last, the next attempt is made within 2 s
_LOOK_EVERY_S, _LOOK_WITHIN_S = 10.0, 5.0
_RELIST_EVERY_S = 3600.0  # in case a watch has lost something
_POLL_S = 0.5  # how soon waiting ends after a stop that cannot be waited for

EMPTIED = (
    f"nothing is stored below {keys.CALICO}: was it emptied, or is it another datastore? To delete the policy, delete "
    "its objects and leave any other (clusterinformations/default)"
)


class NotBelievedError(Exception):
    """The datastore answers, but what it says would lift protection by accident."""


@dataclass
class _Held:
    """Up to where everything is known: the newest state of the cluster, and of each kind the revision that is next."""

    header: Header
    next: dict[str, int]


@dataclass(frozen=True)
class _Answer:
    """What another thread reports to the one that follows. None: it is to see whether it stops, or lists again."""

    of: Watched | Header | Exception | None


class EtcdSource:
    """An ObjectSource. ``node``: whose Node object is followed."""

    kind = "etcd"

    def __init__(self, config: EtcdConfig, node: str) -> None:
        self._config = config
        self._spans = keys.spans(node)
        # In another order on each host, so that the agents of a fleet spread over the members.
        self._endpoints = deque(random.sample(config.endpoints, len(config.endpoints)))
        self._held: _Held | None = None
        self._size_bytes = 0  # of the last list
        self._interrupted: Listing | None = None  # to go on with while nothing is watched
        self._cluster: int | None = None  # of the first answer
        self._relist: Resync | None = Resync.START  # why what is held may have gaps
        self._refresh = threading.Event()
        self._answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()  # of the present connection
        self._doubted = False  # the last answer was not believed
        self._attempts = 0
        self._used: Endpoint | None = None

    def refresh(self) -> None:
        self._refresh.set()
        self._answers.put(_Answer(None))

    def describe(self) -> str:
        return ",".join(str(endpoint) for endpoint in self._config.endpoints)

    def identity(self) -> tuple[str, ...]:
        return tuple(sorted(str(endpoint) for endpoint in self._config.endpoints))

    def follow(self, stop: threading.Event) -> Iterator[Update]:
        failed: dict[Endpoint, str] = {}  # since the last success
        again = False  # a connection broke, and the next failure counts
        self._relist = Resync.START
        while not stop.is_set():
            endpoint, begun_s, followed = self._endpoints[0], time.monotonic(), False
            try:
                for update in self._session(endpoint, stop):
                    followed = True
                    if time.monotonic() - begun_s > _STEADY_S:
                        self._attempts, again = 0, False
                    failed.clear()
                    yield update
            except StoppedError:
                return
            except (EtcdError, NotBelievedError) as error:
                transient = isinstance(error, EtcdError) and error.is_transient
                if transient and isinstance(error, EtcdError) and error.code == "OUT_OF_RANGE":
                    self._relist = self._relist or Resync.COMPACTED
                    stop.wait(relist_s(self._size_bytes))
                if again or not (transient or followed) or isinstance(error, NotBelievedError):
                    failed[endpoint] = str(error)
                else:
                    again = True  # of a connection that was good, the next attempt tells whether etcd is away
                if not transient:
                    self._endpoints.rotate(-1)
            self._attempts = min(self._attempts, _SHORT_ATTEMPTS) if followed else self._attempts + 1
            if len(failed) == len(self._endpoints):
                yield Lost(_summary(failed))
                failed.clear()
            stop.wait(back_off_s(self._attempts))

    def _session(self, endpoint: Endpoint, stop: threading.Event) -> Iterator[Update]:
        """Follow over one connection until it fails. Raises EtcdError, NotBelievedError and StoppedError."""
        with Client(endpoint, self._config, stop) as client:
            client.authenticate()
            header = client.range(self._spans[0], limit=1, keys_only=True).header
            self._require_same_cluster(header)
            if self._doubted:
                _require_something(client, self._spans)
            if self._interrupted and self._interrupted.header and _went_back(self._interrupted.header, header):
                self._interrupted = None
            if self._held is None or self._relist or _went_back(self._held.header, header):
                yield from self._resync(client, self._relist or Resync.RESTORED)
            self._doubted = False
            if endpoint != self._used:
                event(logging.INFO, "connected to etcd", endpoint=endpoint)
                self._used = endpoint
            yield from self._watched(client, stop)

    def _require_same_cluster(self, header: Header) -> None:
        """Raises NotBelievedError for another cluster than the one that answered first."""
        if self._cluster is None:
            self._cluster = header.cluster
        if header.cluster != self._cluster:
            raise NotBelievedError(
                f"another cluster answers: its id is {header.cluster:x}, and was {self._cluster:x}; if that is "
                "intended, restart the agent"
            )

    # -- the list ------------------------------------------------------------------------------------------------------

    def _resync(self, client: Client, reason: Resync) -> Iterator[Update]:
        listed = self._listed(client)
        yield Resynced(Resync.RESTORED if listed.another else reason)
        yield listed

    def _listed(self, client: Client) -> Listed:
        """All objects, of one revision."""
        listing = self._interrupted or Listing(self._spans)
        # A list beside a watch is not kept: the watch goes on, and is ahead of it then.
        self._interrupted = listing if self._relist else None
        try:
            header = listing.read(client)
        except EtcdError as error:
            if error.code == "OUT_OF_RANGE":
                self._interrupted = None
            raise
        self._interrupted = None
        objects = tuple(item for item in map(keys.stored, listing.found) if item is not None)
        if not objects:
            self._doubt(client)
        before = self._held
        another = before is not None and _went_back(before.header, header)
        if another and before is not None:
            event(
                logging.WARNING,
                "the datastore went back in time, as after a backup was restored: its present objects are taken",
                revision=header.revision,
                before=before.header.revision,
            )
        after = dict.fromkeys((keys.plural(span.first) for span in self._spans), header.revision + 1)
        self._held, self._relist = _Held(header, after), None
        self._size_bytes = sum(len(item.value) for item in listing.found)
        return Listed(objects, str(header.revision), another)

    def _doubt(self, client: Client) -> None:
        """Raises NotBelievedError if the datastore holds nothing, not even of other kinds."""
        try:
            _require_something(client, self._spans)
        except BaseException:
            self._doubted = True
            raise

    # -- the watch -----------------------------------------------------------------------------------------------------

    def _watched(self, client: Client, stop: threading.Event) -> Iterator[Update]:
        held = self._held
        assert held is not None
        answers = self._answers = queue.SimpleQueue()
        begin = [(span, held.next[keys.plural(span.first)]) for span in self._spans]
        client.watch(begin, lambda found: answers.put(_Answer(found)))
        longest_s = _LOOK_EVERY_S if client.on_stop(lambda: answers.put(_Answer(None))) else _POLL_S
        created = 0
        parts: dict[int, list[WatchEvent]] = {}  # of answers that come in several, by watch
        now_s = time.monotonic()
        look_s, list_s = now_s + _LOOK_EVERY_S, now_s + about(_RELIST_EVERY_S)
        while not stop.is_set():
            if (now_s := time.monotonic()) >= look_s:
                client.look(self._spans[0], _LOOK_WITHIN_S, lambda answer: answers.put(_Answer(answer)))
                look_s = now_s + _LOOK_EVERY_S
            if now_s >= list_s or self._refresh.is_set():
                reason = Resync.ASKED if self._refresh.is_set() else Resync.PERIODIC
                self._refresh.clear()
                yield from self._resync(client, reason)
                list_s = now_s + about(_RELIST_EVERY_S)
            with suppress(queue.Empty):
                answer = answers.get(timeout=min(longest_s, max(0.0, look_s - now_s))).of
                if answer is None:
                    continue
                if isinstance(answer, Exception):
                    raise answer
                if isinstance(answer, Header):
                    self._require_same_cluster(answer)
                    yield Contact()
                    continue
                _require_watch(answer)
                created += answer.created
                if answer.created and created == len(self._spans):
                    yield Contact()
                parts.setdefault(answer.watch, []).extend(answer.events)
                if not answer.continued and (events := parts.pop(answer.watch)):
                    yield from self._changed(client, events, answer.header)

    def _changed(self, client: Client, events: list[WatchEvent], header: Header) -> Iterator[Changed]:
        """The objects of these events; older ones than the last list are left out."""
        held = self._held
        assert held is not None
        last = {item.item.key: item for item in events if item.item.revision >= held.next[keys.plural(item.item.key)]}
        put: list[StoredObject] = []
        gone: list[str] = []
        for key, found in last.items():
            made = None if found.deleted else keys.stored(found.item)
            path = keys.path(key)
            if made is not None:
                put.append(made)
            elif found.deleted and path is not None:
                gone.append(path)
        if gone:
            self._doubt(client)
        for key, found in last.items():
            held.next[keys.plural(key)] = max(held.next[keys.plural(key)], found.item.revision + 1)
        newest = (max(held.header.revision, header.revision), max(held.header.term, header.term))
        held.header = Header(header.cluster, *newest)
        if put or gone:
            yield Changed(tuple(put), tuple(gone), str(held.header.revision))


def _require_watch(answer: Watched) -> None:
    """Raises EtcdError if the watch ended."""
    if answer.compacted:
        raise EtcdError("OUT_OF_RANGE", f"the history up to revision {answer.compacted} was compacted")
    if answer.cancelled:
        code = "PERMISSION_DENIED" if "permission denied" in answer.cancelled else "CANCELLED"
        raise EtcdError(code, f"the watch was cancelled: {answer.cancelled}")


def _require_something(client: Client, spans: tuple[Span, ...]) -> None:
    """Raises NotBelievedError if nothing is stored below the widest prefix that may be read."""
    for wide in ((prefix(keys.CALICO),), (prefix(keys.RESOURCES),), spans):
        try:
            if any(client.range(span, limit=1, keys_only=True).items for span in wide):
                return
        except EtcdError as error:
            if error.code != "PERMISSION_DENIED":
                raise
        else:
            break
    raise NotBelievedError(EMPTIED)


def _went_back(held: Header, now: Header) -> bool:
    """Whether the cluster forgot: revisions and terms of Raft only grow."""
    return now.revision < held.revision or now.term < held.term


def _summary(failed: dict[Endpoint, str]) -> str:
    """Each problem once, with the endpoints that have it."""
    problems: dict[str, list[str]] = {}
    for endpoint, problem in sorted(failed.items(), key=lambda item: str(item[0])):
        problems.setdefault(problem, []).append(str(endpoint))
    return "; ".join(f"{', '.join(where)}: {problem}" for problem, where in problems.items())
