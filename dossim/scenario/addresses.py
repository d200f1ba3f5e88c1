"""Addresses in packet expressions, read before Scapy sees them: to Scapy anything else is a host name to look up."""

from __future__ import annotations

from typing import Any

from scapy.base_classes import Net
from scapy.fields import FieldListField, IP6Field, IPField, MultipleTypeField
from scapy.layers.inet6 import IP6ListField
from scapy.utils6 import Net6

from dossim.scenario.offline import is_numeric, refuse_name
from enforcer.model.nets import parse_cidr

# Address fields of either version, depending on another field.
_EITHER = {("ARP", "psrc"), ("ARP", "pdst")}
_SHOWN = 60


_resolve = Net.name2addr


def _name2addr(cls: type[Net], name: str) -> str:
    """Replaces Scapy's function, which passes even addresses to the resolver; offline nothing is resolved."""
    if is_numeric(name):
        return name
    refuse_name(name)
    return str(_resolve.__func__(cls, name))


# Some fields are addresses or names depending on others (DNS record data): Scapy decides, then calls this function.
Net.name2addr = classmethod(_name2addr)


def read(layer: str, field: Any, value: Any) -> Any:
    """The value in a form that Scapy's field accepts without a lookup; values of other fields unchanged.

    Raises ValueError with what was found instead of an address.
    """
    while not isinstance(field, MultipleTypeField) and hasattr(field, "fld"):
        field = field.fld
    if (layer, field.name) in _EITHER:
        return _address(value, (4, 6), alone=False)
    alone = isinstance(field, (FieldListField, IP6ListField))
    kind = field.field if isinstance(field, FieldListField) else field
    if isinstance(kind, IPField):
        return _address(value, (4,), alone=alone)
    if isinstance(kind, (IP6Field, IP6ListField)):
        return _address(value, (6,), alone=alone)
    return value


def _address(value: Any, versions: tuple[int, ...], *, alone: bool) -> Any:
    """An address, a network, ``(first, last)``, or a list of these; ``alone``: addresses only."""
    if isinstance(value, list):
        return [_address(item, versions, alone=alone) for item in value]
    if isinstance(value, tuple) and len(value) == 2 and not alone:
        version, first = _single(value[0], versions)
        _, last = _single(value[1], (version,))
        return (Net6 if version == 6 else Net)(first, last)
    text = str(value)
    version, _, _ = _parsed(value)
    if version not in versions:
        raise ValueError(f"expected an IPv{versions[0]} address, found {text!r}")
    if "/" not in text:
        return text
    if alone:
        raise ValueError(f"expected an IPv{version} address, found the network {text!r}")
    return (Net6 if version == 6 else Net)(text)


def _single(value: Any, versions: tuple[int, ...]) -> tuple[int, str]:
    version, _, _ = _parsed(value)
    if version not in versions or "/" in str(value):
        raise ValueError(f"expected an IPv{versions[0]} address, found {str(value)!r}")
    return version, str(value)


def _parsed(value: Any) -> tuple[int, int, int]:
    text = str(value)
    if len(text) > _SHOWN:
        raise ValueError(f"expected an IP address or CIDR, found {text[:_SHOWN]!r}…")
    return parse_cidr(text)
