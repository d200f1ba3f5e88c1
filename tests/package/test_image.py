"""The image and the manifests: each overlay as kubectl makes it, run as its DaemonSet says, drops a packet."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyroute2 import IPRoute

from enforcer import __version__
from enforcer.enforcement.apply import Enforcer
from tests.kernel.conftest import NODE, NetnsPair
from tests.kernel.enforcer_support import ALLOWED, APPLIED, DEADLINE_S, DENIED, Traffic, endpoint, policy
from tests.kernel.sandbox import settings
from tests.package.conftest import BUILT
from tests.package.pod import Node, pod
from tests.support.certificates import Authority
from tests.support.etcd import etcd, network_set
from tests.support.kubernetes_double import Api, Double
from tools.package.base import Tree, base_of
from tools.package.deb import PACKAGING, build_of
from tools.package.image import image_name, unpacked
from tools.package.releases import RELEASES

pytestmark = pytest.mark.needs_root

NEWEST = RELEASES[-1]
OTHER = "198.51.100.77"
OVERLAYS = ["etcd", "kubernetes", "monitoring"]


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of the newest release: Debian 12's knows no components."""
    folder = tmp_path_factory.mktemp("kubectl")
    base = base_of(NEWEST, BUILT / build_of(NEWEST).file_name)
    words = ["tar", "-C", str(folder), "-xf", str(base), "--wildcards", "./var/cache/apt/archives/kubectl_*.deb"]
    subprocess.run(words, check=True)
    (package,) = folder.rglob("kubectl_*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    return folder / "usr/bin/kubectl"


def kustomized(kubectl: Path, folder: Path) -> str:
    done = subprocess.run([str(kubectl), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def overlay(kubectl: Path, name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(kustomized(kubectl, PACKAGING / "kubernetes/overlays" / name)))


@pytest.fixture(scope="session")
def image() -> Iterator[tuple[Tree, list[str]]]:
    with unpacked(BUILT / image_name(build_of(NEWEST))) as found:
        yield found


def container(objects: Sequence[dict[str, Any]]) -> dict[str, Any]:
    (daemonset,) = (item for item in objects if item["kind"] == "DaemonSet")
    (found,) = daemonset["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_schemas_of_kubernetes_accept_an_overlay(kubectl: Path, name: str, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(kustomized(kubectl, PACKAGING / "kubernetes/overlays" / name))
    words = [str(Path(sys.executable).with_name("kubernetes-validate")), "--strict", str(tmp_path / "all.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    misspelt = (tmp_path / "all.yaml").read_text().replace("readOnlyRootFilesystem:", "readonlyRootFilesystem:")
    (tmp_path / "all.yaml").write_text(misspelt)
    assert subprocess.run(words, capture_output=True, check=False).returncode, "it accepts anything"


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_container_may_do_what_the_service_may(kubectl: Path, name: str) -> None:
    objects = overlay(kubectl, name)
    kept = settings(PACKAGING / "enforcer.service")["CapabilityBoundingSet"][0].split()
    added = container(objects)["securityContext"]["capabilities"]["add"]
    assert [f"CAP_{word}" for word in added] == kept
    assert container(objects)["image"] == f"localhost/enforcer:{__version__}"
    verbs = {verb for item in objects for rule in item.get("rules", []) for verb in rule["verbs"]}
    assert verbs <= {"get", "list", "watch"}


def test_metrics_are_served_where_they_are_announced(kubectl: Path) -> None:
    objects = overlay(kubectl, "monitoring")
    variables = [item for item in container(objects)["env"] if item["name"] == "ENFORCER_METRICS_ADDR"]
    assert variables == [{"name": "ENFORCER_METRICS_ADDR", "value": ":9191"}], "off in the base"
    (daemonset,) = (item for item in objects if item["kind"] == "DaemonSet")
    assert daemonset["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == "9191"
    maps = {item["metadata"]["name"]: item["data"] for item in objects if item["kind"] == "ConfigMap"}
    assert yaml.safe_load(maps["enforcer-alerts"]["alerts.yaml"])["groups"]
    assert json.loads(maps["enforcer-dashboard"]["dashboard.json"])["panels"]


def test_the_image_is_the_command(image: tuple[Tree, list[str]]) -> None:
    tree, entry = image
    assert entry == ["/usr/bin/enforcer"]
    assert tree.must(*entry, "--version") == f"enforcer, version {__version__}\n"
    assert (tree.path / "usr/share/doc/enforcer/copyright").exists()
    assert not list((tree.path / "root").iterdir())


OBJECTS = (yaml.safe_load(endpoint()), yaml.safe_load(policy()), network_set("bots", "203.0.113.0/24"))


@pytest.fixture
def inside(network: NetnsPair) -> Iterator[NetnsPair]:
    """The test's own thread in the host's network: the datastore is there."""
    with network.host():
        with IPRoute() as ip:
            ip.link("set", index=socket.if_nametoindex("lo"), state="up")
        yield network


def test_a_pod_drops_and_its_end_lets_nothing_through(
    image: tuple[Tree, list[str]], kubectl: Path, inside: NetnsPair, wire: Traffic, tmp_path: Path
) -> None:
    """The overlay 'monitoring', which is 'kubernetes' and more: from the image to the packet."""
    authority, account = Authority(tmp_path / "ca"), tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("secret")
    (account / "ca.crt").write_bytes(authority.cert.read_bytes())
    api, objects = Api(token="secret"), overlay(kubectl, "monitoring")
    for item in OBJECTS:
        api.put(item)
    assert wire.arrivals(DENIED, ALLOWED) == [DENIED, ALLOWED]
    with Double(api, serving=authority.issue("api")) as double:
        variables = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(double.port)}
        node = Node(NODE, tmp_path / "disk", variables, {}, account)
        for _ in range(2):
            with pod(*image, objects, node, inside) as running:
                running.expect(APPLIED)
                assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
                (now,) = Enforcer(NODE).status()
                assert now.stage == "driver"
                for probe in ("livenessProbe", "readinessProbe"):
                    assert answer(**container(objects)[probe]["httpGet"]) == 200
                assert answer("127.0.0.1", 9191, "/metrics") == 200
                api.put(network_set("extra", f"{ALLOWED}/32"))
                until_arrives(wire, [OTHER])
                api.delete("globalnetworksets/extra")
                until_arrives(wire, [ALLOWED, OTHER])
                assert running.end(signal.SIGTERM) == 0
                assert not [line for line in running.lines if "level=error" in line or "level=warning" in line]
            assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED], "between two pods"
    assert list((node.disk / "var/lib/enforcer").iterdir()), "the last good policy is on the node"


def test_a_pod_follows_etcd_with_the_certificate_of_its_secret(
    image: tuple[Tree, list[str]], kubectl: Path, inside: NetnsPair, wire: Traffic, tmp_path: Path
) -> None:
    authority, secret = Authority(tmp_path / "ca"), tmp_path / "secret"
    server, user = authority.issue("etcd"), authority.issue("enforcer")
    secret.mkdir()
    for name, path in (("ca.pem", authority.cert), ("cert.pem", user.cert), ("key.pem", user.key)):
        (secret / name).write_bytes(path.read_bytes())
    objects = overlay(kubectl, "etcd")
    (settings_of_etcd,) = (item["data"] for item in objects if item["kind"] == "ConfigMap")
    more = ["--cert-file", str(server.cert), "--key-file", str(server.key)]
    more += ["--client-cert-auth", "--trusted-ca-file", str(authority.cert)]
    flags = ["--cacert", str(authority.cert), "--cert", str(user.cert), "--key", str(user.key)]
    (tmp_path / "etcd").mkdir()
    with etcd(tmp_path / "etcd", tls=True, more=more, flags=flags) as cluster:
        cluster.put(*OBJECTS)
        settings_of_etcd["ETCD_ENDPOINTS"] = cluster.endpoints
        node = Node(NODE, tmp_path / "disk", {}, {"enforcer-etcd": secret})
        with pod(*image, objects, node, inside) as running:
            running.expect(APPLIED)
            assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
            cluster.put(network_set("extra", f"{ALLOWED}/32"))
            until_arrives(wire, [OTHER])
            assert running.end(signal.SIGTERM) == 0


def until_arrives(wire: Traffic, wanted: list[str]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while (found := wire.arrivals(DENIED, ALLOWED, OTHER)) != wanted:
        assert time.monotonic() < deadline, found
        assert DENIED not in found


def answer(host: str, port: int, path: str) -> int:
    connection = HTTPConnection(host, port, timeout=10)
    connection.request("GET", path)
    try:
        return connection.getresponse().status
    finally:
        connection.close()
