"""Scapy expressions as data: ``IP(src="203.0.113.9", dst="10.10.10.10")/TCP(dport=80)`` -> frames. No code is ever run.

Only what describes a packet is understood: layers by name with their fields, ``/``, numbers, strings, bytes, lists,
tuples, and ``*`` to repeat a string. What the expression leaves out and Scapy would take from this machine (addresses,
next hops) is filled in or asked for, so that the same text means the same frame everywhere.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from itertools import islice
from types import MappingProxyType
from typing import Any

from scapy.config import conf
from scapy.layers import dns, inet, inet6, isakmp, l2, ntp, sctp, snmp, vxlan
from scapy.packet import Packet

from dossim.errors import PacketError
from dossim.scenario.findings import did_you_mean
from dossim.scenario.template import HOST_MAC, OUTSIDE_MAC
from enforcer.policy.nets import parse_cidr
from enforcer.policy.resources import IPAddress

MOST_PACKETS = 65_536  # one expression may stand for many packets: IP(src="203.0.113.0/24")
_LONGEST_PAYLOAD = 65_535
_ADDRESS_FIELDS = {"IP": ("src", "dst"), "IPv6": ("src", "dst"), "ARP": ("psrc", "pdst")}
_REGISTERS_LAYERS = (dns, inet, inet6, isakmp, l2, ntp, sctp, snmp, vxlan)

Destinations = Mapping[int, IPAddress]  # the host's first address, by IP version


def frame_of(expression: str, destinations: Destinations, *, sources: Destinations = MappingProxyType({})) -> bytes:
    """The one frame an expression describes. Raises PacketError, with a caret below the fault where it can be shown.

    ``destinations`` and ``sources`` are what an address that is left out stands for.
    """
    frames = frames_of(expression, destinations, sources=sources)
    if len(frames) != 1:
        raise ExpressionError(expression, f"describes {len(frames)} packets; give one")
    return frames[0]


def frames_of(
    expression: str, destinations: Destinations, *, sources: Destinations = MappingProxyType({})
) -> list[bytes]:
    """Every frame an expression describes; Ethernet is put in front where it is missing."""
    packet = parse_expression(expression)
    try:
        return [bytes(_completed(item, destinations, sources)) for item in islice(iter(packet), MOST_PACKETS)]
    except PacketError as error:
        raise ExpressionError(expression, str(error)) from None
    except Exception as error:  # Scapy raises whatever a field's encoder meets: struct.error, TypeError, OSError ...
        raise ExpressionError(expression, f"Scapy cannot build it: {error}") from error


def parse_expression(expression: str) -> Packet:
    """The packet an expression describes, as written. Raises PacketError."""
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except SyntaxError as error:
        raise ExpressionError(expression, f"not a packet: {error.msg}", (error.offset or 1) - 1) from None
    try:
        value = _value(tree.body)
    except _Fault as fault:
        raise ExpressionError(expression, str(fault), fault.column) from None
    if not isinstance(value, Packet):
        raise ExpressionError(expression, 'not a packet; write one like IP(src="203.0.113.9")/TCP(dport=80)')
    return value


class ExpressionError(PacketError):
    """Text that describes no packet; ``findings`` has it as one piece, with the caret where one helps."""

    def __init__(self, expression: str, message: str, column: int | None = None) -> None:
        caret = "" if column is None else _caret(expression, column)
        self.findings = (f"{expression}: {message}{caret}",)
        super().__init__(self.findings[0])


class _Fault(Exception):
    """Something in an expression that does not describe a packet."""

    def __init__(self, node: ast.expr, message: str) -> None:
        self.column = node.col_offset
        super().__init__(message)


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value) if isinstance(value, (str, bytes, int, float)) or value is None:
            return value
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as value)):
            return -value
        case ast.BinOp(op=ast.Div()):
            return _stacked(node)
        case ast.BinOp(op=ast.Mult()):
            return _repeated(node)
        case ast.Call():
            return _layer(node)
    raise _Fault(node, "only layers, '/', numbers, strings, lists and tuples may be used")


def _stacked(node: ast.BinOp) -> Packet:
    left, right = _value(node.left), _value(node.right)
    if not isinstance(left, Packet):
        raise _Fault(node.left, "expected a layer before '/'")
    if not isinstance(right, (Packet, str, bytes)):
        raise _Fault(node.right, "expected a layer or a payload after '/'")
    return left / right


def _repeated(node: ast.BinOp) -> str | bytes:
    text, times = _value(node.left), _value(node.right)
    if not isinstance(text, (str, bytes)) or not isinstance(times, int):
        raise _Fault(node, "'*' repeats a string: 'x' * 100")
    if len(text) * times > _LONGEST_PAYLOAD:
        raise _Fault(node, f"a payload of {len(text) * times:,} octets; at most {_LONGEST_PAYLOAD:,} fit into a packet")
    return text * times


def _layer(node: ast.Call) -> Packet:
    if not isinstance(node.func, ast.Name):
        raise _Fault(node, "only layers may be called")
    kind = layers().get(node.func.id)
    if kind is None:
        raise _Fault(node, f"no layer is called {node.func.id!r}{did_you_mean(node.func.id, layers())}")
    fields = {item.name for item in kind.fields_desc}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg not in fields:
            raise _Fault(
                keyword.value, f"{node.func.id} has no field {keyword.arg!r}{did_you_mean(keyword.arg, fields)}"
            )
    arguments = [_value(item) for item in node.args]
    if len(arguments) > 1 or not all(isinstance(item, (str, bytes)) for item in arguments):
        raise _Fault(node, f"{node.func.id} takes its octets, or fields by name")
    given = {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
    _check_addresses(node, given)
    try:
        return kind(*arguments, **given)
    except Exception as error:  # as in frames_of
        raise _Fault(node, f"Scapy cannot build it: {error}") from error


def _check_addresses(node: ast.Call, given: Mapping[str, Any]) -> None:
    """Anything but an address would be looked up as a host name."""
    assert isinstance(node.func, ast.Name)
    for name in _ADDRESS_FIELDS.get(node.func.id, ()):
        values = given.get(name, ())
        for value in values if isinstance(values, (list, tuple)) else (values,):
            try:
                parse_cidr(str(value))
            except ValueError as error:
                raise _Fault(node, f"{name}: {error}") from None


@cache
def layers() -> Mapping[str, type[Packet]]:
    """Every layer that may be named."""
    assert _REGISTERS_LAYERS
    return {kind.__name__: kind for kind in conf.layers}


def _completed(packet: Packet, destinations: Destinations, sources: Destinations) -> Packet:
    """The packet with an Ethernet header and with every address that Scapy would otherwise take from this machine."""
    if not isinstance(packet, l2.Ether):
        packet = l2.Ether() / packet
    _fill(packet, "dst", HOST_MAC)
    _fill(packet, "src", OUTSIDE_MAC)
    for layer, version in ((inet.IP, 4), (inet6.IPv6, 6)):
        if layer in packet:
            _fill(packet[layer], "dst", destinations.get(version))
            _fill(packet[layer], "src", sources.get(version))
    if l2.ARP in packet:
        _fill(packet[l2.ARP], "hwsrc", OUTSIDE_MAC)
        _fill(packet[l2.ARP], "pdst", destinations.get(4))
        _fill(packet[l2.ARP], "psrc", None)
    return packet


def _fill(layer: Packet, name: str, value: object) -> None:
    if name in layer.fields:
        return
    if value is None:
        raise PacketError(f"{layer.name}: {name} is missing; without it the packet would depend on this machine")
    setattr(layer, name, str(value))


def _caret(expression: str, column: int) -> str:
    lead = len(expression) - len(expression.lstrip())
    return f"\n  {expression}\n  {' ' * (column + lead)}^"
