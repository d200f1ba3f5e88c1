"""What is noticed of a large set although its members are not counted now."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest

from enforcer.backends.iptables.ipset import ipsets
from enforcer.backends.iptables.rules import TableId, TableName
from enforcer.backends.iptables.table import TableNames, exists
from enforcer.backends.iptables.watch import IptablesWatch
from enforcer.backends.iptables.watch_sets import WatchedSets
from enforcer.backends.netfilter.names import is_our_set
from enforcer.kernel.pace import Pace
from tests.kernel.iptables_plans import BACKEND, DENY, entry, ip_set, plan, table
from tests.kernel.iptables_support import (
    inside_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    run,
)
from tests.support.entries import SideMatch

pytestmark = pytest.mark.needs_root

COUNT = 10_000
LARGE = plan(
    table(
        entry(0, DENY, source=SideMatch(ip_set="s:a")),
        sets=[
            ip_set("s:a", [f"{ipaddress.IPv4Address(0x0A000000 + 2 * at)}/32" for at in range(COUNT)]),
        ],
    )
)


def test_tables_are_found_when_they_appear(inside: str) -> None:
    names, raw = TableNames(), TableId(4, TableName.RAW)
    try:
        assert names.have(raw) == exists(raw)
        BACKEND.apply(LARGE)
        assert names.have(raw)
    finally:
        names.close()


@pytest.fixture
def watched(inside: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[WatchedSets, str]]:
    """The sets of LARGE, none of whose headers it is the turn of; and the name of the large one."""
    BACKEND.apply(LARGE)
    sets = WatchedSets()
    sets.remember()
    BACKEND.apply(LARGE)  # changes nothing, so that nothing is recorded afterwards
    monkeypatch.setattr(Pace, "is_due", lambda self: False)
    name = next(line for line in run("ipset", "list", "-n").splitlines() if is_our_set(line) and "4-" in line)
    yield sets, name
    sets.close()


def test_of_an_untouched_set_nothing_is_said(watched: tuple[WatchedSets, str]) -> None:
    assert watched[0].losses(thorough=False) == []


def test_a_flushed_set_is_noticed(watched: tuple[WatchedSets, str]) -> None:
    sets, name = watched
    run("ipset", "flush", name)
    assert sets.losses(thorough=False) == [f"ipset {name}: 0 members, {COUNT} before"]


def test_a_swapped_set_is_noticed(watched: tuple[WatchedSets, str]) -> None:
    sets, name = watched
    run("ipset", "create", "other", "hash:net")
    run("ipset", "swap", name, "other")
    assert sets.losses(thorough=False) == [f"ipset {name}: 0 members, {COUNT} before"]


def test_a_set_of_which_half_is_gone_is_noticed(watched: tuple[WatchedSets, str]) -> None:
    sets, name = watched
    gone = COUNT // 2
    run(
        "ipset",
        "restore",
        text="".join(f"del {name} {ipaddress.IPv4Address(0x0A000000 + 2 * at)}\n" for at in range(gone)),
    )
    assert sets.losses(thorough=False) == [f"ipset {name}: {COUNT - gone} members, {COUNT} before"]


def test_other_members_need_other_memory_and_are_called_so(watched: tuple[WatchedSets, str]) -> None:
    sets, name = watched
    removed = [f"del {name} {ipaddress.IPv4Address(0x0A000000 + 2 * at)}\n" for at in range(COUNT // 2)]
    added = [f"add {name} {ipaddress.IPv4Address(0x0B000000 + at)}\n" for at in range(COUNT // 2)]
    run("ipset", "restore", text="".join(removed + added))
    assert sets.losses(thorough=False) == [f"ipset {name}: other members, as many as before"]


def test_the_members_are_compared_with_what_the_last_pass_listed(
    watched: tuple[WatchedSets, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sets, name = watched
    monkeypatch.setattr(Pace, "is_due", lambda self: True)
    assert sets.losses(thorough=False) == []
    monkeypatch.setattr(WatchedSets, "_digest", lambda self, name: b"another")
    assert f"ipset {name}: other members, as many as before" in sets.losses(thorough=False)


def test_the_indexes_of_sets_are_those_of_the_kernel(watched: tuple[WatchedSets, str]) -> None:
    with ipsets() as conn:
        assert watched[0].index().number == {name: header.index for name, header in conn.headers().items()}


def test_what_was_recorded_before_counts_as_long_as_the_table_is_the_same(inside: str) -> None:
    BACKEND.apply(LARGE)
    watch = IptablesWatch()
    watch.begin()
    try:
        watch.remember()
        watch.remember()
        assert watch.losses() == []
        chain = next(line.split()[1] for line in run("iptables-legacy", "-t", "raw", "-S").splitlines() if "-A" in line)
        run("iptables-legacy", "-t", "raw", "-F", chain)
        first = watch.losses()
        assert any(chain in loss.what and "removed" in loss.what for loss in first), first
        watch.remember()
        assert watch.losses() == []
    finally:
        watch.close()


@pytest.fixture
def watch(inside: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[IptablesWatch]:
    """It knows LARGE, and it is never the turn of the rules."""
    BACKEND.apply(LARGE)
    watch = IptablesWatch()
    watch.begin()
    watch.remember()
    monkeypatch.setattr(Pace, "is_due", lambda self: False)
    yield watch
    watch.close()


def test_before_a_pass_a_rule_of_the_same_size_is_noticed_whose_turn_it_is_not(watch: IptablesWatch) -> None:
    run("iptables-legacy", "-t", "raw", "-R", "enf-fh-eth0", "1", "-j", "RETURN")
    assert watch.losses() == []  # the table has the same size
    found = [loss.what for loss in watch.losses(thorough=True)]
    assert found == ["iptables raw IPv4: chain enf-fh-eth0: 1 of 1 rules removed, 1 others added"]
    assert watch.losses(thorough=True) == []


def test_foreign_rules_behind_our_jump_are_no_loss_and_in_front_of_it_they_are(watch: IptablesWatch) -> None:
    foreign = ("PREROUTING", "-j", "ACCEPT")
    moved = ["iptables raw IPv4: chain PREROUTING: its jump to our chain was changed or moved"]
    run("iptables-legacy", "-t", "raw", "-A", *foreign)
    watch.losses()  # the jump was the only rule: whether it has to be the first or the last one is not known
    for command, found in (("-A", []), ("-D", []), ("-I", moved), ("-D", []), ("-D", [])):
        run("iptables-legacy", "-t", "raw", command, *foreign)
        assert [loss.what for loss in watch.losses(thorough=True)] == found, command
