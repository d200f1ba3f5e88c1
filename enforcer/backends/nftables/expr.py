"""Expressions for each match and statement. Pure.

Registers: a match loads its field into the first register and compares it there; a concatenated key also fills the
registers that follow. An expression that cannot load (a header is missing) ends the rule without a match.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from enforcer.backends.nftables.rules import Code, Expr, RateLimit, Verdict
from enforcer.kernel.netlink import string
from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import CtState, Side
from enforcer.policy.resources import PortRange

# enum nft_registers, as the kernel shows them: whole registers of 16 bytes by one number, parts of four by another
_VERDICT_REGISTER, _FIRST = 0, 1
_KEY_REGISTERS = {4: (1, 9, 10), 6: (1, 2, 13)}  # address, protocol, port
# enum nft_payload_bases
_LINK, _NETWORK, _TRANSPORT = 0, 1, 2
# enum nft_meta_keys
_META_PACKET_TYPE, _PACKET_OTHERHOST = 19, 3  # NFT_META_PKTTYPE; linux/if_packet.h
_META_PROTOCOL, _META_PROTOCOL_L4, _META_MARK, _META_IN, _META_OUT = 1, 16, 3, 6, 7
# NFT_CT_STATE, and the bit that it has for each state: NF_CT_STATE_BIT, NF_CT_STATE_INVALID_BIT and
# NF_CT_STATE_UNTRACKED_BIT (linux/netfilter/nf_conntrack_common.h; net/netfilter/nft_ct.c)
_CT_STATE = 0
CT_STATE_BIT = {
    CtState.INVALID: 1 << 0,
    CtState.ESTABLISHED: 1 << 1,
    CtState.RELATED: 1 << 2,
    CtState.NEW: 1 << 3,
    CtState.UNTRACKED: 1 << 6,
}
# enum nft_cmp_ops
_EQUAL, _NOT_EQUAL, _AT_LEAST = 0, 1, 5
_CMP_DATA = 3  # NFTA_CMP_DATA
_INTERFACE_LENGTH = 16  # IFNAMSIZ

_ADDRESS_AT = {(4, Side.SOURCE): 12, (4, Side.DESTINATION): 16, (6, Side.SOURCE): 8, (6, Side.DESTINATION): 24}
_ADDRESS_BYTES = {4: 4, 6: 16}
_PORT_AT = {Side.SOURCE: 0, Side.DESTINATION: 2}
_PORT_BYTES = 2
_FRAGMENT_HEADER, _FRAGMENT_AT, _FRAGMENT_MASK = 44, 2, 0xFFF8
_IP_FRAGMENT_AT, _IP_FRAGMENT_MASK = 6, 0x1FFF
_LOG_LEVEL_NOTICE = 5
_ETHERTYPES, _TAGS, _ETHERTYPE_AT = {4: 0x0800, 6: 0x86DD}, (0x8100, 0x88A8), 12
_PLAIN_IP4, _IP4_BYTES = 0x45, 20  # version 4, no options
_TOTAL_LENGTH_AT, _PAYLOAD_LENGTH_AT, _NEXT_HEADER_AT = 2, 4, 6
_MORE_FRAGMENTS = 0x2000
_FRAGMENT_UNIT = 8  # bytes; ip_frag_queue cuts a fragment that is not the last one to a multiple

COUNTER = Expr("counter")
NOTRACK = Expr("notrack")


def _be(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


def _host(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def _payload(base: int, at: int, size: int, register: int = _FIRST) -> Expr:
    return Expr("payload", ((1, register), (2, base), (3, at), (4, size)))


def _meta(key: int, register: int = _FIRST) -> Expr:
    return Expr("meta", ((1, register), (2, key)))


def _compare(data: bytes, operation: int = _EQUAL) -> Expr:
    return Expr("cmp", ((1, _FIRST), (2, operation), (_CMP_DATA, data)))


def _is(data: bytes, *, inverted: bool) -> Expr:
    return _compare(data, _NOT_EQUAL if inverted else _EQUAL)


def _masked(mask: bytes, flip: bytes) -> Expr:
    return Expr("bitwise", ((1, _FIRST), (2, _FIRST), (3, len(mask)), (4, mask), (5, flip)))


# --- matches ----------------------------------------------------------------------------------------------------------


def interface(name: str, *, received: bool) -> tuple[Expr, ...]:
    """The packet was received on this interface; not ``received``: it is sent through it."""
    padded = name.encode().ljust(_INTERFACE_LENGTH, b"\0")
    return _meta(_META_IN if received else _META_OUT), _compare(padded)


def matched_interface(exprs: Sequence[Expr]) -> str:
    """The interface that a rule matches on first, by :func:`interface`; "" for any other rule."""
    if len(exprs) < 2 or exprs[0] not in (_meta(_META_IN), _meta(_META_OUT)) or exprs[1].name != "cmp":
        return ""
    compared = exprs[1].get(_CMP_DATA)
    return string(compared) if isinstance(compared, bytes) else ""


def net(side: Side, network: IPNetwork, *, inverted: bool = False) -> tuple[Expr, ...]:
    """The address of one side is (not) in a net. A net of prefix length 0 contains every address."""
    version, size = network.version, _ADDRESS_BYTES[network.version]
    load = _payload(_NETWORK, _ADDRESS_AT[version, side], size)
    compare = _is(network.network_address.packed, inverted=inverted)
    if network.prefixlen == network.max_prefixlen:
        return load, compare
    return load, _masked(network.netmask.packed, bytes(size)), compare


def address_in(side: Side, version: int, set_name: str, *, inverted: bool = False) -> tuple[Expr, ...]:
    load = _payload(_NETWORK, _ADDRESS_AT[version, side], _ADDRESS_BYTES[version])
    return load, _lookup(set_name, inverted=inverted)


def protocol(number: int, *, inverted: bool = False) -> tuple[Expr, ...]:
    return _meta(_META_PROTOCOL_L4), _is(_be(number, 1), inverted=inverted)


def port(side: Side, ports: PortRange, *, inverted: bool = False) -> tuple[Expr, ...]:
    """The port of one side is (not) in one range."""
    load = _payload(_TRANSPORT, _PORT_AT[side], _PORT_BYTES)
    if ports.first == ports.last:
        return load, _is(_be(ports.first, _PORT_BYTES), inverted=inverted)
    bounds = (3, _be(ports.first, _PORT_BYTES)), (4, _be(ports.last, _PORT_BYTES))
    return load, Expr("range", ((1, _FIRST), (2, int(inverted)), *bounds))


def port_in(side: Side, set_name: str, *, inverted: bool = False) -> tuple[Expr, ...]:
    return _payload(_TRANSPORT, _PORT_AT[side], _PORT_BYTES), _lookup(set_name, inverted=inverted)


def named_port_in(side: Side, version: int, set_name: str) -> tuple[Expr, ...]:
    """The address, protocol and port of one side are a member of the set."""
    address, transport, number = _KEY_REGISTERS[version]
    return (
        _payload(_NETWORK, _ADDRESS_AT[version, side], _ADDRESS_BYTES[version], address),
        _meta(_META_PROTOCOL_L4, transport),
        _payload(_TRANSPORT, _PORT_AT[side], _PORT_BYTES, number),
        _lookup(set_name, inverted=False),
    )


def icmp(kind: int, code: int | None, *, inverted: bool = False) -> tuple[Expr, ...]:
    data = bytes([kind] if code is None else [kind, code])
    return _payload(_TRANSPORT, 0, len(data)), _is(data, inverted=inverted)


def protocol_is_known() -> tuple[Expr, ...]:
    """The transport protocol is known. Does not hold if the chain of IPv6 extension headers is cut off."""
    return _meta(_META_PROTOCOL_L4), _compare(bytes(1), _AT_LEAST)


def transport_has(length: int) -> tuple[Expr, ...]:
    """The packet has at least ``length`` bytes of transport; never holds for a later fragment. Must precede every other
    match on the transport.

    A load of 1, 2 or 4 bytes reads the payload of a later fragment as if it were the transport header
    (``nft_payload_fast_eval``, observed on 6.18); a load of 3 bytes does not (``nft_payload_eval``).
    """
    size = 3
    return _payload(_TRANSPORT, length - size, size), _compare(bytes(size), _AT_LEAST)


def later_fragment(version: int) -> tuple[Expr, ...]:
    mask = _be(_IP_FRAGMENT_MASK if version == 4 else _FRAGMENT_MASK, 2)
    if version == 4:
        load = _payload(_NETWORK, _IP_FRAGMENT_AT, len(mask))
    else:
        where = (2, _FRAGMENT_HEADER), (3, _FRAGMENT_AT), (4, len(mask)), (5, 0), (6, 0)
        load = Expr("exthdr", ((1, _FIRST), *where))
    return load, _masked(mask, bytes(2)), _compare(bytes(2), _NOT_EQUAL)


def of_family(version: int) -> tuple[Expr, ...]:
    """The EtherType is that of this IP version: that from the driver, or of the outer VLAN tag."""
    return _meta(_META_PROTOCOL), _compare(_be(_ETHERTYPES[version], 2))


def tagged() -> tuple[tuple[Expr, ...], ...]:
    """The frame has a VLAN tag: one match for each EtherType of a tag. The kernel has removed the tag but shows it at
    its place in the frame (``nft_payload_copy_vlan``).
    """
    load = _payload(_LINK, _ETHERTYPE_AT, 2)
    return tuple((load, _compare(_be(kind, 2))) for kind in _TAGS)


def for_another_host() -> tuple[Expr, ...]:
    """The frame is addressed to another interface (``eth_type_trans``), for example to a macvlan on this one."""
    return _meta(_META_PACKET_TYPE), _compare(bytes([_PACKET_OTHERHOST]))


def next_header(kind: int) -> tuple[Expr, ...]:
    """The next header field of the IPv6 header."""
    return _payload(_NETWORK, _NEXT_HEADER_AT, 1), _compare(_be(kind, 1))


def whole_transport(version: int, length: int) -> tuple[tuple[Expr, ...], ...]:
    """If one of these matches holds, the packet is not a later fragment, has no IPv4 options, and by the length in its
    IP header has at least ``length`` bytes of transport. Bytes in the frame prove nothing: they may be padding.
    """
    if version == 6:
        return ((_payload(_NETWORK, _PAYLOAD_LENGTH_AT, 2), _compare(_be(length, 2), _AT_LEAST)),)
    first = length + -length % _FRAGMENT_UNIT
    found = [_whole4(first, _IP_FRAGMENT_MASK)]
    return (*found, _whole4(length, _IP_FRAGMENT_MASK | _MORE_FRAGMENTS)) if first > length else tuple(found)


def _whole4(length: int, none_of: int) -> tuple[Expr, ...]:
    return (
        *(_payload(_NETWORK, 0, 1), _compare(_be(_PLAIN_IP4, 1))),
        *(_payload(_NETWORK, _IP_FRAGMENT_AT, 2), _masked(_be(none_of, 2), bytes(2)), _compare(bytes(2))),
        *(_payload(_NETWORK, _TOTAL_LENGTH_AT, 2), _compare(_be(_IP4_BYTES + length, 2), _AT_LEAST)),
    )


def marked(mark: int, *, inverted: bool = False) -> tuple[Expr, ...]:
    """The packet's mark has (not) this bit."""
    return _meta(_META_MARK), _masked(_host(mark), bytes(4)), _compare(_host(0 if inverted else mark))


