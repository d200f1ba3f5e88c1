"""The table of netdev ingress in the kernel: counted, shown, repaired, restored, removed; foreign tables untouched."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from enforcer.backends.nftables import apply as transactions
from enforcer.backends.nftables.netdev import installed, probe
from enforcer.enforcement.apply import Applied, Enforcer
from enforcer.enforcement.status import InterfaceStatus
from enforcer.kernel.bpf.links import attach_xdp
from enforcer.kernel.bpf.xdp import load_pass_program
from enforcer.kernel.rtnetlink import interface
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.errors import UnsupportedKernelError
from enforcer.model.facts import Probe
from enforcer.model.vocabulary import Answer, Mode, Stage
from enforcer.policy.load import load_text
from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import (
    ALLOWED,
    APPLIED,
    DENIED,
    DENY_BOTS,
    NODE,
    agent,
    deny_list,
    documents,
    endpoint,
    felix,
    policy,
    traffic,
)
from tests.kernel.enforcer_support import run as command
from tests.kernel.iptables_support import run

pytestmark = pytest.mark.needs_root

BOTS = deny_list("203.0.113.0/24", "2001:db8::/32")
ENTRY = "gnp/dos ingress[0]"
BACKENDS = pytest.mark.parametrize("raw", [RawChoice.IPTABLES, RawChoice.NFTABLES], ids=str)


def apply(
    pair: NetnsPair,
    pin_root: Path,
    text: str = "",
    *,
    choice: ModeChoice = ModeChoice.RAW,
    raw: RawChoice = RawChoice.NFTABLES,
    netdev: bool = True,
    dry_run: bool = False,
) -> Applied:
    with pair.host():
        enforcer = Enforcer(NODE, pin_root=pin_root, choice=choice, raw=raw, netdev=netdev)
        return enforcer.apply(load_text(text or documents(endpoint(), BOTS, policy())), dry_run=dry_run)


def stage(applied: Applied) -> Stage:
    (item,) = applied.plan.interfaces
    return item.entries[0].stage


def status(pair: NetnsPair, pin_root: Path) -> InterfaceStatus:
    with pair.host():
        (item,) = Enforcer(NODE, pin_root=pin_root).status()
    return item


def drops(pair: NetnsPair, pin_root: Path) -> dict[Stage, int]:
    """Packets that the first entry matched, by stage."""
    with pair.host():
        counts = Enforcer(NODE, pin_root=pin_root).counters()
    return {count.stage: count.packets for count in counts if count.entry == ENTRY and count.packets}


def is_hooked(pair: NetnsPair, device: str = "eth0") -> bool:
    """Whether nft lists a base chain of ours for the device."""
    with pair.host():
        return f'type filter hook ingress device "{device}" priority -300; policy accept;' in run(
            "nft", "list", "ruleset"
        )


def test_the_probe_says_yes_and_leaves_nothing(host: NetnsPair) -> None:
    with host.host():
        assert probe() == Probe(Answer.YES)
        assert run("nft", "list", "ruleset") == ""


# --- what it drops, counts and shows ----------------------------------------------------------------------------------


@BACKENDS
def test_packets_are_dropped_and_counted_there(host: NetnsPair, pin_root: Path, raw: RawChoice) -> None:
    assert stage(apply(host, pin_root, raw=raw)) is Stage.NETDEV_INGRESS
    with traffic(host) as wire:
        assert wire.arrivals(DENIED, DENIED, ALLOWED) == [ALLOWED]
    assert drops(host, pin_root) == {Stage.NETDEV_INGRESS: 2}
    found = status(host, pin_root)
    assert (found.mode, found.stage, str(found.raw_backend)) == (None, Stage.NETDEV_INGRESS, str(raw))
    assert {fill.used for fill in found.fills if fill.stage is Stage.NETDEV_INGRESS} >= {1}


@BACKENDS
def test_a_second_pass_changes_nothing(
    host: NetnsPair, pin_root: Path, raw: RawChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced = apply(host, pin_root, raw=raw, dry_run=True).changes
    assert apply(host, pin_root, raw=raw).changes == announced != ()
    read: list[str] = []
    monkeypatch.setattr(transactions, "read_members", lambda *about: read.append(about[2]))
    assert apply(host, pin_root, raw=raw).changes == ()
    assert read == [], "members of both tables' sets are known while nobody changes the ruleset"


def test_the_commands_say_so(host: NetnsPair, pin_root: Path, tmp_path: Path) -> None:
    (tmp_path / "dos.yaml").write_text(documents(endpoint(), BOTS, policy()))
    root = ("--pin-root", str(pin_root))
    words = ("apply", "-f", str(tmp_path), "--node", NODE, "--mode", "raw", "--netdev-ingress", *root)
    applied = command(host, words)
    assert applied.returncode == 0, applied.stderr
    assert "eth0: HostEndpoint jasper-eth0, enforced at netdev-ingress, then raw (" in applied.stdout
    shown = command(host, ("status", *root))
    assert "eth0: enforced at netdev-ingress (no XDP, but nftables, then raw through " in shown.stdout
    counted = json.loads(command(host, ("counters", "-o", "json", *root)).stdout)["counters"]
    assert (ENTRY, "netdev-ingress") in {(item["entry"], item["stage"]) for item in counted}
    removed = json.loads(command(host, ("detach", "-o", "json", *root)).stdout)["removed"]
    assert "nftables netdev: table enforcer: deleted" in removed


def test_without_ipv6_support_ipv6_is_left_alone(host: NetnsPair, pin_root: Path) -> None:
    apply(host, pin_root, documents(endpoint(), BOTS, policy(), felix(ipv6Support="false")))
    with host.host():
        table = installed()
    assert table.present
    assert not [name for name in (*table.chains, *table.sets) if name.startswith(("enf6-", "enf-nd-6/"))]


# --- where it is, and where it is not ---------------------------------------------------------------------------------


def test_it_takes_the_place_of_xdp_and_xdp_takes_its_place(host: NetnsPair, pin_root: Path) -> None:
    assert stage(apply(host, pin_root, choice=ModeChoice.AUTO)) is Stage.DRIVER
    assert not is_hooked(host)
    assert stage(apply(host, pin_root)) is Stage.NETDEV_INGRESS
    assert is_hooked(host)
    assert stage(apply(host, pin_root, choice=ModeChoice.AUTO)) is Stage.DRIVER
    assert not is_hooked(host)
    assert stage(apply(host, pin_root, netdev=False)) is Stage.RAW


def test_a_foreign_program_stays_and_packets_are_dropped_after_it(host: NetnsPair, pin_root: Path) -> None:
    with host.host():
        state = interface("eth0")
        assert state is not None
        program = load_pass_program()
        with attach_xdp(program, state.index, Mode.NATIVE):
            os.close(program)
            applied = apply(host, pin_root, choice=ModeChoice.AUTO)
            (item,) = applied.plan.interfaces
            assert item.entries[0].stage is Stage.NETDEV_INGRESS
            assert "a foreign XDP program is attached" in item.entries[0].reason


def test_a_port_of_a_bridge_has_none(host: NetnsPair, pin_root: Path) -> None:
    with host.host():
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "link", "set", "eth0", "master", "br0")
    (item,) = apply(host, pin_root).plan.interfaces
    assert not is_hooked(host)
    assert item.entries[0].stage is Stage.RAW
    assert item.entries[0].reason.endswith(
        "netdev-ingress: bridge br0 takes its packets before raw could see them as eth0's"
    )


def test_detach_of_one_interface_leaves_the_other(host: NetnsPair, pin_root: Path) -> None:
    host.make_veth("eth1", "wire1")
    apply(host, pin_root, documents(endpoint(), endpoint("eth1"), BOTS, policy()))
    assert (is_hooked(host, "eth0"), is_hooked(host, "eth1")) == (True, True)
    with host.host():
        Enforcer(NODE, pin_root=pin_root).detach(["eth0"])
    assert (is_hooked(host, "eth0"), is_hooked(host, "eth1")) == (False, True)
    with host.host():
        removed = Enforcer(NODE, pin_root=pin_root).detach()
    assert "nftables netdev: table enforcer: deleted" in removed


# --- repair -----------------------------------------------------------------------------------------------------------

TABLE = "netdev enforcer"
BASE = f"{TABLE} enf-nd-eth0"
HAND_EDITS = {
    "a base chain emptied": f"flush chain {BASE}",
    "a base chain gone": f"flush chain {BASE}; delete chain {BASE}",
    "a rule added": f"insert rule {BASE} accept",
    "an unwanted chain of ours": f"add chain {TABLE} mine {{ type filter hook ingress device lo priority 0; }}",
    "all rules gone": f"flush table {TABLE}",
    "switched off": f"add table {TABLE} {{ flags dormant; }}",
    "a policy": f"add chain {BASE} {{ policy drop; }}",
    "a counter": f"add counter {TABLE} stray",
    "a table gone": f"delete table {TABLE}",
    "a chain on another device": f"delete table {TABLE}; add table {TABLE}; "
    f"add chain {BASE} {{ type filter hook ingress device lo priority -300; }}",
}


@pytest.mark.parametrize("edit", HAND_EDITS)
def test_a_change_by_hand_is_repaired(host: NetnsPair, pin_root: Path, edit: str) -> None:
    apply(host, pin_root)
    with host.host():
        before = run("nft", "-s", "list", "ruleset")
        run("nft", "-f", "-", text=HAND_EDITS[edit] + "\n")
        assert run("nft", "-s", "list", "ruleset") != before
    assert apply(host, pin_root).changes
    with host.host():
        assert sorted(run("nft", "-s", "list", "ruleset").splitlines()) == sorted(before.splitlines())
    assert apply(host, pin_root).changes == ()


def test_foreign_tables_are_untouched(host: NetnsPair, pin_root: Path) -> None:
    foreign = "table netdev somebody {\n chain mine {\n type filter hook ingress device eth0 priority -300;\n }\n}\n"
    with host.host():
        run("nft", "-f", "-", text=foreign)
        before = run("nft", "list", "ruleset")
    apply(host, pin_root)
    with host.host():
        Enforcer(NODE, pin_root=pin_root).detach()
        assert run("nft", "list", "ruleset") == before


def test_counters_of_rules_that_stay_survive(host: NetnsPair, pin_root: Path) -> None:
    apply(host, pin_root)
    with traffic(host) as wire:
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
        wider = deny_list("203.0.113.0/24", "192.0.2.0/24", "2001:db8::/32")
        changes = apply(host, pin_root, documents(endpoint(), wider, policy(DENY_BOTS))).changes
        assert any("1 members added" in change for change in changes if "netdev" in change)
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
    assert drops(host, pin_root) == {Stage.NETDEV_INGRESS: 2}


# --- interfaces come and go -------------------------------------------------------------------------------------------


def test_an_interface_that_comes_again_is_enforced_again(host: NetnsPair, pin_root: Path, tmp_path: Path) -> None:
    store = tmp_path / "policy"
    store.mkdir()
    (store / "dos.yaml").write_text(documents(endpoint(), BOTS, policy()))
    options = ("--mode", "raw", "--netdev-ingress")
    with agent(host, pin_root, store, *options) as running:
        running.expect(APPLIED)
        assert is_hooked(host)
        host.remove_link("eth0")
        running.expect(APPLIED)
        assert not is_hooked(host)
        host.make_veth("eth0", "wire0")
        running.expect(APPLIED)
        assert is_hooked(host)
        with traffic(host) as wire:
            assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
    assert drops(host, pin_root) == {Stage.NETDEV_INGRESS: 1}


def test_an_interface_that_came_again_unnoticed_is_enforced_at_the_next_pass(host: NetnsPair, pin_root: Path) -> None:
    """The kernel may attach the chain again by itself, or have removed it: the resulting table is the same."""
    apply(host, pin_root)
    host.remove_link("eth0")
    host.make_veth("eth0", "wire0")
    apply(host, pin_root)
    assert is_hooked(host)
    with traffic(host) as wire:
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
    assert drops(host, pin_root) == {Stage.NETDEV_INGRESS: 1}


def test_an_interface_that_is_not_there_has_its_raw_part_ready(host: NetnsPair, pin_root: Path) -> None:
    applied = apply(host, pin_root, documents(endpoint("eth7"), BOTS, policy()))
    (item,) = applied.plan.interfaces
    assert (item.interface, item.entries[0].stage) == ("eth7", Stage.RAW)
    assert item.entries[0].reason.endswith("netdev-ingress: the interface does not exist")


def test_a_host_without_it_says_so_and_changes_nothing(
    host: NetnsPair, pin_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enforcer.backends.nftables.netdev.backend.probe", lambda _: Probe(Answer.NO, "no such family"))
    with pytest.raises(UnsupportedKernelError, match=r"netdev-ingress was requested .* no such family; without"):
        apply(host, pin_root, raw=RawChoice.IPTABLES)
    with host.host():
        assert Enforcer(NODE, pin_root=pin_root).status() == ()
