"""Where the agent of ``bench_change`` has its policy from: a folder of YAML files, or a real etcd on loopback."""

from __future__ import annotations

import base64
import http.client
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pyroute2 import IPRoute

from bench.bench_guard import NODE
from enforcer.datastore.etcd.keys import RESOURCES
from enforcer.policy.objects import PLURALS

_PLURAL_OF = {kind: plural for plural, kind in PLURALS.items()}
_READY_S = 60.0
_CLIENT, _PEER = 2379, 2380  # in a network namespace of its own
ETCD_ENVIRONMENT = {"ETCD_ENDPOINTS": f"http://127.0.0.1:{_CLIENT}"}

_ENDPOINT: dict[str, Any] = {
    "kind": "HostEndpoint",
    "metadata": {"name": "e", "labels": {"role": "edge"}},
    "spec": {"node": NODE, "interfaceName": "eth0"},
}
_POLICY: dict[str, Any] = {
    "kind": "GlobalNetworkPolicy",
    "metadata": {"name": "dos"},
    "spec": {
        "selector": "role == 'edge'",
        "doNotTrack": True,
        "applyOnForward": True,
        "types": ["Ingress"],
        "ingress": [{"action": "Deny", "source": {"selector": "deny == 'all'"}}],
    },
}


class Store(Protocol):
    """``options``: how the agent follows it."""

    options: tuple[str, ...]

    def put_base(self) -> None:
        """One interface, and one policy that denies all network sets."""

    def put_set(self, name: str, cidrs: Sequence[str]) -> None:
        """A network set. Returns when it is stored."""


class Files:
    """A folder. Files are replaced with rename(2)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self.options: tuple[str, ...] = ("-f", str(folder))

    def put_base(self) -> None:
        self._put("base", "\n---\n".join(map(json.dumps, map(_whole, (_ENDPOINT, _POLICY)))))

    def put_set(self, name: str, cidrs: Sequence[str]) -> None:
        head = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\n"
        named = f"metadata:\n  name: {name}\n  labels:\n    deny: all\nspec:\n  nets:\n"
        self._put(name, head + named + "".join(f"  - {cidr}\n" for cidr in cidrs))

    def _put(self, name: str, text: str) -> None:
        scratch = self._folder / f".{name}"
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, self._folder / f"{name}.yaml")


class Etcd:
    """An etcd of one member, in the calling thread's network namespace, through its JSON gateway."""

    def __init__(self) -> None:
        self.options: tuple[str, ...] = ("--datastore", "etcd")
        self._conn = http.client.HTTPConnection("127.0.0.1", _CLIENT, timeout=_READY_S)

    def put_base(self) -> None:
        self._put(_ENDPOINT)
        self._put(_POLICY)

    def put_set(self, name: str, cidrs: Sequence[str]) -> None:
        labelled = {"name": name, "labels": {"deny": "all"}}
        self._put({"kind": "GlobalNetworkSet", "metadata": labelled, "spec": {"nets": list(cidrs)}})

    def wait(self) -> None:
        until_s = time.monotonic() + _READY_S
        while True:
            try:
                return self._ask("maintenance/status", {})
            except (OSError, http.client.HTTPException):
                self._conn.close()
                if time.monotonic() > until_s:
                    raise
                time.sleep(0.1)

    def _put(self, made: dict[str, Any]) -> None:
        key = f"{RESOURCES}{_PLURAL_OF[made['kind']]}/{made['metadata']['name']}"
        text = json.dumps(_whole(made))
        self._ask("kv/put", {"key": _base64(key), "value": _base64(text)})

    def _ask(self, call: str, message: dict[str, str]) -> None:
        self._conn.request("POST", f"/v3/{call}", json.dumps(message), {"Content-Type": "application/json"})
        answer = self._conn.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise OSError(f"etcd: {answer.status}: {text.decode(errors='replace')}")


@contextmanager
def etcd(scratch: Path) -> Iterator[Etcd]:
    """A running one, with its data below ``scratch``."""
    with IPRoute() as ip:
        ip.link("set", index=1, state="up")
    client, peer = (f"http://127.0.0.1:{port}" for port in (_CLIENT, _PEER))
    words = ["etcd", "--name", "m", "--data-dir", str(scratch / "etcd"), "--logger", "zap", "--log-level", "error"]
    words += ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
    words += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"m={peer}"]
    process = subprocess.Popen(words)
    try:
        store = Etcd()
        store.wait()
        yield store
    finally:
        process.kill()
        process.wait()


def _whole(made: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "projectcalico.org/v3", **made}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
