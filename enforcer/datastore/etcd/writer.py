"""Writes emergency acts to etcd, at the keys at which Calico has its network sets.

An act with an end gets a lease that lasts longer, so that etcd deletes the key even where no agent and no 'enforcer
prune' looks. A lease begins anew when etcd restarts or elects a leader, so it is a collector and never the end itself.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from enforcer.datastore.etcd.client import Client, EtcdError, Span
from enforcer.datastore.etcd.config import EtcdConfig
from enforcer.datastore.etcd.keys import RESOURCES
from enforcer.datastore.writer import ConflictError, Held, RefusedError, StoreError

_WITHIN_S = 15.0  # of trying: an election takes two seconds, and a call to a member that is silent five
_PAUSE_S = (0.1, 0.4)
_FINAL = ("PERMISSION_DENIED", "UNAUTHENTICATED", "UNREADABLE")
_TOO_LARGE = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")

T = TypeVar("T")


class EtcdWriter:
    """A Writer."""

    kind = "etcd"

    def __init__(self, config: EtcdConfig) -> None:
        self._config = config
        self._endpoints = random.sample(config.endpoints, len(config.endpoints))
        self._client: Client | None = None

    def __enter__(self) -> EtcdWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def read(self, name: str) -> Held | None:
        items = self._call(lambda client: client.range(Span(_key(name)))).items
        if not items:
            return None
        try:
            found = json.loads(items[0].value)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"etcd: globalnetworksets/{name}: not JSON; delete it") from error
        if not isinstance(found, dict):
            raise StoreError(f"etcd: globalnetworksets/{name}: no object; delete it")
        return Held(found, str(items[0].revision))

    def create(self, name: str, item: dict[str, Any], *, keep_s: float | None) -> None:
        self._put(name, item, 0, keep_s)

    def replace(self, name: str, item: dict[str, Any], revision: str, *, keep_s: float | None) -> None:
        self._put(name, item, int(revision), keep_s)

    def delete(self, name: str, revision: str) -> None:
        if not self._call(lambda client: client.delete(_key(name), expected=int(revision))):
            raise ConflictError(f"etcd: globalnetworksets/{name}: changed")

    def _put(self, name: str, item: dict[str, Any], expected: int, keep_s: float | None) -> None:
        value = json.dumps(item, separators=(",", ":"), ensure_ascii=False).encode()

        def put(client: Client) -> bool:
            lease = 0 if keep_s is None else client.grant(max(1, int(keep_s)))
            stored = client.put(_key(name), value, expected=expected, lease=lease)
            if lease and not stored:
                with suppress(EtcdError):  # it ends by itself
                    client.revoke(lease)
            return stored

        if not self._call(put):
            raise ConflictError(f"etcd: globalnetworksets/{name}: {'changed' if expected else 'exists'}")

    def _call(self, job: Callable[[Client], T]) -> T:
        """What the job returns, at whichever endpoint answers. It may have been done twice: a member that was lost may
        have done it, and the second attempt then finds a conflict.
        """
        until_s, renewed = time.monotonic() + _WITHIN_S, False
        while True:
            try:
                return job(self._connected())
            except EtcdError as error:
                self._close()
                if error.code == "UNAUTHENTICATED" and not renewed:  # the token is out of date
                    renewed = True
                    continue
                if error.code in _TOO_LARGE:
                    raise RefusedError(f"etcd: {error}") from error
                if error.code in _FINAL or time.monotonic() >= until_s:
                    raise StoreError(f"etcd ({self._endpoints[0]}): {error}") from error
                self._endpoints = [*self._endpoints[1:], self._endpoints[0]]
                time.sleep(random.uniform(*_PAUSE_S))

    def _connected(self) -> Client:
        if self._client is None:
            client = Client(self._endpoints[0], self._config, threading.Event())
            self._client = client
            client.authenticate()
        return self._client

    def _close(self) -> None:
        if self._client is not None:
            self._client.__exit__(None, None, None)
            self._client = None


def _key(name: str) -> bytes:
    return f"{RESOURCES}globalnetworksets/{name}".encode()
