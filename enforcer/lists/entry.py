"""One entry of an address list: an address, a CIDR, a range, or an address with a mask. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from enforcer.model.nets import parse_cidr

Network = tuple[int, int, int]
"""IP version, network address as a number, prefix length."""

BITS = {4: 32, 6: 128}
_MASK = re.compile(r"([0-9.]+)/([0-9]+\.[0-9.]+)")
_FULL = 0xFFFFFFFF


def networks_of(text: str) -> list[Network]:
    """The networks of an entry; host bits are cleared. Raises ValueError, whose message says what is wrong."""
    if "-" in text:
        return _range(*map(str.strip, text.split("-", 1)))
    if (found := _MASK.fullmatch(text)) is not None:
        return [_masked(found[1], found[2])]
    if "." not in text and text.count(":") < 2:
        raise ValueError("no IP address")  # inet_pton takes no number either; this sentence is shorter
    return [parse_cidr(text)]


def written(network: Network) -> str:
    """As a CIDR: ``192.0.2.7/32``."""
    version, value, length = network
    if version == 6:
        return f"{ipaddress.IPv6Address(value)}/{length}"
    return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}/{length}"  # of many thousands


def covering(version: int, first: int, last: int) -> Iterator[Network]:
    """The fewest networks that have exactly these addresses, ``last`` included, in order."""
    bits = BITS[version]
    while first <= last:
        aligned = (first & -first).bit_length() - 1 if first else bits
        size = min(aligned, (last - first + 1).bit_length() - 1)
        yield version, first, bits - size
        first += 1 << size


def _range(first: str, last: str) -> list[Network]:
    try:
        one, other = ipaddress.ip_address(first), ipaddress.ip_address(last)
    except ValueError:
        raise ValueError("no range of addresses, such as 192.0.2.1-192.0.2.9") from None
    if one.version != other.version:
        raise ValueError("a range from one IP version to the other")
    if int(one) > int(other):
        raise ValueError("a range whose end is before its beginning")
    return list(covering(one.version, int(one), int(other)))


def _masked(address: str, mask: str) -> Network:
    _, value, _ = parse_cidr(address)
    _, bits, _ = parse_cidr(mask)
    inverted = bits ^ _FULL
    if inverted & (inverted + 1):
        raise ValueError(f"a mask with gaps: {mask}")
    return 4, value & bits, 32 - inverted.bit_length()
