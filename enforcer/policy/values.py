"""Readers of the values in resources: names, addresses, protocols, ports, selectors, durations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from enforcer.model.errors import Position
from enforcer.model.nets import IPAddress, IPNetwork, Nets, parse_cidr
from enforcer.policy import schema
from enforcer.policy.cidr_lines import Run
from enforcer.policy.nodes import Fieldset, Items, Listed, Node, Scalar, shown
from enforcer.policy.reading import (
    Cursor,
    Reader,
    Refused,
    attempt,
    hint,
    integer,
    list_of,
    note_duplicates,
    report_repeated,
    string,
)
from enforcer.policy.resources import NamedPort, Port, PortRange
from enforcer.policy.selector import SelectorError, parse

SELECTOR_MAX = 1024
ANNOTATIONS_MAX_BYTES = 256 * 1024
PORT_MAX = 65535
MAPPED_NET = "mapped-net"  # the kind of the note

# --- names and labels -----------------------------------------------------------------------------------------------

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_LABEL = re.compile(_LABEL)
DNS_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
POLICY_NAME = re.compile(rf"({_LABEL}\.)?{_LABEL}")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_INTERFACE = re.compile(r"[a-zA-Z0-9_.-]{1,15}")
_PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def name(pattern: re.Pattern[str] = DNS_SUBDOMAIN, most: int = 253) -> Reader[str]:
    """Reads a DNS-like name: lower case letters, digits, '-' and, if the pattern allows it, '.'."""

    def read(at: Cursor) -> str:
        text = string(at)
        if len(text) > most:
            raise Refused(at, f"a name of {len(text)} characters; at most {most} are allowed")
        if not pattern.fullmatch(text):
            dots = {DNS_LABEL: "", POLICY_NAME: " and at most one '.'"}.get(pattern, " and '.'")
            raise Refused(
                at,
                f"{shown(text)} is not valid; use lower case letters, digits, '-'{dots}, "
                "beginning and ending with a letter or digit",
            )
        return text

    return read


def interface_name(at: Cursor) -> str:
    text = string(at)
    if text not in ("", "*") and not _INTERFACE.fullmatch(text):
        raise Refused(
            at, f"expected '*' or an interface name of 1..15 letters, digits, '_', '.', '-', found {shown(text)}"
        )
    return text


def endpoint_port_name(at: Cursor) -> str:
    """A port name, as defined by Kubernetes."""
    text = string(at)
    if not _PORT_NAME.fullmatch(text):
        raise Refused(at, f"expected a port name of 1..15 lower case letters, digits and '-', found {shown(text)}")
    return text


def labels(at: Cursor) -> dict[str, str]:
    """Labels, as defined by Kubernetes: qualified names, values of up to 63 characters."""
    return _strings(at, _check_label)


def check_annotations(at: Cursor) -> None:
    """Checks annotations. They have no effect here."""
    found = _strings(at, _check_annotation)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in found.items())
    if size > ANNOTATIONS_MAX_BYTES:
        raise Refused(at, f"{size} bytes of annotations; at most {ANNOTATIONS_MAX_BYTES} are allowed")


def _strings(at: Cursor, check: Reader[str]) -> dict[str, str]:
    if not isinstance(at.node, Fieldset):
        raise Refused(at, f"expected a mapping, found {at.node}")
    report_repeated(at)
    found: dict[str, str] = {}
    for key, node in at.node.fields.items():
        _check_key(at.child(key, at.node.keys[key]), key if check is _check_label else key.lower())
        if not (isinstance(node, Scalar) and node.value is None):
            found[key] = attempt(check, at.child(key, node), "")
        else:
            found[key] = ""  # JSON null in a map of strings
    return found


def _check_key(at: Cursor, key: str) -> None:
    prefix, slash, last = key.rpartition("/")
    if slash and not (len(prefix) <= 253 and DNS_SUBDOMAIN.fullmatch(prefix)):
        at.fault(f"the part before '/' must be a DNS name, found {shown(prefix)}")
    if not (len(last) <= 63 and _QUALIFIED.fullmatch(last)):
        at.fault(f"expected a key of 1..63 letters, digits, '-', '_', '.', found {shown(last)}")


def _check_label(at: Cursor) -> str:
    text = string(at)
    if text and not (len(text) <= 63 and _QUALIFIED.fullmatch(text)):
        raise Refused(at, f"expected a label value of 0..63 letters, digits, '-', '_', '.', found {shown(text)}")
    return text


def _check_annotation(at: Cursor) -> str:
    return string(at)


_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.\d+)?(Z|z|[+-]\d\d:\d\d)")


def timestamp(at: Cursor) -> str:
    """An RFC 3339 time in UTC, so that sorting the texts sorts the times."""
    text = string(at)
    found = _TIMESTAMP.fullmatch(text)
    try:
        when = (
            datetime.fromisoformat(f"{found[1]}T{found[2]}{found[3].upper().replace('Z', '+00:00')}") if found else None
        )
        return when.astimezone(timezone.utc).isoformat() if when else _no_timestamp(at, text)
    except (ValueError, OverflowError):
        return _no_timestamp(at, text)


def _no_timestamp(at: Cursor, text: str) -> str:
    raise Refused(at, f"expected a time such as '2026-01-31T12:00:00Z', found {shown(text)}")


# --- addresses ------------------------------------------------------------------------------------------------------


def address(at: Cursor) -> IPAddress:
    text = string(at)
    try:
        version, value, _ = parse_cidr(text)
    except ValueError:
        raise Refused(at, f"expected an IP address, found {shown(text)}") from None
    if "/" in text:
        raise Refused(at, f"expected an IP address without mask, found {shown(text)}")
    return IPv4Address(value) if version == 4 else IPv6Address(value)


def lenient_net(at: Cursor) -> IPNetwork:
    """A CIDR or bare address; host bits are masked off."""
    text = string(at)
    try:
        version, value, length = parse_cidr(text)
    except ValueError as error:
        raise Refused(at, str(error)) from None
    if version == 4 and ":" in text and "/" in text:
        net = IPv4Network((value, length))
        message = f"{shown(text)} is IPv4-mapped, which Calico reads as {net}; IPv6 packets are not matched"
        at.note_some(message, MAPPED_NET)
    return IPv4Network((value, length)) if version == 4 else IPv6Network((value, length))


def strict_net(at: Cursor) -> IPNetwork:
    """A CIDR of a rule: with mask, without host bits."""
    text = string(at)
    net = lenient_net(at)
    if "/" not in text:
        raise Refused(at, f"a net in a rule needs a mask, found {shown(text)}; expected {net}")
    _, written, _ = parse_cidr(text.partition("/")[0])
    if written != int(net.network_address):
        raise Refused(at, f"host bits are set in {shown(text)}; expected {net}")
    return net


def negated_net(at: Cursor) -> IPNetwork:
    net = strict_net(at)
    if net.prefixlen == 0:
        raise Refused(at, f"{net} negated matches nothing; leave the rule out instead")
    return net


def net_set(at: Cursor) -> Nets:
    """The nets of a network set: CIDRs or bare addresses of both families, host bits allowed. Fast for a million."""
    if not isinstance(at.node, Items):
        return Nets.of(list_of(lenient_net)(at))
    parts = at.node.items.parts if isinstance(at.node.items, Listed) else at.node.items
    runs = [part[0] for part in parts if isinstance(part, tuple)]
    others = [part for part in parts if not isinstance(part, tuple)]
    texts = [item.value for item in others if isinstance(item, Scalar) and isinstance(item.value, str)]
    if len(texts) == len(others):
        nets = _nets_of(texts, runs)
        if nets is None or len(nets) < len(at.node.items):  # the same text twice is the same net twice
            note_duplicates(at)
        if nets is not None and not any("ffff" in text.lower() for text in texts):
            return nets
    return Nets.of_rows([_others_read(at, parts), *(run.nets for run in runs)])


def _nets_of(texts: Sequence[str], runs: Sequence[Run]) -> Nets | None:
    """None if a text is no net."""
    try:
        return Nets.of_rows([Nets.of(texts), *(run.nets for run in runs)])
    except ValueError:
        return None


def _others_read(at: Cursor, parts: Sequence[Node | tuple[Run, int]]) -> Nets:
    """The nets of the items that are in no run, each read for itself."""
    found: list[IPNetwork] = []
    number = 0
    for part in parts:
        if isinstance(part, tuple):
            number += len(part[0])
            continue
        value = attempt(lenient_net, Cursor(at.report, part, f"{at.field}[{number}]"), None)
        found += [] if value is None else [value]
        number += 1
    return Nets.of(found)


# --- protocols and ports --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Protocol:
    """A protocol as written. ``name``: the text if it is a string, even a number in quotes."""

    number: int
    name: str = ""


def protocol(at: Cursor) -> Protocol:
    if isinstance(at.node, Scalar) and isinstance(at.node.value, str):
        text = at.node.value
        if text in schema.PROTOCOLS:
            return Protocol(schema.PROTOCOLS[text], text)
        if not (text.isascii() and text.isdigit()):
            known = ", ".join(schema.PROTOCOLS)
            raise Refused(at, f"expected {known} or a number, found {shown(text)}{hint(text, schema.PROTOCOLS)}")
        at = Cursor(at.report, Scalar(_number(text), at.node.line, at.node.column), at.field)
        return Protocol(integer(1, 255)(at), text)
    return Protocol(integer(1, 255)(at))


def port(at: Cursor) -> Port:
    """A number, a range ``first:last``, or the name of a port."""
    if not (isinstance(at.node, Scalar) and isinstance(at.node.value, str)):
        single = integer(1, PORT_MAX)(at)
        return PortRange(single, single)
    text = at.node.value
    first, colon, last = text.partition(":")
    if _digits(first) and (not colon or _digits(last)):
        low, high = _number(first), _number(last if colon else first)
        if not (1 <= low <= PORT_MAX and 1 <= high <= PORT_MAX):
            raise Refused(at, f"{shown(text)} is outside 1..{PORT_MAX}")
        if low > high:
            raise Refused(at, f"the range {shown(text)} ends before it begins; expected '{high}:{low}'")
        return PortRange(low, high)
    if not is_port_name(text):
        raise Refused(
            at,
            "expected a port number, a range 'first:last' or a port name of 1..15 lower case letters, digits and '-', "
            f"one letter at least, found {shown(text)}{_meant_by_port(text)}",
        )
    return NamedPort(text)


def is_port_name(text: str) -> bool:
    """Whether the text of a port is a name: ``8080-tcp`` is, ``30000-32767`` is not."""
    return _PORT_NAME.fullmatch(text) is not None


def _meant_by_port(text: str) -> str:
    """A hint for common notations of other programs: ``30000-32767``, ``80,443``."""
    if "," in text:
        return "; several ports are several items of the list"
    first, _, last = text.strip().partition("-")
    if _digits(first) and (_digits(last) or not last):
        return f"; expected '{first}:{last}'" if last else f"; expected {first}"
    return "; a range is written with ':'" if ":" in text else ""


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(digits: str) -> int:
    """The number; for too many digits, which Python refuses to convert, a number outside every range."""
    return int(digits.lstrip("0")[:9] or "0")


# --- selectors ------------------------------------------------------------------------------------------------------

GLOBAL = "global("


def selector(*, global_allowed: bool = False, most: int | None = SELECTOR_MAX) -> Reader[str]:
    """Reads a selector and keeps its text. ``global()`` is valid only alone, in a rule's namespaceSelector."""

    def read(at: Cursor) -> str:
        text = string(at)
        if most is not None and len(text) > most:
            raise Refused(at, f"a selector of {len(text)} characters; at most {most} are allowed")
        try:
            parsed = parse(text)
        except SelectorError as error:
            raise _selector_fault(at, text, error) from None
        if GLOBAL in text and not global_allowed:
            raise Refused(at, "global() is valid only in the namespaceSelector of a rule")
        if GLOBAL in text and parsed.canonical != "global()":
            raise Refused(at, "global() cannot be combined with other selectors")
        # A blank selector is still a selector: Calico reads it as all().
        return text if text.strip() or not text else "all()"

    return read


