"""Evaluates packets in the tables of the fake nf_tables: an interpreter of the expressions that our rules use.

A packet is evaluated with the rules of one generation; sets are those at the time of the look-up (``nft_do_chain``,
``nft_set_lookup``). So rules and sets can be of different states, one transaction apart.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from enforcer.backends.nftables import blob
from enforcer.backends.nftables.rules import Code, Expr, Rule, Verdict
from enforcer.kernel.netlink import attributes, be64, text
from enforcer.kernel.nfnetlink import Family
from enforcer.model.vocabulary import CtState
from tests.support.fakes.nft_objects import FakeRule, FakeSet, FakeTable
from tests.support.fakes.packets import Packet

Tables = Mapping[tuple[Family, str], FakeTable]

_NETWORK, _TRANSPORT = 1, 2  # enum nft_payload_bases
_NAME_BYTES = 16
_FRAGMENT_HEADER = 44
# Registers in units of four bytes: 1 to 4 have sixteen bytes each, those from 8 on four.
_FIRST_SMALL, _SMALL_IN_LARGE = 8, 4
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_HEADER_BYTES = {4: 20, 6: 40}
# What ``nft_ct_get_eval`` loads: of a tracked packet 1 << (ctinfo % IP_CT_IS_REPLY + 1), of others bits of their own.
_CT_STATE = 0
_CT_STATES = {
    CtState.INVALID: 1,
    CtState.ESTABLISHED: 2,
    CtState.RELATED: 4,
    CtState.NEW: 8,
    CtState.UNTRACKED: 64,
}


class _NoMatch(Exception):
    """The rule does not match: evaluation continues with the next."""


@dataclass(frozen=True)
class Place:
    """Where packets are evaluated: a hook, and the input or output interface. ``leaves``: the output interface of a
    forwarded packet.
    """

    family: Family
    hook: int
    interface: str
    received: bool = True
    leaves: str = ""


@dataclass
class Walk:
    """One packet on its way through the base chains of a hook. ``state``: what conntrack says of it."""

    packet: Packet
    place: Place
    rules: Tables
    sets: Tables
    mark: int = 0
    state: CtState = CtState.NEW
    registers: bytearray = field(default_factory=lambda: bytearray(96))

    def dropped(self) -> bool:
        """Whether one of the base chains drops it, in order of priority; an accept ends only the chain it is in."""
        bases = [
            (_priority(chain.hook), table, chain.name)
            for (family, _), table in self.rules.items()
            if family is self.place.family and not table.flags
            for chain in table.chains.values()
            if chain.hook is not None and self._is_hooked(chain.hook)
        ]
        return any(self._chain(table, name) is Code.DROP for _, table, name in sorted(bases, key=lambda base: base[0]))

    def _is_hooked(self, hook: bytes) -> bool:
        number, device = _hook(hook)
        return number == self.place.hook and device in ("", self.place.interface)

    def _chain(self, table: FakeTable, name: str) -> Code:
        """ACCEPT, DROP, or RETURN at the end of the chain."""
        for rule in table.chains[name].rules:
            found = self._rule(table, rule)
            if found is None:
                continue
            if found.code in (Code.JUMP, Code.GOTO):
                below = self._chain(table, found.chain)
                if below is not Code.RETURN or found.code is Code.GOTO:
                    return below
                continue
            return found.code
        return Code.RETURN

    def _rule(self, table: FakeTable, rule: FakeRule) -> Verdict | None:
        try:
            for item in decoded(rule).exprs:
                verdict = self._expr(table, item)
                if verdict is not None:
                    return verdict
        except _NoMatch:
            pass
        return None

    def _expr(self, table: FakeTable, item: Expr) -> Verdict | None:
        values: dict[int, Any] = dict(item.attributes)
        match item.name:
            case "meta" if 3 in values:
                self.mark = int.from_bytes(self._load(values[3], 4), sys.byteorder)
            case "meta":
                self._store(values[1], self._meta(values[2]))
            case "ct":
                assert values[2] == _CT_STATE, f"the fake knows no ct key {values[2]}"
                self._store(values[1], _CT_STATES[self.state].to_bytes(4, sys.byteorder))
            case "payload":
                self._store(values[1], self._payload(values[2], values[3], values[4]))
            case "exthdr":
                self._header(values)
            case "cmp":
                self._compare(self._load(values[1], len(values[3])), values[2], values[3])
            case "range":
                found = self._load(values[1], len(values[3]))
                self._require((values[3] <= found <= values[4]) is (values[2] == 0))
            case "bitwise":
                kept = zip(self._load(values[1], values[3]), values[4], values[5], strict=True)
                self._store(values[2], bytes(byte & mask ^ flip for byte, mask, flip in kept))
            case "lookup":
                looked_up = self._set(table, values[1])
                size = int.from_bytes(looked_up.made_with[blob.SET_KEY_LENGTH], "big")
                self._require(looked_up.has(bytes(self._load(values[2], size))) is not bool(values.get(5)))
            case "immediate":
                return values[2]
            case "counter" | "notrack" | "log" | "limit":
                pass
            case _:
                raise AssertionError(f"the fake knows no {item.name}")
        return None

    def _set(self, table: FakeTable, name: str) -> FakeSet:
        return looked_up(table.sets[name], self.sets.get((self.place.family, table.name)))

    def _meta(self, key: int) -> bytes:
        name = self.place.interface.encode().ljust(_NAME_BYTES, b"\0")
        match key:
            case 1:  # NFT_META_PROTOCOL
                return _ETHERTYPES[self.packet.version].to_bytes(2, "big")
            case 3:  # NFT_META_MARK
                return self.mark.to_bytes(4, sys.byteorder)
            case 16:  # NFT_META_L4PROTO
                return bytes([self.packet.protocol])
            case 6 | 7:  # NFT_META_IIFNAME, NFT_META_OIFNAME
                other = self.place.leaves.encode().ljust(_NAME_BYTES, b"\0")
                return name if self.place.received is (key == 6) else other
        raise AssertionError(f"the fake knows no meta key {key}")

    def _payload(self, base: int, at: int, size: int) -> bytes:
        """Loads of 1, 2 and 4 bytes do not check whether the packet is a later fragment (``nft_payload_fast_eval``)."""
        if base == _TRANSPORT:
            self._require(size in (1, 2, 4) or not self.packet.later_fragment)
            at += _HEADER_BYTES[self.packet.version]
        elif base != _NETWORK:
            raise _NoMatch  # no link-layer header: no tag
        found = self.packet.buf[at : at + size]
        self._require(len(found) == size)
        return found

    def _header(self, values: Mapping[int, int]) -> None:
        """An IPv6 extension header that none of the packets has."""
        assert (values[2], self.packet.version) == (_FRAGMENT_HEADER, 6)
        raise _NoMatch

    def _compare(self, found: bytes, operation: int, data: bytes) -> None:
        same = {
            0: found == data,
            1: found != data,
            2: found < data,
            3: found <= data,
            4: found > data,
            5: found >= data,
        }
        self._require(same[operation])

    def _require(self, holds: bool) -> None:
        if not holds:
            raise _NoMatch

    def _load(self, register: int, size: int) -> bytes:
        at = _offset(register)
        return bytes(self.registers[at : at + size])

    def _store(self, register: int, data: bytes) -> None:
        """Padded to four bytes, as in the kernel."""
        at, padded = _offset(register), data + bytes(-len(data) % 4)
        self.registers[at : at + len(padded)] = padded


def looked_up(mine: FakeSet, now: FakeTable | None) -> FakeSet:
    """A rule's set at the time of the look-up; the rule still refers to a set that was deleted or replaced."""
    other = now.sets.get(mine.name) if now is not None else None
    return other if other is not None and other.identity == mine.identity else mine


def _offset(register: int) -> int:
    return 16 * register if register <= _SMALL_IN_LARGE else 16 + 4 * (register - _FIRST_SMALL)


@cache
def _priority(hook: bytes) -> int:
    return int.from_bytes(dict(attributes(hook))[blob.HOOK_PRIORITY], "big", signed=True)


@cache
def _hook(attribute: bytes) -> tuple[int, str]:
    """Number and device."""
    found = dict(attributes(attribute))
    return int.from_bytes(found[blob.HOOK_NUMBER], "big"), found.get(blob.HOOK_DEVICE, b"").rstrip(b"\0").decode()


_decoded: dict[bytes, Rule] = {}


def decoded(rule: FakeRule) -> Rule:
    """A rule's expressions, parsed once."""
    if rule.exprs not in _decoded:
        body = text(blob.RULE_CHAIN, "") + be64(blob.RULE_HANDLE, rule.handle) + rule.expressions
        found = blob.decode_rule(body).rule
        assert found is not None, "the fake runs only what we write"
        _decoded[rule.exprs] = found
    return _decoded[rule.exprs]
