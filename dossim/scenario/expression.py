"""Scapy expressions as data: ``IP(src="203.0.113.9", dst="10.10.10.10")/TCP(dport=80)`` -> frames. No code is ever run.

Only descriptions of packets are accepted: layers by name with their fields, ``/``, numbers, strings, bytes, lists,
tuples, and ``*`` to repeat a string. What the expression omits and Scapy would take from this machine (addresses, next
hops) is filled in or required, so that the same text means the same frame everywhere. Expressions come with pull
requests: their size, depth and number of packets are bounded, and nothing is looked up.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from scapy import packet as base
from scapy.config import conf
from scapy.layers import dns, inet, inet6, ipsec, isakmp, l2, ntp, sctp, snmp, vxlan
from scapy.packet import Packet

from dossim.model.errors import PacketError
from dossim.scenario import addresses
from dossim.scenario.budget import DEFAULT, Budget, Exceeded
from dossim.scenario.complete import Destinations, assumed, completed
from dossim.scenario.expand import count, expanded, layers_of
from dossim.scenario.findings import did_you_mean
from dossim.scenario.offline import LookupRefused, offline
from dossim.scenario.syntax import ONLY, SyntaxFault, tree_of
from enforcer.model.printable import printable

MOST_PACKETS = 65_536  # one expression may stand for many packets: IP(src="203.0.113.0/24")
FRAME_MAX = 65_549  # an IP packet of 65,535 bytes after an Ethernet header; no longer one can be sent
_HEADERS_MAX = 8 * MOST_PACKETS  # limit on the layers to build
_LONGEST_PAYLOAD = 65_535
_SHOWN = 200
_REGISTERS_LAYERS = (base, dns, inet, inet6, ipsec, isakmp, l2, ntp, sctp, snmp, vxlan)


def frame_of(expression: str, destinations: Destinations, *, sources: Destinations = MappingProxyType({})) -> bytes:
    """The one frame an expression describes. Raises PacketError, with a caret below the fault where it can be shown.

    ``destinations`` and ``sources`` replace omitted addresses.
    """
    packet = parse_expression(expression)
    if (number := _count(expression, packet)) != 1:
        raise ExpressionError(expression, f"describes {number:,} packets; give one")
    return next(_frames(expression, packet, destinations, sources))


def frames_of(
    expression: str,
    destinations: Destinations,
    *,
    sources: Destinations = MappingProxyType({}),
    times: int = 1,
    budget: Budget | None = None,
) -> list[bytes]:
    """Every frame an expression describes; a missing Ethernet header is added.

    The frames are charged to the budget ``times`` times. Raises PacketError, also for too many packets.
    """
    packet = parse_expression(expression)
    budget = budget or Budget(DEFAULT)
    frames: list[bytes] = []
    try:
        budget.describe(_count(expression, packet))
        for frame in _frames(expression, packet, destinations, sources):
            budget.take(times, times * len(frame))
            frames.append(frame)
    except Exceeded as error:
        raise ExpressionError(expression, str(error)) from None
    return frames


def count_of(expression: str) -> int:
    """How many packets an expression describes; none is built. Raises PacketError, also for too many."""
    return _count(expression, parse_expression(expression))


def assumed_in(expression: str) -> list[str]:
    """The fields that policy matches on and the expression does not set, with the values used: ``UDP source port
    49152``.

    Addresses are left out: every summary of the packet has them.
    """
    with offline():
        return assumed(parse_expression(expression))


def parse_expression(expression: str) -> Packet:
    """The packet an expression describes, as written. Raises PacketError."""
    try:
        with offline():
            value = _value(tree_of(expression.strip()))
    except SyntaxFault as fault:
        raise ExpressionError(expression, str(fault), fault.column) from None
    except _Fault as fault:
        raise ExpressionError(expression, str(fault), fault.column) from None
    if not isinstance(value, Packet):
        raise ExpressionError(expression, 'not a packet; write one like IP(src="203.0.113.9")/TCP(dport=80)')
    return value


class ExpressionError(PacketError):
    """Text that describes no packet.

    ``message`` is the sentence alone, ``context`` the expression with a caret below the fault if one helps;
    ``findings`` has both.
    """

    def __init__(self, expression: str, message: str, column: int | None = None) -> None:
        self.message = printable(_shortened(message))
        self.context = "" if column is None else _caret(expression, column)
        text = f"{printable(_shortened(expression))}: {self.message}"
        self.findings = (f"{text}\n{self.context}" if self.context else text,)
        super().__init__(self.findings[0])


class _Fault(Exception):
    """A part of an expression that does not describe a packet."""

    def __init__(self, node: ast.expr, message: str) -> None:
        self.column = node.col_offset if node.lineno == 1 else None
        super().__init__(message)


def _count(expression: str, packet: Packet) -> int:
    try:
        number = count(packet)
        headers = number * sum(1 for _ in layers_of(packet))
    except (TypeError, ValueError, RecursionError, ArithmeticError) as error:
        raise ExpressionError(expression, f"Scapy cannot build it: {error}") from None
    if number > MOST_PACKETS:
        raise ExpressionError(expression, f"describes {_number(number)} packets; at most {MOST_PACKETS:,} are built")
    if headers > _HEADERS_MAX:
        raise ExpressionError(
            expression, f"describes {number:,} packets with {headers:,} headers; at most {_HEADERS_MAX:,} are built"
        )
    if number < 1:
        raise ExpressionError(expression, "describes no packet: an empty list or range")
    return number


def _number(value: int) -> str:
    return f"{value:,}" if value < 1 << 128 else "more than 2^128"


def _frames(expression: str, packet: Packet, destinations: Destinations, sources: Destinations) -> Iterator[bytes]:
    packets = _each(expression, packet, destinations, sources)
    while True:
        with offline():
            frame = next(packets, None)
        if frame is None:
            return
        yield frame


def _each(expression: str, packet: Packet, destinations: Destinations, sources: Destinations) -> Iterator[bytes]:
    try:
        for item in expanded(completed(packet, destinations, sources)):
            frame = bytes(item)
            if len(frame) > FRAME_MAX:
                raise PacketError(f"describes a frame of {len(frame):,} bytes; at most {FRAME_MAX:,} can be sent")
            yield frame
    except PacketError as error:
        raise ExpressionError(expression, str(error)) from None
    except LookupRefused as error:
        raise ExpressionError(expression, str(error)) from None
    except Exception as error:  # Scapy raises whatever a field's encoder meets: struct.error, TypeError, OSError ...
        raise ExpressionError(expression, f"Scapy cannot build it: {error}") from error


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
    raise _Fault(node, ONLY)


def _stacked(node: ast.BinOp) -> Packet:
    left, right = _value(node.left), _value(node.right)
    if not isinstance(left, Packet):
        raise _Fault(node.left, "expected a layer before '/'")
    if not isinstance(right, (Packet, str, bytes)):
        raise _Fault(node.right, "expected a layer or a payload after '/'")
    try:
        return left / right
    except Exception as error:  # as in _each
        raise _Fault(node.right, f"Scapy cannot build it: {error}") from error


def _repeated(node: ast.BinOp) -> str | bytes:
    text, times = _value(node.left), _value(node.right)
    if not isinstance(text, (str, bytes)) or not isinstance(times, int):
        raise _Fault(node, "'*' repeats a string: 'x' * 100")
    if len(text) * times > _LONGEST_PAYLOAD:
        raise _Fault(
            node, f"a payload of {_number(len(text) * times)} bytes; at most {_LONGEST_PAYLOAD:,} fit into a packet"
        )
    return text * max(times, 0)


def _layer(node: ast.Call) -> Packet:
    if not isinstance(node.func, ast.Name):
        raise _Fault(node, "only layers may be called")
    kind = layers().get(node.func.id)
    if kind is None:
        raise _Fault(node, f"no layer is called {node.func.id!r}{did_you_mean(node.func.id, layers())}")
    fields = {item.name: item for item in kind.fields_desc}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg not in fields:
            raise _Fault(
                keyword.value, f"{node.func.id} has no field {keyword.arg!r}{did_you_mean(keyword.arg, fields)}"
            )
    arguments = [_value(item) for item in node.args]
    if len(arguments) > 1 or not all(isinstance(item, (str, bytes)) for item in arguments):
        raise _Fault(node, f"{node.func.id} takes its bytes, or fields by name")
    given = {str(word.arg): _field(node.func.id, fields[str(word.arg)], word.value) for word in node.keywords}
    try:
        return kind(*arguments, **given)
    except LookupRefused as error:
        raise _Fault(node, str(error)) from None
    except Exception as error:  # as in _each
        raise _Fault(node, f"Scapy cannot build it: {error}") from error


def _field(layer: str, field: Any, node: ast.expr) -> Any:
    try:
        return addresses.read(layer, field, _value(node))
    except ValueError as error:
        raise _Fault(node, f"{field.name}: {error}") from None


@cache
def layers() -> Mapping[str, type[Packet]]:
    """Every layer that may be named, independent of what else of Scapy is loaded."""
    known = {module.__name__ for module in _REGISTERS_LAYERS}
    return {kind.__name__: kind for kind in conf.layers if kind.__module__ in known}


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _caret(expression: str, column: int) -> str:
    at = column + len(expression) - len(expression.lstrip())
    if at > _SHOWN:
        return ""
    return f"  {printable(_shortened(expression))}\n  {' ' * len(printable(expression[:at]))}^"
