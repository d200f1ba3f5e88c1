"""Which packets of a capture are fragments, and of which datagram, by addresses and identification."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace

import numpy as np

from dossim.packet.capture import Capture
from dossim.packet.columns import parse_columns
from dossim.packet.fields import EXTENSION_HEADERS, IPV6_HEADER, IPv4, IPv6
from dossim.packet.fragment6 import find_fragment6
from dossim.packet.parse import parse

_FRAGMENT_MASK = 0x3FFF


def may_be_fragments(capture: Capture) -> list[int]:
    """Fragments, and packets with IPv6 extension headers, one of which may be a fragment header."""
    columns = parse_columns(capture)
    four = columns.ipv4.rows[columns.ipv4.fragment & _FRAGMENT_MASK != 0]
    six = columns.ipv6.rows[np.isin(columns.ipv6.next_header, list(EXTENSION_HEADERS))]
    return sorted([*four.tolist(), *six.tolist()])


def datagram_keys(capture: Capture) -> dict[int, Hashable]:
    """``{packet: key}`` for every fragment; fragments of one datagram share a key, maybe with those of a later one."""
    keys: dict[int, Hashable] = {}
    for packet in may_be_fragments(capture):
        key = _key(capture.frame(packet))
        if key is not None:
            keys[packet] = key
    return keys


def widest_datagram(keys: Mapping[int, Hashable]) -> int:
    """The largest distance, in packets, between two fragments with one key; 0 without fragments."""
    first: dict[Hashable, int] = {}
    return max((packet - first.setdefault(key, packet) for packet, key in keys.items()), default=0)


def _key(frame: bytes) -> Hashable | None:
    ip = parse(frame).ip
    if isinstance(ip, IPv4):
        return (4, ip.source, ip.destination, ip.ident, ip.protocol) if ip.is_fragment else None
    return None if ip is None else _key6(ip)


def _key6(ip: IPv6) -> Hashable | None:
    """Also None for fragments that defragmentation leaves to the stack (``nf_ct_frag6_gather``)."""
    trimmed = replace(ip, buf=ip.buf[: IPV6_HEADER + ip.payload_length])
    fragment = find_fragment6(trimmed)
    if fragment is None or (fragment.more and len(fragment.data) % 8):
        return None
    return (6, ip.source, ip.destination, fragment.ident)
