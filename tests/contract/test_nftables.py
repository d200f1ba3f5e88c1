"""nf_tables, in the fake and in the kernel: transactions, error numbers, handles, dumps."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from enforcer.backends.nftables import blob
from enforcer.backends.nftables.members import port_members
from enforcer.backends.nftables.read import ReadTable, read_members, read_table
from enforcer.backends.nftables.rules import NETS, PORTS, TABLE, Hook, Rule
from enforcer.kernel.nfnetlink import Family, Message, NfTablesConn, RulesetChangedError, nftables
from enforcer.model.errors import KernelError, UnsupportedKernelError
from enforcer.policy.resources import PortRange
from tests.contract.conftest import EACH
from tests.contract.nft_commands import (
    APPEND,
    CREATE,
    DROP,
    EXCLUSIVE,
    PREROUTING,
    add,
    delete,
    delete_chain,
    delete_rule,
    delete_set,
    delete_table,
    flush,
    jump,
    looks_up,
    new_chain,
    new_rule,
    new_set,
    new_table,
)
from tests.kernel.iptables_support import entered, namespace
from tests.support.fakes.nft import FakeNfTables


@pytest.fixture(name="conn", params=EACH)
def conn_fixture(request: pytest.FixtureRequest) -> Iterator[NfTablesConn]:
    """The empty ruleset of a namespace."""
    if request.param == "fake":
        yield FakeNfTables()
        return
    with namespace() as name, entered(name), nftables() as conn:
        yield conn


def do(conn: NfTablesConn, *messages: Message) -> None:
    conn.commit(messages, conn.generation())


def number_of(conn: NfTablesConn, *messages: Message) -> int | None:
    """The kernel's answer to a transaction; None if it succeeds."""
    try:
        do(conn, *messages)
    except KernelError as error:
        return error.errno
    except UnsupportedKernelError:
        return errno.EOPNOTSUPP
    return None


def rules_of(conn: NfTablesConn, chain: str) -> list[tuple[int, str]]:
    """Handles and comments."""
    found = [blob.decode_rule(item) for item in conn.dump(7, Family.IP, what="rules")]
    return [(item.handle, item.rule.comment if item.rule else "?") for item in found if item.chain == chain]


@dataclass(frozen=True)
class Row:
    """``before``: transactions that succeed; ``then``: one with this answer."""

    sentence: str
    before: tuple[Message, ...]
    then: tuple[Message, ...]
    number: int | None = None


