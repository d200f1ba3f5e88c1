"""Polls legacy iptables and ipset, cheaply enough for once a second, and reports changes by other programs.

Unlike nf_tables, neither sends notifications. The size and hooks of a table are read every time, its rules as often as
their share of CPU time permits. Our chains are decoded only if a table differs. ``watch_sets`` has the sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from enforcer.backends.base import Loss
from enforcer.backends.iptables.accept import HOOKS
from enforcer.backends.iptables.apply import leads_to_us
from enforcer.backends.iptables.blob import SetIndex
from enforcer.backends.iptables.ipset import ipsets
from enforcer.backends.iptables.read import read_chain, read_chains
from enforcer.backends.iptables.rules import TABLES, TableId
from enforcer.backends.iptables.table import TableNames, exists, kernel_table
from enforcer.backends.iptables.watch_sets import WatchedSets
from enforcer.backends.netfilter.names import is_our_chain, is_our_set
from enforcer.kernel.pace import Pace
from enforcer.kernel.xtables import TableSocket, TableState


@dataclass(frozen=True)
class _Jump:
    """A built-in chain's rule that leads to a chain of ours."""

    rule: object
    is_first: bool
    is_last: bool


# Chain name -> its rules. For a built-in chain only the jumps to our chains.
_Ours = Mapping[str, tuple[object, ...]]


@dataclass
class _Table:
    """One table as it was after the last pass. ``ours``: our chains in ``state``, decoded by libiptc with ``sets``, the
    indexes of our sets.
    """

    id: TableId
    socket: TableSocket
    state: TableState
    sets: Mapping[str, int]
    ours: _Ours

    def now(self, sets: SetIndex) -> _Table:
        """As it is now; decoded again only if anything differs."""
        state = self.socket.read()
        is_same = state == self.state and sets.number == self.sets
        return replace(self, state=state, sets=sets.number, ours=self.ours if is_same else _ours(self.id, sets))

    def losses(self, pace: Pace, *, thorough: bool) -> Iterator[str]:
        if thorough or (any(self.ours.values()) and pace.is_due()):
            with pace.measured():
                is_same = self.socket.read() == self.state
        else:
            is_same = self.socket.shape().shape == self.state.shape
        if is_same:
            return
        before, sets = self.ours, _set_index()
        self.state, self.sets, self.ours = self.socket.read(), sets.number, _ours(self.id, sets)
        yield from (f"iptables {self.id}: {loss}" for loss in _differences(before, self.ours))


class IptablesWatch:
    """Watches our chains and sets in the network namespace in which :meth:`begin` is called. The caller closes it."""

    def __init__(self) -> None:
        self._sets: WatchedSets | None = None
        self._tables: dict[TableId, _Table] = {}
        self._names = TableNames()
        self._pace = Pace()
        self._turn = 0  # rotates which table's rules are read first

    def fileno(self) -> int:
        return -1  # the kernel sends no notifications

    def begin(self) -> bool:
        if self._sets is not None:
            return False
        self._sets = WatchedSets()
        return True

    def pause(self) -> None:
        self.close()

    def close(self) -> None:
        if self._sets is not None:
            self._close_tables()
            self._names.close()
            self._sets.close()
            self._sets = None

    def remember(self) -> tuple[Loss, ...]:
        """Records the present state as the desired one."""
        if self._sets is None:
            return ()
        present = [table for table in TABLES if exists(table)]
        if set(present) != self._tables.keys():
            self._close_tables()
        self._sets.remember()
        sets = self._sets.index()
        for table in present:
            known = self._tables.get(table)
            if known is None:
                sock = TableSocket(table.version, str(table.name))
                self._tables[table] = _Table(table, sock, sock.read(), sets.number, _ours(table, sets))
            else:
                self._tables[table] = known.now(sets)
        return ()

    def losses(self, *, thorough: bool = False) -> list[Loss]:
        """Each change to our state, reported once. Raises KernelError.

        ``thorough``: a pass follows, which would restore what differs without naming it, so all rules are read; it, or
        the next one, lists every set.
        """
        if self._sets is None:
            return []
        found = (*self._table_losses(thorough=thorough), *self._sets.losses(thorough=thorough))
        return [Loss(what) for what in found]

    def _table_losses(self, *, thorough: bool) -> list[str]:
        found: list[str] = []
        self._turn += 1
        tables = list(self._tables.values())
        for table in tables[self._turn % len(tables) :] + tables[: self._turn % len(tables)] if tables else ():
            if self._names.have(table.id):
                found += table.losses(self._pace, thorough=thorough)
            else:
                self._tables.pop(table.id).socket.close()
                found.append(f"iptables {table.id}: the table is gone")
        return found

    def _close_tables(self) -> None:
        for table in self._tables.values():
            table.socket.close()
        self._tables = {}


def _set_index() -> SetIndex:
    """The present indexes of our sets."""
    with ipsets() as conn:
        return SetIndex({name: header.index for name, header in conn.headers().items() if is_our_set(name)})


def _ours(table: TableId, sets: SetIndex) -> _Ours:
    with kernel_table(table) as snapshot:
        found: dict[str, tuple[object, ...]] = {chain.name: chain.rules for chain in read_chains(snapshot, sets)}
        for builtin in HOOKS[table.name]:
            rules = [item.rule for item in read_chain(snapshot, builtin, sets)]
            last = len(rules) - 1
            found[builtin] = tuple(
                _Jump(rule, at == 0, at == last) for at, rule in enumerate(rules) if leads_to_us(rule)
            )
    return found


def _in_place(before: tuple[object, ...], now: tuple[object, ...]) -> bool:
    """Whether the same jumps are there, and what was the first or the last rule still is. A foreign rule behind a first
    jump, or in front of a last one, takes nothing from us.
    """
    return len(before) == len(now) and all(
        isinstance(old, _Jump)
        and isinstance(new, _Jump)
        and old.rule == new.rule
        and old.is_first <= new.is_first
        and old.is_last <= new.is_last
        for old, new in zip(before, now, strict=True)
    )


def _differences(before: _Ours, now: _Ours) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if old is None:
            yield f"chain {name} was added"
        elif new is None:
            yield f"chain {name} is gone, with {len(old)} rules"
        elif not is_our_chain(name):
            if not _in_place(old, new):
                yield f"chain {name}: its jump to our chain was {'removed' if old and not new else 'changed or moved'}"
        else:
            gone = sum(rule not in new for rule in old)
            added = sum(rule not in old for rule in new)
            yield (
                f"chain {name}: {gone} of {len(old)} rules removed, {added} others added"
                if gone or added
                else (f"chain {name}: its {len(old)} rules are in a different order or number")
            )
