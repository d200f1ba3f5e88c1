"""Legacy tables and ipsets in memory: libiptc's snapshots, the kernel's error numbers, which rule refers to which set.

A fake of :class:`enforcer.backends.iptables.table.LegacyTables` and of
:class:`enforcer.backends.iptables.ipset.IpSets` that passes the same contract tests (``tests/contract``).
"""

from __future__ import annotations

import errno
import itertools
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from enforcer.backends.iptables.ipset import SetHeader, check
from enforcer.backends.iptables.members import Members, none_of, pack
from enforcer.backends.iptables.rules import SetType, TableId, TableName
from enforcer.backends.iptables.table import KernelTable
from enforcer.kernel.libiptc import IptcError
from tests.support.fakes.calls import Calls

# linux/netfilter/ipset/ip_set.h, enum ipset_errno
IPSET_ERR_BUSY, IPSET_ERR_EXIST_SETNAME2, IPSET_ERR_TYPE_MISMATCH = 4100, 4101, 4102
IPSET_ERR_INVALID_CIDR, IPSET_ERR_TYPE_SPECIFIC = 4104, 4352

RawRule = tuple[bytes, str]  # as libiptc returns it: its bytes, and the name of its target

BUILTIN = {
    TableName.RAW: ("PREROUTING", "OUTPUT"),
    TableName.MANGLE: ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    TableName.FILTER: ("INPUT", "FORWARD", "OUTPUT"),
}
_VERDICTS = ("ACCEPT", "DROP", "QUEUE", "RETURN")
_EXTENSION_TARGETS = ("MARK", "CT", "LOG")
_HEADER_BYTES, _TARGET_OFFSET = {4: 112, 6: 168}, {4: 88, 6: 140}  # struct ipt_entry, struct ip6t_entry
_EXTENSION = struct.Struct("=H29sB")  # struct xt_entry_match
_XT_COUNTERS = struct.Struct("=QQ")  # the end of struct ipt_entry
_SET_MATCH = b"set"

_NAMESPACES = itertools.count(-1, -1)  # no number of the kernel


@dataclass(frozen=True)
class FakeTable:
    """The chains of a table with their rules, built-in ones first."""

    chains: Mapping[str, tuple[RawRule, ...]]
    policies: Mapping[str, str]

    @property
    def entries(self) -> int:
        """The kernel's count of entries: rules, a last one per chain and for the table, a head per user chain."""
        return sum(len(rules) + 2 for rules in self.chains.values()) - len(self.policies) + 1


@dataclass(frozen=True)
class FakeIpSet:
    """A named set; rules refer to it by its index."""

    header: SetHeader
    members: frozenset[bytes] = frozenset()


