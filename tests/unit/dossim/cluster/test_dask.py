"""A real cluster of two worker processes: the same result, also with a worker that is killed; and its faults."""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner
from dask import config
from distributed import Client, LocalCluster
from distributed.security import Security
from moto.server import ThreadedMotoServer

from dossim.cli import main
from dossim.cluster import dask
from dossim.cluster.dask import Cluster, cluster_at
from dossim.cluster.storage import Identity, identity_of, opened
from dossim.drill.situation import Situation
from dossim.model.errors import CaptureError
from enforcer.model.choices import ModeChoice
from enforcer.model.errors import HostError, UsageError
from tests.property.test_fragments import HOST, POLICY, datagrams
from tests.support.capture_files import hiding, pcap_file, pcapng_file
from tests.support.certificates import Authority
from tests.support.sharded import ends_in_shards, in_one, sharded

pytestmark = pytest.mark.slow

SITUATION = Situation(POLICY, HOST, ModeChoice.RAW)
YAML = str(Path(__file__).parents[4] / "scenarios" / "policies" / "how-to.yaml")
BUCKET = "captures"
EMPTY = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: none}\nspec: {nets: []}\n"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster whose workers find S3 on this machine."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "some",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=0) as local:
            yield local.scheduler_address
    server.stop()


@pytest.fixture
def cluster(address: str) -> Iterator[Cluster]:
    with cluster_at(address) as found:
        found.wait_for_workers()
        yield found


@pytest.fixture(scope="module")
def address_near() -> Iterator[str]:
    """A cluster with one worker, a thread of this process: enough for faults, and no interpreter is started."""
    near = LocalCluster(
        n_workers=1, processes=False, protocol="tcp://", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    )
    with near as local:
        yield local.scheduler_address


@pytest.fixture
def cluster_near(address_near: str) -> Iterator[Cluster]:
    with cluster_at(address_near) as found:
        found.wait_for_workers()
        yield found


Form = Callable[[Sequence[bytes], Sequence[int], random.Random], bytes]


def written(folder: Path, form: Form) -> Path:
    """Fragments, most of them far from each other, and a capture in a payload."""
    rng = random.Random(1)
    frames = [frame for _ in range(30) for frame in datagrams(rng)]
    rng.shuffle(frames)
    frames.insert(len(frames) // 2, hiding(pcap_file(frames, list(map(len, frames)), rng), rng))
    path = folder / "some.pcap"
    path.write_bytes(form(frames, list(map(len, frames)), rng))
    return path


@pytest.mark.parametrize("form", [pcap_file, pcapng_file], ids=["pcap", "pcapng"])
def test_the_same_packet_by_packet(cluster: Cluster, form: Form, tmp_path: Path) -> None:
    capture = written(tmp_path, form)
    one = in_one([capture], SITUATION)
    for count in (1, 7):
        found = sharded(cluster, [capture], SITUATION, count)
        assert ends_in_shards(found) == one.ends
        assert found.totals == one.totals


class Killing:
    """Kills a worker right after the call of this number, while others of its kind may run."""

    def __init__(self, cluster: Cluster, address: str, after: tuple[str, int]) -> None:
        self._cluster, self._address, (self._what, self._left) = cluster, address, after
        self.has_killed = False

    def submit(self, function: Callable[..., Any], *given: Any) -> Any:
        found = self._cluster.submit(function, *given)
        self._count("submit")
        return found

    def gather(self, results: Sequence[Any]) -> list[Any]:
        found = self._cluster.gather(results)
        self._count("gather")
        return found

    def _count(self, what: str) -> None:
        self._left -= what == self._what
        if not self._left and not self.has_killed:
            self.has_killed = True
            with Client(self._address, set_as_default=False) as client:
                os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(("submit", 6), id="while shards are predicted"),
        pytest.param(("gather", 1), id="when it has packets that the rest depends on"),
    ],
)
def test_a_worker_is_killed_in_the_middle(
    cluster: Cluster, address: str, after: tuple[str, int], tmp_path: Path
) -> None:
    path = written(tmp_path, pcap_file)
    one = in_one([path], SITUATION)
    killing = Killing(cluster, address, after)
    found = sharded(killing, [path], SITUATION, 5)
    assert ends_in_shards(found) == one.ends
    assert found.totals == one.totals
    assert killing.has_killed


def test_a_capture_in_s3(cluster: Cluster, tmp_path: Path) -> None:
    path = written(tmp_path, pcapng_file)
    boto3.client("s3").upload_file(str(path), BUCKET, "some.pcapng")
    one, url = in_one([path], SITUATION), f"s3://{BUCKET}/some.pcapng"
    found = sharded(cluster, [url], SITUATION, 3)
    assert ends_in_shards(found) == one.ends
    assert found.totals.ends == one.totals.ends
    with opened(url) as capture:
        assert cluster.identities([url]) == [identity_of(url, capture)]
    with pytest.raises(CaptureError, match=r"worker tcp://\S+ s3://captures/none: cannot be read on .*every worker"):
        cluster.identities([f"s3://{BUCKET}/none"])


