"""Follows one kind: lists it, watches it, and begins again where it broke."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from enforcer.datastore.jitter import (
    FIRST_RETRY_S,
    LARGE_SPREAD_S,
    LAST_RETRY_S,
    SPREAD_S,
    about,
    back_off_s,
    relist_s,
)
from enforcer.datastore.kubernetes.client import Client, Connections, KubernetesError, StoppedError, event_error
from enforcer.datastore.kubernetes.cluster import Cluster, NotBelievedError
from enforcer.datastore.kubernetes.config import KubernetesConfig
from enforcer.datastore.kubernetes.kinds import Kind, revision_of, stored
from enforcer.datastore.report import Resync
from enforcer.policy.objects import StoredObject
from enforcer.system.log import event

_PAGE = 500
_LISTS_MAX = 3  # attempts at one list whose pages expire
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True)
class Clocks:
    """Times in seconds.

    ``first_silence``, ``silence``: without an event, after which a watch is dead. Bookmarks come about once a minute,
    but none in the first (measured with Kubernetes 1.20). ``watch``: how long a watch lasts, at least and at most.
    ``relist``: everything is listed again, in case a watch has lost something. ``spread``: agents whose history expired
    list again within this time, not all at once; within ``large_spread`` if the list is long. ``absent``: a kind that
    is not served is looked for again.
    """

    first_silence: float = 150.0
    silence: float = 90.0
    watch: tuple[int, int] = (300, 600)
    relist: float = 1800.0
    spread: float = SPREAD_S
    large_spread: float = LARGE_SPREAD_S
    retry: float = FIRST_RETRY_S
    retry_most: float = LAST_RETRY_S
    absent: float = 300.0


@dataclass(frozen=True)
class State:
    """All objects of the kind, by path, at a revision; a failure says why they may be out of date. ``resync``: they
    were listed, for this reason.
    """

    kind: Kind
    objects: dict[str, StoredObject] | None
    revision: str
    problem: str = ""
    resync: Resync | None = None


@dataclass
class Follower:
    """``report`` is called from the thread of :meth:`run`, with all there is after each answer."""

    kind: Kind
    config: KubernetesConfig
    cluster: Cluster
    connections: Connections
    report: Callable[[State], None]
    clocks: Clocks
    stop: threading.Event
    _held: dict[str, StoredObject] | None = None
    _revision: str = ""
    _stale: Resync | None = Resync.START  # why the revision is not one to watch from
    _expired: bool = False  # the next list must not come from a cache
    _relist_s: float = 0.0
    _size_bytes: int = 0  # of the last list
    _failures: int = 0
    _forgiven: bool = field(default=False)  # a failure that was not reported

    def run(self) -> None:
        """Until the agent stops."""
        while not self.stop.is_set():
            wait_s = 0.0
            begun_s = time.monotonic()
            try:
                with Client(self.config, self.connections) as client:
                    wait_s = self._session(client)
                if time.monotonic() - begun_s < self.clocks.retry:
                    wait_s = max(wait_s, self.clocks.retry)
            except StoppedError:
                return
            except (KubernetesError, NotBelievedError) as error:
                wait_s = self._failed(error)
            except Exception as error:  # a bug of ours must not end the thread
                event(logging.DEBUG, "following a kind failed", error=error, kind=self.kind.plural)
                wait_s = self._failed(error)
            self.stop.wait(wait_s)

    def relist(self) -> None:
        """List everything at the next connection. Called from another thread."""
        self._stale = self._stale or Resync.ASKED

    def _failed(self, error: Exception) -> float:
        """Report the failure unless the next attempt may succeed at once; the time until then."""
        if isinstance(error, NotBelievedError):
            self._stale = self._stale or Resync.DISCONNECTED
        wait_s = 0.0
        if isinstance(error, KubernetesError):
            wait_s = error.retry_s * random.uniform(1.0, 1.5)
            if error.expired:
                self._stale = self._stale or (Resync.EXPIRED if error.status else Resync.DISCONNECTED)
                self._expired = True
                wait_s += relist_s(self._size_bytes, self.clocks.spread, self.clocks.large_spread)
        may_succeed = isinstance(error, KubernetesError) and (
            error.status in _BUSY or error.expired or error.status == HTTPStatus.UNAUTHORIZED or not error.status
        )
        if may_succeed and self._held is not None and not self._forgiven:
            self._forgiven = True
        else:
            self.report(State(self.kind, self._held, self._revision, str(error) or type(error).__name__))
        self._failures += 1
        return wait_s + back_off_s(self._failures, self.clocks.retry, self.clocks.retry_most)

    def _succeeded(self, resync: Resync | None = None) -> None:
        self._failures, self._forgiven = 0, False
        self.report(State(self.kind, self._held, self._revision, resync=resync))

    # -- one connection --------------------------------------------------------------------------------------------

    def _session(self, client: Client) -> float:
        """List if necessary, then watch until the server ends it; the time to wait before the next."""
        self.cluster.require_same(client)
        path = self.kind.path(self.cluster.group(client))
        try:
            if reason := self._stale or self._outdated(client, path):
                self._list(client, path, reason)
        except KubernetesError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            self._absent(client, error)
            return about(self.clocks.absent)
        self._watch(client, path)
        return random.uniform(0, self.clocks.retry)

    def _absent(self, client: Client, error: KubernetesError) -> None:
        """The kind was not found: there are none, if the API says that it does not know the kind."""
        if self.cluster.serves(client, self.kind):
            raise error
        if self._held:
            raise NotBelievedError(
                f"{self.kind.plural} are no longer served; there were {len(self._held)}: was the CRD "
                "deleted? If that is intended, restart the agent"
            )
        self._held = {}
        self._succeeded()

    def _outdated(self, client: Client, path: str) -> Resync | None:
        """Why the list is to be read again. If the datastore forgot, as after a backup was restored, a watch from a
        revision of the future would stay silent: revisions are compared as numbers where they are numbers.
        """
        if time.monotonic() >= self._relist_s:
            return Resync.PERIODIC
        now, held = revision_of(client.get(path, limit="1")), self._revision
        back = now.isdecimal() and held.isdecimal() and int(now) < int(held)
        if back:
            event(
                logging.WARNING,
                "the datastore went back in time, as after a backup was restored: its present objects are taken",
                kind=self.kind.plural,
                revision=now,
                before=held,
            )
            self._expired = True
            return Resync.RESTORED
        return None if now.isdecimal() else Resync.DISCONNECTED

    def _list(self, client: Client, path: str, reason: Resync) -> None:
        """All objects: at first as the server's cache knows them, later as they are stored."""
        params = {} if self._held is not None or self._expired else {"resourceVersion": "0"}
        for _ in range(_LISTS_MAX):
            try:
                found, revision = self._pages(client, path, params)
            except KubernetesError as error:
                if not error.expired:
                    raise
                params, problem = {}, error
            else:
                break
        else:
            raise problem
        self._believe(client, found)
        self._held, self._revision = found, revision
        self._stale, self._expired = None, False
        self._relist_s = time.monotonic() + about(self.clocks.relist)
        self._size_bytes = sum(len(item.text) for item in found.values())
        self._succeeded(reason)

    def _believe(self, client: Client, found: dict[str, StoredObject]) -> None:
        """Raises NotBelievedError if this kind is empty now because everything is. The kinds are emptied one after the
        other as seen from here, so each has to find out.
        """
        if self._held and not found and not self.kind.core:
            self.cluster.require_something(client)

    def _pages(self, client: Client, path: str, first: dict[str, str]) -> tuple[dict[str, StoredObject], str]:
        """The objects and their revision. A token that has expired is not replaced by the fresh one of the answer: that
        would mix two points in time.
        """
        found: dict[str, StoredObject] = {}
        params = first | self._selector() | {"limit": str(_PAGE)}
        while True:
            answer = client.get(path, **params)
            items, revision = answer.get("items"), revision_of(answer)
            if not isinstance(items or [], list) or "items" not in answer or not revision:
                raise KubernetesError("the answer is not a list of Kubernetes")
            for item in items or []:
                made = self._stored(item)
                found[made.path] = made
            token = answer["metadata"].get("continue")
            if not token:
                return found, revision
            params = self._selector() | {"limit": str(_PAGE), "continue": str(token)}

    def _stored(self, item: Any) -> StoredObject:
        """An object, the one that is held if it is the same."""
        if not isinstance(item, dict):
            raise KubernetesError("the answer is not an object of Kubernetes", expired=True)
        made = stored(self.kind, item)
        before = (self._held or {}).get(made.path)
        return before if before is not None and before.text == made.text else made

    def _selector(self) -> dict[str, str]:
        return {"fieldSelector": self.kind.fields} if self.kind.fields else {}

    # -- the watch -------------------------------------------------------------------------------------------------

    def _watch(self, client: Client, path: str) -> None:
        params = self._selector() | {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._revision,
            "timeoutSeconds": str(random.randint(*self.clocks.watch)),
        }
        events = client.watch(path, first_s=self.clocks.first_silence, later_s=self.clocks.silence, **params)
        for item in self._until_stop(events):
            if item:
                self._take(item)
            self._succeeded()

    def _until_stop(self, events: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for item in events:
            if self.stop.is_set():
                raise StoppedError
            yield item

    def _take(self, item: dict[str, Any]) -> None:
        """Hold what an event says. Raises KubernetesError for an error of the server, or what is no event."""
        what, told = item.get("type"), item.get("object")
        if what == "ERROR":
            raise event_error(told)
        revision = revision_of(told)
        held = dict(self._held or {})
        match what:
            case "ADDED" | "MODIFIED":
                made = self._stored(told)
                held[made.path] = made
            case "DELETED":
                held.pop(self._stored(told).path, None)
                with Client(self.config, self.connections) as client:
                    self._believe(client, held)
            case "BOOKMARK":
                pass
            case _:
                raise KubernetesError("the answer is not an event of Kubernetes", expired=True)
        self._held, self._revision = held, revision or self._revision
