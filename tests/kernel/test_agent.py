"""``enforcer run`` as a process: it follows its files and the host's interfaces, and a restart leaves no gap."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from enforcer.enforcement.apply import Enforcer
from enforcer.model.vocabulary import Mode
from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import (
    ALLOWED,
    APPLIED,
    DEADLINE_S,
    DENIED,
    NODE,
    agent,
    deny_list,
    documents,
    endpoint,
    felix,
    policy,
    run,
    traffic,
)

pytestmark = pytest.mark.needs_root

BROKEN = 'msg="policy not accepted"'
HEALTHY = "recovered: the whole policy"
STOPPED = "stopping; the policy stays in the kernel"
SERVICES = "{action: Deny, source: {services: {name: web, namespace: shop}}}"
DENY_OTHERS = "{action: Deny, source: {nets: [192.0.2.0/24]}}"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    directory = tmp_path / "policy"
    directory.mkdir()
    write(directory, documents())
    return directory


def write(store: Path, text: str) -> None:
    """Replaces the file atomically, as an editor does."""
    replace(store / "dos.yaml", text)


def replace(file: Path, text: str) -> None:
    scratch = file.parent.parent / "scratch"
    scratch.write_text(text)
    scratch.replace(file)


def detach(pair: NetnsPair, pin_root: Path) -> None:
    with pair.host():
        Enforcer(NODE, pin_root=pin_root).detach()


def modes(pair: NetnsPair, pin_root: Path) -> dict[str, Mode | None]:
    with pair.host():
        return {item.interface: item.mode for item in Enforcer(NODE, pin_root=pin_root).status()}


def test_an_edit_is_live_and_said(host: NetnsPair, pin_root: Path, store: Path) -> None:
    with traffic(host) as wire, agent(host, pin_root, store) as running:
        running.expect(APPLIED)
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
        write(store, documents(endpoint(), deny_list("198.51.100.0/24"), policy()))
        running.expect(APPLIED)
        assert wire.arrivals(ALLOWED, DENIED) == [DENIED]


def test_a_faulty_object_is_said_once_and_its_last_good_version_stays(
    host: NetnsPair, pin_root: Path, store: Path
) -> None:
    with traffic(host) as wire, agent(host, pin_root, store) as running:
        running.expect(APPLIED)
        write(store, documents().replace("doNotTrack", "doNotTrak"))
        line = running.expect(BROKEN)
        assert "level=error" in line
        assert f"{store}/dos.yaml:5:" in line
        assert "doNotTrak" in line
        assert "GlobalNetworkPolicy dos keeps its last good version" in line
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
        running.process.send_signal(signal.SIGHUP)  # read again, still faulty: nothing new to log
        running.expect(APPLIED)
        write(store, documents(endpoint(), deny_list("198.51.100.0/24"), policy()))
        running.expect(HEALTHY)
        running.expect(APPLIED)
        assert wire.arrivals(ALLOWED, DENIED) == [DENIED]
        running.end(signal.SIGTERM)
        assert sum(BROKEN in line for line in running.lines) == 1


@pytest.mark.parametrize(
    "broken",
    ["kind: [", policy().replace("Deny", "Reject"), policy().replace("name: dos", "name: Dos")],
    ids=["a file that is no YAML", "a faulty policy", "a policy without a name"],
)
def test_a_fault_in_one_file_does_not_hold_up_a_change_in_another(
    host: NetnsPair, pin_root: Path, store: Path, broken: str
) -> None:
    write(store, documents(endpoint(), policy()))
    (store / "list.yaml").write_text(deny_list("203.0.113.0/24"))
    with traffic(host) as wire, agent(host, pin_root, store) as running:
        running.expect(APPLIED)
        write(store, documents(endpoint(), broken))
        running.expect(BROKEN)
        running.expect(APPLIED)
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
        replace(store / "list.yaml", deny_list("198.51.100.0/24"))
        running.expect(APPLIED)
        assert wire.arrivals(ALLOWED, DENIED) == [DENIED]


def test_an_agent_that_starts_on_a_fault_enforces_what_is_right(host: NetnsPair, pin_root: Path, store: Path) -> None:
    write(store, documents(endpoint(), deny_list("203.0.113.0/24"), policy()))
    (store / "other.yaml").write_text(deny_list("198.51.100.0/33").replace("bots", "others"))
    with traffic(host) as wire, agent(host, pin_root, store) as running:
        line = running.expect(BROKEN)
        assert "level=error" in line
        assert "GlobalNetworkSet others is skipped: there is no good version of it" in line
        running.expect(APPLIED)
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]


def test_a_rule_that_cannot_be_enforced_does_not_replace_policy_that_can(
    host: NetnsPair, pin_root: Path, store: Path
) -> None:
    with traffic(host) as wire, agent(host, pin_root, store) as running:
        running.expect(APPLIED)
        write(store, documents(endpoint(), policy(SERVICES)))
        assert "services" in running.expect("policy cannot be enforced; the last good one stays")
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]


def test_a_rule_that_cannot_be_enforced_takes_only_its_policy_with_it_at_the_first_start(
    host: NetnsPair, pin_root: Path, store: Path
) -> None:
    """Nothing was enforced before and there is no saved state: all other policies are enforced, kept and updated."""
    bad = policy(SERVICES, DENY_OTHERS).replace("name: dos", "name: web")
    write(store, documents(endpoint(), deny_list("203.0.113.0/24"), policy(), bad))
    with traffic(host) as wire, agent(host, pin_root, store) as running:
        running.expect(APPLIED)
        line = running.expect("cannot be enforced, skipped: GlobalNetworkPolicy web; all other policies are")
        assert "level=error" in line
        assert "services" in line
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
        write(store, documents(endpoint(), deny_list("198.51.100.0/24"), policy(), bad))  # and is followed
        running.expect(APPLIED)
        assert wire.arrivals(ALLOWED, DENIED) == [DENIED]
        write(store, documents(endpoint(), deny_list("203.0.113.0/24"), policy(SERVICES), bad))  # one more
        running.expect("policy cannot be enforced; the last good one stays")
        assert wire.arrivals(ALLOWED, DENIED) == [DENIED]
        write(store, documents())
        running.expect(APPLIED)
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
        running.end(signal.SIGTERM)
        assert sum("cannot be enforced, skipped" in line for line in running.lines) == 1


def test_a_policy_that_is_in_the_kernel_is_not_left_out(host: NetnsPair, pin_root: Path, store: Path) -> None:
    """The earlier run's state is lost; what it enforced stays in the kernel."""
    with traffic(host) as wire:
        with agent(host, pin_root, store) as running:
            running.expect(APPLIED)
            running.end(signal.SIGTERM)
        other = policy(DENY_OTHERS).replace("name: dos", "name: other")
        write(store, documents(endpoint(), policy(SERVICES), other))
        with agent(host, pin_root, store, STATE_DIRECTORY=f"{store}.lost") as running:
            running.expect("policy cannot be enforced; the last good one stays")
            assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]


