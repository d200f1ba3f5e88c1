"""Enforcer and commands with either raw backend: how it is chosen, what is shown, and the change under traffic."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from enforcer.backends.iptables import probe as probe_iptables
from enforcer.backends.nftables import probe as probe_nftables
from enforcer.enforcement.apply import Applied, Enforcer
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.errors import KernelError, UnsupportedKernelError
from enforcer.model.facts import Probe
from enforcer.model.vocabulary import Answer, Backend
from enforcer.policy.load import load_text
from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import (
    ALLOWED,
    DENIED,
    NODE,
    PORT,
    deny_list,
    documents,
    endpoint,
    felix,
    policy,
    run,
    traffic,
)
from tests.kernel.forked import enter, forked
from tests.kernel.iptables_support import all_tables
from tests.kernel.iptables_support import run as command
from tests.kernel.raw_support import ruleset

pytestmark = pytest.mark.needs_root

USUAL = (endpoint(), deny_list("203.0.113.0/24"), policy())


def apply(
    pair: NetnsPair, pin_root: Path, *more: str, raw: RawChoice = RawChoice.AUTO, mode: ModeChoice = ModeChoice.RAW
) -> Applied:
    with pair.host():
        enforcer = Enforcer(NODE, pin_root=pin_root, choice=mode, raw=raw)
        return enforcer.apply(load_text(documents(*USUAL, *more)))


def held_by(pair: NetnsPair) -> set[Backend]:
    with pair.host():
        legacy = {Backend.IPTABLES} if any("enf-" in line for line in all_tables()) else set()
        return legacy | ({Backend.NFTABLES} if any("enforcer" in line for line in ruleset()) else set())


def detach(pair: NetnsPair, pin_root: Path) -> tuple[str, ...]:
    with pair.host():
        return Enforcer(NODE, pin_root=pin_root).detach()


ASKED = [
    ((), RawChoice.AUTO, Backend.IPTABLES),
    ((felix(nftablesMode="Enabled"),), RawChoice.AUTO, Backend.NFTABLES),
    ((felix(iptablesBackend="NFT"),), RawChoice.AUTO, Backend.NFTABLES),
    ((felix(nftablesMode="Enabled"),), RawChoice.IPTABLES, Backend.IPTABLES),
    ((), RawChoice.NFTABLES, Backend.NFTABLES),
]


@pytest.mark.parametrize(("more", "raw", "expected"), ASKED)
def test_the_policy_is_in_the_requested_backend(
    netns_pair: NetnsPair, pin_root: Path, more: tuple[str, ...], raw: RawChoice, expected: Backend
) -> None:
    with traffic(netns_pair) as packets:
        applied = apply(netns_pair, pin_root, *more, raw=raw)
        assert [item.raw_backend for item in applied.plan.interfaces] == [expected]
        assert held_by(netns_pair) == {expected}
        assert packets.arrivals(DENIED, ALLOWED) == [ALLOWED]
        assert apply(netns_pair, pin_root, *more, raw=raw).changes == ()
        assert detach(netns_pair, pin_root)
        assert held_by(netns_pair) == set()
        assert packets.arrivals(DENIED, ALLOWED) == [DENIED, ALLOWED]


@pytest.mark.parametrize("free", range(3))
@pytest.mark.parametrize("probe", [probe_iptables, probe_nftables])
def test_no_descriptor_left_is_no_answer(netns_pair: NetnsPair, probe: Callable[[], Probe], free: int) -> None:
    """If it were taken for a "no", everything would move to the other backend."""

    def act() -> str:
        enter(netns_pair.host_name)
        probe()
        used = [os.dup(0) for _ in range(free + 1)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(used), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        for descriptor in used[:free]:
            os.close(descriptor)
        try:
            return str(probe().answer)
        except KernelError as error:
            return errno.errorcode[error.errno]

    assert forked(act) in ("EMFILE", "yes")


def test_where_legacy_tables_are_absent_it_is_nftables(
    netns_pair: NetnsPair, pin_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = Probe(Answer.NO, "no ip_tables in this kernel")
    monkeypatch.setattr("enforcer.backends.iptables.backend.probe", lambda **_: absent)
    (item,) = apply(netns_pair, pin_root).plan.interfaces
    assert item.raw_backend is Backend.NFTABLES
    assert item.raw_reason == "this host has no legacy tables: no ip_tables in this kernel"
    assert held_by(netns_pair) == {Backend.NFTABLES}
    with pytest.raises(UnsupportedKernelError, match="iptables is not possible on this host"):
        apply(netns_pair, pin_root, raw=RawChoice.IPTABLES)
    assert held_by(netns_pair) == {Backend.NFTABLES}  # the refused request changed nothing
    detach(netns_pair, pin_root)


@pytest.mark.parametrize("mode", [ModeChoice.RAW, ModeChoice.NATIVE], ids=str)
def test_a_move_to_and_fro_lets_nothing_through(netns_pair: NetnsPair, pin_root: Path, mode: ModeChoice) -> None:
    with traffic(netns_pair) as packets:
        apply(netns_pair, pin_root, mode=mode)
        with packets.flood(DENIED):
            for raw in (RawChoice.NFTABLES, RawChoice.IPTABLES) * 5:
                assert apply(netns_pair, pin_root, raw=raw, mode=mode).changes
                assert held_by(netns_pair) == {Backend(raw.value)}
        assert packets.arrivals(ALLOWED) == [ALLOWED]  # nothing of the flood is before it
    detach(netns_pair, pin_root)


def test_an_allow_is_warned_of(netns_pair: NetnsPair, pin_root: Path) -> None:
    allowing = policy("{action: Allow, protocol: UDP, destination: {ports: [9]}}")
    with netns_pair.host():
        enforcer = Enforcer(NODE, pin_root=pin_root, choice=ModeChoice.RAW, raw=RawChoice.NFTABLES)
        applied = enforcer.apply(load_text(documents(endpoint(), deny_list("203.0.113.0/24"), allowing)))
    assert [line for line in applied.warnings if "'meta mark & 0x10000 == 0x10000 accept'" in line]
    detach(netns_pair, pin_root)


ALLOWING = (
    endpoint(),
    deny_list("203.0.113.0/24"),
    policy(f"{{action: Allow, protocol: UDP, destination: {{ports: [{PORT}]}}}}"),
)
FIREWALLS = {
    "iptables-nft": ["iptables-nft -P INPUT DROP"],
    "nft": ["nft add table inet fw", "nft add chain inet fw in { type filter hook input priority 0; policy drop; }"],
    "Kubernetes": ["iptables-nft -t mangle -N KUBE-KUBELET-CANARY", "iptables-legacy -A FORWARD -j DROP"],
}


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_ours_go_where_the_hosts_firewall_is(netns_pair: NetnsPair, pin_root: Path, firewall: str) -> None:
    """The choice creates no legacy table. Our own rules do not count, so that the next pass keeps the backend."""
    with netns_pair.host():
        for line in FIREWALLS[firewall]:
            command(*line.split(" ", 4 if line.startswith("nft add chain") else -1))
    for _ in range(2):
        (item,) = apply(netns_pair, pin_root).plan.interfaces
        assert item.raw_backend is Backend.NFTABLES
    assert held_by(netns_pair) == {Backend.NFTABLES}
    detach(netns_pair, pin_root)


def test_a_legacy_firewall_keeps_ours(netns_pair: NetnsPair, pin_root: Path) -> None:
    with netns_pair.host():
        command("iptables-legacy", "-A", "INPUT", "-j", "ACCEPT")
        command("iptables-nft", "-A", "INPUT", "-j", "ACCEPT")
    for _ in range(2):
        (item,) = apply(netns_pair, pin_root).plan.interfaces
        assert item.raw_backend is Backend.IPTABLES
    detach(netns_pair, pin_root)


@pytest.mark.parametrize("raw", [RawChoice.AUTO, RawChoice.IPTABLES], ids=str)
def test_an_allow_that_does_not_reach_is_warned_of_and_what_is_said_helps(
    netns_pair: NetnsPair, pin_root: Path, raw: RawChoice
) -> None:
    with netns_pair.host():
        command("iptables-nft", "-P", "INPUT", "DROP")
        enforcer = Enforcer(NODE, pin_root=pin_root, choice=ModeChoice.RAW, raw=raw)
        warnings = enforcer.apply(load_text(documents(*ALLOWING))).warnings
    (warning,) = [item for item in warnings if item.startswith("Allow on eth0: ")]
    assert "'meta mark & 0x10000 == 0x10000 accept'" in warning
    with netns_pair.host():
        command("iptables-nft", "-I", "INPUT", "-m", "mark", "--mark", "0x10000/0x10000", "-j", "ACCEPT")
    with traffic(netns_pair) as packets:
        assert packets.arrivals(ALLOWED) == [ALLOWED]
    detach(netns_pair, pin_root)


def test_the_commands_say_which_backend_and_why(netns_pair: NetnsPair, pin_root: Path, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(documents(*USUAL))
    place = ("--pin-root", str(pin_root))
    options = ("-f", str(tmp_path), "--node", NODE, "--mode", "raw", "--raw-backend", "nftables", *place)
    shown = run(netns_pair, ["apply", *options, "-o", "json"])
    (interface,) = json.loads(shown.stdout)["plan"]["interfaces"]
    assert interface["raw_backend"] == "nftables"
    assert interface["raw_backend_reason"] == "raw backend 'nftables' was requested"
    assert "(nftables: raw backend 'nftables' was requested)" in run(netns_pair, ["apply", *options]).stdout
    (interface,) = json.loads(run(netns_pair, ["status", *place, "-o", "json"]).stdout)["interfaces"]
    assert interface["raw_backend"] == "nftables"
    assert {item["limit"] for item in interface["capacity"]} == {None}
    status = run(netns_pair, ["status", *place]).stdout
    assert "raw through nftables" in status
    assert "raw: set enf4-" in status
    probed = run(netns_pair, ["probe", "eth0", "-o", "json"])
    answers = json.loads(probed.stdout)["backends"]
    assert {name: answer["answer"] for name, answer in answers.items()} == {"iptables": "yes", "nftables": "yes"}
    assert "table enforcer: deleted" in run(netns_pair, ["detach", *place]).stdout


def test_nothing_of_iptables_is_created_if_nftables_is_requested(netns_pair: NetnsPair, pin_root: Path) -> None:
    apply(netns_pair, pin_root, raw=RawChoice.NFTABLES)
    with netns_pair.host():
        for version in ("ip", "ip6"):
            names = Path(f"/proc/thread-self/net/{version}_tables_names")
            assert not names.exists() or not names.read_text().split()
        assert command("ipset", "list", "-n") == ""
    detach(netns_pair, pin_root)
