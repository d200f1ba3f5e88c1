"""nf_tables in memory: the ruleset of one network namespace, with the kernel's transactions, error numbers and handles.

A fake of :class:`enforcer.kernel.nfnetlink.NfTables` that passes the same contract tests (``tests/contract``), so that
the code that uses it can be tested without root, and with failures that cannot be provoked in a kernel.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from enforcer.backends.nftables import blob
from enforcer.kernel.netlink import attributes, string
from enforcer.kernel.nfnetlink import Family, Message, refusal
from tests.support.fakes.calls import Calls
from tests.support.fakes.nft_objects import (
    FakeChain,
    FakeSet,
    FakeTable,
    Refused,
    element_attributes,
    read_elements,
    read_rule,
)

Tables = dict[tuple[Family, str], FakeTable]
Found = Mapping[int, bytes]

_EXCLUSIVE, _CREATE, _APPEND = 0x200, 0x400, 0x800
_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENTS = 1, 4, 7, 10, 13
_TABLE = 1  # the attribute that names the table, of every command
_LIST_BYTES = 3000  # a set is dumped in several messages

_namespaces = itertools.count(1)


@dataclass
class FakeNfTables:
    """The ruleset of a namespace, and a connection to it."""

    tables: Tables = field(default_factory=dict)
    calls: Calls = field(default_factory=Calls)
    number: int = 1
    namespace: int = field(default_factory=lambda: next(_namespaces))

    def copy(self) -> FakeNfTables:
        """Another one in the same state: no transaction changes what is there."""
        return replace(self, calls=Calls())

    @contextmanager
    def connect(self) -> Iterator[FakeNfTables]:
        """Replaces :func:`enforcer.kernel.nfnetlink.nftables`."""
        yield self

    def generation(self) -> int:
        with self.calls.noted("generation"):
            return self.number

    def dump(self, command: int, family: Family, body: bytes = b"", *, what: str) -> list[bytes]:
        with self.calls.noted(what):
            return list(self._dump(command, family, dict(attributes(body))))

    def commit(self, messages: Sequence[Message], generation: int) -> None:
        with self.calls.noted("commit", changes=True):
            if generation != self.number:
                raise refusal("change nf_tables", errno.ERESTART)
            tables, changed = self._played(messages)
            self.tables = tables
            self.number += changed

    def check(self, messages: Sequence[Message]) -> None:
        with self.calls.noted("check"):
            self._played(messages)

    def wait_for_packets(self) -> None:
        with self.calls.noted("wait for packets"):
            pass

    def _played(self, messages: Sequence[Message]) -> tuple[Tables, bool]:
        """The tables after these commands, and whether any of them changed something."""
        work = _Transaction({place: table.copy() for place, table in self.tables.items()})
        for message in messages:
            try:
                work.run(message)
            except Refused as error:
                raise refusal(message.what, error.number) from error
        return work.tables, work.changed

    def _dump(self, command: int, family: Family, asked: Found) -> Iterator[bytes]:
        tables = [table for (of, _), table in self.tables.items() if of is family]
        wanted = string(asked.get(_TABLE, b""))
        if command == _GET_TABLE:
            yield from (table.as_attributes() for table in tables)
        for table in tables:
            if command == _GET_CHAIN:
                yield from (chain.as_attributes(table.name) for chain in table.chains.values())
            if command == _GET_RULE and wanted in ("", table.name):
                for chain in table.chains.values():
                    yield from (rule.as_attributes(table.name, chain.name) for rule in chain.rules)
            if command == _GET_SET and wanted in ("", table.name):
                yield from (item.as_attributes(table.name) for item in table.sets.values())
            if command == _GET_ELEMENTS and wanted == table.name:
                yield from _pieces(table.sets.get(string(asked[blob.ELEMENTS_SET])))


def _pieces(found: FakeSet | None) -> Iterator[bytes]:
    """A set's elements in messages of a few each; the kernel dumps those of interval sets in descending order."""
    piece: list[bytes] = []
    for element in reversed(found.elements if found else ()):
        piece.append(element_attributes(element))
        if sum(map(len, piece)) > _LIST_BYTES:
            yield blob.elements(b"".join(piece))
            piece = []
    if piece:
        yield blob.elements(b"".join(piece))


