"""Checks the values of FelixConfiguration fields that are not read, as Calico does.

``felix_fields`` has for each field its schema from the custom resource definition and the ``validate`` tags of the Go
type. The other checks (``validateFelixConfigSpec`` in ``validator/v3/validator.go``, the CEL rules of the definition)
are here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from enforcer.policy import values
from enforcer.policy.nodes import Fieldset, Scalar, shown
from enforcer.policy.reading import Cursor, Fields, Reader, Refused, attempt, hint, integer, string
from enforcer.policy.regexp import NoExpression, check, found_in
from enforcer.policy.resources import NamedPort

Schema = Mapping[str, Any]

ROUTE_TABLES_OLD_MAX = 250  # of routeTableRange
ROUTE_TABLE_MAX = 0xFFFFFFFF
ROUTE_TABLES_MAX = 0xFFFF  # in all ranges together
OPENSTACK_REGION_MAX = 63 - len("openstack-region-")

_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "integer": ("a whole number", lambda value: _is_whole(value)),
    "number": ("a number", lambda value: isinstance(value, (int, float)) and not isinstance(value, bool)),
    "string": ("a string", lambda value: isinstance(value, str)),
    "int-or-string": ("a whole number or a string", lambda value: isinstance(value, str) or _is_whole(value)),
}


def _is_whole(value: object) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def of_schema(name: str, schema: Schema) -> Reader[None]:
    """A reader that checks the value of a field of the spec."""

    def read(at: Cursor) -> None:
        before = len(at.report.findings)
        _check(at, schema)
        unset = isinstance(at.node, Scalar) and at.node.value == ""
        if name in _BY_NAME and not unset and len(at.report.findings) == before:
            _BY_NAME[name](at)

    return read


def _check(at: Cursor, schema: Schema) -> None:
    match schema["type"]:
        case "array":
            _check_list(at, schema)
        case "object":
            _check_mapping(at, schema)
        case _:
            _check_scalar(at, schema)


def _check_list(at: Cursor, schema: Schema) -> None:
    items = list(at.items())
    if len(items) > schema.get("maxItems", len(items)):
        at.fault(f"{len(items)} items; at most {schema['maxItems']} are allowed")
    for item in items:
        attempt(lambda where: _check(where, schema["items"]), item, None)


def _check_mapping(at: Cursor, schema: Schema) -> None:
    if "properties" not in schema:
        if not isinstance(at.node, Fieldset):
            raise Refused(at, f"expected a mapping, found {at.node}")
        for key, node in at.node.fields.items():
            if "keys" in schema:
                _is(at.child(key, at.node.keys[key]), schema["keys"], key)
            if "additionalProperties" in schema:
                attempt(lambda where: _check(where, schema["additionalProperties"]), at.child(key, node), None)
        return
    fields = Fields(at, schema["properties"])
    for name, inner in schema["properties"].items():
        get = fields.need if name in schema.get("required", ()) else fields.get
        get(name, lambda where, inner=inner: _check(where, inner), None)  # type: ignore[misc]  # bound at once


def _check_scalar(at: Cursor, schema: Schema) -> None:
    wanted, is_of = _TYPES[schema["type"]]
    value = at.node.value if isinstance(at.node, Scalar) else None
    if value is None or not is_of(value):
        raise Refused(at, f"expected {wanted}, found {at.node}")
    if isinstance(value, str):
        _check_text(at, schema, value)
    elif "minimum" in schema or "maximum" in schema:
        first, last = schema.get("minimum"), schema.get("maximum")
        if not (first is None or value >= first) or not (last is None or value <= last):
            bounds = f"{first}..{last}" if None not in (first, last) else f"{first} or more"
            raise Refused(at, f"{value} is outside {bounds}" if last is not None else f"{value} is not {bounds}")


def _check_text(at: Cursor, schema: Schema, text: str) -> None:
    if "enum" in schema and text not in schema["enum"]:
        words = [word for word in schema["enum"] if word]
        raise Refused(at, f"expected {' or '.join(words)}, found {shown(text)}{hint(text, words)}")
    if "pattern" in schema:
        _check_pattern(at, schema["pattern"], text)
    if len(text) > schema.get("maxLength", len(text)):
        raise Refused(at, f"{len(text)} characters; at most {schema['maxLength']} are allowed")
    if "is" in schema and text:
        _is(at, schema["is"], text)


def _check_pattern(at: Cursor, pattern: str, text: str) -> None:
    """Check a pattern. The pattern of a duration allows an empty text, which Felix cannot parse: refuse it."""
    words, duration = _WORDS.fullmatch(pattern), "(ms|s|" in pattern
    if found_in(pattern, text) and not (duration and not text):
        return
    wanted = "a duration such as '90s' or '1m30s'" if duration else f"text that matches {pattern}"
    raise Refused(at, f"expected {words[1].replace('|', ' or ') if words else wanted}, found {shown(text)}")


_WORDS = re.compile(r"\^\(\?i\)\(([A-Za-z|]+)\)\?\$")


# --- the formats that the tags name -----------------------------------------------------------------------------------

_NAMED: dict[str, tuple[str, str]] = {
    "interface": (r"^(\*|[a-zA-Z0-9_.-]{1,15})$", "an interface name of 1..15 letters, digits, '_', '.', '-'"),
    "ifaceFilter": (r"^[a-zA-Z0-9:._+-]{1,15}$", "an interface name of 1..15 letters, digits, '_', '.', '-', ':', '+'"),
    "prometheusHost": (r"^[a-zA-Z0-9:._+-]{1,64}$", "a host of 1..64 letters, digits, ':', '.', '_', '+', '-'"),
    "keyValueList": (r"^(\s*|(\s*\w+=[^,]*)?(,(\s*\w+=[^,]*)?)*)$", "KEY=VALUE, joined by ','"),
}


def _is(at: Cursor, what: str, text: str) -> None:
    if what == "cidr":
        values.lenient_net(at)
    elif what == "duration":
        values.duration_s(at)
    elif what == "regexp":
        try:
            check(text)
        except NoExpression as error:
            raise Refused(at, f"{shown(text)} is not a valid regexp: {error}") from error
    elif not found_in(_NAMED[what][0], text):
        raise Refused(at, f"expected {_NAMED[what][1]}, found {shown(text)}")


# --- the checks in the code of Calico's validator ---------------------------------------------------------------------


def _address(version: int) -> Reader[None]:
    def read(at: Cursor) -> None:
        if values.address(at).version != version:
            raise Refused(at, f"expected an IPv{version} address, found {at.node}")

    return read


def _external_nodes(at: Cursor) -> None:
    for item in at.items():
        net = attempt(values.lenient_net, item, None)
        if net is not None and net.version != 4:
            item.fault(f"expected an IPv4 address or CIDR, found {item.node}")


def _node_ports(at: Cursor) -> None:
    for item in at.items():
        if isinstance(attempt(values.port, item, None), NamedPort):
            item.fault(f"expected a port number or a range 'first:last', found {item.node}")


def _port(at: Cursor) -> None:
    values.port(at)


def _region(at: Cursor) -> None:
    values.name(values.DNS_LABEL, OPENSTACK_REGION_MAX)(at)


def _health(at: Cursor) -> None:
    for item in at.items():
        name = item.down("name")
        if not found_in(r"^[a-zA-Z0-9_ -]+$", string(name)):
            name.fault(f"expected letters, digits, blanks, '_' and '-', found {name.node}")
        attempt(values.duration_s, item.down("timeout"), 0.0)


def _tables(at: Cursor, last: int) -> int:
    """The number of tables in one range; 0 if it is faulty, which is reported."""
    low, high = (attempt(integer(1, last), at.down(end), 0) for end in ("min", "max"))
    if low > high > 0:
        at.fault(f"the range {low}..{high} ends before it begins")
    return max(high - low + 1, 0) if low and high else 0


def _table_range(at: Cursor) -> None:
    _tables(at, ROUTE_TABLES_OLD_MAX)


def _table_ranges(at: Cursor) -> None:
    count = sum(_tables(item, ROUTE_TABLE_MAX) for item in at.items())
    if count > ROUTE_TABLES_MAX:
        at.fault(f"{count} route tables in all; at most {ROUTE_TABLES_MAX} are allowed")


_BY_NAME: dict[str, Reader[None]] = {
    "natOutgoingAddress": _address(4),
    "deviceRouteSourceAddress": _address(4),
    "deviceRouteSourceAddressIPv6": _address(6),
    "externalNodesList": _external_nodes,
    "kubeNodePortRanges": _node_ports,
    "natPortRange": _port,
    "bpfPSNATPorts": _port,
    "openstackRegion": _region,
    "healthTimeoutOverrides": _health,
    "routeTableRange": _table_range,
    "routeTableRanges": _table_ranges,
}
