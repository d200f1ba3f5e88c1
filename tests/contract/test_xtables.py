"""Legacy tables and ipsets, in the fake and in the kernel: error numbers, snapshots, which rule refers to which set."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from enforcer.backends.iptables.blob import SetIndex, decode, encode
from enforcer.backends.iptables.ipset import IpSetsConn, SetBusyError, ipsets
from enforcer.backends.iptables.members import Members, members_in, members_of
from enforcer.backends.iptables.rules import (
    Jump,
    NoTrack,
    Rule,
    SetMark,
    SetMatch,
    SetType,
    Side,
    TableId,
    TableName,
    Verdict,
)
from enforcer.backends.iptables.table import KernelTable, LegacyTables, TableChangedError, Tables
from enforcer.kernel.libiptc import IptcError
from enforcer.model.errors import KernelError
from enforcer.model.nets import Nets
from tests.contract.conftest import EACH
from tests.kernel.iptables_support import entered, namespace
from tests.support.fakes.xtables import FakeXtables

RAW = TableId(4, TableName.RAW)
NONE = SetIndex({})


class Host:
    """The tables and the sets of a namespace."""

    def __init__(self, tables: Tables, sets: IpSetsConn) -> None:
        self.tables = tables
        self.sets = sets

    @contextmanager
    def raw(self) -> Iterator[KernelTable]:
        with self.tables.lock(), self.tables.open(RAW) as snapshot:
            yield snapshot

    def index(self) -> SetIndex:
        return SetIndex({name: header.index for name, header in self.sets.headers().items()})

    def rules(self, chain: str) -> list[object]:
        with self.raw() as snapshot:
            return [decode(rule, 4, self.index()) for rule in snapshot.rules(chain)]


@pytest.fixture(name="host", params=EACH)
def host_fixture(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A namespace without tables and sets."""
    if request.param == "fake":
        fake = FakeXtables()
        yield Host(fake, fake)
        return
    with namespace() as name, entered(name), ipsets() as sets:
        yield Host(LegacyTables(), sets)


def members(*nets: str) -> Members:
    return members_of(Nets.of(nets), 4)


# --- ipsets -----------------------------------------------------------------------------------------------------------

ANSWERS: dict[str, tuple[Callable[[IpSetsConn], object], str]] = {
    "made twice": (lambda sets: sets.create("a", SetType.NET, 4, 5, limit=9), "File exists"),
    "destroyed, and not there": (lambda sets: sets.destroy("none"), "No such file"),
    "members of none": (lambda sets: sets.listing("none", 4), "No such file"),
    "added to none": (lambda sets: sets.add("none", 4, members("192.0.2.0/24")), "No such file"),
    "deleted from none": (lambda sets: sets.delete("none", 4, members("192.0.2.0/24")), "No such file"),
    "swapped with none": (lambda sets: sets.swap("a", "none"), "4101"),
    "none swapped": (lambda sets: sets.swap("none", "a"), "No such file"),
    "swapped with another type": (lambda sets: sets.swap("a", "ports"), "the sets are of different types"),
    "more than there is room for": (
        lambda sets: sets.add("a", 4, members(*(f"192.0.2.{n}" for n in range(10)))),
        "it is full",
    ),
}


@pytest.mark.parametrize("row", ANSWERS)
def test_an_answer(host: Host, row: str) -> None:
    act, reason = ANSWERS[row]
    host.sets.create("a", SetType.NET, 4, 5, limit=9)
    host.sets.create("ports", SetType.IP_PORT, 4, 5, limit=9)
    with pytest.raises(KernelError, match=reason):
        act(host.sets)


def test_members_come_and_go_and_what_is_said_twice_is_no_error(host: Host) -> None:
    host.sets.create("a", SetType.NET, 4, 5, limit=9)
    for _ in range(2):
        host.sets.add("a", 4, members("192.0.2.0/24", "10.0.0.0/8", "0.0.0.0/0"))
    for _ in range(2):
        host.sets.delete("a", 4, members("192.0.2.0/24", "172.16.0.0/12"))
    found = members_in(host.sets.listing("a", 4), 4)
    assert found is not None
    assert found.tolist() == members("10.0.0.0/8", "0.0.0.0/0").tolist()


def test_a_header_says_how_a_set_was_made(host: Host) -> None:
    host.sets.create("a", SetType.NET, 4, 5, limit=9)
    host.sets.create("b", SetType.IP_PORT, 6, 50, limit=9)
    headers = host.sets.headers()
    assert [(item.type, item.version, item.maxelem, item.options) for item in headers.values()] == [
        ("hash:net", 4, 9, 0),
        ("hash:ip,port", 6, 50, 0),
    ]
    assert headers["a"].index != headers["b"].index


