"""The kernel's bytes of a rule (``struct ipt_entry``, ``struct ip6t_entry``) to and from :class:`Rule`. Pure.

python-iptables can also build and read extensions. But it reads them by having libxtables print to a redirected
standard output, and it loses the protocol of a negated IPv6 rule (it clears ``IP6T_F_PROTO``). So this module has the
layouts of the few extensions we use, one row each (Linux UAPI, ``linux/netfilter/xt_*.h``), and python-iptables only
transfers the bytes.

:func:`decode` returns a :class:`Rule` only if :func:`encode` of it gives the same bytes; otherwise an OpaqueRule.
Integers are in the host's byte order unless their name ends in ``_be``, as in the kernel.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network

from enforcer.backends.iptables.rules import (
    Comment,
    CtStates,
    IcmpType,
    Jump,
    Limit,
    Log,
    MarkMatch,
    Match,
    NoTrack,
    OpaqueRule,
    PortsMatch,
    Rule,
    SetMark,
    SetMatch,
    Target,
    Verdict,
)
from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import CtState, Side
from enforcer.policy.resources import PortRange

_COUNTERS = struct.Struct("=QQ")  # packets, bytes: the last 16 bytes of both headers
_EXTENSION = struct.Struct("=H29sB")  # struct xt_entry_match and xt_entry_target: size, name, revision
_INV_SOURCE, _INV_DESTINATION, _INV_PROTOCOL = 0x08, 0x10, 0x40


@dataclass(frozen=True)
class _Family:
    """The fixed part of an entry in one family. ``layout`` ends before the counters."""

    layout: struct.Struct
    goto: int
    has_protocol: int  # IP6T_F_PROTO: without it ip6_tables does not match on the protocol

    @property
    def size(self) -> int:
        return self.layout.size + _COUNTERS.size


# src, dst, smsk, dmsk, iniface, outiface, their masks, proto, (tos,) flags, invflags, nfcache, two offsets, comefrom
_FAMILY = {
    4: _Family(struct.Struct("=4s4s4s4s16s16s16s16sHBBIHHI"), goto=0x02, has_protocol=0),
    6: _Family(struct.Struct("=16s16s16s16s16s16s16s16sHxBB3xIHHI4x"), goto=0x04, has_protocol=0x01),
}
_NETWORK: dict[int, type[IPv4Network] | type[IPv6Network]] = {4: IPv4Network, 6: IPv6Network}


@dataclass(frozen=True)
class _Extension:
    name: bytes
    revision: int
    layout: struct.Struct

    def pack(self, *values: object) -> bytes:
        data = _aligned(self.layout.pack(*values))
        return _EXTENSION.pack(_EXTENSION.size + len(data), self.name, self.revision) + data


_MULTIPORT = _Extension(b"multiport", 1, struct.Struct("=BB15H15sB"))  # side, count, ports, range starts, inverted
_SET = _Extension(b"set", 4, struct.Struct("=HBB4xQB7xQB7xI4x"))  # index, dimension, flags, counter matches, flags
_MARK_MATCH = _Extension(b"mark", 1, struct.Struct("=IIB3x"))  # mark, mask, inverted
_ICMP = {4: _Extension(b"icmp", 0, struct.Struct("=BBBB")), 6: _Extension(b"icmp6", 0, struct.Struct("=BBBB"))}
_LIMIT = _Extension(b"limit", 0, struct.Struct("=II32x"))  # period, burst, and what only the kernel uses
# struct xt_conntrack_mtinfo3: eight addresses and masks, expiry, protocol, four ports, flags, inverted flags, states,
# statuses, four upper ports
_CONNTRACK = _Extension(b"conntrack", 3, struct.Struct("=128sIIH4HHHHH4H2x"))
_COMMENT = _Extension(b"comment", 0, struct.Struct("=256s"))

_STANDARD = struct.Struct("=i4x")  # the verdict; libiptc fills it in from the name
_MARK = _Extension(b"MARK", 2, struct.Struct("=II"))  # mark, mask
_CT = _Extension(b"CT", 2, struct.Struct("=HHII16s32s4xQ"))  # flags, ..., and a pointer only the kernel uses
_LOG = _Extension(b"LOG", 0, struct.Struct("=BB30s"))  # level, flags, prefix

_MULTIPORT_SIDE = {Side.SOURCE: 0, Side.DESTINATION: 1}
# IPSET_INV_MATCH, and IPSET_DIM_ONE_SRC with IPSET_DIM_TWO_SRC by the number of dimensions
_SET_INVERTED, _SET_SOURCE = 0x01, {1: 0x02, 2: 0x06}
_CT_NOTRACK = 0x01
_CONNTRACK_STATE = 0x01  # XT_CONNTRACK_STATE
# XT_CONNTRACK_STATE_BIT of each state, by number of the bit (linux/netfilter/xt_conntrack.h)
_STATE_BIT = {
    CtState.INVALID: 0,
    CtState.ESTABLISHED: 1,
    CtState.RELATED: 2,
    CtState.NEW: 3,
    CtState.UNTRACKED: 8,
}


@dataclass(frozen=True)
class KernelRule:
    """A rule as libiptc returns it. ``target`` is the name of its chain, verdict or extension."""

    blob: bytes
    target: str


class SetIndex:
    """Set names to the kernel's set indexes and back; rules refer to a set by its index. KeyError if unknown."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self.number: Mapping[str, int] = dict(numbers)
        self.name: Mapping[int, str] = {number: name for name, number in numbers.items()}


