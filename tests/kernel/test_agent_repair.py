"""What other programs remove while an agent runs is restored at once and logged; repeated removal slows the repairs.

All intervals of resync are an hour, so every repair shows that the guard noticed the loss.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from enforcer.backends.xdp.state.layout import Pins, TablePins
from enforcer.backends.xdp.state.watch import XdpWatch
from enforcer.enforcement.apply import Enforcer
from enforcer.kernel.bpf.libbpf_conn import LIBBPF
from enforcer.kernel.bpf.links import Link
from enforcer.kernel.bpf.maps import Map
from enforcer.kernel.bpf.xdp import load_pass_program
from enforcer.kernel.netns import current_inode
from enforcer.model.vocabulary import Mode
from enforcer.policy.load import load_text
from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import (
    ALLOWED,
    APPLIED,
    DEADLINE_S,
    DENIED,
    NODE,
    Agent,
    agent,
    deny_list,
    documents,
    endpoint,
    felix,
    policy,
    traffic,
)
from tests.kernel.fuse_support import hanging_file
from tests.kernel.xdp_support import pinned_ids, state_of
from tests.support import commands

pytestmark = pytest.mark.needs_root

AGAIN = "everything is restored"
NOTICED = "another program removed or changed what is enforced"
RESTORED = "restored what another program removed or changed"
SELDOM = felix(xdpRefreshInterval="1h", ipsetsRefreshInterval="1h", iptablesRefreshInterval="1h")
NETS = ("203.0.113.0/24", "192.0.2.7/32", "10.9.0.0/16")
LISTED = documents(endpoint(), deny_list(*NETS), policy(), SELDOM)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    directory = tmp_path / "policy"
    directory.mkdir()
    (directory / "dos.yaml").write_text(LISTED)
    return directory


def shell(line: str) -> str:
    """One command line's output, in the namespace of the calling thread."""
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)  # the test's own commands
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout


def legacy() -> list[str]:
    """Rules, chains and members of the calling thread's namespace, without counters, set sizes, seeds and order."""
    lines = shell("iptables-legacy-save; ip6tables-legacy-save; ipset save").splitlines()
    return sorted(re.split(r" \[| hashsize ", line)[0] for line in lines if not line.startswith("#"))


def nftables() -> list[str]:
    """The ruleset, without counters and handles; tables are in order of creation."""
    return sorted(shell("nft -s list ruleset").splitlines())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not so after {DEADLINE_S} s"
        time.sleep(0.05)