def test_stopping_leaves_the_policy_and_says_so(host: NetnsPair, pin_root: Path, store: Path) -> None:
    with traffic(host) as wire, agent(host, pin_root, store) as running:
        running.expect(APPLIED)
        assert running.end(signal.SIGTERM) == 0
        assert STOPPED in running.lines[-1]
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]


def test_stopping_removes_the_policy_when_told_to(netns_pair: NetnsPair, pin_root: Path, store: Path) -> None:
    with agent(netns_pair, pin_root, store, "--detach-on-exit") as running:
        running.expect(APPLIED)
        assert running.end(signal.SIGINT) == 0
    assert "the policy was removed" in running.lines[-1]
    assert modes(netns_pair, pin_root) == {}
    assert not pin_root.exists()


def test_a_killed_agent_leaves_no_gap_and_the_next_takes_over(host: NetnsPair, pin_root: Path, store: Path) -> None:
    with traffic(host) as wire:
        with agent(host, pin_root, store) as first:
            first.expect(APPLIED)
            with wire.flood(DENIED):
                assert first.end(signal.SIGKILL) == -signal.SIGKILL
                with agent(host, pin_root, store) as second:
                    assert "changes=0" in second.expect(APPLIED)
                    write(store, documents(endpoint(), deny_list("203.0.113.0/24", "192.0.2.0/24"), policy()))
                    second.expect(APPLIED)
                    assert second.end(signal.SIGTERM) == 0
        assert wire.arrivals(ALLOWED) == [ALLOWED]


def test_an_agent_that_starts_on_broken_policy_keeps_what_is_in_the_kernel(
    host: NetnsPair, pin_root: Path, store: Path
) -> None:
    with traffic(host) as wire, agent(host, pin_root, store) as first:
        first.expect(APPLIED)
        first.end(signal.SIGTERM)
        write(store, "kind: [")
        with agent(host, pin_root, store, STATE_DIRECTORY=f"{store}.lost") as second:
            second.expect("the kernel state stays unchanged")
            assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
            write(store, documents())
            second.expect(APPLIED)


def test_an_interface_is_enforced_as_soon_as_it_appears(host: NetnsPair, pin_root: Path, store: Path) -> None:
    write(store, documents(endpoint(), endpoint("eth1"), deny_list("203.0.113.0/24"), policy()))
    with agent(host, pin_root, store) as running:
        running.expect("interface eth1 does not exist")
        assert modes(host, pin_root) == {"eth0": Mode.NATIVE, "eth1": None}
        host.make_veth("eth1", "wire1")
        running.expect(APPLIED)
        assert modes(host, pin_root) == {"eth0": Mode.NATIVE, "eth1": Mode.NATIVE}
        host.remove_link("eth1")
        running.expect(APPLIED)
        assert modes(host, pin_root) == {"eth0": Mode.NATIVE, "eth1": None}