BASE = (new_table(), new_chain("a"), new_chain("b"), new_set("s"))
PORTED = (new_table(), new_set("p", PORTS), add("p", (10, 20), (20, 30), (40, 0)))
ROWS = [
    Row("a table that is there is made again", (new_table(),), (new_table(),)),
    Row("but not exclusively", (new_table(),), (new_table(flags=CREATE | EXCLUSIVE),), errno.EEXIST),
    Row("a table that is not there is deleted", (), (delete_table(),), errno.ENOENT),
    Row("a table goes with all that is in it", (*BASE, new_rule("a", jump("b")), new_rule("b", looks_up("s"))),
        (delete_table(),)),
    Row("a table is made anew in one transaction", (*BASE, new_rule("a", looks_up("s"))), (delete_table(), *BASE)),
    Row("of another family it is another table", (new_table(),), (new_table(family=Family.IP6), delete_table())),
    Row("a chain without a table", (), (new_chain("a"),), errno.ENOENT),
    Row("a chain that is there is made again", BASE, (new_chain("a"),)),
    Row("but not exclusively so", BASE, (new_chain("a", flags=CREATE | EXCLUSIVE),), errno.EEXIST),
    Row("a chain with a hook that is there is made again", (new_table(), new_chain("h", PREROUTING)),
        (new_chain("h", PREROUTING),)),
    Row("a chain is hooked elsewhere", (new_table(), new_chain("h", PREROUTING)), (new_chain("h", Hook(3, -300)),),
        errno.EOPNOTSUPP),
    Row("a chain that is not there is deleted", (new_table(),), (delete_chain("a"),), errno.ENOENT),
    Row("a chain with rules is deleted", (*BASE, new_rule("a")), (delete_chain("a"),)),
    Row("a chain that another jumps to is deleted", (*BASE, new_rule("a", jump("b"))), (delete_chain("b"),),
        errno.EBUSY),
    Row("a chain that jumps to another is deleted, then the other", (*BASE, new_rule("a", jump("b"))),
        (delete_chain("a"), delete_chain("b"))),
    Row("chains are emptied and deleted in one transaction", (*BASE, new_rule("a", jump("b"))),
        (delete_rule("a"), delete_rule("b"), delete_chain("b"), delete_chain("a"))),
    Row("a chain of a device", (new_table(family=Family.NETDEV),),
        (new_chain("n", Hook(0, -300, "lo"), family=Family.NETDEV),)),
    Row("a rule of no chain", (new_table(),), (new_rule("a"),), errno.ENOENT),
    Row("a rule without leave to make one", BASE, (new_rule("a", flags=APPEND),), errno.EINVAL),
    Row("a jump to no chain", BASE, (new_rule("a", jump("c")),), errno.ENOENT),
    Row("a jump to a chain with a hook", (*BASE, new_chain("h", PREROUTING)), (new_rule("a", jump("h")),),
        errno.EOPNOTSUPP),
    Row("a rule that looks up a missing set", BASE, (new_rule("a", looks_up("r")),), errno.ENOENT),
    Row("a rule that looks up a set of the same transaction", (), (*BASE, new_set("r"), new_rule("a", looks_up("r")))),
    Row("a rule in front of none", BASE, (new_rule("a", position=77, flags=CREATE),), errno.ENOENT),
    Row("a rule that is not there is deleted", BASE, (delete_rule("a", 77),), errno.ENOENT),
    Row("the rules of a chain without any are deleted", BASE, (delete_rule("a"),)),
    Row("the rules of no chain are deleted", BASE, (delete_rule("c"),), errno.ENOENT),
    Row("a set without a table", (), (new_set("s"),), errno.ENOENT),
    Row("a set that is there is made again", BASE, (new_set("s"),)),
    Row("a set that is there is not made exclusively", BASE, (new_set("s", flags=CREATE | EXCLUSIVE),), errno.EEXIST),
    Row("a set of another type", BASE, (new_set("s", NETS[6]),), errno.EEXIST),
    Row("a set without leave to make one", (new_table(),), (new_set("s", flags=0),), errno.ENOENT),
    Row("a set that is not there is deleted", (new_table(),), (delete_set("s"),), errno.ENOENT),
    Row("deleting a set that a rule uses", (*BASE, new_rule("a", looks_up("s"))), (delete_set("s"),), errno.EBUSY),
    Row("first the rule, then its set", (*BASE, new_rule("a", looks_up("s"))), (delete_rule("a"), delete_set("s"))),
    Row("first the chain, then the set", (*BASE, new_rule("a", looks_up("s"))), (delete_chain("a"), delete_set("s"))),
    Row("members of no set", BASE, (add("p", (1, 2)),), errno.ENOENT),
    Row("a member that is there is added", PORTED, (add("p", (10, 20)),)),
    Row("a member that is there is not added exclusively", PORTED, (add("p", (10, 20), flags=CREATE | EXCLUSIVE),),
        errno.EEXIST),
    Row("a member next to others", PORTED, (add("p", (30, 40)),)),
    Row("a member that begins in another", PORTED, (add("p", (15, 35)),), errno.EEXIST),
    Row("a member that ends in another", PORTED, (add("p", (5, 15)),), errno.EEXIST),
    Row("a member within another", PORTED, (add("p", (12, 15)),), errno.EEXIST),
    Row("a member around another", PORTED, (add("p", (5, 35)),), errno.EEXIST),
    Row("a member after the one without an end", PORTED, (add("p", (50, 60)),), errno.EEXIST),
    Row("a member that is not there is deleted", PORTED, (delete("p", (30, 40)),), errno.ENOENT),
    Row("a member is deleted twice", PORTED, (delete("p", (10, 20)), delete("p", (10, 20))), errno.ENOENT),
    Row("a member grows into what another leaves", PORTED, (delete("p", (10, 20), (20, 30)), add("p", (15, 25)))),
    Row("a member is deleted and added again", PORTED, (delete("p", (40, 0)), add("p", (40, 0)))),
    Row("a set is filled anew", PORTED, (flush("p"), add("p", (15, 0)))),
    Row("an empty set is emptied", (new_table(), new_set("p", PORTS)), (flush("p"),)),
]  # fmt: skip


def state(conn: NfTablesConn) -> tuple[ReadTable, dict[str, list[bytes]]]:
    """The table and the members of its sets, as the enforcer reads them."""
    table = read_table(conn, Family.IP)
    kinds = {4: NETS[4], 16: NETS[6], 2: PORTS}
    members = {
        name: found.tolist()
        for name, item in table.sets.items()
        if (found := read_members(conn, Family.IP, name, kinds[item.key_bytes])) is not None
    }
    return table, members


@pytest.mark.parametrize("row", ROWS, ids=[row.sentence for row in ROWS])
def test_an_answer(conn: NfTablesConn, row: Row) -> None:
    if row.before:
        do(conn, *row.before)
    before = state(conn)
    generation = conn.generation()
    assert number_of(conn, *row.then) == row.number
    if row.number is not None:
        assert (state(conn), conn.generation()) == (before, generation), "what fails changes nothing"


