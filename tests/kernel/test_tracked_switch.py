"""Normal policy switched on under a connection that must not be cut, refused where it could be, and rolled back."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from enforcer.enforcement.apply import Enforcer
from enforcer.kernel.netlink import NETLINK_NETFILTER, netfilter_header
from enforcer.kernel.netlink_conn import NetlinkConn
from enforcer.model.vocabulary import Stage
from tests.kernel.conftest import NODE, NetnsPair
from tests.kernel.enforcer_support import (
    APPLIED,
    DEADLINE_S,
    Agent,
    agent,
    deny_list,
    documents,
    endpoint,
    policy,
    run,
    start,
    waiting,
)

pytestmark = pytest.mark.needs_root

HOST, PEER = "10.0.0.1", "10.0.0.2"
SSH, OTHER = 22, 2222  # the first is a failsafe
DELETE_CONNECTIONS = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE: all of them
NO_PROFILE = "no profile ingress"
SILENCE_S = 0.3
BOTH = pytest.mark.parametrize("enforcer", ["iptables", "nftables"], indirect=True)
CLOSING = documents(endpoint(), deny_list("203.0.113.0/24"), policy())
ALLOWING = documents(
    endpoint(),
    "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: web}, spec: {selector: all(), "
    "types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]}}",
)


@dataclass
class Session:
    """An idle connection from the peer to the host, both ends in this process."""

    port: int
    client: socket.socket
    server: socket.socket

    def speak(self) -> None:
        """The client says something, and gets it back."""
        self.client.sendall(b"x")
        assert self.server.recv(1) == b"x"
        self.server.sendall(b"y")
        assert self.client.recv(1) == b"y"

    def is_cut(self) -> bool:
        """The client says something, and the host hears nothing."""
        self.client.sendall(b"x")
        self.server.settimeout(SILENCE_S)
        try:
            return not self.server.recv(1)
        except TimeoutError:
            return True
        finally:
            self.server.settimeout(DEADLINE_S)

    def hears_again(self) -> None:
        """What the client said while it was cut arrives."""
        assert self.server.recv(1) == b"x"


@contextmanager
def sessions(pair: NetnsPair) -> Iterator[dict[int, Session]]:
    with ExitStack() as stack:
        for enter, name, address in ((pair.host, "eth0", HOST), (pair.peer, "wire0", PEER)):
            with enter(), IPRoute() as ip:
                (index,) = ip.link_lookup(ifname=name)
                ip.addr("add", index=index, address=address, prefixlen=24)
        found = {}
        for port in (SSH, OTHER):
            with pair.host():
                listener = stack.enter_context(socket.create_server((HOST, port)))
            with pair.peer():
                client = stack.enter_context(socket.create_connection((HOST, port), timeout=DEADLINE_S))
            server, _ = listener.accept()
            stack.enter_context(server)
            server.settimeout(DEADLINE_S)
            found[port] = Session(port, client, server)
        yield found


@contextmanager
def talking(found: dict[int, Session]) -> Iterator[None]:
    """Every session speaks, again and again."""
    stop = threading.Event()

    def talk() -> None:
        while not stop.wait(0.01):
            for session in found.values():
                session.speak()

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(CLOSING)
    return path


@dataclass
class Command:
    """``enforcer`` on the host."""

    pair: NetnsPair
    pin_root: Path
    file: Path
    raw: str = "iptables"

    def options(self) -> list[str]:
        """Those of an agent."""
        return ["--mode", "raw", "--raw-backend", self.raw, "--tracked", "enforce"]

    def words(self, *more: str, tracked: str = "enforce") -> list[str]:
        words = ["apply", "-f", str(self.file), "--node", NODE, "--pin-root", str(self.pin_root), "--mode", "raw"]
        return [*words, "--raw-backend", self.raw, "--tracked", tracked, *more]

    def apply(self, *more: str, tracked: str = "enforce") -> subprocess.CompletedProcess[str]:
        return run(self.pair, self.words(*more, tracked=tracked))

    def confirm(self) -> subprocess.CompletedProcess[str]:
        return run(self.pair, ["confirm"])

    def status(self) -> tuple[Any, str]:
        """What ``status`` says of a trial: as JSON, and the line of the text."""
        words = ["status", "--pin-root", str(self.pin_root)]
        as_json, as_text = run(self.pair, [*words, "-o", "json"]), run(self.pair, words)
        assert (as_json.returncode, as_text.returncode) == (0, 0), as_json.stderr + as_text.stderr
        lines = [line for line in as_text.stdout.splitlines() if line.startswith("normal policy")]
        return json.loads(as_json.stdout)["trial"], "".join(lines)

    def predicted(self, what: str = "cut") -> set[int]:
        """The local ports of the connections that a dry run says would be cut."""
        done = self.apply("--dry-run", "-o", "json")
        assert done.returncode == 0, done.stderr
        return {item["local"]["port"] for item in json.loads(done.stdout)["switch_on"][what]}

    def stages(self) -> tuple[Stage, ...]:
        """Where something is enforced."""
        with self.pair.host():
            held = Enforcer(NODE, pin_root=self.pin_root).backends().status()
        return tuple(stage for _, found in held for holding in found.values() for stage in holding.stages)

    def is_closed(self) -> bool:
        return Stage.FILTER_INPUT in self.stages()

    def denied(self) -> int:
        """Packets that nothing allows."""
        with self.pair.host():
            counts = Enforcer(NODE, pin_root=self.pin_root).counters()
        return sum(item.packets for item in counts if item.entry == NO_PROFILE)

    @contextmanager
    def on_trial(self, within: str = "60s", *more: str) -> Iterator[Agent]:
        """``apply --confirm-within``, waiting."""
        words = self.words("--confirm-within", within, *more)
        with waiting(start(self.pair, words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)) as running:
            running.expect("run there: enforcer confirm")
            yield running


@pytest.fixture
def enforcer(request: pytest.FixtureRequest, host: NetnsPair, pin_root: Path, file: Path) -> Iterator[Command]:
    yield Command(host, pin_root, file, getattr(request, "param", "iptables"))
    run(host, ["detach", "--pin-root", str(pin_root)])


def flush_conntrack(pair: NetnsPair) -> None:
    with pair.host(), NetlinkConn(NETLINK_NETFILTER) as conn:
        conn.ask(DELETE_CONNECTIONS, netfilter_header(socket.AF_UNSPEC), what="flush conntrack")


@pytest.fixture
def held(host: NetnsPair) -> Iterator[dict[int, Session]]:
    with sessions(host) as found:
        yield found


def speak_all(held: dict[int, Session]) -> None:
    for session in held.values():
        session.speak()


@BOTH
def test_a_connection_is_held_through_everything_and_only_what_was_predicted_is_cut(
    enforcer: Command, held: dict[int, Session], file: Path
) -> None:
    predicted = enforcer.predicted()
    assert predicted == {OTHER}
    with talking(held):  # switch-on: conntrack gets to know both
        done = enforcer.apply()
    assert done.returncode == 0, done.stderr
    assert enforcer.is_closed()
    speak_all(held)
    with agent(enforcer.pair, enforcer.pin_root, file, *enforcer.options()) as running:
        running.expect(APPLIED)
        speak_all(held)
        file.write_text(ALLOWING)  # reload
        running.expect(APPLIED)
        speak_all(held)
        running.process.kill()  # kill -9
        running.process.wait()
        speak_all(held)
    file.write_text(CLOSING)
    with agent(enforcer.pair, enforcer.pin_root, file, *enforcer.options()) as running:
        running.expect(APPLIED)
        speak_all(held)
        flush_conntrack(enforcer.pair)
        before = enforcer.denied()
        assert {port for port, session in held.items() if session.is_cut()} == predicted
        assert enforcer.denied() > before
        assert running.end(signal.SIGTERM) == 0
    assert enforcer.apply(tracked="model").returncode == 0  # rolled back
    assert not enforcer.is_closed()
    held[OTHER].hears_again()
    speak_all(held)


@BOTH
def test_idle_connections_that_would_be_cut_are_named_and_nothing_is_cut(
    enforcer: Command, held: dict[int, Session]
) -> None:
    done = enforcer.apply()
    assert done.returncode == 3
    client = held[OTHER].client.getsockname()[1]
    assert "it would cut 1 established connection that conntrack does not know" in done.stderr
    assert f"would be cut: {HOST}:{OTHER} with {PEER}:{client} on eth0: received packets denied by" in done.stderr
    assert "--cut-established" in done.stderr
    assert enforcer.stages() == (Stage.RAW,)  # untracked policy is enforced all the same
    speak_all(held)


def test_where_conntrack_counts_already_idle_connections_are_kept_while_it_has_them(
    enforcer: Command, held: dict[int, Session]
) -> None:
    with enforcer.pair.host():
        rules = "add table ip t; add chain ip t i {type filter hook input priority 0;}; add rule ip t i ct state new"
        subprocess.run(["nft", rules], check=True, timeout=DEADLINE_S)
    speak_all(held)
    assert enforcer.predicted() == set()
    kept = enforcer.predicted("kept")
    assert kept == {OTHER}
    done = enforcer.apply()
    assert done.returncode == 0, done.stderr
    speak_all(held)
    flush_conntrack(enforcer.pair)
    assert {port for port, session in held.items() if session.is_cut()} == kept


@BOTH
def test_with_consent_they_are_cut(enforcer: Command, held: dict[int, Session]) -> None:
    done = enforcer.apply("--cut-established")
    assert done.returncode == 0, done.stderr
    assert f"cut: {HOST}:{OTHER} with" in done.stdout
    assert f"held up: {HOST}:{SSH} with" in done.stdout
    held[SSH].speak()
    assert held[OTHER].is_cut()


def test_without_loose_pick_up_it_is_refused(enforcer: Command) -> None:
    with enforcer.pair.host():
        Path("/proc/sys/net/netfilter/nf_conntrack_tcp_loose").write_text("0")
    done = enforcer.apply()
    assert done.returncode == 3
    assert "net.netfilter.nf_conntrack_tcp_loose is 0" in done.stderr
    assert "sysctl -w net.netfilter.nf_conntrack_tcp_loose=1" in done.stderr
    assert enforcer.stages() == (Stage.RAW,)


@pytest.mark.parametrize("variant", ["iptables-legacy", "iptables-nft"])
def test_beside_felix_it_is_refused(enforcer: Command, variant: str) -> None:
    with enforcer.pair.host():
        subprocess.run([variant, "-w", "-N", "cali-INPUT"], check=True, timeout=DEADLINE_S)
    done = enforcer.apply()
    assert done.returncode == 3
    assert "there is chain cali-INPUT of the" in done.stderr
    assert "Felix enforces it here" in done.stderr
    assert not enforcer.is_closed()


def test_an_agent_enforces_the_rest_and_tries_again(enforcer: Command) -> None:
    loose = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_loose")
    with enforcer.pair.host():
        loose.write_text("0")
    with agent(enforcer.pair, enforcer.pin_root, enforcer.file, *enforcer.options()) as running:
        running.expect("nf_conntrack_tcp_loose is 0")
        assert enforcer.stages() == (Stage.RAW,)
        with enforcer.pair.host():
            loose.write_text("1")
        running.expect(APPLIED)
        assert enforcer.is_closed()
        assert running.end(signal.SIGTERM) == 0


PRE_DNAT = (
    "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: dnat}, spec: {selector: all(), "
    "preDNAT: true, applyOnForward: true, types: [Ingress], ingress: [{action: Allow, protocol: TCP}]}}"
)


def test_denies_enter_last_and_leave_first(enforcer: Command) -> None:
    """Each table is a commit: what raw allows, and preDNAT policy in mangle, has its mark while filter denies."""
    enforcer.file.write_text(documents(endpoint(), policy("{action: Allow, protocol: UDP}"), PRE_DNAT))
    done = enforcer.apply("-o", "json")
    assert done.returncode == 0, done.stderr
    raw, mangle, denies = "raw IPv4: chain enf-allow", "mangle IPv4: chain enf-dn-eth0", "filter IPv4: chain enf-deny:"
    assert _in_order(json.loads(done.stdout)["changes"], raw, mangle, denies)
    removed = run(enforcer.pair, ["detach", "--pin-root", str(enforcer.pin_root), "-o", "json"])
    assert _in_order(json.loads(removed.stdout)["removed"], denies, mangle, raw)


def _in_order(changes: list[str], *beginnings: str) -> bool:
    """Whether the last change of each beginning comes before the first one of the next."""
    at = [[n for n, change in enumerate(changes) if change.startswith(each)] for each in beginnings]
    assert all(at), changes
    return all(one[-1] < other[-1] for one, other in pairwise(at))


def test_model_is_the_default(enforcer: Command) -> None:
    words = [word for word in enforcer.words() if word not in ("--tracked", "enforce")]
    assert run(enforcer.pair, words).returncode == 0
    assert enforcer.stages() == (Stage.RAW,)


# --- on trial ---------------------------------------------------------------------------------------------------------


def test_confirmed_it_stays(enforcer: Command) -> None:
    with enforcer.on_trial() as trial:
        done = enforcer.confirm()
        assert (done.returncode, done.stdout) == (0, "confirmed: normal policy stays enforced\n")
        assert trial.process.wait(timeout=DEADLINE_S) == 0
    assert enforcer.is_closed()
    assert enforcer.confirm().returncode == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT], ids=lambda item: item.name)
def test_ended_by_a_signal_it_is_rolled_back(enforcer: Command, number: signal.Signals) -> None:
    """SIGHUP is what a cut SSH connection gives."""
    with enforcer.on_trial() as trial:
        assert enforcer.is_closed()
        assert trial.end(number) == 1
    assert enforcer.stages() == (Stage.RAW,)
    assert enforcer.apply(tracked="model").returncode == 0  # says nothing about it
    done = enforcer.confirm()
    assert done.returncode == 1
    assert "too late: normal policy was rolled back" in done.stderr


@BOTH
def test_after_the_rollback_a_connection_that_was_cut_goes_on(enforcer: Command, held: dict[int, Session]) -> None:
    with enforcer.on_trial("60s", "--cut-established") as trial:
        assert held[OTHER].is_cut()
        assert trial.end(signal.SIGHUP) == 1
    held[OTHER].hears_again()
    speak_all(held)


def test_unconfirmed_it_is_rolled_back(enforcer: Command) -> None:
    with enforcer.on_trial("5s") as trial:
        trial.expect("rolled back: nobody confirmed in time; normal policy is not enforced")
        assert trial.process.wait(timeout=DEADLINE_S) == 1
    assert enforcer.stages() == (Stage.RAW,)


def test_killed_it_is_rolled_back_by_the_next_command(enforcer: Command) -> None:
    with enforcer.on_trial() as trial:
        assert trial.end(signal.SIGKILL) == -signal.SIGKILL
    assert enforcer.is_closed()
    done = enforcer.apply()
    assert done.returncode == 0
    assert "was not confirmed: rolled back first" in done.stderr


def test_killed_it_is_rolled_back_by_the_next_agent_which_does_not_switch_it_on(enforcer: Command) -> None:
    with enforcer.on_trial("5s") as trial:
        assert trial.end(signal.SIGKILL) == -signal.SIGKILL
    for said in ("normal policy was not confirmed in time and is rolled back", "is rolled back"):
        with agent(enforcer.pair, enforcer.pin_root, enforcer.file, *enforcer.options()) as running:
            running.expect(said)
            running.expect(APPLIED)
            assert enforcer.stages() == (Stage.RAW,)
            assert running.end(signal.SIGTERM) == 0


def test_where_it_cannot_say_what_to_do_it_is_rolled_back(enforcer: Command) -> None:
    """As where the terminal has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    process = start(enforcer.pair, enforcer.words("--confirm-within", "60s"), stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    with waiting(process):
        assert process.wait(timeout=DEADLINE_S) != 0
    assert enforcer.stages() == (Stage.RAW,)
    assert "too late" in enforcer.confirm().stderr


def test_status_says_until_when_it_is_on_trial_and_what_happens_then(enforcer: Command) -> None:
    assert enforcer.status() == (None, "")
    with enforcer.on_trial() as trial:
        data, text = enforcer.status()
        pid = trial.process.pid
        assert (data["state"], data["pid"]) == ("pending", pid)
        assert 0 < data["left_s"] <= 60
        until = datetime.fromisoformat(data["until"].replace("Z", "+00:00"))
        assert abs((until - datetime.now(timezone.utc)).total_seconds() - data["left_s"]) < DEADLINE_S
        assert text.startswith(f"normal policy is on trial until {data['until'][:10]}")
        assert text.endswith(f": then it is rolled back by pid {pid}, unless 'enforcer confirm' is run")
        trial.end(signal.SIGTERM)
    data, text = enforcer.status()
    assert data["state"] == "rolled-back"
    assert text.startswith("normal policy was not confirmed in time and was rolled back")
    assert enforcer.apply().returncode == 0
    assert enforcer.status() == (None, "")


def test_status_says_that_nothing_rolls_back_what_a_killed_command_left(enforcer: Command) -> None:
    with enforcer.on_trial() as trial:
        assert trial.end(signal.SIGKILL) == -signal.SIGKILL
    data, text = enforcer.status()
    assert (data["state"], data["pid"]) == ("killed", trial.process.pid)
    assert "it STAYS enforced until 'enforcer apply' or an agent rolls it back" in text
    assert enforcer.is_closed(), "status changes nothing"
    assert enforcer.confirm().returncode == 0
    assert enforcer.status() == (None, "")
    assert enforcer.is_closed()


def test_two_do_not_wait_at_once(enforcer: Command) -> None:
    with enforcer.on_trial():
        done = enforcer.apply("--confirm-within", "60s")
        assert done.returncode == 2
        assert "waits for a confirmation" in done.stderr


def test_an_agent_on_trial(enforcer: Command) -> None:
    with agent(
        enforcer.pair, enforcer.pin_root, enforcer.file, *enforcer.options(), "--confirm-within", "5s"
    ) as running:
        running.expect("normal policy is on trial")
        running.expect(APPLIED)
        running.expect("rolled back")
        running.expect(APPLIED)
        assert enforcer.stages() == (Stage.RAW,)
        assert running.end(signal.SIGTERM) == 0