def _selector_fault(at: Cursor, text: str, error: SelectorError) -> Refused:
    """The fault with its column in the source line, if the line contains the selector literally."""
    line = at.report.lines[at.node.line - 1] if 0 < at.node.line <= len(at.report.lines) else ""
    start = at.node.column - 1
    if line[start : start + 1] in ("'", '"'):
        start += 1
    if not line or not line.startswith(text, start):
        return Refused(at, error.message, context=error.caret())
    column = start + error.column
    pointed = f"{line.expandtabs(1)}\n{' ' * (column - 1)}^"
    return Refused(at, error.message, position=Position(at.report.path, at.node.line, column), context=pointed)


# --- durations ------------------------------------------------------------------------------------------------------

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_MAX_S = 2**63 / 1e9  # Go counts nanoseconds


def duration_s(at: Cursor) -> float:
    """A duration such as ``90s`` or ``1m30s``, in seconds."""
    text = at.node.value if isinstance(at.node, Scalar) and isinstance(at.node.value, str) else ""
    parts = _DURATION.findall(text)
    if text != "0" and (not parts or "".join(amount + unit for amount, unit in parts) != text):
        raise Refused(at, f"expected a duration such as '90s' or '1m30s', found {at.node}")
    seconds = sum(float(amount) * _SECONDS[unit] for amount, unit in parts)
    if seconds >= _DURATION_MAX_S:
        raise Refused(at, f"{shown(text)} is longer than the longest duration, 292 years")
    return seconds