def test_what_another_program_removed_is_restored_at_the_next_resync(
    host: NetnsPair, pin_root: Path, store: Path
) -> None:
    often = felix(xdpRefreshInterval="1s", ipsetsRefreshInterval="1s", iptablesRefreshInterval="1s")
    write(store, documents(endpoint(), deny_list("203.0.113.0/24"), policy(), often))
    with agent(host, pin_root, store) as running:
        running.expect(APPLIED)
        with host.host():
            assert Enforcer(NODE, pin_root=pin_root).detach()
        running.expect(APPLIED)
    assert modes(host, pin_root) == {"eth0": Mode.NATIVE}


def test_a_mode_that_is_refused_is_said_once_and_tried_again(host: NetnsPair, pin_root: Path, store: Path) -> None:
    write(store, documents(endpoint(), endpoint("lo"), deny_list("203.0.113.0/24"), policy()))
    with agent(host, pin_root, store, "--mode", "native") as running:
        assert "lo: mode 'native' is not possible" in running.expect("not everything is enforced; trying again")
        assert modes(host, pin_root) == {"eth0": Mode.NATIVE, "lo": None}
        write(store, documents())
        running.expect("recovered: everything is enforced again")
        running.end(signal.SIGTERM)
    assert sum("not possible" in line for line in running.lines) == 1


def test_a_restart_while_a_deny_list_is_faulty_keeps_the_list(host: NetnsPair, pin_root: Path, store: Path) -> None:
    with traffic(host) as wire:
        with agent(host, pin_root, store) as running:
            running.expect(APPLIED)
            running.end(signal.SIGTERM)
        write(store, documents(endpoint(), deny_list("203.0.113.0/33"), policy()))
        with agent(host, pin_root, store) as running:
            assert "GlobalNetworkSet bots keeps its last good version" in running.expect(BROKEN)
            running.expect(APPLIED)
            assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
            running.end(signal.SIGTERM)


def test_a_restart_while_a_directory_cannot_be_read_keeps_what_is_in_it(
    host: NetnsPair, pin_root: Path, store: Path
) -> None:
    (store / "more").mkdir()
    (store / "more" / "list.yaml").write_text(deny_list("198.51.100.0/24").replace("bots", "others"))
    with traffic(host) as wire:
        with agent(host, pin_root, store) as running:
            running.expect(APPLIED)
            running.end(signal.SIGTERM)
        detach(host, pin_root)  # as a reboot does
        (store / "more").chmod(0)
        through = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
        with agent(host, pin_root, store, through=through) as running:
            assert "these stay: GlobalNetworkSet others" in running.expect(f"{store}/more: cannot be read")
            running.expect(APPLIED)
            assert wire.arrivals(DENIED, ALLOWED, "192.0.2.1") == ["192.0.2.1"]
            (store / "more").chmod(0o755)
            running.expect(HEALTHY)


def test_a_restart_on_policy_that_cannot_be_enforced_enforces_the_last_good_one(
    host: NetnsPair, pin_root: Path, store: Path
) -> None:
    with traffic(host) as wire:
        with agent(host, pin_root, store) as running:
            running.expect(APPLIED)
            running.end(signal.SIGTERM)
        detach(host, pin_root)
        write(store, documents(endpoint(), policy(SERVICES)))
        for _ in range(2):  # it is still the last good version, though not the version read last
            with agent(host, pin_root, store) as running:
                running.expect("policy cannot be enforced; the last good one stays")
                running.expect(APPLIED)
                assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
                running.end(signal.SIGTERM)


def test_a_directory_that_never_was_there_is_bad_usage(netns_pair: NetnsPair, pin_root: Path, tmp_path: Path) -> None:
    words = ["run", "-f", str(tmp_path / "nowhere"), "--state-dir", str(tmp_path), "--pin-root", str(pin_root)]
    done = run(netns_pair, words)
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path}/nowhere: does not exist\n")


def test_a_directory_that_is_gone_at_the_start_is_as_it_last_was(host: NetnsPair, pin_root: Path, store: Path) -> None:
    with agent(host, pin_root, store) as running:
        running.expect(APPLIED)
        running.end(signal.SIGTERM)
    store.rename(store.with_name("aside"))
    with traffic(host) as wire, agent(host, pin_root, store) as running:
        running.expect("cannot be read: No such file")
        running.expect(APPLIED)
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]


def test_systemd_is_told_what_it_wants_to_know(host: NetnsPair, pin_root: Path, store: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE_S)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with agent(host, pin_root, store, **environment) as running:
            wanted = {b"STATUS=enforcing on 1 interfaces", b"READY=1", b"WATCHDOG=1"}
            while wanted:
                wanted.discard(manager.recv(4096))
            running.end(signal.SIGTERM)
        while manager.recv(4096) != b"STOPPING=1":
            pass


def test_without_a_first_pass_that_is_privileged_the_command_ends_with_3(
    netns_pair: NetnsPair, pin_root: Path, store: Path
) -> None:
    words = ["run", "-f", str(store), "--node", NODE, "--pin-root", str(pin_root)]
    dropped = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
    done = run(netns_pair, words, through=dropped)
    assert done.returncode == 3
    assert "needs CAP_NET_ADMIN" in done.stderr