@dataclass
class FakeXtables:
    """The tables and ipsets of a network namespace."""

    tables: dict[TableId, FakeTable] = field(default_factory=dict)
    sets: dict[str, FakeIpSet] = field(default_factory=dict)
    calls: Calls = field(default_factory=Calls)
    namespace: int = field(default_factory=_NAMESPACES.__next__)

    def copy(self) -> FakeXtables:
        """Another one in the same state."""
        return replace(self, tables=dict(self.tables), sets=dict(self.sets), calls=Calls())

    # --- legacy tables ------------------------------------------------------------------------------------------------

    def exists(self, table: TableId) -> bool:
        with self.calls.noted(f"exists {table}"):
            return table in self.tables

    @contextmanager
    def lock(self) -> Iterator[None]:
        with self.calls.noted("lock"):
            pass
        yield

    @contextmanager
    def open(self, table: TableId) -> Iterator[KernelTable]:
        with self.calls.noted(f"open {table}"):
            snapshot = FakeSnapshot(self, table)
        yield KernelTable(table, snapshot)

    def table(self, table: TableId) -> FakeTable:
        """Opening a table creates it."""
        names = BUILTIN[table.name]
        return self.tables.setdefault(table, FakeTable(dict.fromkeys(names, ()), dict.fromkeys(names, "ACCEPT")))

    def count(self, table: TableId, packets: int, size: int) -> None:
        """Increase the counters of each rule of a table by that many packets and bytes."""
        at, found = _HEADER_BYTES[table.version] - _XT_COUNTERS.size, self.tables[table]
        for chain, rules in found.chains.items():
            counted = []
            for blob, target in rules:
                now = _XT_COUNTERS.unpack_from(blob, at)
                more = _XT_COUNTERS.pack(now[0] + packets, now[1] + size)
                counted.append((blob[:at] + more + blob[at + len(more) :], target))
            found = replace(found, chains={**found.chains, chain: tuple(counted)})
        self.tables[table] = found

    def referred(self) -> set[int]:
        """The indexes of the sets that rules match on."""
        return {
            number
            for place, table in self.tables.items()
            for rules in table.chains.values()
            for blob, _ in rules
            for number in set_numbers(blob, place.version)
        }

    # --- ipsets -------------------------------------------------------------------------------------------------------

    @contextmanager
    def connect(self) -> Iterator[FakeXtables]:
        """Replaces :func:`enforcer.backends.iptables.ipset.ipsets`."""
        yield self

    def headers(self) -> dict[str, SetHeader]:
        with self.calls.noted("list the ipsets"):
            return {name: replace(item.header, members=len(item.members)) for name, item in self.sets.items()}

    def create(self, name: str, kind: SetType, version: int, size: int, *, limit: int) -> None:
        with self.calls.noted(f"create ipset {name}", changes=True):
            check(f"create ipset {name}", errno.EEXIST if name in self.sets else 0)
            used = {item.header.index for item in self.sets.values()}
            index = next(number for number in range(len(used) + 1) if number not in used)
            self.sets[name] = FakeIpSet(SetHeader(name, str(kind), version, index, max(size, limit)))

    def destroy(self, name: str) -> None:
        with self.calls.noted(f"destroy ipset {name}", changes=True):
            what = f"destroy ipset {name}"
            self._require(what, name)
            check(what, IPSET_ERR_BUSY if self.sets[name].header.index in self.referred() else 0)
            del self.sets[name]

    def swap(self, name: str, other: str) -> None:
        """Swap the contents of two sets; each name keeps its index."""
        with self.calls.noted("swap ipsets", changes=True):
            what = f"swap ipsets {name} and {other}"
            self._require(what, name)
            check(what, 0 if other in self.sets else IPSET_ERR_EXIST_SETNAME2)
            one, two = self.sets[name], self.sets[other]
            same = (one.header.type, one.header.version) == (two.header.type, two.header.version)
            check(what, 0 if same else IPSET_ERR_TYPE_MISMATCH)
            self.sets[name] = replace(two, header=replace(two.header, name=name, index=one.header.index))
            self.sets[other] = replace(one, header=replace(one.header, name=other, index=two.header.index))

    def add(self, name: str, version: int, members: Members, kind: SetType = SetType.NET) -> None:
        """Add members until the set is full; those added stay."""
        what = f"change the members of ipset {name}"
        with self.calls.noted(f"add to ipset {name}", changes=True):
            self._require(what, name)
            for member in members.tolist():
                found = self.sets[name]
                check(what, IPSET_ERR_INVALID_CIDR if kind is SetType.NET and _is_everything(member, version) else 0)
                full = member not in found.members and len(found.members) >= found.header.maxelem
                check(what, IPSET_ERR_TYPE_SPECIFIC if full else 0)
                self.sets[name] = replace(found, members=found.members | {member})

    def delete(self, name: str, version: int, members: Members, kind: SetType = SetType.NET) -> None:
        with self.calls.noted(f"delete from ipset {name}", changes=True):
            self._require(f"change the members of ipset {name}", name)
            found = self.sets[name]
            self.sets[name] = replace(found, members=found.members - set(members.tolist()))

    def listing(self, name: str, version: int) -> bytes:
        with self.calls.noted(f"list ipset {name}"):
            self._require(f"list ipset {name}", name)
            found, kind = self.sets[name], SetType(self.sets[name].header.type)
            members = np.array(sorted(found.members), none_of(version, kind).dtype)
            return b"".join(pack(members, version, kind))

    def _require(self, what: str, name: str) -> None:
        check(what, 0 if name in self.sets else errno.ENOENT)


