"""Emergency acts with real agents and packets, in each store: denied after the command, passed after the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.kernel.conftest import NODE, NetnsPair
from tests.kernel.enforcer_support import (
    APPLIED,
    DENIED,
    VICTIM,
    Agent,
    Traffic,
    agent_of,
    deny_list,
    documents,
    endpoint,
    policy,
    run,
    start,
    traffic,
)
from tests.support.api_server import DoubleApi
from tests.support.datastores import InEtcd, InKubernetes, put
from tests.support.etcd import Etcd, etcd
from tests.support.kubernetes_double import Api, Double

pytestmark = pytest.mark.needs_root

BAD, LAST = "198.51.100.66", "198.51.100.200"
ENDED = "an emergency act has ended"


@dataclass
class Scene:
    """A host with an agent, and a command beside it. ``where``: the words that name the datastore."""

    host: NetnsPair
    running: Agent
    wire: Traffic
    where: list[str]
    pin_root: Path
    environment: dict[str, str]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {"ENFORCER_PIN_ROOT": str(self.pin_root), **self.environment}
        return run(self.host, [*words, *self.where, "--node", NODE], **environment)

    def assert_run(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def passes(self, *sources: str) -> list[str]:
        return self.wire.arrivals(*sources, LAST)[:-1]


def agent_words(folder: Path) -> list[str]:
    """An agent of files."""
    words = ["-f", str(folder / "policy"), "--state-dir", str(folder / "state")]
    return [*words, "--emergency-dir", str(folder / "acts")]


@contextmanager
def on_files(host: NetnsPair, pin_root: Path, folder: Path) -> Iterator[Scene]:
    (folder / "policy").mkdir()
    (folder / "policy" / "all.yaml").write_text(documents())
    with traffic(host) as wire, agent_of(host, pin_root, *agent_words(folder)) as running:
        where = ["--policy", str(folder / "policy"), "--emergency-dir", str(folder / "acts")]
        running.expect(APPLIED)
        yield Scene(host, running, wire, where, pin_root, {})


@contextmanager
def on_etcd(host: NetnsPair, pin_root: Path, folder: Path) -> Iterator[Scene]:
    with etcd(folder) as cluster, on_cluster(cluster, host, pin_root, folder) as made:
        yield made


@contextmanager
def on_cluster(cluster: Etcd, host: NetnsPair, pin_root: Path, folder: Path) -> Iterator[Scene]:
    put(InEtcd(cluster, folder), *objects())
    environment = {"ETCD_ENDPOINTS": cluster.endpoints}
    where = ["--datastore", "etcd"]
    words = [*where, "--state-dir", str(folder / "state")]
    with traffic(host) as wire, agent_of(host, pin_root, *words, **environment) as running:
        running.expect(APPLIED)
        yield Scene(host, running, wire, where, pin_root, environment)


@contextmanager
def on_kubernetes(host: NetnsPair, pin_root: Path, folder: Path) -> Iterator[Scene]:
    with Double(Api()) as double:
        put(InKubernetes(DoubleApi(double), folder), *objects())
        environment = {"K8S_API_ENDPOINT": double.url}
        where = ["--datastore", "kubernetes"]
        words = [*where, "--state-dir", str(folder / "state")]
        with traffic(host) as wire, agent_of(host, pin_root, *words, **environment) as running:
            running.expect(APPLIED)
            yield Scene(host, running, wire, where, pin_root, environment)


def objects() -> Sequence[dict[str, object]]:
    return [yaml.safe_load(text) for text in (endpoint(), policy(), deny_list("203.0.113.0/24"))]


STORES = {"files": on_files, "etcd": on_etcd, "kubernetes": on_kubernetes}


@pytest.fixture(params=STORES)
def scene(request: pytest.FixtureRequest, inside: NetnsPair, pin_root: Path, tmp_path: Path) -> Iterator[Scene]:
    with STORES[request.param](inside, pin_root, tmp_path) as made:
        yield made


def test_an_address_is_denied_and_passes_at_the_end(scene: Scene) -> None:
    assert scene.passes(DENIED, BAD) == [BAD]
    scene.assert_run("deny", BAD, "--for", "1h", "--wait", "--reason", "a flood")
    assert scene.passes(DENIED, BAD) == []
    said = json.loads(scene.assert_run("list", BAD, "-o", "json"))["addresses"][0]
    assert said["denied_by"] == ["gnp/dos ingress[0]"]
    assert said["dropped_packets"]["gnp/dos ingress[0]"] > 0
    scene.assert_run("deny", BAD, "--for", "2s", "--shorten")
    scene.running.expect(ENDED)
    scene.running.expect(APPLIED)
    assert scene.passes(DENIED, BAD) == [BAD]


def test_an_address_is_allowed_again(scene: Scene) -> None:
    scene.assert_run("deny", BAD, "198.51.100.67", "--permanent", "--wait")
    assert scene.passes(BAD, "198.51.100.67") == []
    scene.assert_run("allow", BAD, "--wait")
    assert scene.passes(BAD, "198.51.100.67") == [BAD]
    scene.assert_run("allow", "198.51.100.0/25", "--wait")
    assert scene.passes(BAD, "198.51.100.67") == [BAD, "198.51.100.67"]


def test_ten_operators_at_once(inside: NetnsPair, tmp_path: Path) -> None:
    """Each denies an address of its own and one that all deny, for longer and longer: no address and no end is lost."""
    with etcd(tmp_path) as cluster:
        put(InEtcd(cluster, tmp_path), *objects())
        environment = {**os.environ, "ETCD_ENDPOINTS": cluster.endpoints}
        where = ["--datastore", "etcd", "--node", NODE]
        started = [
            start(
                inside,
                ["deny", BAD, f"198.51.100.{number}", "--for", f"{number}h", "--reason", f"operator {number}", *where],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**environment, "SUDO_USER": f"operator{number}"},
            )
            for number in range(1, 11)
        ]
        assert [process.wait(60.0) for process in started] == [0] * 10
        done = run(inside, ["list", "-o", "json", *where], **environment)
        acts = json.loads(done.stdout)["acts"]
        longest = {net: max(act["left_s"] for act in acts if net in act["nets"]) for act in acts for net in act["nets"]}
        assert longest.keys() == {f"{BAD}/32", *(f"198.51.100.{number}/32" for number in range(1, 11))}
        assert 9 * 3600 < longest[f"{BAD}/32"] <= 10 * 3600
        for number in range(1, 11):
            assert (number - 1) * 3600 < longest[f"198.51.100.{number}/32"] <= number * 3600


def test_files_are_those_of_the_agent_and_what_its_host_needs_is_refused(
    inside: NetnsPair, pin_root: Path, tmp_path: Path
) -> None:
    with on_files(inside, pin_root, tmp_path) as scene:
        scene.where.clear()  # the agent says what it follows
        done = scene.run("deny", VICTIM)
        assert done.returncode == 1
        assert f"{VICTIM} is an address of this host (eth0)" in done.stderr
        scene.assert_run("deny", BAD, "--wait")
        assert scene.passes(BAD) == []


def test_an_act_ends_while_the_datastore_is_away(inside: NetnsPair, pin_root: Path, tmp_path: Path) -> None:
    with etcd(tmp_path) as cluster, on_cluster(cluster, inside, pin_root, tmp_path) as scene:
        scene.assert_run("deny", "198.51.100.67", "--for", "1h", "--wait")
        scene.assert_run("deny", BAD, "--for", "1h", "--wait")
        assert scene.passes(BAD, "198.51.100.67") == []
        scene.assert_run("deny", BAD, "--for", "15s", "--shorten", "--wait")
        cluster.members[0].send(signal.SIGKILL)
        scene.running.expect(ENDED)
        scene.running.expect(APPLIED)
        assert scene.passes(BAD, "198.51.100.67") == [BAD]


def test_a_host_that_slept(inside: NetnsPair, pin_root: Path, tmp_path: Path) -> None:
    """CLOCK_BOOTTIME went on while no agent ran, as its time namespace has it: after two hours an act of one has ended,
    after half an hour it has not.
    """
    with on_files(inside, pin_root, tmp_path) as scene:
        scene.assert_run("deny", BAD, "--for", "1h", "--wait")
        assert scene.running.end(signal.SIGTERM) == 0
        assert scene.passes(BAD) == [], "what an agent that stops leaves in the kernel"
        for slept_s, arrives in ((1800, []), (2 * 3600, [BAD])):
            asleep = ["unshare", "--time", "--boottime", str(slept_s)]
            with agent_of(inside, pin_root, *agent_words(tmp_path), through=asleep) as again:
                again.expect(APPLIED)
                assert scene.passes(DENIED, BAD) == arrives
                assert again.end(signal.SIGTERM) == 0