class _Numbers(dict[str, int]):
    def __missing__(self, name: str) -> int:
        return int(name)


class _Digits(dict[int, str]):
    def __missing__(self, number: int) -> str:
        return str(number)


class _AnySet(SetIndex):
    """Every index is a set, whose name is the index in digits."""

    def __init__(self) -> None:
        self.number, self.name = _Numbers(), _Digits()


_ANY_SET = _AnySet()


def encode(rule: Rule, version: int, sets: SetIndex) -> bytes:
    """A rule as the bytes that libiptc expects, with zero counters. Raises KeyError for a set that does not exist."""
    matches = b"".join(_pack_match(match, version, sets) for match in rule.matches)
    target = _pack_target(rule.target)
    family = _FAMILY[version]
    target_offset = family.size + len(matches)
    flags = (family.has_protocol if rule.protocol is not None else 0) | (family.goto if _is_goto(rule.target) else 0)
    inverted = (
        (_INV_SOURCE if rule.not_source else 0)
        | (_INV_DESTINATION if rule.not_destination else 0)
        | (_INV_PROTOCOL if rule.not_protocol else 0)
    )
    source, source_mask = _pack_net(rule.source, version)
    destination, destination_mask = _pack_net(rule.destination, version)
    interfaces = (rule.in_interface.encode(), rule.out_interface.encode())
    header = family.layout.pack(
        *(source, destination, source_mask, destination_mask),
        *interfaces,
        *(b"\xff" * (len(name) + 1) if name else b"" for name in interfaces),  # with the NUL: not just a prefix
        *(rule.protocol or 0, flags, inverted, 0, target_offset, target_offset + len(target), 0),
    )
    return header + bytes(_COUNTERS.size) + matches + target


def decode(kernel: KernelRule, version: int, sets: SetIndex) -> Rule | OpaqueRule:
    """The rule of a blob, or the blob itself if no :class:`Rule` is exactly equivalent."""
    blob = without_counters(kernel.blob, version)
    rule = _decoded(KernelRule(blob, kernel.target), version)
    try:
        return _named(rule, sets) if rule else OpaqueRule(blob, kernel.target)
    except KeyError:  # a set of others
        return OpaqueRule(blob, kernel.target)


@lru_cache(maxsize=1 << 13)
def _decoded(kernel: KernelRule, version: int) -> Rule | None:
    """With the indexes of sets in place of their names. Each pass and each look at the counters reads all rules, which
    are nearly always those of the last one.
    """
    try:
        rule = _decode(kernel, version, _ANY_SET)
        same = _head(encode(rule, version, _ANY_SET), version) == _head(kernel.blob, version)
    except (ValueError, struct.error):
        return None
    return rule if same else None


def _named(rule: Rule, sets: SetIndex) -> Rule:
    """The rule with the names of its sets. KeyError if one is unknown."""
    if not any(isinstance(match, SetMatch) for match in rule.matches):
        return rule
    return replace(
        rule,
        matches=tuple(
            replace(match, set_name=sets.name[int(match.set_name)]) if isinstance(match, SetMatch) else match
            for match in rule.matches
        ),
    )


def counters_of(blob: bytes, version: int) -> tuple[int, int]:
    """Packets and bytes."""
    packets, size = _COUNTERS.unpack_from(blob, _FAMILY[version].layout.size)
    return packets, size