def _is_everything(member: bytes, version: int) -> bool:
    """A prefix of length 0, whose trailing NULs numpy strips."""
    return len(member) <= {4: 4, 6: 16}[version]


class FakeSnapshot:
    """A snapshot of a table, and changes to it that are not visible before :meth:`commit`."""

    def __init__(self, kernel: FakeXtables, table: TableId) -> None:
        self._kernel, self._id = kernel, table
        found = kernel.table(table)
        self._read = found.entries
        self._policies = found.policies
        self._chains = {name: list(rules) for name, rules in found.chains.items()}

    def close(self) -> None:
        pass

    def chains(self) -> Iterator[str]:
        return iter(list(self._chains))

    def is_builtin(self, chain: str) -> bool:
        return chain in self._policies

    def policy(self, chain: str) -> str:
        return self._policies[chain]

    def keep_policy(self, chain: str) -> None:
        assert chain in self._policies

    def rules(self, chain: str) -> Iterator[RawRule]:
        return iter(list(self._chains[chain]))

    def create_chain(self, chain: str) -> None:
        self._refuse(f"create chain {chain}", errno.EEXIST if chain in self._chains else 0)
        self._chains[chain] = []

    def delete_chain(self, chain: str) -> None:
        what = f"delete chain {chain}"
        self._refuse(what, 0 if chain in self._chains else errno.ENOENT)
        self._refuse(what, errno.EINVAL if chain in self._policies else 0)
        jumps = any(target == chain for rules in self._chains.values() for _, target in rules)
        self._refuse(what, errno.EMLINK if jumps else 0)
        self._refuse(what, errno.ENOTEMPTY if self._chains[chain] else 0)
        del self._chains[chain]

    def insert(self, chain: str, position: int, blob: bytes) -> None:
        what = f"insert a rule into {chain}"
        self._refuse(what, 0 if chain in self._chains else errno.ENOENT)
        self._refuse(what, errno.E2BIG if position > len(self._chains[chain]) else 0)
        at = _target_at(blob, self._id.version)
        size, raw_name, revision = _EXTENSION.unpack_from(blob, at)
        name = raw_name.split(b"\0", 1)[0].decode()
        if name in _VERDICTS or name in self._chains:  # libiptc converts it to the standard target, which has no name
            blob = blob[:at] + _EXTENSION.pack(size, b"", revision) + blob[at + _EXTENSION.size :]
        self._chains[chain].insert(position, (blob, name))

    def delete(self, chain: str, position: int) -> None:
        what = f"delete rule {position} of {chain}"
        self._refuse(what, 0 if chain in self._chains else errno.ENOENT)
        self._refuse(what, errno.E2BIG if position >= len(self._chains[chain]) else 0)
        del self._chains[chain][position]

    def commit(self) -> None:
        with self._kernel.calls.noted("commit", changes=True):
            self._refuse("commit", errno.EAGAIN if self._kernel.table(self._id).entries != self._read else 0)
            known = {item.header.index for item in self._kernel.sets.values()}
            targets = {*_VERDICTS, *_EXTENSION_TARGETS, *self._chains}
            for blob, target in (rule for rules in self._chains.values() for rule in rules):
                missing = target not in targets or not known.issuperset(set_numbers(blob, self._id.version))
                self._refuse("commit", errno.ENOENT if missing else 0)
            chains = {name: tuple(rules) for name, rules in self._chains.items()}
            self._kernel.tables[self._id] = FakeTable(chains, self._policies)

    def _refuse(self, what: str, number: int) -> None:
        if number:
            raise IptcError(what, os.strerror(number), number)


def _target_at(blob: bytes, version: int) -> int:
    (at,) = struct.unpack_from("=H", blob, _TARGET_OFFSET[version])
    return int(at)


def set_numbers(blob: bytes, version: int) -> Iterator[int]:
    """The indexes of the sets that a rule matches on."""
    at = _HEADER_BYTES[version]
    while at < _target_at(blob, version):
        size, name, _ = _EXTENSION.unpack_from(blob, at)
        if name.split(b"\0", 1)[0] == _SET_MATCH:
            yield struct.unpack_from("=H", blob, at + _EXTENSION.size)[0]
        at += size