EVERYTHING = [
    *BASE,
    new_set("p", PORTS),
    add("p", (10, 20), (30, 0)),
    new_chain("h", PREROUTING),
    new_rule("a", looks_up("s")),
    new_rule("h", jump("a")),
]


def test_what_is_read_is_what_was_written(conn: NfTablesConn) -> None:
    do(conn, *EVERYTHING)
    table, members = state(conn)
    assert not table.strange
    assert {name: chain.hook for name, chain in table.chains.items()} == {"a": None, "b": None, "h": PREROUTING}
    assert {name: [item.rule for item in rules] for name, rules in table.rules.items()} == {
        "a": [looks_up("s")],
        "b": [],
        "h": [jump("a")],
    }
    assert table.sets["s"].is_of(NETS[4])
    assert table.sets["p"].is_of(PORTS)
    assert members["p"] == port_members([PortRange(10, 19), PortRange(30, 65535)]).tolist()


def test_nothing_is_read_of_what_is_not_there(conn: NfTablesConn) -> None:
    assert state(conn) == (ReadTable(Family.IP), {})
    do(conn, new_table())
    for name in ("none", TABLE):
        found = read_members(conn, Family.IP, name, PORTS)
        assert found is not None
        assert not len(found)


def test_a_switched_off_table_says_so(conn: NfTablesConn) -> None:
    do(conn, new_table(dormant=1))
    do(conn, new_table())
    assert state(conn)[0].strange == "it is dormant", "flags that are not said stay"
    do(conn, new_table(dormant=0))
    assert state(conn)[0].strange == ""


def test_a_generation_for_each_transaction_that_changes_something(conn: NfTablesConn) -> None:
    first = conn.generation()
    do(conn, new_table(), new_chain("a"))
    assert conn.generation() == first + 1
    do(conn, new_table())
    assert conn.generation() == first + 1
    do(conn, new_set("p", PORTS), add("p", (1, 2)))
    do(conn, add("p", (1, 2)))
    do(conn, delete_rule("a"))
    assert conn.generation() == first + 2


def test_a_transaction_of_another_generation_is_none(conn: NfTablesConn) -> None:
    stale = conn.generation()
    do(conn, new_table())
    with pytest.raises(RulesetChangedError):
        conn.commit([delete_table()], stale)
    assert state(conn)[0].present


def test_an_error_names_its_command_and_nothing_is_changed(conn: NfTablesConn) -> None:
    with pytest.raises(KernelError, match="new rule of nowhere"):
        do(conn, new_table(), new_rule("nowhere"), new_chain("a"))
    assert not state(conn)[0].present


def test_a_check_changes_nothing(conn: NfTablesConn) -> None:
    generation = conn.generation()
    conn.check([*BASE, new_rule("a", looks_up("s"))])
    assert (conn.generation(), state(conn)[0].present) == (generation, False)
    with pytest.raises(KernelError, match="new rule of c"):
        conn.check([*BASE, new_rule("c")])


def test_where_rules_go(conn: NfTablesConn) -> None:
    do(conn, *BASE)
    named = {name: Rule(DROP.exprs, name) for name in "1234567"}
    do(conn, new_rule("a", named["1"]), new_rule("a", named["2"]))
    (one, _), (two, _) = rules_of(conn, "a")
    assert two > one
    do(
        conn,
        new_rule("a", named["3"], flags=CREATE),
        new_rule("a", named["4"], position=two, flags=CREATE),
        new_rule("a", named["5"], position=one),
        new_rule("a", named["6"]),
    )
    assert [name for _, name in rules_of(conn, "a")] == ["3", "1", "5", "4", "2", "6"]
    do(conn, delete_rule("a", one), new_rule("a", named["7"], position=two, flags=CREATE))
    found = rules_of(conn, "a")
    assert [name for _, name in found] == ["3", "5", "4", "7", "2", "6"]
    assert len(set(found)) == len(found)


def test_what_a_rule_counted_is_told(conn: NfTablesConn) -> None:
    do(conn, *BASE, new_rule("a"))
    (item,) = [blob.decode_rule(item) for item in conn.dump(7, Family.IP, what="rules")]
    assert (item.packets, item.bytes, item.rule) == (0, 0, DROP)


def test_a_large_set_is_read_in_pieces(conn: NfTablesConn) -> None:
    intervals = [(at, at + 1) for at in range(0, 60_000, 20)]
    do(conn, new_table(), new_set("p", PORTS), add("p", *intervals[:1500]), add("p", *intervals[1500:]))
    found = read_members(conn, Family.IP, "p", PORTS)
    assert found is not None
    assert found.tolist() == port_members([PortRange(first, first) for first, _ in intervals]).tolist()
