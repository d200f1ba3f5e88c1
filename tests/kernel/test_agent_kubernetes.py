"""One running agent whose policy is in the Kubernetes API, and one fault of it after the other, under a flood: no
listed packet passes, the log names each fault once, and the agent follows again by itself.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import (
    ALLOWED,
    APPLIED,
    DENIED,
    Agent,
    Traffic,
    agent_of,
    endpoint,
    policy,
    traffic,
)
from tests.kernel.sandbox import as_unit
from tests.support.certificates import Authority
from tests.support.etcd import network_set
from tests.support.kubernetes_double import Answer, Api, Double, forbidden, status, too_many
from tests.support.tcp_proxy import Garbage, TcpProxy

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

ALSO_DENIED = "192.0.2.7"
BOTS, OTHERS = network_set("bots", "203.0.113.0/24"), network_set("others", "192.0.2.0/24")
SILENT_S = 400.0  # 150 s without a bookmark, then an answer that does not come, on a busy machine
LOST, BACK = "the datastore cannot be followed; what is enforced stays", "following the datastore"


def objects() -> list[dict[str, Any]]:
    return [yaml.safe_load(endpoint()), yaml.safe_load(policy()), BOTS, OTHERS]


@dataclass
class Scene:
    double: Double
    running: Agent
    wire: Traffic
    authority: Authority

    @property
    def api(self) -> Api:
        return self.double.api

    def assert_enforced(self) -> None:
        assert self.wire.arrivals(DENIED, ALSO_DENIED, ALLOWED) == [ALLOWED]

    def assert_follows(self) -> None:
        """A change is enforced, and taken back."""
        other = "198.51.100.77"
        self.api.put(network_set("extra", f"{ALLOWED}/32"))
        self.running.expect(APPLIED)
        assert self.wire.arrivals(DENIED, ALLOWED, other) == [other]
        self.api.delete("globalnetworksets/extra")
        self.running.expect(APPLIED)
        self.assert_enforced()


Fault = Callable[[Scene], Iterator[None]]  # the fault exists while the generator waits


def down(scene: Scene) -> Iterator[None]:
    with scene.double.down():
        yield


def garbage(scene: Scene) -> Iterator[None]:
    with scene.double.down(), Garbage(scene.double.port):
        yield


def refused(answer: Callable[[str], Answer]) -> Fault:
    def fault(scene: Scene) -> Iterator[None]:
        scene.api.refuse = answer
        with scene.double.down():
            pass
        yield
        scene.api.refuse = lambda _plural: None

    return fault


def crd_deleted(scene: Scene) -> Iterator[None]:
    scene.api.absent.add("globalnetworksets")
    with scene.double.down():
        pass
    yield
    scene.api.absent.clear()


def token_withdrawn(scene: Scene) -> Iterator[None]:
    before, scene.api.token = scene.api.token, "another"
    with scene.double.down():
        pass
    yield
    scene.api.token = before


def certificate(scene: Scene, **validity: str) -> Iterator[None]:
    before = scene.double.serving
    with scene.double.down():
        scene.double.serving = scene.authority.issue("api", **validity)
    yield
    with scene.double.down():
        scene.double.serving = before


def certificate_expired(scene: Scene) -> Iterator[None]:
    yield from certificate(scene, until="20210101000000Z")


def clock_wrong(scene: Scene) -> Iterator[None]:
    """As for a host whose clock is behind: the certificate is not valid yet."""
    yield from certificate(scene, since="20900101000000Z")


def emptied(scene: Scene) -> Iterator[None]:
    saved = deepcopy(scene.api.objects)
    with scene.double.down():
        scene.api.restore({}, scene.api.revision + 1)
        scene.api.compact()
    yield
    with scene.double.down():
        scene.api.restore(saved, scene.api.revision + 1)
        scene.api.compact()


def another_cluster(scene: Scene) -> Iterator[None]:
    saved, before = deepcopy(scene.api.objects), scene.api.uid
    with scene.double.down():
        scene.api.uid = "aaaa"
        scene.api.restore({}, 5)
    scene.api.put(network_set("harmless", "198.51.100.200/32"))
    yield
    with scene.double.down():
        scene.api.uid = before
        scene.api.restore(saved, 1000)


# the fault, how it is created, what is logged
FAULTS: list[tuple[str, Fault, str]] = [
    ("the API server is down", down, "Connection refused"),
    ("something else answers", garbage, "TLS: wrong version number"),
    ("a certificate has expired", certificate_expired, "TLS: certificate has expired"),
    ("a clock is wrong", clock_wrong, "TLS: certificate is not yet valid"),
    ("everything was deleted", emptied, "Calico has no objects here"),
    ("another cluster answers", another_cluster, "another cluster answers"),
    ("the permission was withdrawn", refused(forbidden), "403 Forbidden"),
    ("the token was withdrawn", token_withdrawn, "401 Unauthorized"),
    ("the server is overloaded", refused(too_many), "429 Too Many Requests"),
    ("a CRD was deleted", crd_deleted, "are no longer served"),
    ("each revision has expired", refused(lambda _plural: status(410, "Expired", "too old")), "410 Gone: too old"),
]


def restored_backup(scene: Scene) -> None:
    """A watch from a revision of the future is silent: the agent finds out by itself, and takes what is stored now."""
    saved, revision = deepcopy(scene.api.objects), scene.api.revision
    scene.api.put(network_set("late", f"{ALLOWED}/32"))
    scene.running.expect(APPLIED)
    with scene.double.down():
        scene.api.restore(saved, revision)
    scene.running.expect("the datastore went back in time")
    scene.running.expect(APPLIED)
    scene.assert_enforced()


def history_expired(scene: Scene) -> None:
    """The watch begins with an error in an answer of 200; what happened meanwhile is enforced."""
    with scene.double.down():
        scene.api.put(network_set("missed", f"{ALLOWED}/32"))
        scene.api.compact()
    scene.running.expect(APPLIED)
    assert scene.wire.arrivals(DENIED, ALLOWED, "198.51.100.77") == ["198.51.100.77"]
    scene.api.delete("globalnetworksets/missed")
    scene.running.expect(APPLIED)


@pytest.mark.long
def test_no_fault_of_the_kubernetes_api_lets_a_listed_packet_through(
    inside: NetnsPair, pin_root: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca")
    api = Api(token="secret")
    for item in objects():
        api.put(item)
    (tmp_path / "token").write_text("secret\n")
    with ExitStack() as stack:
        double = stack.enter_context(Double(api, serving=authority.issue("api")))
        wire = stack.enter_context(traffic(inside))
        (tmp_path / "kubeconfig").write_text(
            "current-context: here\ncontexts: [{name: here, context: {cluster: ours, user: felix}}]\n"
            f"clusters: [{{name: ours, cluster: {{server: '{double.url}', certificate-authority: ca/ca.pem}}}}]\n"
            "users: [{name: felix, user: {tokenFile: token}}]\n"
        )
        environment = {"KUBECONFIG": str(tmp_path / "kubeconfig"), "STATE_DIRECTORY": str(tmp_path / "state")}
        running = stack.enter_context(agent_of(inside, pin_root, "--datastore", "kubernetes", **environment))
        running.expect(APPLIED)
        scene = Scene(double, running, wire, authority)
        stack.enter_context(wire.flood(DENIED, every_s=0.005))
        faulty_object(scene)
        scene.assert_follows()
        for what, inject, says in FAULTS:
            print(what, time.monotonic(), flush=True)
            before = len(running.lines)
            with contextmanager(inject)(scene):
                assert LOST in running.expect(says), what
                scene.assert_enforced()
            running.expect(BACK)
            errors = [line.partition("level=error ")[2] for line in running.lines[before:] if "level=error" in line]
            assert len(errors) == len(set(errors)), f"{what}: said more than once"
            scene.assert_enforced()
        history_expired(scene)
        restored_backup(scene)
        scene.assert_follows()
        assert running.end(signal.SIGTERM) == 0
        assert all(line.rstrip("\n").isprintable() for line in running.lines)
        assert "secret" not in "".join(running.lines)


def faulty_object(scene: Scene) -> None:
    scene.api.put(network_set("bots", "203.0.113.0/33"))
    assert "kubernetes: globalnetworksets/bots: " in scene.running.expect("expected a prefix length")
    scene.assert_enforced()
    scene.api.put(BOTS)
    scene.running.expect("recovered: the whole policy is accepted")
    scene.running.expect(APPLIED)


@pytest.mark.long
def test_an_api_that_falls_silent_is_noticed_and_lets_nothing_through(
    inside: NetnsPair, pin_root: Path, tmp_path: Path
) -> None:
    """As when its process is stopped: connections stay open, new ones are accepted, and nothing is said. With the real
    times, so that this waits for some three minutes.
    """
    api = Api()
    for item in objects():
        api.put(item)
    with Double(api) as double, TcpProxy(double.port) as proxy, traffic(inside) as wire:
        environment = {"K8S_API_ENDPOINT": f"http://127.0.0.1:{proxy.port}", "STATE_DIRECTORY": str(tmp_path / "state")}
        with agent_of(inside, pin_root, "--datastore", "kubernetes", **environment) as running:
            running.expect(APPLIED)
            with wire.flood(DENIED, every_s=0.05):
                proxy.is_silent = True
                api.put(network_set("extra", f"{ALLOWED}/32"))
                assert "no answer in time" in running.expect(LOST, within_s=SILENT_S)
                assert wire.arrivals(DENIED, ALSO_DENIED, ALLOWED) == [ALLOWED]
                before = len(running.lines)
                proxy.is_silent = False
                running.expect(APPLIED)  # the kinds are back one by one: this may be before all of them are
                if not any(BACK in line for line in running.lines[before:]):
                    running.expect(BACK)
                assert wire.arrivals(DENIED, ALLOWED, "198.51.100.77") == ["198.51.100.77"]
            assert running.end(signal.SIGTERM) == 0


def test_an_agent_that_starts_while_the_api_is_down_enforces_the_last_policy(
    inside: NetnsPair, pin_root: Path, tmp_path: Path
) -> None:
    api = Api()
    for item in objects():
        api.put(item)
    with Double(api) as double, traffic(inside) as wire:
        environment = {"K8S_API_ENDPOINT": double.url, "STATE_DIRECTORY": str(tmp_path / "state")}
        words = ("--datastore", "kubernetes")
        with agent_of(inside, pin_root, *words, "--detach-on-exit", **environment) as running:
            running.expect(APPLIED)
            assert running.end(signal.SIGTERM) == 0
        assert wire.arrivals(DENIED, ALLOWED) == [DENIED, ALLOWED], "nothing is left of the first agent"
        double.kill()
        sandbox = as_unit(tmp_path / "state")  # as the service, which starts before the network is up
        with agent_of(inside, pin_root, *words, through=sandbox, **environment) as running:
            assert "Connection refused" in running.expect(LOST)
            running.expect(APPLIED)
            assert wire.arrivals(DENIED, ALSO_DENIED, ALLOWED) == [ALLOWED]
            double.start()
            running.expect(BACK)
            api.put(network_set("extra", f"{ALLOWED}/32"))
            running.expect(APPLIED)
            assert wire.arrivals(DENIED, ALLOWED, "198.51.100.77") == ["198.51.100.77"]
            assert running.end(signal.SIGTERM) == 0
