"""Tables of the fake nf_tables, and the effect of each command on them. Attributes are stored as the bytes received.

The behaviour follows net/netfilter/nf_tables_api.c and nft_set_rbtree.c; ``tests/contract`` compares it with the
kernel.
"""

from __future__ import annotations

import errno
import itertools
from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from enforcer.backends.nftables import blob
from enforcer.kernel.netlink import attribute, attributes, be32, be64, nested, string, text

INTERVAL_END = 1  # NFT_SET_ELEM_INTERVAL_END
_ELEMENT_KEY, _KEY_VALUE, _ELEMENT_FLAGS = 1, 1, 3
_EXPR_NAME, _EXPR_DATA = 1, 2
_LOOKUP_SET, _IMMEDIATE_DATA, _DATA_VERDICT, _VERDICT_CHAIN = 1, 2, 2, 2
_COUNTS = {"counter": be64(1, 0) + be64(2, 0)}

_Object = TypeVar("_Object")

# (key, 0 for the end of an interval and 1 for a start or a single key): an end sorts before a start with the same key.
Element = tuple[bytes, int]


_identities = itertools.count()


class Refused(Exception):
    """The error that the kernel returns for a command."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.number = number


@dataclass
class FakeSet:
    """A set. An interval is two elements, as in the kernel: its first key, and the key after its last.

    ``identity`` differs between a set and a later set of the same name.
    """

    name: str
    made_with: dict[int, bytes]
    elements: list[Element] = field(default_factory=list)
    identity: int = field(default_factory=lambda: next(_identities))

    @property
    def flags(self) -> int:
        return int.from_bytes(self.made_with.get(blob.SET_FLAGS, b""), "big")

    @property
    def interval(self) -> bool:
        return bool(self.flags & blob.FLAG_INTERVAL)

    def add(self, element: Element, *, exclusive: bool) -> bool:
        """Whether it is new. EEXIST for an existing element if NLM_F_EXCL is set, and for overlapping intervals."""
        at = bisect_left(self.elements, element)
        if self.elements[at : at + 1] == [element]:
            if exclusive:
                raise Refused(errno.EEXIST)
            return False
        if self.interval and self._overlaps(at, is_start=bool(element[1])):
            raise Refused(errno.EEXIST)
        insort(self.elements, element)
        return True

    def _overlaps(self, at: int, *, is_start: bool) -> bool:
        """A start within an interval; an end after another end, or before one (``__nft_rbtree_insert``)."""
        before = self.elements[at - 1] if at else None
        behind = self.elements[at] if at < len(self.elements) else None
        if is_start:
            return before is not None and before[1] == 1
        return (before is not None and before[1] == 0) or (behind is not None and behind[1] == 0)

    def delete(self, element: Element) -> None:
        if element not in self.elements:
            raise Refused(errno.ENOENT)
        self.elements.remove(element)

    def has(self, key: bytes) -> bool:
        """Whether the set contains a packet's key."""
        if not self.interval:
            return (key, 1) in self.elements
        at = bisect_left(self.elements, (key, 2))
        return at > 0 and self.elements[at - 1][1] == 1

    def content(self) -> Hashable:
        """All that a dump shows."""
        return self.name, tuple(sorted(self.made_with.items())), tuple(self.elements)

    def as_attributes(self, table: str) -> bytes:
        made = b"".join(attribute(kind, value) for kind, value in sorted(self.made_with.items()))
        return text(blob.SET_TABLE, table) + text(blob.SET_NAME, self.name) + made


def read_elements(data: bytes) -> Iterator[Element]:
    """The elements in a message's list."""
    for _, item in attributes(data):
        parts = dict(attributes(item))
        key = dict(attributes(parts[_ELEMENT_KEY]))[_KEY_VALUE]
        is_end = int.from_bytes(parts.get(_ELEMENT_FLAGS, b""), "big") & INTERVAL_END
        yield key, 0 if is_end else 1


def element_attributes(element: Element) -> bytes:
    key, is_start = element
    flags = b"" if is_start else be32(_ELEMENT_FLAGS, INTERVAL_END)
    return nested(blob.LIST_ELEM, nested(_ELEMENT_KEY, attribute(_KEY_VALUE, key)) + flags)


@dataclass(frozen=True)
class FakeRule:
    """A rule with the objects it refers to. ``exprs`` are the attributes of its expressions."""

    handle: int
    exprs: bytes
    comment: bytes | None
    targets: tuple[str, ...]
    sets: tuple[str, ...]

    def as_attributes(self, table: str, chain: str) -> bytes:
        place = text(blob.RULE_TABLE, table) + text(blob.RULE_CHAIN, chain) + be64(blob.RULE_HANDLE, self.handle)
        comment = b"" if self.comment is None else attribute(blob.RULE_USERDATA, self.comment)
        return place + self.expressions + comment

    @property
    def expressions(self) -> bytes:
        return nested(blob.RULE_EXPRESSIONS, self.exprs)


