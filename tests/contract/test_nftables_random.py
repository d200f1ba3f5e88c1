"""Random transactions, in the fake and in the kernel: same answers, same state after each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.backends.nftables import blob
from enforcer.backends.nftables.rules import PORTS, Rule
from enforcer.kernel.nfnetlink import Family, Message, NfTablesConn, nftables
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
from tests.contract.test_nftables import number_of, state
from tests.kernel.iptables_support import entered, namespace
from tests.support.fakes.nft import FakeNfTables

_NAMES = st.sampled_from(("a", "b"))
_FLAGS = st.sampled_from((CREATE, CREATE, CREATE, CREATE | EXCLUSIVE))


@st.composite
def _intervals(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Disjoint intervals of few ports, the last perhaps without an end; they may overlap with existing ones."""
    edges = draw(st.lists(st.integers(1, 12), min_size=1, max_size=6, unique=True).map(sorted))
    if len(edges) % 2:
        edges.append(0)
    return list(zip(edges[::2], edges[1::2], strict=True))


# (command, index of an existing rule): a rule's handle is only known later, and is then put in.
_Late = tuple[str, str, int]


def _commands() -> st.SearchStrategy[Message | _Late]:
    rules = st.one_of(st.just(DROP), st.builds(jump, st.sampled_from("abh")), st.just(looks_up("p", PORTS)))
    late = st.tuples(st.sampled_from(("before", "after", "delete")), _NAMES, st.integers(0, 3))
    return st.one_of(
        st.just(new_table()),
        st.builds(new_chain, _NAMES, flags=_FLAGS),
        st.just(new_chain("h", PREROUTING)),
        st.builds(delete_chain, st.sampled_from("abh")),
        st.builds(new_rule, _NAMES, rules, flags=st.sampled_from((CREATE, CREATE | APPEND))),
        st.builds(delete_rule, _NAMES),
        late,
        late,
        st.builds(new_set, st.just("p"), st.just(PORTS), flags=_FLAGS),
        st.builds(delete_set, st.just("p")),
        *[st.builds(lambda found, flags: add("p", *found, flags=flags), _intervals(), _FLAGS)] * 3,
        *[st.builds(lambda found: delete("p", *found), _intervals())] * 2,
        st.just(flush("p")),
        st.just(delete_table()),
    )


def _settled(conn: NfTablesConn, command: Message | _Late) -> Message:
    """The command with the rule's handle in this kernel or fake; each may number differently."""
    if isinstance(command, Message):
        return command
    verb, chain, at = command
    found = [blob.decode_rule(item) for item in conn.dump(7, Family.IP, what="rules")]
    handles = [item.handle for item in found if item.chain == chain]
    handle = handles[at] if at < len(handles) else 4711
    if verb == "delete":
        return delete_rule(chain, handle)
    return new_rule(
        chain, Rule(DROP.exprs, "placed"), position=handle, flags=CREATE | (APPEND if verb == "after" else 0)
    )


@pytest.fixture(name="kernel", scope="module")
def kernel_fixture() -> Iterator[NfTablesConn]:
    with namespace() as name, entered(name), nftables() as conn:
        yield conn


_BASE = [new_table(), new_chain("a"), new_chain("b"), new_set("p", PORTS)]


@pytest.mark.needs_root
@settings(max_examples=60)
@given(history=st.lists(st.lists(_commands(), min_size=1, max_size=4), max_size=8))
def test_the_fake_answers_as_the_kernel_does(kernel: NfTablesConn, history: list[list[Message | _Late]]) -> None:
    number_of(kernel, delete_table())
    fake = FakeNfTables()
    for commands in (_BASE, *history):
        both: tuple[NfTablesConn, ...] = (fake, kernel)
        before = [conn.generation() for conn in both]
        answers = [number_of(conn, *[_settled(conn, command) for command in commands]) for conn in both]
        assert answers[0] == answers[1]
        assert _seen(fake) == _seen(kernel)
        raised = [conn.generation() - first for conn, first in zip(both, before, strict=True)]
        assert raised[0] == raised[1]


def _seen(conn: NfTablesConn) -> object:
    """The state, without the handles of rules."""
    table, members = state(conn)
    rules = {name: [item.rule for item in found] for name, found in table.rules.items()}
    return table.present, table.strange, table.chains, rules, table.sets, members
