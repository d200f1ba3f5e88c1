"""``enforcer feed`` and ``export`` on a real etcd and the Kubernetes API: what is written is what is read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from enforcer.cli.main import main
from tests.support.datastores import InEtcd, InKubernetes, put, world
from tests.unit.enforcer.test_cli_feed import ENDPOINT, NODE, POLICY


@pytest.fixture(params=["etcd", "kubernetes"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with world(request.param, tmp_path) as made:
        put(made, *(yaml.safe_load(text) for text in (ENDPOINT, POLICY)))
        if isinstance(made, InEtcd):
            monkeypatch.setenv("ETCD_ENDPOINTS", made.cluster.endpoints)
        else:
            assert isinstance(made, InKubernetes)
            monkeypatch.setenv("K8S_API_ENDPOINT", made.api.settings()["k8sAPIEndpoint"])
        monkeypatch.chdir(tmp_path)
        feed = "{name: drop, source: list, labels: {list: deny}, limits: {change: 0}}"
        (tmp_path / "feeds.yaml").write_text(f"feeds: [{feed}]\n")
        yield request.param


def run(*words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--node", NODE])


def sync(kind: str) -> Result:
    return run("feed", "sync", "-f", "feeds.yaml", "--datastore", kind, "--state-dir", "feeds")


def exported(kind: str) -> list[str]:
    done = run("export", "--format", "json", "--datastore", kind)
    return [rule["source"] for rule in json.loads(done.stdout)["rules"]]


def test_a_feed_is_written_changed_and_removed(kind: str) -> None:
    Path("list").write_text("203.0.113.0/25\n198.51.100.9\n2001:db8::/32\n")
    done = sync(kind)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "drop: ok; 2 CIDRs in 2 sets, 2 created",
        "  not denied: 198.51.100.9/32, an address of HostEndpoint h (expectedIPs); the list has 198.51.100.9/32",
    ]
    assert exported(kind) == ["203.0.113.0/25", "2001:db8::/32"]
    assert "2 sets, none changed" in sync(kind).stdout
    Path("list").write_text("203.0.113.0/25\n203.0.113.200\n198.51.100.9\n")
    assert "2 CIDRs in 1 set, 1 changed, 1 deleted" in sync(kind).stdout
    assert exported(kind) == ["203.0.113.0/25", "203.0.113.200/32"]
    gone = run("feed", "remove", "drop", "--datastore", kind, "--state-dir", "feeds")
    assert (gone.exit_code, gone.stdout) == (0, "GlobalNetworkSet feed-drop-v4 deleted\n")
    assert exported(kind) == []


def test_a_datastore_that_does_not_answer_is_exit_code_3(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("list").write_text("203.0.113.0/25\n")
    monkeypatch.setenv("ETCD_ENDPOINTS", "http://127.0.0.1:1")
    monkeypatch.setenv("K8S_API_ENDPOINT", "http://127.0.0.1:1")
    done = sync(kind)
    assert done.exit_code == 3
    assert done.stderr.startswith("error: ")
    assert not Path("feeds").exists()