@dataclass
class _Transaction:
    """Executes commands one after the other on a copy of the tables that is not visible yet."""

    tables: Tables
    changed: bool = False

    def run(self, message: Message) -> None:
        found = dict(attributes(message.body))
        command, family, flags = message.command, message.family, message.flags
        if command == 0:
            self._new_table(family, found, flags)
        elif command == 2:
            del self.tables[self._place(family, found)]
            self.changed = True
        else:
            table = self.tables[self._place(family, found)]
            self.changed |= _COMMANDS[command](self, table, found, flags)

    def _place(self, family: Family, found: Found) -> tuple[Family, str]:
        place = family, string(found[_TABLE])
        if place not in self.tables:
            raise Refused(errno.ENOENT)
        return place

    def _new_table(self, family: Family, found: Found, flags: int) -> None:
        place = family, string(found[_TABLE])
        if place in self.tables and flags & _EXCLUSIVE:
            raise Refused(errno.EEXIST)
        if place not in self.tables:
            self.tables[place] = FakeTable(place[1])
            self.changed = True
        table = self.tables[place]
        wanted = _number(found[blob.TABLE_FLAGS]) if blob.TABLE_FLAGS in found else table.flags
        self.changed |= wanted != table.flags
        table.flags = wanted

    def new_chain(self, table: FakeTable, found: Found, flags: int) -> bool:
        name, hook = string(found[blob.CHAIN_NAME]), found.get(blob.CHAIN_HOOK)
        present = table.chains.get(name)
        if present is not None:
            if flags & _EXCLUSIVE:
                raise Refused(errno.EEXIST)
            if hook is not None and hook != present.hook:
                raise Refused(errno.EOPNOTSUPP)
            present.policy = found.get(blob.CHAIN_POLICY, present.policy)
            return True
        policy = found.get(blob.CHAIN_POLICY, blob.ACCEPT_POLICY.to_bytes(4, "big")) if hook is not None else None
        table.handle()
        table.chains[name] = FakeChain(name, hook, policy, found.get(blob.CHAIN_TYPE, b"filter\0"))
        return True

    def delete_chain(self, table: FakeTable, found: Found, flags: int) -> bool:
        table.delete_chain(string(found[blob.CHAIN_NAME]))
        return True

    def new_rule(self, table: FakeTable, found: Found, flags: int) -> bool:
        chain = table.chain(string(found[blob.RULE_CHAIN]))
        if not flags & _CREATE:
            raise Refused(errno.EINVAL)
        before = chain.position(_number(found[blob.RULE_POSITION])) if blob.RULE_POSITION in found else None
        rule = read_rule(table.handle(), found)
        table.require(rule)
        behind = len(chain.rules) if before is None else before + 1
        at = behind if flags & _APPEND else before or 0
        chain.rules.insert(at, rule)
        return True

    def delete_rule(self, table: FakeTable, found: Found, flags: int) -> bool:
        """One rule, all rules of a chain, or all of a table."""
        if blob.RULE_CHAIN not in found:
            chains = list(table.chains.values())
        else:
            chains = [table.chain(string(found[blob.RULE_CHAIN]))]
        if blob.RULE_HANDLE in found:
            del chains[0].rules[chains[0].position(_number(found[blob.RULE_HANDLE]))]
            return True
        some = any(chain.rules for chain in chains)
        for chain in chains:
            chain.rules.clear()
        return some

    def new_set(self, table: FakeTable, found: Found, flags: int) -> bool:
        name = string(found[blob.SET_NAME])
        made_with = {
            kind: found[kind]
            for kind in (blob.SET_FLAGS, blob.SET_KEY_TYPE, blob.SET_KEY_LENGTH)
            if kind in found and (kind != blob.SET_FLAGS or _number(found[kind]))
        }
        if name in table.sets:
            if flags & _EXCLUSIVE or table.sets[name].made_with != made_with:
                raise Refused(errno.EEXIST)
            return True
        if not flags & _CREATE:
            raise Refused(errno.ENOENT)
        table.handle()
        table.sets[name] = FakeSet(name, made_with)
        return True

    def delete_set(self, table: FakeTable, found: Found, flags: int) -> bool:
        table.delete_set(string(found[blob.SET_NAME]))
        return True

    def new_elements(self, table: FakeTable, found: Found, flags: int) -> bool:
        target = table.set(string(found[blob.ELEMENTS_SET]))
        exclusive = bool(flags & _EXCLUSIVE)
        new = [target.add(element, exclusive=exclusive) for element in read_elements(found[blob.ELEMENTS_LIST])]
        return any(new)

    def delete_elements(self, table: FakeTable, found: Found, flags: int) -> bool:
        """These elements, or all of them."""
        target = table.set(string(found[blob.ELEMENTS_SET]))
        some = bool(target.elements)
        for element in list(read_elements(found[blob.ELEMENTS_LIST])) if blob.ELEMENTS_LIST in found else ():
            target.delete(element)
        if blob.ELEMENTS_LIST not in found:
            target.elements.clear()
        return some


_COMMANDS: Mapping[int, Callable[[_Transaction, FakeTable, Found, int], bool]] = {
    3: _Transaction.new_chain,
    5: _Transaction.delete_chain,
    6: _Transaction.new_rule,
    8: _Transaction.delete_rule,
    9: _Transaction.new_set,
    11: _Transaction.delete_set,
    12: _Transaction.new_elements,
    14: _Transaction.delete_elements,
}


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "big")