def read_rule(handle: int, found: Mapping[int, bytes]) -> FakeRule:
    """A rule as it is stored: its counters are 0."""
    kept: list[bytes] = []
    targets: list[str] = []
    sets: list[str] = []
    for _, item in attributes(found.get(blob.RULE_EXPRESSIONS, b"")):
        parts = dict(attributes(item))
        name, content = string(parts[_EXPR_NAME]), parts.get(_EXPR_DATA, b"")
        kept.append(nested(blob.LIST_ELEM, text(_EXPR_NAME, name), nested(_EXPR_DATA, content, _COUNTS.get(name, b""))))
        if name == "lookup":
            sets.append(string(dict(attributes(content))[_LOOKUP_SET]))
        if name == "immediate":
            targets += _target(dict(attributes(content))[_IMMEDIATE_DATA])
    return FakeRule(handle, b"".join(kept), found.get(blob.RULE_USERDATA), tuple(targets), tuple(sets))


def _target(data: bytes) -> list[str]:
    """The chain that a verdict leads to."""
    verdict = dict(attributes(dict(attributes(data)).get(_DATA_VERDICT, b"")))
    return [string(verdict[_VERDICT_CHAIN])] if _VERDICT_CHAIN in verdict else []


@dataclass
class FakeChain:
    """A chain with its rules. ``hook`` is None for a chain that is not a base chain."""

    name: str
    hook: bytes | None = None
    policy: bytes | None = None
    type: bytes = b""
    rules: list[FakeRule] = field(default_factory=list)

    def position(self, handle: int) -> int:
        for at, rule in enumerate(self.rules):
            if rule.handle == handle:
                return at
        raise Refused(errno.ENOENT)

    def as_attributes(self, table: str) -> bytes:
        place = text(blob.CHAIN_TABLE, table) + text(blob.CHAIN_NAME, self.name)
        if self.hook is None:
            return place
        policy = b"" if self.policy is None else attribute(blob.CHAIN_POLICY, self.policy)
        return place + nested(blob.CHAIN_HOOK, self.hook) + policy + attribute(blob.CHAIN_TYPE, self.type)


@dataclass
class FakeTable:
    """A table with its chains and sets."""

    name: str
    flags: int = 0
    chains: dict[str, FakeChain] = field(default_factory=dict)
    sets: dict[str, FakeSet] = field(default_factory=dict)
    handles: int = 0

    def copy(self) -> FakeTable:
        chains = {name: replace(chain, rules=[*chain.rules]) for name, chain in self.chains.items()}
        sets = {name: replace(item, elements=[*item.elements]) for name, item in self.sets.items()}
        return replace(self, chains=chains, sets=sets)

    def content(self) -> Hashable:
        """All that a dump shows."""
        chains = tuple(
            (item.name, item.hook, item.policy, item.type, tuple(item.rules)) for item in self.chains.values()
        )
        return self.flags, chains, tuple(item.content() for item in self.sets.values())

    def handle(self) -> int:
        """A handle that no other object of the table has or had."""
        self.handles += 1
        return self.handles

    def rules(self) -> Iterator[FakeRule]:
        return (rule for chain in self.chains.values() for rule in chain.rules)

    def chain(self, name: str) -> FakeChain:
        return _found(self.chains, name)

    def set(self, name: str) -> FakeSet:
        return _found(self.sets, name)

    def require(self, rule: FakeRule) -> None:
        """Check that the sets and chains a rule refers to exist, and that no target is a base chain."""
        for name in rule.sets:
            self.set(name)
        if any(self.chain(name).hook is not None for name in rule.targets):
            raise Refused(errno.EOPNOTSUPP)

    def delete_chain(self, name: str) -> None:
        """Delete a chain with its rules; EBUSY if other rules refer to it."""
        chain = self.chain(name)
        if any(name in rule.targets for other in self.chains.values() if other is not chain for rule in other.rules):
            raise Refused(errno.EBUSY)
        del self.chains[name]

    def delete_set(self, name: str) -> None:
        self.set(name)
        if any(name in rule.sets for rule in self.rules()):
            raise Refused(errno.EBUSY)
        del self.sets[name]

    def as_attributes(self) -> bytes:
        use = len(self.chains) + len(self.sets)
        return text(blob.TABLE_NAME, self.name) + be32(blob.TABLE_FLAGS, self.flags) + be32(blob.TABLE_USE, use)


def _found(objects: Mapping[str, _Object], name: str) -> _Object:
    if name not in objects:
        raise Refused(errno.ENOENT)
    return objects[name]
