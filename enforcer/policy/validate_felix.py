"""FelixConfiguration: the fields that bear on untracked policy, read and checked; all others pass unread.

Felix has some two hundred fields and each release adds more, so an unknown one is no fault here, unless it is a slip of
the pen for one that is read: ``xdpEnabeld`` would silently leave XDP as it was.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from enforcer.policy import schema, values
from enforcer.policy.nodes import Fieldset, shown
from enforcer.policy.reading import Cursor, Fields, Identity, Reader, Refused, boolean, integer, list_of, one_of, string
from enforcer.policy.resources import Failsafe, FelixConfiguration

WORD_MAX = 0xFFFFFFFF
COUNT_MAX = 2**31 - 1


def _failsafe(at: Cursor) -> Failsafe:
    fields = Fields(at, schema.PROTO_PORT)
    protocol = fields.get("protocol", one_of("TCP", "UDP", "SCTP"), "TCP")
    return Failsafe(
        schema.PROTOCOLS[protocol],
        fields.need("port", integer(0, values.PORT_MAX), 0),
        fields.get("net", _optional_net, None),
    )


def _optional_net(at: Cursor) -> Any:
    return values.lenient_net(at) if string(at) else None


def _names(at: Cursor) -> tuple[str, ...]:
    return tuple(part for part in (piece.strip() for piece in string(at).split(",")) if part)


def _exclusions(at: Cursor) -> tuple[str, ...]:
    found = _names(at)
    for part in found:
        if len(part) > 1 and part.startswith("/") and part.endswith("/"):
            try:
                re.compile(part[1:-1])
            except re.error as error:
                raise Refused(at, f"{shown(part)} is no regular expression: {error}") from error
    return found


def _insert_mode(at: Cursor) -> str:
    text = string(at).lower()
    if text not in ("", "insert", "append"):
        raise Refused(at, f"expected insert or append, found {shown(text)}")
    return text or "insert"


# API field -> (field of FelixConfiguration, its reader)
FIELDS: dict[str, tuple[str, Reader[Any]]] = {
    "xdpEnabled": ("xdp_enabled", boolean),
    "genericXDPEnabled": ("generic_xdp_enabled", boolean),
    "xdpRefreshInterval": ("xdp_refresh_interval_s", values.duration_s),
    "failsafeInboundHostPorts": ("failsafe_inbound", list_of(_failsafe)),
    "failsafeOutboundHostPorts": ("failsafe_outbound", list_of(_failsafe)),
    "interfacePrefix": ("interface_prefix", _names),
    "interfaceExclude": ("interface_exclude", _exclusions),
    "iptablesMarkMask": ("iptables_mark_mask", integer(0, WORD_MAX)),
    "maxIpsetSize": ("max_ipset_size", integer(1, COUNT_MAX)),
    "ipsetsRefreshInterval": ("ipsets_refresh_interval_s", values.duration_s),
    "iptablesRefreshInterval": ("iptables_refresh_interval_s", values.duration_s),
    "chainInsertMode": ("chain_insert_mode", _insert_mode),
    "ipv6Support": ("ipv6_support", boolean),
    "logPrefix": ("log_prefix", string),
}
# Felix fields within one slip of a field above.
NEIGHBOURS = frozenset({"nftablesMarkMask", "nftablesRefreshInterval"})


def felix_configuration(at: Cursor, base: Identity) -> FelixConfiguration:
    """Reads a ``spec``; ``written`` names what it sets, as ``node.<name>`` overrides ``default`` field by field."""
    present = at.node.fields.keys() if isinstance(at.node, Fieldset) else ()
    spec = Fields(at, {*FIELDS, *(name for name in present if not _slip_for(name))})
    found: dict[str, Any] = {}
    for api_name, (name, read) in FIELDS.items():
        value = spec.get(api_name, read, None)
        if value is not None:
            found[name] = value
    blank = FelixConfiguration(base.name, base.labels, base.position, written=frozenset(found))
    return replace(blank, **found)


def _slip_for(name: str) -> str | None:
    """The field above that this one is one slip away from."""
    if name in FIELDS or name in NEIGHBOURS:
        return None
    return next((known for known in FIELDS if _one_slip(name, known)), None)


def _one_slip(one: str, other: str) -> bool:
    """Equal but for case, one letter too many, too few or wrong, or two neighbours swapped."""
    one, other = one.lower(), other.lower()
    start = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    if start is None:
        return abs(len(one) - len(other)) <= 1
    rest, tail = one[start:], other[start:]
    return (
        rest[1:] == tail
        or rest == tail[1:]
        or rest[1:] == tail[1:]
        or (rest[:2] == tail[:2][::-1] and rest[2:] == tail[2:])
    )
