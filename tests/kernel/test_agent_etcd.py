"""One running agent whose policy is in etcd, and one fault of etcd after the other, under a flood: no listed packet
passes, the log names each fault once, and the agent follows again by itself.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
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
    run,
    traffic,
)
from tests.kernel.sandbox import as_unit
from tests.support.certificates import Authority, Certificate
from tests.support.etcd import Etcd, Member, etcd, network_set, wait_for
from tests.support.tcp_proxy import Garbage, TcpProxy

pytestmark = pytest.mark.needs_root

ALSO_DENIED = "192.0.2.7"
BOTS, OTHERS = network_set("bots", "203.0.113.0/24"), network_set("others", "192.0.2.0/24")
PREFIX = "/calico/resources/v3/projectcalico.org/"
LOST, BACK = "the datastore cannot be followed; what is enforced stays", "following the datastore"


def objects() -> list[dict[str, Any]]:
    return [yaml.safe_load(endpoint()), yaml.safe_load(policy()), BOTS, OTHERS]


def expect_change(running: Agent) -> None:
    """A pass that changed something; each is followed by one that looks whether that lasts."""
    while "changes=0" in running.expect(APPLIED):
        pass


@dataclass
class Scene:
    host: NetnsPair
    cluster: Etcd
    running: Agent
    wire: Traffic
    folder: Path
    proxies: list[TcpProxy] = field(default_factory=list)
    authority: Authority | None = None

    @property
    def member(self) -> Member:
        (only,) = self.cluster.members
        return only

    def restart(self, words: Sequence[str] | None = None) -> None:
        self.member.words = words or self.member.words
        self.member.start()
        wait_for(self.cluster.port, self.member)

    def followed(self) -> Member:
        """The member that the agent is connected to, by its log."""
        said = [line for line in self.running.lines if "connected to etcd" in line]
        return next(member for member in self.cluster.members if member.url in said[-1])

    def assert_enforced(self) -> None:
        assert self.wire.arrivals(DENIED, ALSO_DENIED, ALLOWED) == [ALLOWED]

    def assert_follows(self) -> None:
        """A change is enforced, and taken back."""
        extra = network_set("extra", f"{ALLOWED}/32")
        other = "198.51.100.77"
        self.cluster.put(extra)
        expect_change(self.running)
        assert self.wire.arrivals(DENIED, ALLOWED, other) == [other]
        self.cluster.delete("globalnetworksets/extra")
        expect_change(self.running)
        self.assert_enforced()


Fault = Callable[[Scene], Iterator[None]]  # the fault exists while the generator waits


# -- one member, with TLS, client certificates and roles ---------------------------------------------------------------


def down(scene: Scene) -> Iterator[None]:
    scene.member.send(signal.SIGKILL)
    yield
    scene.restart()


def paused(scene: Scene) -> Iterator[None]:
    scene.member.send(signal.SIGSTOP)
    yield
    scene.member.send(signal.SIGCONT)


def partitioned(scene: Scene) -> Iterator[None]:
    scene.proxies[0].is_silent = True
    yield
    scene.proxies[0].is_silent = False


def garbage(scene: Scene) -> Iterator[None]:
    scene.member.send(signal.SIGKILL)
    with Garbage(scene.cluster.port):
        yield
    scene.restart()


def emptied(scene: Scene) -> Iterator[None]:
    scene.cluster.ctl("del", "--prefix", "/calico/")
    yield
    scene.cluster.put_at_once(*objects())  # one by one, each would count as all there is


def another_cluster(scene: Scene) -> Iterator[None]:
    words = scene.member.words
    scene.member.send(signal.SIGKILL)
    other = [str(scene.folder / "other") if word == str(scene.folder / "m0") else word for word in words]
    other[other.index("--initial-cluster-token") + 1] = "another"
    scene.restart(other)
    scene.cluster.put(network_set("harmless", "198.51.100.200/32"))
    yield
    scene.member.send(signal.SIGKILL)
    scene.restart(words)


def permission_withdrawn(scene: Scene) -> Iterator[None]:
    scene.cluster.ctl("role", "revoke-permission", "calico", "--prefix", PREFIX)
    yield
    scene.cluster.ctl("role", "grant-permission", "calico", "read", "--prefix", PREFIX)


def certificate(scene: Scene, **validity: str) -> Iterator[None]:
    assert scene.authority
    words = list(scene.member.words)
    scene.member.send(signal.SIGKILL)
    scene.restart([*words, *serving(scene.authority.issue("etcd", **validity))])
    yield
    scene.member.send(signal.SIGKILL)
    scene.restart(words)


def certificate_expired(scene: Scene) -> Iterator[None]:
    yield from certificate(scene, until="20210101000000Z")


def clock_wrong(scene: Scene) -> Iterator[None]:
    """As for a host whose clock is behind: the certificate is not valid yet."""
    yield from certificate(scene, since="20900101000000Z")


# the fault, how it is created, what is logged
FAULTS: list[tuple[str, Fault, str]] = [
    ("etcd is down", down, "the connection was closed"),
    ("something else answers", garbage, LOST),
    ("a certificate has expired", certificate_expired, "certificate has expired"),
    ("a clock is wrong", clock_wrong, "certificate is not yet valid"),
    ("everything was deleted", emptied, "nothing is stored below /calico/"),
    ("another cluster answers", another_cluster, "another cluster answers"),
    ("the permission was withdrawn", permission_withdrawn, "permission denied"),
    ("etcd is stopped", paused, "no answer in time"),
    ("the network loses everything", partitioned, "no answer in time"),
]

# an object, what it is instead, what is logged
OBJECTS = [
    ("globalnetworksets/bots", "{", "not JSON"),
    ("globalnetworksets/bots", "[1]", "expected a JSON object"),
    ("globalnetworksets/others", "x" * 2_000_000, "larger than 1.5 MiB"),
    ("globalnetworksets/others", "", "not JSON"),
    ("globalnetworkpolicies/dos", "null", "found null"),
]


def serving(made: Certificate) -> tuple[str, ...]:
    return ("--cert-file", str(made.cert), "--key-file", str(made.key))


@contextmanager
def secured(folder: Path, authority: Authority) -> Iterator[Etcd]:
    """One member that knows its clients by their certificates; the agent's user may read Calico's resources."""
    root = authority.issue("root")
    more = (
        *serving(authority.issue("etcd")),
        *("--client-cert-auth", "--trusted-ca-file", str(authority.cert), "--max-request-bytes", "4000000"),
    )
    with etcd(folder, more=more, tls=True, flags=flags(authority, root)) as cluster:
        cluster.put(*objects())
        cluster.ctl("user", "add", "root", "--no-password")
        cluster.ctl("user", "grant-role", "root", "root")
        cluster.ctl("user", "add", "felix", "--no-password")
        cluster.ctl("role", "add", "calico")
        cluster.ctl("role", "grant-permission", "calico", "read", "--prefix", PREFIX)
        cluster.ctl("user", "grant-role", "felix", "calico")
        cluster.ctl("auth", "enable")
        yield cluster


def flags(authority: Authority, user: Certificate) -> list[str]:
    return ["--cacert", str(authority.cert), "--cert", str(user.cert), "--key", str(user.key)]


@pytest.mark.long
def test_no_fault_of_etcd_lets_a_listed_packet_through(inside: NetnsPair, pin_root: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    felix = authority.issue("felix")
    (tmp_path / "etcd").mkdir()
    with ExitStack() as stack:
        cluster = stack.enter_context(secured(tmp_path / "etcd", authority))
        wire = stack.enter_context(traffic(inside))
        proxy = stack.enter_context(TcpProxy(cluster.port))
        environment = {
            "ETCD_ENDPOINTS": f"https://127.0.0.1:{proxy.port}",
            "ETCD_CA_CERT_FILE": str(authority.cert),
            "ETCD_CERT_FILE": str(felix.cert),
            "ETCD_KEY_FILE": str(felix.key),
            "STATE_DIRECTORY": str(tmp_path / "state"),
        }
        begin = stack.enter_context(ExitStack())
        running = begin.enter_context(agent_of(inside, pin_root, "--datastore", "etcd", **environment))
        expect_change(running)
        scene = Scene(inside, cluster, running, wire, tmp_path / "etcd", [proxy], authority)
        stack.enter_context(wire.flood(DENIED, every_s=0.005))
        for path, text, says in OBJECTS:
            before_text = cluster.ctl("get", PREFIX + path, "--print-value-only")
            cluster.put_text(path, text)
            assert f"etcd: {path}: " in running.expect(says)
            scene.assert_enforced()
            cluster.put_text(path, before_text.rstrip("\n"))
            running.expect("recovered: the whole policy is accepted")
        proxy.delay_s = 0.2  # slow, and no fault
        scene.assert_follows()
        proxy.delay_s = 0.0
        for what, inject, says in FAULTS:
            print(what)
            before = len(running.lines)
            with contextmanager(inject)(scene):
                assert LOST in running.expect(says), what
                scene.assert_enforced()
            running.expect(BACK)
            errors = [line.partition("level=error ")[2] for line in running.lines[before:] if "level=error" in line]
            assert len(errors) == len(set(errors)), f"{what}: said more than once"
            scene.assert_enforced()
        restored_backup(scene)
        assert running.end(signal.SIGTERM) == 0
        assert all(line.rstrip("\n").isprintable() for line in running.lines)


def restored_backup(scene: Scene) -> None:
    """A backup is taken as it is, with a warning: its objects are what is stored now."""
    saved = scene.folder / "backup"
    scene.cluster.ctl("snapshot", "save", str(saved))
    scene.cluster.put(network_set("late", f"{ALLOWED}/32"))
    expect_change(scene.running)
    scene.member.send(signal.SIGKILL)
    shutil.rmtree(scene.folder / "m0")
    words = scene.member.words
    same = [word for name in RESTORED for word in words[words.index(name) : words.index(name) + 2]]
    scene.cluster.ctl("snapshot", "restore", str(saved), "--data-dir", str(scene.folder / "m0"), *same)
    scene.restart()
    scene.running.expect("the datastore went back in time")
    expect_change(scene.running)
    scene.assert_enforced()


def test_an_agent_that_starts_while_etcd_is_down_enforces_the_last_policy(
    inside: NetnsPair, pin_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "etcd").mkdir()
    with etcd(tmp_path / "etcd") as cluster, traffic(inside) as wire:
        cluster.put(*objects())
        environment = {"ETCD_ENDPOINTS": cluster.endpoints, "STATE_DIRECTORY": str(tmp_path / "state")}
        with agent_of(inside, pin_root, "--datastore", "etcd", "--detach-on-exit", **environment) as running:
            expect_change(running)
            assert running.end(signal.SIGTERM) == 0
        assert wire.arrivals(DENIED, ALLOWED) == [DENIED, ALLOWED], "nothing is left of the first agent"
        cluster.members[0].send(signal.SIGKILL)
        sandbox = as_unit(tmp_path / "state")  # as the service, which starts before the network is up
        with agent_of(inside, pin_root, "--datastore", "etcd", through=sandbox, **environment) as running:
            assert "Connection refused" in running.expect(LOST)
            assert "the last good policy, stored by an earlier run, is enforced" in running.expect(
                "policy not accepted"
            )
            expect_change(running)
            assert wire.arrivals(DENIED, ALSO_DENIED, ALLOWED) == [ALLOWED]
            cluster.members[0].start()
            running.expect(BACK)
            cluster.put(network_set("extra", f"{ALLOWED}/32"))
            expect_change(running)
            assert wire.arrivals(DENIED, ALLOWED, "198.51.100.77") == ["198.51.100.77"]
            assert running.end(signal.SIGTERM) == 0


# -- three members -----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_agent_follows_while_a_majority_does(inside: NetnsPair, pin_root: Path, tmp_path: Path) -> None:
    """Killed and stopped members, the leader among them, are left for another; without a majority everything stays."""
    (tmp_path / "etcd").mkdir()
    with etcd(tmp_path / "etcd", 3) as cluster, traffic(inside) as wire:
        cluster.put(*objects())
        environment = {"ETCD_ENDPOINTS": cluster.endpoints, "STATE_DIRECTORY": str(tmp_path / "state")}
        with ExitStack() as stack:
            running = stack.enter_context(agent_of(inside, pin_root, "--datastore", "etcd", **environment))
            expect_change(running)
            stack.enter_context(wire.flood(DENIED, every_s=0.005))
            scene = Scene(inside, cluster, running, wire, tmp_path / "etcd")
            for how, undo in ((signal.SIGKILL, None), (signal.SIGSTOP, signal.SIGCONT)):
                member = scene.followed()
                member.send(how)
                running.expect("connected to etcd")
                assert scene.followed() is not member
                scene.assert_follows()
                if undo:
                    member.send(undo)
                else:
                    member.start()
            leader = cluster.members[cluster.leader()]
            leader.send(signal.SIGKILL)
            scene.assert_follows()
            other = next(member for member in cluster.members if member.process)
            other.send(signal.SIGKILL)
            running.expect(LOST)
            scene.assert_enforced()
            state = json.loads(run(inside, ["status", "-o", "json", "--pin-root", str(pin_root)]).stdout)["datastore"]
            assert (state["kind"], state["connected"], state["objects"], state["faults"]) == ("etcd", False, 4, [])
            assert state["problem"]
            assert int(state["revision"]) >= 4
            for member in (leader, other):
                member.start()
            running.expect(BACK)
            scene.assert_follows()
            assert running.end(signal.SIGTERM) == 0


RESTORED = ("--name", "--initial-cluster", "--initial-cluster-token", "--initial-advertise-peer-urls")
