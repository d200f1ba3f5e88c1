"""Polls legacy iptables and ipset, cheaply enough for once a second, and reports changes by other programs.

Unlike nf_tables, neither sends notifications. The size and hooks of a table are read every time. Whatever costs more is
read as often as its share of CPU time permits: the headers of sets, with the number of members, every second or two;
rules and members every second if they are few, about every 100 s if there are 100,000. Our chains are decoded only if a
table differs.
"""

from __future__ import annotations

import errno
import hashlib
import socket
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from enforcer.backends.base import Loss
from enforcer.backends.iptables.accept import HOOKS
from enforcer.backends.iptables.apply import leads_to_us
from enforcer.backends.iptables.blob import SetIndex
from enforcer.backends.iptables.ipset import CMD_LIST, FLAG_LIST_HEADER, SUBSYSTEM, ipsets
from enforcer.backends.iptables.read import read_chain, read_chains
from enforcer.backends.iptables.rules import TABLES, TableId
from enforcer.backends.iptables.sets import SetSync
from enforcer.backends.iptables.table import exists, kernel_table
from enforcer.backends.netfilter.names import is_our_chain, is_our_set
from enforcer.kernel.netlink import (
    NETLINK_NETFILTER,
    NLA_F_NET_BYTEORDER,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    attribute,
    attributes,
    be32,
    messages,
    netfilter_message,
    text,
)
from enforcer.kernel.pace import Pace
from enforcer.kernel.xtables import TableSocket, TableState
from enforcer.model.errors import KernelError

_PROTOCOL, _SETNAME, _TYPENAME, _FLAGS, _DATA, _ADT, _INDEX = 1, 2, 3, 6, 7, 8, 11  # linux/netfilter/ipset/ip_set.h
_ELEMENTS, _REFERENCES = 24, 25
_VERSION = 6  # of the ipset protocol: the oldest that has all we use
_RECEIVE_BYTES = 1 << 16
# To count the members of a set, the kernel walks its buckets (net/netfilter/ipset/ip_set_hash_gen.h: ``mtype_head``,
# ``mtype_ahash_memsize``): 2 ms for 100,000.
_HEADER_SHARE = 1 / 500

# Chain name -> its rules. For a built-in chain only the jumps to our chains: (rule, is first, is last).
_Ours = Mapping[str, tuple[object, ...]]


@dataclass(frozen=True)
class _Header:
    """The kernel's header of a set, without its number of references."""

    members: int
    rest: tuple[object, ...]

    @classmethod
    def of(cls, found: Mapping[int, bytes]) -> _Header:
        data = dict(attributes(found.get(_DATA, b"")))
        members = int.from_bytes(data.pop(_ELEMENTS, b""), "big")
        data.pop(_REFERENCES, None)
        return cls(members, (found.get(_TYPENAME), found.get(_INDEX), tuple(data.items())))


@dataclass
class _Table:
    """One table as it was after the last pass. ``ours``: our chains in ``state``, decoded by libiptc."""

    id: TableId
    socket: TableSocket
    state: TableState
    ours: _Ours

    def losses(self, pace: Pace) -> Iterator[str]:
        state = self.socket.shape()
        if state.shape == self.state.shape:
            if not any(self.ours.values()) or not pace.is_due():
                return
            with pace.measured():
                state = self.socket.read()
            if state == self.state:
                return
        self.state, before = self.socket.read(), self.ours
        self.ours = _ours(self.id, _set_index())
        yield from (f"iptables {self.id}: {loss}" for loss in _differences(before, self.ours))


