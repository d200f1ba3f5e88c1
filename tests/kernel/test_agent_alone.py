"""Commands while an agent runs: a command that would undo the agent's work is refused, with the reason."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.enforcement.apply import Enforcer
from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import APPLIED, NODE, Agent, agent, deny_list, documents, endpoint, policy, run

pytestmark = pytest.mark.needs_root


class Peer(NetnsPair):
    """The same pair, seen from the other end."""

    @property
    def host_name(self) -> str:
        return self.peer_name


@pytest.fixture
def store(tmp_path: Path) -> Path:
    directory = tmp_path / "policy"
    directory.mkdir()
    (directory / "dos.yaml").write_text(documents(endpoint(), deny_list("203.0.113.0/24"), policy()))
    return directory


@pytest.fixture
def running(netns_pair: NetnsPair, pin_root: Path, store: Path) -> Iterator[Agent]:
    """An agent that has enforced its policy; it is detached afterwards."""
    with agent(netns_pair, pin_root, store, "--mode", "raw") as started:
        started.expect(APPLIED)
        yield started
    with netns_pair.host():
        Enforcer(NODE, pin_root=pin_root).detach()


def test_status_names_each_fault_of_the_policy(
    netns_pair: NetnsPair, pin_root: Path, store: Path, running: Agent
) -> None:
    text = documents(endpoint(), deny_list("203.0.113.0/33"), policy())
    (store.parent / "new.yaml").write_text(text)
    (store.parent / "new.yaml").rename(store / "dos.yaml")
    running.expect("policy not accepted")
    here = ["--pin-root", str(pin_root)]
    said = run(netns_pair, ["status", *here]).stdout
    assert f"  {store}/dos.yaml:3:" in said
    assert "spec.nets[0]: expected a prefix length" in said
    assert "  at an older version: GlobalNetworkSet bots\n" in said
    state = json.loads(run(netns_pair, ["status", "-o", "json", *here]).stdout)["datastore"]
    assert (state["kind"], state["connected"], state["kept"]) == ("files", True, ["GlobalNetworkSet bots"])
    assert running.end(signal.SIGTERM) == 0
    assert json.loads(run(netns_pair, ["status", "-o", "json", *here]).stdout)["datastore"] is None


def test_commands_report_a_running_agent(netns_pair: NetnsPair, pin_root: Path, store: Path, running: Agent) -> None:
    here = ["--pin-root", str(pin_root)]
    who = f"an agent (pid {running.process.pid}, since 20"
    status = run(netns_pair, ["status", *here])
    assert status.stdout.startswith(who)
    assert json.loads(run(netns_pair, ["status", "-o", "json", *here]).stdout)["agent"]["pid"] == running.process.pid

    (said,) = [line for line in status.stdout.splitlines() if line.startswith("datastore ")]
    assert said.startswith(f"datastore files ({store}): followed since 20")
    assert "; 3 objects, last answer " in said

    refused = run(netns_pair, ["detach", *here])
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: {who}")
    assert "stop it first" in refused.stderr
    assert "--force" in refused.stderr

    other = store.parent / "other.yaml"
    other.write_text(documents(endpoint(), deny_list("198.51.100.0/24"), policy()))
    words = ["-f", str(other), "--node", NODE, "--mode", "raw", *here]
    refused = run(netns_pair, ["apply", *words])
    assert refused.returncode == 2
    assert who in refused.stderr
    assert run(netns_pair, ["apply", "--dry-run", *words]).returncode == 0

    forced = run(netns_pair, ["detach", "--force", *here])
    assert forced.returncode == 0
    assert f"warning: {who}" in forced.stderr
    running.expect("another program removed or changed what is enforced")
    running.expect("everything is restored")

    forced = run(netns_pair, ["apply", "--force", *words])
    assert forced.returncode == 0
    running.expect("another program removed or changed")  # found by the guard, or by a pass that came before it
    running.expect(APPLIED)

    running.end(signal.SIGTERM)
    assert run(netns_pair, ["status", *here]).stdout.startswith("no agent runs")
    assert run(netns_pair, ["detach", *here]).returncode == 0


def test_a_second_agent_in_the_namespace_is_refused_and_one_in_another_is_not(
    netns_pair: NetnsPair, pin_root: Path, store: Path, running: Agent
) -> None:
    words = ["run", "-f", str(store), "--node", "onyx", "--mode", "raw", "--pin-root", str(pin_root)]
    second = run(netns_pair, words)
    assert second.returncode == 3
    assert f"pid {running.process.pid}" in second.stderr
    assert f"node {NODE}" in second.stderr
    elsewhere = Peer(netns_pair.name)
    (store / "dos.yaml").write_text(documents(endpoint("wire0"), deny_list("203.0.113.0/24"), policy()))
    with agent(elsewhere, Path(f"{pin_root}-peer"), store, "--mode", "raw") as third:
        third.expect(APPLIED)
        assert third.end(signal.SIGTERM) == 0
    with elsewhere.host():
        Enforcer(NODE, pin_root=pin_root).detach()
    assert running.process.poll() is None