def ct_state(states: Iterable[CtState]) -> tuple[Expr, ...]:
    """The packet's conntrack state is one of these. A rule with it turns on connection tracking in the namespace."""
    mask = sum(CT_STATE_BIT[state] for state in states)
    load = Expr("ct", ((1, _FIRST), (2, _CT_STATE)))
    return load, _masked(_host(mask), bytes(4)), _compare(bytes(4), _NOT_EQUAL)


def _lookup(set_name: str, *, inverted: bool) -> Expr:
    return Expr("lookup", ((1, set_name), (2, _FIRST), (5, int(inverted))))


# --- statements ------------------------------------------------------------------------------------------------------


def verdict(code: Code, chain: str = "") -> Expr:
    return Expr("immediate", ((1, _VERDICT_REGISTER), (2, Verdict(code, chain))))


def set_mark(mark: int, *, on: bool) -> tuple[Expr, ...]:
    """Set or clear these bits of the packet's mark; the others stay."""
    change = _masked(_host(~mark & 0xFFFFFFFF), _host(mark if on else 0))
    return _meta(_META_MARK), change, Expr("meta", ((2, _META_MARK), (3, _FIRST)))


def log(prefix: str) -> Expr:
    return Expr("log", ((2, prefix), (5, _LOG_LEVEL_NOTICE)))


def limit(rate: RateLimit) -> Expr:
    return Expr("limit", ((1, rate.count), (2, rate.unit_s), (3, rate.burst), (4, 0), (5, 0)))


def jumps(exprs: Sequence[Expr]) -> str:
    """The chain that a rule jumps or goes to; "" if there is none."""
    last = exprs[-1].get(2) if exprs and exprs[-1].name == "immediate" else None
    return last.chain if isinstance(last, Verdict) else ""