def without_counters(blob: bytes, version: int) -> bytes:
    """The blob with the fields that the kernel changes set to zero: counters, loop detection, caching."""
    family = _FAMILY[version]
    values = list(family.layout.unpack_from(blob))
    values[-4] = values[-1] = 0
    return family.layout.pack(*values) + bytes(_COUNTERS.size) + blob[family.size :]


def _head(blob: bytes, version: int) -> bytes:
    """Everything before the target; the kernel writes offsets and pointers into the target."""
    family = _FAMILY[version]
    target_offset = family.layout.unpack_from(blob)[-3]
    matches = _extensions(blob[family.size : target_offset])
    clean = (_EXTENSION.pack(_EXTENSION.size + len(body), name, revision) + body for name, revision, body in matches)
    return without_counters(blob, version)[: family.size] + b"".join(clean)


def _extensions(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Name, revision and body of each match. The kernel copies a name with its NUL; the bytes after it are garbage."""
    while data:
        size, name, revision = _EXTENSION.unpack_from(data)
        if not _EXTENSION.size <= size <= len(data):
            raise ValueError(f"a match of {size} bytes")
        yield name.split(b"\0", 1)[0], revision, data[_EXTENSION.size : size]
        data = data[size:]


def _decode(kernel: KernelRule, version: int, sets: SetIndex) -> Rule:
    family = _FAMILY[version]
    fields = family.layout.unpack_from(kernel.blob)
    source, destination, source_mask, destination_mask, in_interface, out_interface = fields[:6]
    protocol, flags, inverted, _, target_offset = fields[8:13]
    return Rule(
        _unpack_target(kernel, target_offset, goto=bool(flags & family.goto)),
        in_interface=_text(in_interface),
        out_interface=_text(out_interface),
        source=_unpack_net(source, source_mask, version),
        not_source=bool(inverted & _INV_SOURCE),
        destination=_unpack_net(destination, destination_mask, version),
        not_destination=bool(inverted & _INV_DESTINATION),
        protocol=protocol or None,
        not_protocol=bool(inverted & _INV_PROTOCOL),
        matches=tuple(
            _unpack_match(name, body, version, sets)
            for name, _, body in _extensions(kernel.blob[family.size : target_offset])
        ),
    )


def _pack_net(net: IPNetwork | None, version: int) -> tuple[bytes, bytes]:
    if net is None:
        return b"", b""
    if net.version != version:
        raise ValueError(f"{net} in an IPv{version} rule")
    return net.network_address.packed, net.netmask.packed


def _unpack_net(address: bytes, mask: bytes, version: int) -> IPNetwork | None:
    if not any(mask):
        return None
    length = int.from_bytes(mask, "big").bit_count()
    return _NETWORK[version]((address, length))


def _pack_match(match: Match, version: int, sets: SetIndex) -> bytes:
    match match:
        case SetMatch(name, side, inverted, port):
            dimension = 2 if port else 1
            flags = (_SET_SOURCE[dimension] if side is Side.SOURCE else 0) | (_SET_INVERTED if inverted else 0)
            return _SET.pack(sets.number[name], dimension, flags, 0, 0, 0, 0, 0)
        case Limit(period, burst):
            return _LIMIT.pack(period, burst)
        case MarkMatch(value, mask):
            return _MARK_MATCH.pack(value, mask, False)
        case PortsMatch(side, ports, inverted):
            slots, starts = _port_slots(ports)
            numbers = slots + [0] * (15 - len(slots))
            return _MULTIPORT.pack(_MULTIPORT_SIDE[side], len(slots), *numbers, bytes(starts), inverted)
        case IcmpType(icmp_type, code, inverted):
            first, last = (0, 0xFF) if code is None else (code, code)
            return _ICMP[version].pack(icmp_type, first, last, inverted)
        case CtStates(states):
            mask = sum(1 << _STATE_BIT[state] for state in states)
            return _CONNTRACK.pack(bytes(128), 0, 0, 0, *[0] * 4, _CONNTRACK_STATE, 0, mask, 0, *[0] * 4)
        case Comment(text):
            return _COMMENT.pack(text.encode())


def _port_slots(ports: Iterable[PortRange]) -> tuple[list[int], list[int]]:
    """Port numbers, and for each a flag: 1 if it starts a range that ends with the next number."""
    slots: list[int] = []
    starts: list[int] = []
    for item in ports:
        bounds = [item.first] if item.first == item.last else [item.first, item.last]
        slots += bounds
        starts += [1, 0] if len(bounds) == 2 else [0]
    return slots, starts


def _unpack_match(name: bytes, body: bytes, version: int, sets: SetIndex) -> Match:
    """The match, which :func:`decode` verifies by encoding it again. ValueError for an extension we never use."""
    if name == _SET.name:
        index, dimension, flags = _SET.layout.unpack_from(body)[:3]
        side = Side.SOURCE if flags & ~_SET_INVERTED else Side.DESTINATION
        return SetMatch(sets.name[index], side, bool(flags & _SET_INVERTED), dimension == 2)
    if name == _LIMIT.name:
        period, burst = _LIMIT.layout.unpack_from(body)
        return Limit(period, burst)
    if name == _MARK_MATCH.name:
        value, mask, _ = _MARK_MATCH.layout.unpack_from(body)
        return MarkMatch(value, mask)
    if name == _MULTIPORT.name:
        flag, count, *numbers, starts, inverted = _MULTIPORT.layout.unpack_from(body)
        side = Side.SOURCE if flag == _MULTIPORT_SIDE[Side.SOURCE] else Side.DESTINATION
        return PortsMatch(side, tuple(_ranges(numbers[:count], starts)), bool(inverted))
    if name == _ICMP[version].name:
        icmp_type, first, last, inverted = _ICMP[version].layout.unpack_from(body)
        return IcmpType(icmp_type, None if (first, last) == (0, 0xFF) else first, bool(inverted))
    if name == _CONNTRACK.name:
        mask = _CONNTRACK.layout.unpack_from(body)[10]
        return CtStates(frozenset(state for state, bit in _STATE_BIT.items() if mask >> bit & 1))
    if name == _COMMENT.name:
        return Comment(_text(body[: _COMMENT.layout.size]))
    raise ValueError(f"match {name!r} is not one of ours")


def _ranges(numbers: list[int], starts: bytes) -> Iterator[PortRange]:
    """The ranges of a multiport match. ValueError if a range has no end."""
    pairs = iter(zip(numbers, starts, strict=False))
    for number, starts_range in pairs:
        last = next(pairs, None) if starts_range else (number, 0)
        if last is None:
            raise ValueError("a range of ports without an end")
        yield PortRange(number, last[0])


def _pack_target(target: Target) -> bytes:
    match target:
        case Verdict():
            return _pack_standard(str(target))
        case Jump(chain, _):
            return _pack_standard(chain)
        case SetMark(value, mask):
            return _MARK.pack(value, mask)
        case NoTrack():
            return _CT.pack(_CT_NOTRACK, 0, 0, 0, b"", b"", 0)
        case Log(prefix, level):
            return _LOG.pack(level, 0, prefix.encode())


def _pack_standard(name: str) -> bytes:
    return _EXTENSION.pack(_EXTENSION.size + _STANDARD.size, name.encode(), 0) + _STANDARD.pack(0)


def _unpack_target(kernel: KernelRule, offset: int, *, goto: bool) -> Target:
    """The target of a rule. ValueError for a target we never use."""
    _, raw_name, revision = _EXTENSION.unpack_from(kernel.blob, offset)
    name, body = raw_name.split(b"\0", 1)[0], kernel.blob[offset + _EXTENSION.size :]
    if not name:  # standard: a verdict, or a jump to the chain libiptc found for it
        verdict = next((item for item in Verdict if item.value == kernel.target), None)
        return verdict or Jump(kernel.target, goto)
    for extension in (_MARK, _CT, _LOG):
        if (name, revision) == (extension.name, extension.revision):
            return _unpack_extension_target(extension, body)
    raise ValueError(f"target {name!r} is not one of ours")


def _unpack_extension_target(extension: _Extension, body: bytes) -> Target:
    values = extension.layout.unpack_from(body)
    if extension is _MARK:
        return SetMark(*values)
    if extension is _CT:
        if values[:-1] != (_CT_NOTRACK, 0, 0, 0, bytes(16), bytes(32)):
            raise ValueError("a CT target that does more than --notrack")
        return NoTrack()
    level, flags, prefix = values
    if flags:
        raise ValueError("a LOG target with options")
    return Log(_text(prefix), level)


def _is_goto(target: Target) -> bool:
    return isinstance(target, Jump) and target.goto


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode()


def _aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)