@pytest.mark.parametrize(
    ("policy", "form"),
    [
        pytest.param(YAML, pcapng_file, id="a policy"),
        pytest.param("empty.yaml", pcap_file, id="nothing names the host's addresses"),
    ],
)
def test_the_command(address: str, policy: str, form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    capture = written(tmp_path, form)
    Path("empty.yaml").write_text(EMPTY)
    found = []
    for options in ([], ["--scheduler", address, "--shard-size", "3K"]):
        words = ["predict", str(capture), str(capture), "-p", policy, "--csv", "packets.csv", *options]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
        found.append((sorted(Path("packets.csv").read_text().splitlines()), done.stdout))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.yaml", "packets.csv", "some.pcap"]
    assert found[0] == found[1]


# -- faults ------------------------------------------------------------------------------------------------------------


def test_no_scheduler() -> None:
    with (
        pytest.raises(HostError, match=r"tcp://127.0.0.1:1: no scheduler answers there"),
        cluster_at("tcp://127.0.0.1:1", connect_s=1),
    ):
        pass


def test_something_else_that_listens() -> None:
    """It accepts the connection and says nothing: what is waited for is an answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "tcp://{}:{}".format(*server.getsockname())
        with pytest.raises(HostError, match=r"no scheduler answers there"), cluster_at(address, connect_s=1):
            pass


def test_a_worker_is_no_scheduler(cluster_near: Cluster) -> None:
    worker = next(iter(cluster_near._workers()))
    with pytest.raises(UsageError, match="a Dask Worker answers there; expected the address of"), cluster_at(worker):
        pass


def test_a_scheduler_with_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Authority(tmp_path / "ca").issue("dask")
    with pytest.raises(UsageError, match="TLS needs certificates in Dask's configuration"), cluster_at("tls://[::1]:1"):
        pass
    files = {"ca-file": str(tmp_path / "ca" / "ca.pem")}
    files |= {f"{who}.cert": str(ours.cert) for who in ("scheduler", "worker", "client")}
    files |= {f"{who}.key": str(ours.key) for who in ("scheduler", "worker", "client")}
    with (
        config.set({f"distributed.comm.tls.{name}": path for name, path in files.items()}),
        LocalCluster(n_workers=0, protocol="tls", dashboard_address="127.0.0.1:0", security=Security()) as local,
        cluster_at(local.scheduler_address, workers_s=0.2) as found,
        pytest.raises(HostError, match="has no workers"),
    ):
        found.wait_for_workers()


def test_a_limit_of_size_and_rows_that_cannot_be_written(address_near: str, tmp_path: Path) -> None:
    capture = written(tmp_path, pcap_file)
    for words, message in (
        (["--max-size", "1K"], "the capture has more than 1 KiB"),
        (["--csv", "/proc/none/rows"], "/proc/none/rows: cannot be written"),
    ):
        done = CliRunner().invoke(main, ["predict", str(capture), "-p", YAML, "--scheduler", address_near, *words])
        assert (done.exit_code, message in done.stderr) == (2, True)


@pytest.mark.parametrize("text", ["127.0.0.1", "http://127.0.0.1:8786"])
def test_no_address_of_a_scheduler(text: str) -> None:
    with pytest.raises(UsageError, match="expected the address of a Dask scheduler"), cluster_at(text):
        pass


def test_no_workers() -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as local,
        cluster_at(local.scheduler_address, workers_s=0.2) as found,
        pytest.raises(HostError, match=r"has no workers, and none came for 0.2 s"),
    ):
        found.wait_for_workers()


def test_workers_of_another_version(cluster_near: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster_near.require_same_version()
    monkeypatch.setattr(dask, "VERSION", "dossim 9")
    with pytest.raises(HostError, match=r"worker tcp://\S+ dossim 0.*; this is dossim 9: install the same"):
        cluster_near.require_same_version()


def test_a_capture_that_no_worker_can_read(cluster_near: Cluster) -> None:
    with pytest.raises(CaptureError, match=r"worker tcp://\S+ /none: cannot be read on .*: No such file"):
        cluster_near.identities(["/none"])


class Answers:
    """A client whose workers answer so."""

    def __init__(self, **answers: object) -> None:
        self._answers = answers

    def run(self, *_: object, **__: object) -> dict[str, object]:
        return self._answers


def test_a_capture_that_one_worker_has_otherwise() -> None:
    found = Cluster(Answers(a=Identity(5, "x"), b=Identity(5, "x"), c=Identity(7, "y")), "tcp://some:1", 1)
    with pytest.raises(CaptureError, match=r"worker c: /x: 7 bytes, not the same file as on other workers \(5 bytes\)"):
        found.identities(["/x"])
