"""The datastores in which the contract tests put objects, and a store that is followed as the agent follows it."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from enforcer.datastore.apiconfig import ENVIRONMENT, ApiConfig
from enforcer.datastore.base import DataStore
from enforcer.datastore.emergency_files import FileWriter, emergency_directory
from enforcer.datastore.etcd.config import etcd_config
from enforcer.datastore.etcd.source import EtcdSource
from enforcer.datastore.etcd.writer import EtcdWriter
from enforcer.datastore.files import FileStore
from enforcer.datastore.kubernetes.config import kubernetes_config
from enforcer.datastore.kubernetes.follower import Clocks
from enforcer.datastore.kubernetes.source import KubernetesSource
from enforcer.datastore.kubernetes.writer import KubernetesWriter
from enforcer.datastore.objects import ObjectStore
from enforcer.datastore.writer import Writer
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Loaded
from enforcer.system.stop import Stop
from tests.support.api_server import DoubleApi, KubernetesApi, api_server
from tests.support.etcd import Etcd, etcd, key_of
from tests.support.kubernetes_double import Api, Double

DEADLINE_S = 60.0
QUICK = Clocks(spread=0.2, retry=0.1, retry_most=0.5, absent=0.5)


class World(Protocol):
    """A datastore. Objects have the names of Calico's keys: ``globalnetworksets/bots``."""

    def store(self) -> DataStore:
        """A store of it, as a new agent has."""

    def writer(self) -> Writer:
        """A writer of emergency acts, as a new command has."""

    def put_text(self, path: str, text: str) -> None: ...

    def delete(self, path: str) -> None: ...

    def away(self) -> Any:
        """A context in which the datastore does not answer; what was stored is there afterwards."""

    def fault_of(self, path: str) -> str:
        """The place that a fault of this object names."""

    holds_any_text: bool  # or only JSON objects


class Files:
    holds_any_text = True

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder / "policy", folder / "state"
        self.folder.mkdir()
        self.scratch = folder / "scratch"

    def store(self) -> DataStore:
        return FileStore([self.folder], state=self.state, emergency=emergency_directory(self.state))

    def writer(self) -> Writer:
        return FileWriter(emergency_directory(self.state))

    def _file(self, path: str) -> Path:
        return self.folder / f"{path.replace('/', '.')}.json"

    def put_text(self, path: str, text: str) -> None:
        self.scratch.write_text(text)
        self.scratch.rename(self._file(path))

    def delete(self, path: str) -> None:
        self._file(path).unlink()

    @contextmanager
    def away(self) -> Iterator[None]:
        aside = self.folder.with_name("aside")
        self.folder.rename(aside)
        yield
        shutil.move(aside, self.folder)

    def fault_of(self, path: str) -> str:
        return str(self._file(path))


def etcd_store(endpoints: str, state: Path | None = None, **settings: str) -> ObjectStore:
    """A store of the node jasper; ``settings``: of Calico's configuration, by the names in its file."""
    config = etcd_config(ApiConfig(ENVIRONMENT, {"etcdEndpoints": endpoints} | settings))
    return ObjectStore(EtcdSource(config, "jasper"), state=state)


class InEtcd:
    holds_any_text = True

    def __init__(self, cluster: Etcd, state: Path) -> None:
        self.cluster, self.state = cluster, state

    def store(self) -> DataStore:
        return etcd_store(self.cluster.endpoints, self.state)

    def writer(self) -> Writer:
        return EtcdWriter(etcd_config(ApiConfig(ENVIRONMENT, {"etcdEndpoints": self.cluster.endpoints})))

    def put_text(self, path: str, text: str) -> None:
        self.cluster.put_text(path, text)

    def delete(self, path: str) -> None:
        self.cluster.delete(path)

    @contextmanager
    def away(self) -> Iterator[None]:
        (member,) = self.cluster.members
        member.send(signal.SIGKILL)
        yield
        member.start()

    def fault_of(self, path: str) -> str:
        return f"etcd: {path}"


class InKubernetes:
    """The API of a double, or of a real server."""

    holds_any_text = False

    def __init__(self, api: KubernetesApi, state: Path) -> None:
        self.api, self.state = api, state

    def store(self) -> DataStore:
        config = kubernetes_config(ApiConfig(ENVIRONMENT, self.api.settings()), {})
        return ObjectStore(KubernetesSource(config, "jasper", QUICK), state=self.state)

    def writer(self) -> Writer:
        return KubernetesWriter(kubernetes_config(ApiConfig(ENVIRONMENT, self.api.settings()), {}))

    def put_text(self, path: str, text: str) -> None:
        self.api.put(json.loads(text))

    def delete(self, path: str) -> None:
        self.api.delete(path)

    def away(self) -> Any:
        return self.api.away()

    def fault_of(self, path: str) -> str:
        return f"kubernetes: {path}"


@contextmanager
def world(kind: str, folder: Path) -> Iterator[World]:
    """An empty datastore of this kind."""
    if kind == "files":
        yield Files(folder)
        return
    if kind == "kubernetes":
        with Double(Api()) as double:
            yield InKubernetes(DoubleApi(double), folder / "state")
        return
    if kind == "api server":
        with api_server(folder) as server:
            yield InKubernetes(server, folder / "state")
        return
    with etcd(folder) as cluster:
        yield InEtcd(cluster, folder / "state")


def put(where: World, *objects: dict[str, Any]) -> None:
    for item in objects:
        where.put_text(key_of(item), json.dumps(item))


class Following:
    """A context manager: follows a store in a thread, and takes each snapshot with the one before as last good."""

    def __init__(self, store: DataStore) -> None:
        self.store = store
        self.loaded: Loaded | None = None
        self._stop = Stop()
        self._changed = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._follow)

    def __enter__(self) -> Following:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "it does not end"

    def _follow(self) -> None:
        for _ in self.store.changes(self._stop):
            self._changed.release()

    def snapshot(self) -> Loaded:
        self.loaded = self.store.snapshot(self.loaded.resources if self.loaded else Resources())
        return self.loaded

    def until(self, right: Callable[[Loaded], object]) -> Loaded:
        """The first snapshot that is right, of those taken now and after each change."""
        until_s = time.monotonic() + DEADLINE_S
        while not right(loaded := self.snapshot()):
            assert self._changed.acquire(timeout=max(0.0, until_s - time.monotonic())), loaded
        return loaded

    def until_state(self, right: Callable[[DataStore], object]) -> None:
        until_s = time.monotonic() + DEADLINE_S
        while not right(self.store):
            assert time.monotonic() < until_s, self.store.state()
            time.sleep(0.02)


def nets(loaded: Loaded) -> dict[str, list[str]]:
    """The networks of each set."""
    return {item.name: list(map(str, item.nets)) for item in loaded.resources.global_network_sets}