@contextmanager
def line_of(name: str) -> Iterator[None]:
    """Names the row of a table of cases in a failure."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from error


SET4 = "$(ipset list -n | grep '^enf4-' | head -1)"
LEGACY = {
    "all rules flushed": ("iptables-legacy -t raw -F", "raw IPv4: chain enf-PREROUTING: 2 of 2 rules removed"),
    "the jump deleted": ("iptables-legacy -t raw -D PREROUTING 1", "raw IPv4: chain PREROUTING: its jump to our chain"),
    "a jump in front of ours": (
        "ip6tables-legacy -t raw -I PREROUTING -j ACCEPT",
        "raw IPv6: chain PREROUTING: its jump to our chain was changed or moved",
    ),
    "a rule replaced by one of the same size": (
        "iptables-legacy -t raw -R enf-fh-eth0 2 -j RETURN",
        "raw IPv4: chain enf-fh-eth0: 1 of 2 rules removed, 1 others added",
    ),
    "a set flushed": (f"ipset flush {SET4}", ": 0 members, 3 before"),
    "a member deleted": (f"ipset del {SET4} 192.0.2.7", ": 2 members, 3 before"),
    "a member exchanged": (
        f"set={SET4}; printf 'del %s 203.0.113.0/24\\nadd %s 10.10.0.0/16\\n' $set $set | ipset restore",
        "other members, as many as before",
    ),
    "a set destroyed": (
        f"set={SET4}; iptables-legacy -t raw -F && ipset destroy $set",
        "is gone, with 3 members",
    ),
    "a set swapped away": (
        f"set={SET4}; ipset create other hash:net && ipset swap $set other && ipset destroy other",
        ": 0 members, 3 before",
    ),
    "another chain of ours": ("iptables-legacy -t raw -N enf-stray", "raw IPv4: chain enf-stray was added"),
}


NFT_SET4 = "$(nft list sets | grep -o 'enf4-[0-9a-f]*' | tail -1)"
NFT = {
    "the ruleset flushed": ("nft flush ruleset", "nftables table ip enforcer: deleted, with 5 chains"),
    "a table deleted": ("nft delete table ip6 enforcer", "nftables table ip6 enforcer: deleted, with"),
    "the table of netdev ingress deleted": ("nft delete table netdev enforcer", "table netdev enforcer: deleted, with"),
    "a chain of netdev ingress flushed": (
        "nft flush chain netdev enforcer enf-nd-eth0",
        "nftables table netdev enforcer: 5 rules of chain enf-nd-eth0 deleted",
    ),
    "a chain flushed": (
        "nft flush chain ip enforcer enf-PREROUTING",
        "nftables table ip enforcer: 2 rules of chain enf-PREROUTING deleted",
    ),
    "a rule inserted": (
        "nft insert rule ip enforcer enf-PREROUTING accept",
        "nftables table ip enforcer: 1 rules of chain enf-PREROUTING added or changed",
    ),
    "a member deleted": (f"nft delete element ip enforcer {NFT_SET4} '{{ 192.0.2.7 }}'", "1 members of set enf4-"),
    "a table switched off": (
        "nft 'add table ip enforcer { flags dormant; }'",
        "nftables table ip enforcer: added or changed",
    ),
}


def remove_foreign_jumps() -> None:
    """Foreign state that the enforcer leaves alone."""
    shell("ip6tables-legacy -t raw -D PREROUTING -j ACCEPT || true")


@dataclass(frozen=True)
class Rulesets:
    """The backend, the command that removes something, and the text of the warning."""

    words: tuple[str, ...]
    cases: Mapping[str, tuple[str, str]]
    read: Callable[[], list[str]]
    says_who: str = ""
    tidy: Callable[[], None] = lambda: None


RULESETS = {
    "legacy tables and ipsets": Rulesets(("--mode", "raw"), LEGACY, legacy, tidy=remove_foreign_jumps),
    "nftables": Rulesets(
        ("--mode", "raw", "--raw-backend", "nftables", "--netdev-ingress"), NFT, nftables, says_who='by="nft (pid '
    ),
}


def taken_and_named(running: Agent, host: NetnsPair, command: str, named: str) -> str:
    """The line that names what the command took away. A pass that runs at that moment, to check the last repair, finds
    it by itself and says so in other words: then once more.
    """
    for _ in range(3):
        with host.host():
            shell(command)
        line = running.expect(named, RESTORED)
        if named in line:
            return line
    return line


@pytest.mark.parametrize("name", RULESETS)
def test_what_is_taken_away_comes_back_and_is_named(name: str, host: NetnsPair, pin_root: Path, store: Path) -> None:
    rulesets = RULESETS[name]
    with traffic(host) as wire, agent(host, pin_root, store, *rulesets.words) as running:
        running.expect(APPLIED)
        with host.host():
            before = rulesets.read()
        for taken, (command, named) in rulesets.cases.items():
            with line_of(taken):
                line = taken_and_named(running, host, command, named)
                assert "level=warning" in line
                assert NOTICED in line
                assert rulesets.says_who in line
                running.expect(AGAIN)
                with host.host():
                    rulesets.tidy()
                    until(lambda: rulesets.read() == before)
                assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]


def test_what_others_do_in_tables_of_theirs_and_what_the_agent_does_itself_is_no_loss(
    host: NetnsPair, pin_root: Path, store: Path
) -> None:
    with agent(host, pin_root, store, "--mode", "raw", "--raw-backend", "nftables") as running:
        running.expect(APPLIED)
        with host.host():
            shell("nft add table ip other; nft add chain ip other c; nft add rule ip other c accept; nft flush ruleset")
        running.expect(APPLIED)
        scratch = store.parent / "scratch"
        scratch.write_text(documents(endpoint(), deny_list("198.51.100.0/24"), policy(), SELDOM))
        scratch.replace(store / "dos.yaml")
        running.expect(APPLIED)
        with host.host():
            shell("nft delete table ip6 enforcer")
        running.expect("table ip6 enforcer: deleted")
    assert not any("table ip other" in line for line in running.lines)
    assert sum(NOTICED in line for line in running.lines) == 3  # both tables flushed, one deleted


def detach_link(pin_root: Path) -> None:
    """As ``bpftool link detach`` does."""
    with Link.open_pinned(Pins.of(LIBBPF, pin_root, "eth0").link) as link:
        link.detach()


def point_elsewhere(pin_root: Path) -> None:
    fd = load_pass_program()
    with Link.open_pinned(Pins.of(LIBBPF, pin_root, "eth0").link) as link:
        link.update(fd)
    os.close(fd)


def empty_an_address_table(pin_root: Path) -> None:
    with Map.open_pinned(TablePins.of(LIBBPF, pin_root, current_inode()).directory / "root4") as root4:
        words = np.frombuffer(root4.mmap(writable=True), np.uint32)
        words[:] = 0
        del words


def empty_rows(pin_root: Path) -> None:
    with Map.open_pinned(Pins.of(LIBBPF, pin_root, "eth0").directory / "rows") as rows:
        for key in list(rows.keys()):
            rows.update(key, bytes(rows.value_size))


def detach_all(pin_root: Path) -> None:
    done = commands.run(["detach", "--force", "--pin-root", str(pin_root)])
    assert done.returncode == 0, done.stderr


XDP: dict[str, tuple[Callable[[Path], None], str]] = {
    "the link detached": (detach_link, "eth0: the XDP program was detached"),
    "another program": (point_elsewhere, "was pointed at another XDP program"),
    "an address table written to": (empty_an_address_table, "XDP address tables: maps were written to: root4"),
    "a map of the interface written to": (empty_rows, "eth0: XDP: maps were written to: rows"),
    "detached by force": (detach_all, "eth0: the XDP program was detached"),
}


def test_what_is_taken_from_xdp_comes_back(host: NetnsPair, pin_root: Path, store: Path) -> None:
    with traffic(host) as wire, agent(host, pin_root, store) as running:
        running.expect(APPLIED)
        for name, (take_away, named) in XDP.items():
            with line_of(name):
                with host.host():
                    take_away(pin_root)
                line = running.expect(named)
                assert "level=warning" in line
                assert NOTICED in line
                running.expect(AGAIN)
                with host.host():
                    assert [item.mode for item in Enforcer(NODE, pin_root=pin_root).status()] == [Mode.NATIVE]
                assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]


@pytest.mark.parametrize("removed", ["link", "everything"])
def test_a_removed_pin_is_put_back_and_nothing_was_ever_detached(
    host: NetnsPair, pin_root: Path, store: Path, removed: str
) -> None:
    pins = Pins.of(LIBBPF, pin_root, "eth0")
    with traffic(host) as wire, agent(host, pin_root, store) as running:
        running.expect(APPLIED)
        with host.host():
            with Link.open_pinned(pins.link) as link:
                before = link.info(), pinned_ids(pins), state_of().xdp
            shell(f"rm {pins.link}" if removed == "link" else f"rm -r {pin_root}")
            assert state_of().xdp == before[2]
            until(pins.link.exists)
        assert "nothing was detached" in running.expect("eth0: XDP: pins removed: link")
        with host.host():
            until(lambda: (pins.directory / "prog").exists())
            with Link.open_pinned(pins.link) as link:
                assert (link.info(), pinned_ids(pins), state_of().xdp) == before
            assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]


def test_what_is_taken_while_reading_does_not_end_comes_back(host: NetnsPair, pin_root: Path, store: Path) -> None:
    with traffic(host) as wire, agent(host, pin_root, store, "--mode", "raw", "--raw-backend", "nftables") as running:
        running.expect(APPLIED)
        with hanging_file(store / "mounted", "list.yaml"):
            running.process.send_signal(signal.SIGHUP)  # reads everything
            running.expect("reading the policy takes too long")
            for _ in range(2):
                with host.host():
                    shell("nft flush ruleset")
                assert "table ip enforcer: deleted" in running.expect(NOTICED)
                running.expect(AGAIN)
                assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
            assert running.end(signal.SIGTERM) == 0


def test_pins_that_go_during_a_pass_are_put_back_and_the_program_is_no_strangers(
    host: NetnsPair, pin_root: Path
) -> None:
    """That pass cannot identify the program; the next one can, and no refusal was cached."""
    enforcer, resources = Enforcer(NODE, pin_root=pin_root), load_text(documents())
    with host.host(), closing(XdpWatch(LIBBPF, pin_root)) as watch:
        assert enforcer.apply(resources).plan.interfaces[0].mode is Mode.NATIVE
        assert watch.remember() == []
        before = state_of().xdp
        shell(f"rm -r {pin_root}")
        assert enforcer.apply(resources).plan.interfaces[0].mode is None
        assert "eth0: XDP: pins removed: link" in watch.remember()[0].what
        assert enforcer.apply(resources).plan.interfaces[0].mode is Mode.NATIVE
        assert state_of().xdp == before
        assert enforcer.apply(resources).changes == ()


def test_who_keeps_taking_it_away_is_not_fought_at_full_speed(host: NetnsPair, pin_root: Path, store: Path) -> None:
    with agent(host, pin_root, store, "--mode", "raw", "--raw-backend", "nftables") as running:
        running.expect(APPLIED)
        with host.host():
            other = subprocess.Popen(
                ["sh", "-c", "while :; do nft delete table ip enforcer 2>/dev/null; sleep 0.05; done"]
            )
        try:
            line = running.expect("removed 8 times in")
        finally:
            other.kill()
            other.wait()
        assert "level=error" in line
        assert "table ip enforcer: deleted" in line
        running.expect(AGAIN)
        with host.host():
            until(lambda: "table ip enforcer" in shell("nft list tables"))


def test_what_only_the_resync_finds_is_said_as_well(host: NetnsPair, pin_root: Path, store: Path) -> None:
    """A program's manifest enforces nothing, so the guard does not check it each second."""
    often = felix(xdpRefreshInterval="1s", ipsetsRefreshInterval="1s", iptablesRefreshInterval="1s")
    (store / "dos.yaml").write_text(documents(endpoint(), deny_list(*NETS), policy(), often))
    with traffic(host) as wire, agent(host, pin_root, store) as running:
        running.expect(APPLIED)
        with host.host(), Map.open_pinned(Pins.of(LIBBPF, pin_root, "eth0").directory / "manifest") as manifest:
            manifest.update(bytes(4), bytes(manifest.value_size))
        line = running.expect("restored what another program removed or changed")
        assert "level=warning" in line
        assert "eth0: policy replaced" in line
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