def test_a_swap_exchanges_what_the_numbers_stand_for(host: Host) -> None:
    for name, size in (("a", 5), ("b", 50)):
        host.sets.create(name, SetType.NET, 4, size, limit=1)
    host.sets.add("a", 4, members("192.0.2.0/24"))
    before = host.sets.headers()
    host.sets.swap("a", "b")
    after = host.sets.headers()
    assert {name: item.index for name, item in after.items()} == {name: item.index for name, item in before.items()}
    assert (after["a"].maxelem, after["b"].maxelem) == (50, 5)
    found = members_in(host.sets.listing("b", 4), 4)
    assert found is not None
    assert found.tolist() == members("192.0.2.0/24").tolist()


def test_a_set_that_a_rule_matches_stays(host: Host) -> None:
    for name in ("a", "b"):
        host.sets.create(name, SetType.NET, 4, 5, limit=9)
    rule = Rule(Verdict.DROP, matches=(SetMatch("a", Side.SOURCE),))
    with host.raw() as snapshot:
        snapshot.insert("PREROUTING", 0, encode(rule, 4, host.index()))
        snapshot.commit()
    with pytest.raises(SetBusyError):
        host.sets.destroy("a")
    host.sets.swap("a", "b")
    assert host.rules("PREROUTING") == [rule]
    host.sets.destroy("b")
    with host.raw() as snapshot:
        snapshot.delete("PREROUTING", 0)
        snapshot.commit()
    host.sets.destroy("a")


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_is_there_once_it_was_opened(host: Host) -> None:
    assert not host.tables.exists(RAW)
    with host.raw() as snapshot:
        assert snapshot.chain_names() == ["PREROUTING", "OUTPUT"]
    assert host.tables.exists(RAW)


RULES = (
    Rule(Verdict.DROP, in_interface="eth0", protocol=6),
    Rule(Jump("b", goto=True)),
    Rule(SetMark(1, 1)),
    Rule(NoTrack()),
    Rule(Verdict.RETURN),
)


def test_what_is_read_is_what_was_committed(host: Host) -> None:
    with host.raw() as snapshot:
        for chain in ("b", "a"):
            snapshot.create_chain(chain)
        for at, rule in enumerate(RULES):
            snapshot.insert("a", at, encode(rule, 4, NONE))
        snapshot.insert("a", 1, encode(RULES[0], 4, NONE))
        snapshot.delete("a", 0)
        with host.tables.open(RAW) as other:
            assert "a" not in other.chain_names()
        snapshot.commit()
    assert host.rules("a") == list(RULES)
    with host.raw() as snapshot:
        assert set(snapshot.chain_names()) == {"PREROUTING", "OUTPUT", "a", "b"}
        assert not snapshot.delete_chain("b"), "a rule leads to it"


def test_what_is_not_committed_is_not(host: Host) -> None:
    with host.raw() as snapshot:
        snapshot.create_chain("a")
    with host.raw() as snapshot:
        assert "a" not in snapshot.chain_names()


REFUSED: dict[str, Callable[[KernelTable], object]] = {
    "a chain made twice": lambda table: table.create_chain("PREROUTING"),
    "a rule of no chain": lambda table: table.insert("none", 0, encode(RULES[0], 4, NONE)),
    "a rule beyond the end": lambda table: table.insert("PREROUTING", 1, encode(RULES[0], 4, NONE)),
    "a rule deleted that is not there": lambda table: table.delete("PREROUTING", 0),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_change_is_refused(host: Host, what: str) -> None:
    with host.raw() as snapshot, pytest.raises(KernelError) as refused:
        REFUSED[what](snapshot)
    assert isinstance(refused.value.__cause__, IptcError)


def test_a_chain_with_rules_and_a_built_in_one_stay(host: Host) -> None:
    with host.raw() as snapshot:
        snapshot.create_chain("a")
        snapshot.insert("a", 0, encode(RULES[0], 4, NONE))
        assert not snapshot.delete_chain("a")
        assert not snapshot.delete_chain("PREROUTING")
        snapshot.delete("a", 0)
        assert snapshot.delete_chain("a")


@pytest.mark.parametrize(
    "rule", [Rule(Jump("nowhere")), Rule(Verdict.DROP, matches=(SetMatch("none", Side.SOURCE),))], ids=["jump", "set"]
)
def test_what_is_not_there_is_refused_when_it_is_committed(host: Host, rule: Rule) -> None:
    with host.raw() as snapshot:
        snapshot.insert("PREROUTING", 0, encode(rule, 4, SetIndex({"none": 9})))
        with pytest.raises(KernelError) as refused:
            snapshot.commit()
    assert refused.value.__cause__ is not None
    assert host.rules("PREROUTING") == []


def test_a_table_of_another_size_meanwhile_is_not_overwritten(host: Host) -> None:
    with host.raw() as snapshot:
        snapshot.insert("PREROUTING", 0, encode(RULES[0], 4, NONE))
        with host.tables.open(RAW) as other:
            other.create_chain("theirs")
            other.commit()
        with pytest.raises(TableChangedError) as refused:
            snapshot.commit()
    assert isinstance(refused.value.__cause__, IptcError)
    assert refused.value.__cause__.errno == errno.EAGAIN
