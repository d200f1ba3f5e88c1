"""A real API server on loopback (``KUBE_APISERVER`` names its binary), and what a test does with it and with a double.

Debian's apiextensions-apiserver, which tests/kube/build.sh compiles, is enough: it has list, watch, bookmarks and
expiry of Kubernetes, without its users, namespaces and nodes.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.support.certificates import Authority, Certificate
from tests.support.etcd import Etcd, etcd, free_ports
from tests.support.kubernetes_double import KINDS, V1, Double

BINARY = os.environ.get("KUBE_APISERVER", "")
needs_api_server = pytest.mark.skipif(not BINARY, reason="KUBE_APISERVER names no API server (./run kube builds one)")
_READY_S = 120.0
_CRDS = ("HostEndpoint", "GlobalNetworkPolicy", "GlobalNetworkSet", "NetworkSet", "Tier", "FelixConfiguration")


class KubernetesApi(Protocol):
    def settings(self) -> dict[str, str]:
        """Calico's configuration, by the names of its file."""

    def put(self, item: dict[str, Any]) -> None: ...

    def delete(self, path: str) -> None: ...

    def away(self) -> Any: ...

    def get(self, path: str) -> http.client.HTTPResponse:
        """The answer to one request, on a connection of its own."""

    def request(self, method: str, path: str, body: object = None) -> http.client.HTTPResponse: ...


class DoubleApi:
    def __init__(self, double: Double) -> None:
        self.double = double

    def settings(self) -> dict[str, str]:
        return {"k8sAPIEndpoint": self.double.url}

    def put(self, item: dict[str, Any]) -> None:
        self.double.api.put(item)

    def delete(self, path: str) -> None:
        self.double.api.delete(path)

    def away(self) -> Any:
        return self.double.down()

    def get(self, path: str) -> http.client.HTTPResponse:
        return self.request("GET", path)

    def request(self, method: str, path: str, body: object = None) -> http.client.HTTPResponse:
        return _asked(http.client.HTTPConnection("127.0.0.1", self.double.port, timeout=30), method, path, body)


@dataclass
class Server:
    """The process, with etcd behind it."""

    words: list[str]
    port: int
    authority: Authority
    admin: Certificate
    log: Path
    cluster: Etcd
    process: subprocess.Popen[bytes] | None = None

    def settings(self) -> dict[str, str]:
        return {
            "k8sAPIEndpoint": f"https://127.0.0.1:{self.port}",
            "k8sCAFile": str(self.authority.cert),
            "k8sCertFile": str(self.admin.cert),
            "k8sKeyFile": str(self.admin.key),
        }

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.words, stdout=log, stderr=log)
        until_s = time.monotonic() + _READY_S
        while True:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                if self.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").status == 200:
                    return  # /readyz never says so: it waits for kinds of Kubernetes that this server does not have
            except OSError:
                pass
            assert time.monotonic() < until_s, self.log.read_text()[-3000:]
            time.sleep(0.1)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @contextmanager
    def away(self) -> Iterator[None]:
        self.kill()
        yield
        self.start()

    def put(self, item: dict[str, Any]) -> None:
        plural = KINDS[item["kind"]]
        item = {**item, "apiVersion": V1}
        path, name = f"/apis/{V1}/{plural}", item["metadata"]["name"]
        held = self.request("GET", f"{path}/{name}")
        if held.status == 200:
            version = json.loads(held.read())["metadata"]["resourceVersion"]
            item["metadata"] = {**item["metadata"], "resourceVersion": version}
            answer = self.request("PUT", f"{path}/{name}", item)
        else:
            answer = self.request("POST", path, item)
        assert answer.status in (200, 201), answer.read()

    def delete(self, path: str) -> None:
        assert self.request("DELETE", f"/apis/{V1}/{path}").status == 200

    def get(self, path: str) -> http.client.HTTPResponse:
        return self.request("GET", path)

    def request(self, method: str, path: str, body: object = None) -> http.client.HTTPResponse:
        context = ssl.create_default_context(cafile=str(self.authority.cert))
        context.load_cert_chain(self.admin.cert, self.admin.key)
        return _asked(
            http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=context), method, path, body
        )

    def create_kinds(self) -> None:
        for kind in _CRDS:
            answer = self.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", _definition(kind))
            assert answer.status == 201, answer.read()
        until_s = time.monotonic() + _READY_S
        for kind in _CRDS:
            while self.get(f"/apis/{V1}/{KINDS[kind]}").status != 200:
                assert time.monotonic() < until_s
                time.sleep(0.1)


def _definition(kind: str) -> dict[str, Any]:
    plural, group = KINDS[kind], V1.partition("/")[0]
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "scope": "Namespaced" if kind == "NetworkSet" else "Cluster",
            "versions": [version],
        },
    }


def _asked(
    connection: http.client.HTTPConnection, method: str, path: str, body: object = None
) -> http.client.HTTPResponse:
    text = json.dumps(body) if body is not None else None
    connection.request(method, path, text, {"Content-Type": "application/json", "Connection": "close"})
    return connection.getresponse()


@contextmanager
def api_server(folder: Path) -> Iterator[Server]:
    """A running server with Calico's kinds, and its files below ``folder``."""
    authority = Authority(folder / "ca")
    admin = authority.issue("admin", group="system:masters")
    serving = authority.issue("server")
    (port,) = free_ports(1)
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(_kubeconfig(port, authority, admin))
    (folder / "etcd").mkdir()
    with etcd(folder / "etcd") as cluster:
        words = [
            *(BINARY, f"--etcd-servers={cluster.endpoints}", f"--secure-port={port}", "--bind-address=127.0.0.1"),
            *(f"--tls-cert-file={serving.cert}", f"--tls-private-key-file={serving.key}"),
            *(f"--client-ca-file={authority.cert}", f"--kubeconfig={kubeconfig}", "--authentication-skip-lookup"),
            *(f"--authentication-kubeconfig={kubeconfig}", f"--authorization-kubeconfig={kubeconfig}"),
            *("--enable-priority-and-fairness=false", "--etcd-compaction-interval=0"),
            "--disable-admission-plugins=NamespaceLifecycle,MutatingAdmissionWebhook,ValidatingAdmissionWebhook",
        ]
        server = Server(words, port, authority, admin, folder / "server.log", cluster)
        try:
            server.start()
            server.create_kinds()
            yield server
        finally:
            server.kill()


def _kubeconfig(port: int, authority: Authority, admin: Certificate) -> str:
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(authority.cert)}
    user = {"client-certificate": str(admin.cert), "client-key": str(admin.key)}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
    )
