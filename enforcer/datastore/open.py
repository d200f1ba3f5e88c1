"""Opens the datastore that a command names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from enforcer.datastore.apiconfig import ETCD, KUBERNETES, ApiConfig, api_config
from enforcer.datastore.files import FileStore
from enforcer.datastore.objects import ObjectStore
from enforcer.model.errors import HostError, UsageError

FILES = "files"


def open_store(
    kind: str, *, files: Sequence[Path], config: Path | None, state: Path, node: str
) -> FileStore | ObjectStore:
    """The store of this kind, which need not answer yet.

    ``files``: for a store of files. ``config``: of any other, as for ``apiconfig.api_config``. Raises UsageError, and
    HostError when a package is missing.
    """
    if kind == FILES:
        if not files:
            raise UsageError("--datastore files needs -f: a directory or file of resources")
        if config is not None:
            raise UsageError("--datastore-config is for a datastore other than files")
        store = FileStore(files, state=state)
        store.require_something()
        return store
    if files:
        raise UsageError(
            f"-f is for --datastore files; --datastore {kind} is configured as Calico's is (--datastore-config)"
        )
    return _kubernetes(config, state, node) if kind == KUBERNETES else _etcd(config, state, node)


def _kubernetes(path: Path | None, state: Path, node: str) -> ObjectStore:
    from enforcer.datastore.kubernetes.config import kubernetes_config
    from enforcer.datastore.kubernetes.source import KubernetesSource

    api = api_config(path)
    _require_type(api, KUBERNETES)
    config = kubernetes_config(api)
    store = ObjectStore(KubernetesSource(config, node), state=state)
    if not store.has_last_good():
        config.require_files()
    return store


def _etcd(path: Path | None, state: Path, node: str) -> ObjectStore:
    from enforcer.datastore.etcd.config import etcd_config

    api = api_config(path)
    _require_type(api, ETCD)
    config = etcd_config(api)
    try:
        from enforcer.datastore.etcd.source import EtcdSource
    except ImportError as error:
        raise HostError(
            f"--datastore etcd needs the Python packages grpcio and protobuf ({error}): pip install 'dossim[etcd]'"
        ) from error
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
