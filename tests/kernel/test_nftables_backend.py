"""The nftables backend alone: repair of manual changes, foreign tables, one transaction, change of backend."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from enforcer.backends.base import Setup
from enforcer.backends.iptables.rules import TABLES
from enforcer.backends.iptables.table import exists
from enforcer.backends.nftables import NftablesBackend, NftablesSettings, installed
from enforcer.backends.nftables import apply as transactions
from enforcer.backends.nftables.render import render
from enforcer.backends.registry import REGISTRY
from enforcer.kernel.nfnetlink import Message, NfTables
from enforcer.model.errors import KernelError
from enforcer.model.vocabulary import Backend, Direction
from enforcer.planning.plan import InterfacePlan, Plan
from enforcer.policy.resources import FelixConfiguration
from enforcer.policy.ruletable import RuleTable
from tests.kernel.iptables_plans import (
    ALLOW,
    DENY,
    DENY_LIST,
    FAILSAFES,
    FROM_LIST,
    LOG,
    PASS,
    RICH,
    dport,
    entry,
    ip_set,
    port_set,
    table,
)
from tests.kernel.iptables_support import (
    LISTED,
    OTHER,
    Wire,
    all_tables,
    cable_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    frames,
    inside_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    pieces,
    run,
    tcp,
    udp,
    v4,
)
from tests.kernel.raw_support import RawDriver, ruleset
from tests.support.entries import SideMatch

pytestmark = pytest.mark.needs_root

NOWHERE = Path("/sys/fs/bpf/enforcer-test-nowhere")  # XDP holds nothing there

REFERENCE = Path(__file__).parent / "reference"
BACKEND = NftablesBackend()


def plan(*tables: RuleTable) -> Plan:
    return Plan("node", tuple(InterfacePlan(item, None, Backend.NFTABLES, ()) for item in tables))


WHOLE = table(
    entry(0, LOG, protocol=17, destination=dport(53)),
    entry(1, DENY, source=FROM_LIST),
    entry(2, PASS, tier="security", protocol=1),
    entry(3, DENY, protocol=6, destination=SideMatch(ports=dport(22).ports, named_ports=("n:web",))),
    entry(4, ALLOW, destination=SideMatch(not_named_ports=("n:web",))),
    egress=(entry(0, DENY, direction=Direction.EGRESS, destination=SideMatch(not_ip_set="s:deny")),),
    sets=[DENY_LIST],
    port_sets=[port_set("web", ("10.10.10.10", 80), ("2001:db8:1::10", 80))],
    **FAILSAFES,
)


def test_both_tables_as_reviewed(inside: str) -> None:
    """``UPDATE_REFERENCE=1 pytest ...`` rewrites the file; review the diff before committing it."""
    BACKEND.apply(plan(WHOLE))
    text = run("nft", "-s", "list", "ruleset")
    path = REFERENCE / "nftables-tables.txt"
    if os.environ.get("UPDATE_REFERENCE"):
        path.write_text(text)
    assert text == path.read_text()


def test_read_back_is_what_was_rendered(inside: str) -> None:
    BACKEND.apply(plan(RICH))
    for wanted, found in zip(render(plan(RICH), NftablesSettings()), installed(), strict=True):
        assert {name: chain.hook for name, chain in found.chains.items()} == {
            chain.name: chain.hook for chain in wanted.chains
        }
        for chain in wanted.chains:
            assert tuple(item.rule for item in found.rules[chain.name]) == chain.rules


def test_without_ipv6_support_there_is_no_table_of_it(inside: str) -> None:
    BACKEND.apply(plan(WHOLE))
    assert RawDriver(Backend.NFTABLES).configured(ipv6_support=False).apply(plan(WHOLE)).changes == (
        "nftables ip6: table enforcer: deleted",
    )
    assert run("nft", "list", "tables").split() == ["table", "ip", "enforcer"]


# --- repair -----------------------------------------------------------------------------------------------------------

(SET,) = (spec.name for spec in render(plan(RICH), NftablesSettings())[0].sets if spec.origin.startswith("selector"))
CHAIN = "ip enforcer enf-pi-eth0/security"

HAND_EDITS = {
    "a rule deleted": f"delete rule {CHAIN} handle {{}}",
    "a rule added": f"insert rule {CHAIN} ip saddr 10.9.9.9 accept",
    "a rule with a set of its own": f"insert rule {CHAIN} ip saddr {{ 10.9.9.9, 10.9.9.8 }} accept",
    "a rule of an expression we never use": f"insert rule {CHAIN} numgen random mod 2 < 1 accept",
    "a rule of a chain emptied": f"flush chain {CHAIN}",
    "an unwanted chain of ours": "add chain ip enforcer mine { type filter hook input priority 0; }",
    "unhooked": "flush chain ip enforcer enf-PREROUTING",
    "a policy": "add chain ip enforcer enf-PREROUTING { policy drop; }",
    "switched off": "add table ip enforcer { flags dormant; }",
    "a member removed": f"delete element ip enforcer {SET} {{ 203.0.113.0/24 }}",
    "a member added": f"add element ip enforcer {SET} {{ 192.0.2.0/24 }}",
    "a member widened": f"delete element ip enforcer {SET} {{ 203.0.113.0/24 }}; "
    f"add element ip enforcer {SET} {{ 203.0.113.0-203.0.114.7 }}",
    "a member with a comment": f'add element ip enforcer {SET} {{ 192.0.2.0/24 comment "mine" }}',
    "all members removed": f"flush set ip enforcer {SET}",
    "a stray set": "add set ip enforcer stray { type ipv4_addr; }",
    "a map": "add map ip enforcer stray { type ipv4_addr : mark; }",
    "a counter": "add counter ip enforcer stray",
    "a table gone": "delete table ip6 enforcer",
    "all gone": "flush ruleset",
    "all rules gone": "flush table ip enforcer",
}


@pytest.mark.parametrize("edit", HAND_EDITS)
def test_a_change_by_hand_is_repaired(inside: str, edit: str) -> None:
    BACKEND.apply(plan(RICH))
    before = ruleset()
    rules = json.loads(run("nft", "-j", "list", "chain", *CHAIN.split()))["nftables"]
    handle = next(item["rule"]["handle"] for item in rules if "rule" in item)
    run("nft", "-f", "-", text=HAND_EDITS[edit].replace("{}", str(handle), 1) + "\n")
    assert ruleset() != before
    announced = BACKEND.apply(plan(RICH), dry_run=True).changes
    assert BACKEND.apply(plan(RICH)).changes == announced != ()
    assert ruleset() == before
    assert BACKEND.apply(plan(RICH)).changes == ()


def test_a_set_of_another_type_is_made_anew_with_its_table(inside: str) -> None:
    run("nft", "-f", "-", text=f"table ip enforcer {{ set {SET} {{ type ipv4_addr; flags timeout; }}; }}\n")
    (first, *_) = BACKEND.apply(plan(RICH)).changes
    assert first == f"nftables ip: table enforcer: created anew, because set {SET} is of another type"
    assert BACKEND.apply(plan(RICH)).changes == ()


def test_a_chain_hooked_elsewhere_is_made_anew_with_its_table(inside: str) -> None:
    hook = "type filter hook input priority 0"
    run("nft", "-f", "-", text=f"table ip enforcer {{ chain enf-PREROUTING {{ {hook}; }}; }}\n")
    (first, *_) = BACKEND.apply(plan(RICH)).changes
    assert first == "nftables ip: table enforcer: created anew, because chain enf-PREROUTING is hooked elsewhere"
    assert BACKEND.apply(plan(RICH)).changes == ()


# --- differences ------------------------------------------------------------------------------------------------------


def test_counters_of_rules_that_stay_survive_and_a_set_changes_only_its_members(cable: Wire) -> None:
    stays = entry(1, DENY, source=FROM_LIST)
    with cable.inside():
        BACKEND.apply(plan(table(stays, sets=[DENY_LIST])))
    cable.send(frames(v4(LISTED, udp(9)) * 3))
    wider = ip_set("s:deny", ["203.0.113.0/24", "192.0.2.0/25", "2001:db8:bad::/48"])
    around = (entry(0, DENY, protocol=253), stays, entry(2, DENY, protocol=254))
    with cable.inside():
        changes = BACKEND.apply(plan(table(*around, sets=[wider]))).changes
        counts = {item.entry: item.packets for item in BACKEND.counters()}
    assert [change.split(": ", 2)[2] for change in changes if change.startswith("nftables ip:")] == [
        "1 members deleted",
        "1 members added",
        "2 rules added, 0 removed",
    ]
    assert counts[stays.name] == 3


def test_neighbouring_nets_come_and_go_without_disturbing_each_other(cable: Wire) -> None:
    nets = ["192.0.2.0/26", "192.0.2.64/26", "192.0.2.128/25", "255.255.255.0/24", "0.0.0.0/8", "192.0.2.0/28"]
    with cable.inside():
        for left in range(len(nets), 0, -1):
            wanted = plan(table(entry(0, DENY, source=FROM_LIST), sets=[ip_set("s:deny", nets[:left])]))
            BACKEND.apply(wanted)
            assert BACKEND.apply(wanted).changes == ()
        for right in range(len(nets)):
            wanted = plan(table(entry(0, DENY, source=FROM_LIST), sets=[ip_set("s:deny", nets[right:])]))
            BACKEND.apply(wanted)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(transactions, "_MEMBERS", transactions._MemberCache())  # so that members are read
                assert BACKEND.apply(wanted).changes == ()
        BACKEND.apply(plan(table(entry(0, DENY, source=FROM_LIST), sets=[ip_set("s:deny", nets[1:4])])))
    cable.send(frames([packet for last in (63, 64, 127, 128, 255) for packet in v4(f"192.0.2.{last}", udp(9))]))
    with cable.inside():
        assert [item.packets for item in BACKEND.counters()] == [4]


def test_members_are_not_read_again_while_nothing_changes(inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = transactions.read_members
    monkeypatch.setattr(transactions, "_MEMBERS", transactions._MemberCache())
    monkeypatch.setattr(transactions, "read_members", lambda *about: read.append(about[2]) or original(*about))
    BACKEND.apply(plan(RICH))
    assert BACKEND.apply(plan(RICH)).changes == ()
    assert read == []
    run("nft", "add", "table", "ip", "somebody")
    assert BACKEND.apply(plan(RICH)).changes == ()
    assert SET in read
    read.clear()
    assert BACKEND.apply(plan(RICH)).changes == ()
    assert read == []


# --- concurrent transactions ------------------------------------------------------------------------------------------

FOREIGN = """table ip somebody { chain mine { type filter hook prerouting priority -300; counter; }; }
table inet enf { set enf4-mine { type ipv4_addr; }; chain enf-fh-eth0 { }; }
"""


def test_foreign_tables_are_untouched(inside: str) -> None:
    run("nft", "-f", "-", text=FOREIGN)
    before = run("nft", "list", "ruleset")
    for current in (plan(RICH), plan(table(entry(0, DENY, protocol=253))), plan(RICH)):
        BACKEND.apply(current)
        assert run("nft", "list", "ruleset").startswith(before.rstrip())
    BACKEND.detach()
    assert run("nft", "list", "ruleset") == before


def test_what_the_kernel_refuses_changes_nothing_and_is_said(inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BACKEND.apply(plan(table(entry(0, DENY))))
    before = ruleset()
    commit = NfTables.commit

    def with_one_that_cannot_be(self: NfTables, messages: list[Message], generation: int) -> None:
        wrong = messages[-1].body.replace(b"enf-", b"no--")
        commit(self, [*messages, Message(6, messages[-1].family, wrong, "the wrong one")], generation)

    monkeypatch.setattr(NfTables, "commit", with_one_that_cannot_be)
    with pytest.raises(KernelError, match=r"the wrong one: (ENOENT|.*No such)"):
        BACKEND.apply(plan(RICH))
    assert ruleset() == before


def test_a_ruleset_changed_meanwhile_is_read_again(inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, calls = NfTables.commit, list[int]()

    def late(self: NfTables, messages: list[Message], generation: int) -> None:
        calls.append(generation)
        if len(calls) == 1:
            run("nft", "-f", "-", text="table ip enforcer { chain enf-PREROUTING { counter; }; }\n")
        commit(self, messages, generation)

    monkeypatch.setattr(NfTables, "commit", late)
    BACKEND.apply(plan(RICH))
    first, *again = calls
    assert again == [first + 1, first + 2], "all of it anew, from the generation that somebody else made"
    assert BACKEND.apply(plan(RICH)).changes == ()


# --- notrack, and the tables of others --------------------------------------------------------------------------------


@pytest.mark.parametrize("conntrack", [False, True], ids=["notrack alone", "a rule of conntrack"])
def test_our_rules_alone_turn_on_no_defragmentation(cable: Wire, conntrack: bool) -> None:
    """As in iptables raw: ``notrack`` marks a packet, and needs no other rule."""
    with cable.inside():
        BACKEND.apply(plan(table(entry(0, ALLOW))))
        if conntrack:
            rule = "type filter hook prerouting priority 0; ct state new;"
            run("nft", "-f", "-", text=f"table ip somebody {{ chain tracks {{ {rule} }}; }}\n")
    cable.send(frames(pieces(OTHER, 9)))
    with cable.inside():
        assert [item.packets for item in BACKEND.counters()] == [1 if conntrack else 3]


def test_an_allow_does_not_pass_the_tables_of_others_but_has_the_mark(cable: Wire) -> None:
    """An accept ends one base chain; the next one is still evaluated."""
    closed = """table ip firewall { chain input { type filter hook prerouting priority -10; policy drop;
        meta mark & 0x10000 == 0x10000 udp dport 10 counter accept; counter; }; }
    """
    allowed = table(entry(0, ALLOW, protocol=17))
    with cable.inside():
        run("nft", "-f", "-", text=closed)
        BACKEND.apply(plan(allowed))
    cable.send(frames(v4(OTHER, udp(9)) * 2 + v4(OTHER, udp(10)) + v4(OTHER, tcp(10)) * 3))
    with cable.inside():
        lines = [line.strip() for line in run("nft", "list", "table", "ip", "firewall").splitlines()]
    assert sum("udp dport 10 counter packets 1 " in line for line in lines) == 1
    assert sum(line.startswith("counter packets 5 ") for line in lines) == 1


# --- change from one backend to the other -----------------------------------------------------------------------------


@pytest.mark.parametrize("before", [Backend.IPTABLES, Backend.NFTABLES], ids=str)
def test_a_host_moves_without_a_gap_and_leaves_nothing(
    inside: str, before: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = Backend.NFTABLES if before is Backend.IPTABLES else Backend.IPTABLES
    old, new = RawDriver(before), RawDriver(after)
    both = REGISTRY.make(Setup(pin_root=NOWHERE))
    both.apply(old.plan(RICH))
    assert [item.entry for item in both.counters()] == [item.entry for item in old.backend.counters()]
    removed_from: list[bool] = []
    apply = type(old.backend).apply

    def watched(self: object, wanted: Plan, *, dry_run: bool = False) -> object:
        removed_from.append(bool(new.backend.counters()))
        return apply(self, wanted, dry_run=dry_run)  # type: ignore[arg-type]  # checked when it runs

    monkeypatch.setattr(type(old.backend), "apply", watched)
    assert both.apply(new.plan(RICH)).changes
    assert removed_from == [True]  # the new one was in place when the old one was removed
    monkeypatch.undo()
    assert both.apply(new.plan(RICH)).changes == ()
    assert old.backend.counters() == ()
    assert [item.entry for item in both.counters()] == [item.entry for item in new.backend.counters()]
    old.backend.apply(old.plan(RICH))
    assert both.detach()
    assert both.detach() == ()
    assert ruleset() == []
    assert not any("enf" in line for line in all_tables())


def test_a_host_that_never_had_legacy_tables_gets_none(inside: str) -> None:
    both = REGISTRY.make(Setup(pin_root=NOWHERE))
    both.apply(RawDriver(Backend.NFTABLES).plan(RICH))
    both.counters()
    both.detach()
    assert not any(map(exists, TABLES))


def test_settings_are_those_of_the_felix_configuration() -> None:
    felix = FelixConfiguration("default", log_action_rate_limit="10/minute", log_action_rate_limit_burst=0)
    backend = RawDriver(Backend.NFTABLES).configured(log_action_rate_limit="10/minute", log_action_rate_limit_burst=0)
    assert isinstance(backend, NftablesBackend)
    assert felix.iptables_mark_mask == backend.settings.mark_mask
    assert backend.settings.log_limit is not None
    assert (backend.settings.log_limit.count, backend.settings.log_limit.unit_s) == (10, 60)
