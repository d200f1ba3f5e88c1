"""Opens the datastore that a command names: to follow it, to read it once, to write emergency acts."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from enforcer.datastore.apiconfig import ETCD, KUBERNETES, ApiConfig, api_config
from enforcer.datastore.emergency_files import FileWriter, emergency_directory
from enforcer.datastore.files import FileStore
from enforcer.datastore.lastgood import state_directory
from enforcer.datastore.objects import ObjectStore
from enforcer.datastore.updates import Listed, Lost, ObjectSource
from enforcer.datastore.writer import StoreError, Writer
from enforcer.model.errors import HostError, UsageError
from enforcer.policy.objects import collected, read_object
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Loaded, merged
from enforcer.system import directories

if TYPE_CHECKING:
    from enforcer.datastore.etcd.config import EtcdConfig
    from enforcer.datastore.kubernetes.config import KubernetesConfig

FILES = "files"


@dataclass(frozen=True)
class Place:
    """Which datastore. ``files``: for one of files, with the directory of ``emergency`` acts. ``config``: of any other,
    as for ``apiconfig.api_config``. ``option``: what the command calls the files.
    """

    kind: str
    files: Sequence[Path] = ()
    config: Path | None = None
    emergency: Path | None = None
    option: str = "-f"

    def check(self) -> None:
        """Raises UsageError for what does not belong to the kind."""
        if self.kind != FILES:
            for given, option in ((self.files, self.option), (self.emergency, "--emergency-dir")):
                if given:
                    raise UsageError(
                        f"{option} is for --datastore files; --datastore {self.kind} is configured as Calico's is "
                        "(--datastore-config)"
                    )
            return
        if not self.files:
            raise UsageError(f"--datastore files needs {self.option}: a directory or file of resources")
        if self.config is not None:
            raise UsageError("--datastore-config is for a datastore other than files")


def open_store(place: Place, *, state: Path, node: str) -> FileStore | ObjectStore:
    """The store, which need not answer yet. Raises UsageError, and HostError when a package is missing."""
    place.check()
    if place.kind == FILES:
        emergency = place.emergency or emergency_directory(state)
        with suppress(OSError, HostError):  # else it is looked for each second
            directories.make(emergency)
        store = FileStore(place.files, state=state, emergency=emergency)
        store.require_something()
        return store
    return _kubernetes(place.config, state, node) if place.kind == KUBERNETES else _etcd(place.config, state, node)


def read_once(place: Place, node: str, last_good: Resources | None = None) -> Loaded:
    """All objects as they are now, the faulty ones as in ``last_good`` or left out, and what is wrong with them.

    Without ``last_good`` they are as the agent of this host last stored them: as it enforces them. Raises UsageError,
    HostError when a package is missing, and StoreError when the datastore does not answer.
    """
    place.check()
    state = state_directory() if last_good is None else None
    if place.kind == FILES:
        files = FileStore(place.files, state=state, emergency=place.emergency or emergency_directory())
        files.require_something()
        loaded = files.snapshot(last_good or Resources())
        if loaded.again:
            raise StoreError("\n".join(map(str, loaded.findings)))
        return loaded
    source = _source(place, node)
    objects = listed_once(source).objects

    def read(last_good: Resources) -> Loaded:
        return merged(collected(read_object(item, source.kind) for item in objects), last_good)

    loaded = read(last_good or Resources())
    return read(ObjectStore(source, state=state).last_good()) if loaded.faults and state is not None else loaded


def open_writer(place: Place) -> Writer:
    """What writes emergency acts there. Raises as :func:`read_once`."""
    place.check()
    if place.kind == FILES:
        return FileWriter(place.emergency or emergency_directory())
    if place.kind == KUBERNETES:
        from enforcer.datastore.kubernetes.writer import KubernetesWriter

        return KubernetesWriter(_kubernetes_config(place.config))
    config = _etcd_config(place.config)
    with _needs_grpc():
        from enforcer.datastore.etcd.writer import EtcdWriter
    return EtcdWriter(config)


def _source(place: Place, node: str) -> ObjectSource:
    if place.kind == KUBERNETES:
        from enforcer.datastore.kubernetes.source import KubernetesSource

        return KubernetesSource(_kubernetes_config(place.config), node)
    config = _etcd_config(place.config)
    with _needs_grpc():
        from enforcer.datastore.etcd.source import EtcdSource
    return EtcdSource(config, node)


def listed_once(source: ObjectSource) -> Listed:
    """The first complete list. Raises StoreError if the source does not answer, or is not believed."""
    stop = threading.Event()
    followed = source.follow(stop)
    try:
        for update in followed:
            if isinstance(update, Listed):
                return update
            if isinstance(update, Lost):
                raise StoreError(f"{source.kind} ({source.describe()}): {update.problem}")
    finally:
        stop.set()
        if isinstance(followed, Generator):
            followed.close()  # and with it the connections
    raise StoreError(f"{source.kind} ({source.describe()}): no answer")


def _kubernetes_config(path: Path | None) -> KubernetesConfig:
    from enforcer.datastore.kubernetes.config import kubernetes_config

    api = api_config(path)
    _require_type(api, KUBERNETES)
    return kubernetes_config(api)


def _kubernetes(path: Path | None, state: Path, node: str) -> ObjectStore:
    from enforcer.datastore.kubernetes.source import KubernetesSource

    config = _kubernetes_config(path)
    store = ObjectStore(KubernetesSource(config, node), state=state)
    if not store.has_last_good():
        config.require_files()
    return store


def _etcd_config(path: Path | None) -> EtcdConfig:
    from enforcer.datastore.etcd.config import etcd_config

    api = api_config(path)
    _require_type(api, ETCD)
    return etcd_config(api)


@contextmanager
def _needs_grpc() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise HostError(
            f"--datastore etcd needs the Python packages grpcio and protobuf ({error}): pip install 'dossim[etcd]'"
        ) from error


def _etcd(path: Path | None, state: Path, node: str) -> ObjectStore:
    config = _etcd_config(path)
    with _needs_grpc():
        from enforcer.datastore.etcd.source import EtcdSource
    store = ObjectStore(EtcdSource(config, node), state=state)
    try:
        config.require_files()
    except UsageError:
        if not store.has_last_good():
            raise  # else it may be back soon, and the last good policy is to be enforced until then
    return store


def _require_type(api: ApiConfig, wanted: str) -> None:
    """Raises UsageError if Calico is configured to use another datastore."""
    if (found := api.get("datastoreType")) not in ("", wanted):
        option = {ETCD: "etcd"}.get(wanted, wanted)
        raise UsageError(f"{api.called('datastoreType')}: expected {wanted} for --datastore {option}, found {found}")
