"""Writes emergency acts to the Kubernetes API, as Calico's network sets.

A version is replaced and deleted only by the resourceVersion that its author has read. Custom resources have no end of
their own: 'enforcer prune' deletes what has ended.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

from enforcer.datastore.kubernetes.client import Client, Connections, KubernetesError
from enforcer.datastore.kubernetes.cluster import Cluster
from enforcer.datastore.kubernetes.config import KubernetesConfig
from enforcer.datastore.kubernetes.kinds import Kind, revision_of
from enforcer.datastore.writer import ConflictError, Held, RefusedError, StoreError
from enforcer.policy.crd import restored
from enforcer.policy.nodes import DocumentFault

_SETS = Kind("globalnetworksets")
_WITHIN_S = 15.0
_PAUSE_S = (0.1, 0.4)
_AGAIN = (0, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
_REFUSED = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY)

T = TypeVar("T")


class KubernetesWriter:
    """A Writer."""

    kind = "kubernetes"

    def __init__(self, config: KubernetesConfig) -> None:
        self._cluster = Cluster(config.group)
        self._client = Client(config, Connections())

    def __enter__(self) -> KubernetesWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.__exit__(None, None, None)

    def read(self, name: str) -> Held | None:
        try:
            found = self._call(lambda: self._client.get(self._path(name)))
        except KubernetesError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise _told(error, name) from error
        try:
            item, _ = restored(found, name)
            return Held(item, revision_of(found))
        except (DocumentFault, KubernetesError) as error:
            raise StoreError(f"kubernetes: globalnetworksets/{name}: {error}; delete it") from error

    def create(self, name: str, item: dict[str, Any], *, keep_s: float | None) -> None:
        del keep_s
        self._send("POST", name, "", item)

    def replace(self, name: str, item: dict[str, Any], revision: str, *, keep_s: float | None) -> None:
        del keep_s
        self._send("PUT", name, name, {**item, "metadata": {**item["metadata"], "resourceVersion": revision}})

    def delete(self, name: str, revision: str) -> None:
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": revision}}
        try:
            self._call(lambda: self._client.send("DELETE", self._path(name), body))
        except KubernetesError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                raise ConflictError(f"kubernetes: globalnetworksets/{name}: is gone") from error
            raise _told(error, name) from error

    def _send(self, method: str, name: str, last: str, item: dict[str, Any]) -> None:
        try:
            group = self._group()
            self._call(lambda: self._client.send(method, self._path(last), {**item, "apiVersion": group}))
        except KubernetesError as error:
            if last and error.status == HTTPStatus.NOT_FOUND:
                raise ConflictError(f"kubernetes: globalnetworksets/{name}: is gone") from error
            raise _told(error, name) from error

    def _path(self, last: str) -> str:
        return "/".join(filter(None, (_SETS.path(self._group()), last)))

    def _group(self) -> str:
        return self._cluster.group(self._client)

    def _call(self, job: Callable[[], T]) -> T:
        """What the job returns. It may have been done twice; the second attempt then finds a conflict."""
        until_s = time.monotonic() + _WITHIN_S
        while True:
            try:
                return job()
            except KubernetesError as error:
                if error.status not in _AGAIN or time.monotonic() >= until_s:
                    raise
                time.sleep(max(random.uniform(*_PAUSE_S), min(error.retry_s, max(0.0, until_s - time.monotonic()))))


def _told(error: KubernetesError, name: str) -> ConflictError | RefusedError | StoreError:
    message = f"kubernetes: globalnetworksets/{name}: {error}"
    if error.status == HTTPStatus.CONFLICT:
        return ConflictError(message)
    if error.status in _REFUSED or "too large" in str(error):
        return RefusedError(message)
    return StoreError(message)