class IptablesWatch:
    """Watches our chains and sets in the network namespace in which :meth:`begin` is called. The caller closes it."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._forget()

    def fileno(self) -> int:
        return -1  # the kernel sends no notifications

    def begin(self) -> bool:
        if self._socket is not None:
            return False
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        return True

    def pause(self) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._close_tables()
            self._socket.close()
            self._socket = None
            self._forget()

    def _forget(self) -> None:
        self._tables: dict[TableId, _Table] = {}
        self._sets: Mapping[str, _Header] = {}
        self._members: dict[str, bytes] = {}  # set -> digest of its members, least recently read first
        self._turn = 0  # rotates which table's rules are read first
        self._table_pace, self._set_pace, self._header_pace = Pace(), Pace(), Pace(_HEADER_SHARE)

    def remember(self) -> tuple[Loss, ...]:
        """Records the present state as the desired one."""
        if self._socket is None:
            return ()
        present = [table for table in TABLES if exists(table)]
        if set(present) != self._tables.keys():
            self._close_tables()
        sets = _set_index() if present else SetIndex({})
        for table in present:
            known = self._tables.get(table)
            sock = known.socket if known else TableSocket(table.version, str(table.name))
            self._tables[table] = _Table(table, sock, sock.read(), _ours(table, sets))
        self._sets = self._headers()
        self._members = {name: self._digest(name) for name in self._sets}
        return ()

    def losses(self, *, thorough: bool = False) -> list[Loss]:
        """Each change to our state, reported once. Raises KernelError.

        ``thorough`` has no effect: a pass compares every rule and member anyway.
        """
        if self._socket is None:
            return []
        return [Loss(what) for what in (*self._table_losses(), *self._set_losses())]

    def _table_losses(self) -> list[str]:
        found: list[str] = []
        self._turn += 1
        tables = list(self._tables.values())
        for table in tables[self._turn % len(tables) :] + tables[: self._turn % len(tables)] if tables else ():
            if exists(table.id):
                found += table.losses(self._table_pace)
            else:
                self._tables.pop(table.id).socket.close()
                found.append(f"iptables {table.id}: the table is gone")
        return found

    def _set_losses(self) -> list[str]:
        if not self._header_pace.is_due():
            return []
        with self._header_pace.measured():
            before, self._sets = self._sets, self._headers()
        names = sorted(before.keys() | self._sets.keys())
        changed = [name for name in names if before.get(name) != self._sets.get(name)]
        found = [_set_loss(name, before.get(name), self._sets.get(name)) for name in changed]
        return found + [f"ipset {name}: other members, as many as before" for name in self._exchanged(changed)]

    def _exchanged(self, known: Collection[str]) -> Iterator[str]:
        """Sets with other members, among as many sets as may be read now. Sets ``known`` to differ are not read."""
        for name in known:
            self._members.pop(name, None)
        for name in list(self._members):
            if not self._set_pace.is_due():
                return
            before = self._members.pop(name)
            with self._set_pace.measured():
                self._members[name] = self._digest(name)
            if self._members[name] != before:
                yield name

    def _close_tables(self) -> None:
        for table in self._tables.values():
            table.socket.close()
        self._tables = {}

    def _headers(self) -> dict[str, _Header]:
        """The kernel's header of each of our sets, without members."""
        found: dict[str, _Header] = {}
        for about in self._list(be32(_FLAGS | NLA_F_NET_BYTEORDER, FLAG_LIST_HEADER)):
            name = about.get(_SETNAME, b"").rstrip(b"\0").decode(errors="replace")
            if is_our_set(name):
                found[name] = _Header.of(about)
        return found

    def _digest(self, name: str) -> bytes:
        """A digest of a set's members in the kernel's order, which is stable as long as no member changes."""
        digest = hashlib.blake2b()
        try:
            for about in self._list(text(_SETNAME, name)):
                digest.update(about.get(_ADT, b""))
        except KernelError as error:
            if error.errno != errno.ENOENT:  # destroyed just now
                raise
        return digest.digest()

    def _list(self, request: bytes) -> Iterator[dict[int, bytes]]:
        """The attributes of each message of the reply to a list request with these attributes."""
        kind, body = SUBSYSTEM | CMD_LIST, attribute(_PROTOCOL, bytes([_VERSION])) + request
        assert self._socket is not None
        self._socket.send(netfilter_message(kind, NLM_F_REQUEST | NLM_F_DUMP, 1, socket.AF_INET, body))
        while True:
            for message in messages(self._socket.recv(_RECEIVE_BYTES)):
                if message.ends:
                    if message.error:
                        raise KernelError("look at the ipsets", number=message.error)
                    return
                yield dict(attributes(message.attributes))


def _set_index() -> SetIndex:
    with ipsets() as conn:
        return SetSync(conn).index()


def _ours(table: TableId, sets: SetIndex) -> _Ours:
    with kernel_table(table) as snapshot:
        found: dict[str, tuple[object, ...]] = {chain.name: chain.rules for chain in read_chains(snapshot, sets)}
        for builtin in HOOKS[table.name]:
            rules = [item.rule for item in read_chain(snapshot, builtin, sets)]
            last = len(rules) - 1
            found[builtin] = tuple((rule, at == 0, at == last) for at, rule in enumerate(rules) if leads_to_us(rule))
    return found


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
            yield f"chain {name}: its jump to our chain was {'removed' if old and not new else 'changed or moved'}"
        else:
            gone = sum(rule not in new for rule in old)
            added = sum(rule not in old for rule in new)
            yield (
                f"chain {name}: {gone} of {len(old)} rules removed, {added} others added"
                if gone or added
                else (f"chain {name}: its {len(old)} rules are in a different order or number")
            )


def _set_loss(name: str, old: _Header | None, new: _Header | None) -> str:
    if new is None:
        return f"ipset {name} is gone, with {old.members if old else 0} members"
    if old is None:
        return f"ipset {name} was added"
    if old.members == new.members:
        return f"ipset {name} was changed or replaced; it has {new.members} members, as before"
    return f"ipset {name}: {new.members} members, {old.members} before"
