"""A real etcd on loopback, of one or more members, and Calico's objects in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from enforcer.datastore.etcd.keys import RESOURCES
from enforcer.policy.objects import PLURALS

_KINDS = {kind: plural for plural, kind in PLURALS.items()}
_READY_S = 60.0


def free_ports(number: int, address: str = "127.0.0.1") -> list[int]:
    """Ports that nobody has now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind((address, 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass
class Member:
    """One etcd process; it can be stopped and started again with its data."""

    words: Sequence[str]
    url: str
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.words, stdout=log, stderr=log)

    def send(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait()
            self.process = None

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class Etcd:
    """A cluster. ``flags``: what etcdctl needs to reach it (certificates, a user)."""

    members: list[Member]
    flags: list[str] = field(default_factory=list)

    @property
    def endpoints(self) -> str:
        return ",".join(member.url for member in self.members)

    def ctl(self, *words: str, text: str | None = None, endpoints: str = "") -> str:
        """The output of etcdctl, which waits for a leader."""
        through = f"--endpoints={endpoints or self.endpoints}"
        command = ["etcdctl", through, "--command-timeout=50s", "--dial-timeout=20s", *self.flags, *words]
        environment = os.environ | {"ETCDCTL_API": "3"}
        until_s = time.monotonic() + _READY_S
        while True:
            done = subprocess.run(
                command, input=text, capture_output=True, text=True, check=False, timeout=60, env=environment
            )
            if done.returncode == 0:
                return done.stdout
            assert "etcdserver: request timed out" in done.stderr or "leader" in done.stderr, (
                f"{command}: {done.stderr}"
            )
            assert time.monotonic() < until_s, f"{command}: {done.stderr}"

    def put(self, *objects: dict[str, Any]) -> None:
        """Store objects at Calico's keys, as calicoctl does."""
        for item in objects:
            self.put_text(key_of(item), json.dumps(item, separators=(",", ":")))

    def put_at_once(self, *objects: dict[str, Any]) -> None:
        """In one transaction; etcd takes up to 128 operations."""
        quoted = (json.dumps(json.dumps(item)) for item in objects)
        puts = [f"put {RESOURCES}{key_of(item)} {text}" for item, text in zip(objects, quoted, strict=True)]
        self.ctl("txn", text="\n".join(["", *puts, "", "", ""]))

    def put_text(self, path: str, text: str) -> None:
        """A value below Calico's prefix, over stdin: a command line is limited to 128 KiB."""
        self.ctl("put", RESOURCES + path, *([] if text else [""]), text=text or None)

    @property
    def port(self) -> int:
        """Of the only member."""
        (member,) = self.members
        return int(member.url.rpartition(":")[2])

    def delete(self, path: str) -> None:
        self.ctl("del", RESOURCES + path)

    def revision(self) -> int:
        status = json.loads(self.ctl("endpoint", "status", "-w", "json", endpoints=self.members[0].url))
        return int(status[0]["Status"]["header"]["revision"])

    def leader(self) -> int:
        """The index of the member that leads; waits while the members elect one."""
        until_s = time.monotonic() + 60.0
        while time.monotonic() < until_s:
            for index, member in enumerate(self.members):
                if member.process is not None and self._leads(member.url):
                    return index
            time.sleep(0.1)
        raise AssertionError("no member leads")

    def _leads(self, url: str) -> bool:
        status = json.loads(self.ctl("endpoint", "status", "-w", "json", endpoints=url))[0]["Status"]
        found = status.get("leader")  # absent: the member knows of none
        return found is not None and found == status["header"]["member_id"]


def key_of(item: dict[str, Any]) -> str:
    metadata = item["metadata"]
    parts = (_KINDS[item["kind"]], metadata.get("namespace", ""), metadata["name"])
    return "/".join(filter(None, parts))


@contextmanager
def etcd(
    folder: Path, members: int = 1, *, tls: bool = False, more: Sequence[str] = (), flags: Sequence[str] = ()
) -> Iterator[Etcd]:
    """A running cluster with its data below ``folder``, in the network namespace of the calling thread. ``more``:
    further options of etcd, with certificates for ``tls``. ``flags``: those of etcdctl.
    """
    if not (shutil.which("etcd") and shutil.which("etcdctl")):
        pytest.skip("no etcd and etcdctl; as root, './run setup' installs etcd-server and etcd-client")
    ports = free_ports(2 * members)
    scheme = "https" if tls else "http"
    peers = [f"http://127.0.0.1:{port}" for port in ports[members:]]
    cluster = Etcd([], list(flags))
    for index, port in enumerate(ports[:members]):
        url = f"{scheme}://127.0.0.1:{port}"
        words = [
            *("etcd", "--name", f"m{index}", "--data-dir", str(folder / f"m{index}")),
            *("--listen-client-urls", url, "--advertise-client-urls", url),
            *("--listen-peer-urls", peers[index], "--initial-advertise-peer-urls", peers[index]),
            *("--initial-cluster", ",".join(f"m{each}={peer}" for each, peer in enumerate(peers))),
            *("--initial-cluster-token", folder.name, "--logger", "zap", "--log-level", "error", "--unsafe-no-fsync"),
            *more,
        ]
        cluster.members.append(Member(words, url, folder / f"m{index}.log"))
    try:
        for member in cluster.members:
            member.start()
        for member, port in zip(cluster.members, ports, strict=False):
            wait_for(port, member)
        yield cluster
    finally:
        for member in cluster.members:
            member.end()


def wait_for(port: int, member: Member) -> None:
    """Until the member accepts connections."""
    until_s = time.monotonic() + _READY_S
    while time.monotonic() < until_s:
        assert member.process
        assert member.process.poll() is None, member.log.read_text()
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"{member.words} is not ready:\n{member.log.read_text()}")


def network_set(name: str, *nets: str) -> dict[str, Any]:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkSet",
        "metadata": {"name": name, "creationTimestamp": None, "labels": {"deny": "all"}},
        "spec": {"nets": list(nets)},
    }
