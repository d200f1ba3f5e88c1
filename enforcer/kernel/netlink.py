"""Netlink's wire format: messages and attributes (linux/netlink.h), netfilter's header (linux/netfilter/nfnetlink.h).

The only codec, used for nf_tables, ipset, nft_compat, rtnetlink and generic netlink. Pure; ``netlink_conn`` has a
socket for single requests.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

NETLINK_NETFILTER = 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_DUMP = 0x1, 0x4, 0x10, 0x200, 0x300
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200  # in a reply
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED, NLA_F_NET_BYTEORDER, NLA_TYPE_MASK = 0x8000, 0x4000, 0x3FFF

ATTRIBUTE_HEADER = struct.Struct("=HH")  # struct nlattr: length (header included, padding not), type
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_NFGENMSG = struct.Struct("=BBH")  # struct nfgenmsg: family, version (always 0), resource
_ERROR = struct.Struct("=i")  # struct nlmsgerr: the negative error number, then the header of the refused message
_ACK_MESSAGE = 1  # NLMSGERR_ATTR_MSG


@dataclass(frozen=True, slots=True)
class Received:
    """One message of a datagram. ``body``: everything after struct nlmsghdr.

    ``port``: of the socket that sent the request, or that caused the notified change.
    """

    kind: int
    flags: int
    sequence: int
    port: int
    body: bytes

    @property
    def ends(self) -> bool:
        """Whether this is the last message of a reply."""
        return self.kind in (NLMSG_DONE, NLMSG_ERROR)

    @property
    def error(self) -> int:
        """The error number in the last message of a reply; 0 for success."""
        return -int(_ERROR.unpack_from(self.body)[0])

    @property
    def error_message(self) -> str:
        """The kernel's text for an error, "" if there is none (NETLINK_EXT_ACK with NETLINK_CAP_ACK)."""
        if not self.flags & NLM_F_ACK_TLVS or not self.flags & NLM_F_CAPPED:
            return ""
        found = attributes(self.body[_ERROR.size + _HEADER.size :])
        return next((string(value) for kind, value in found if kind == _ACK_MESSAGE), "")

    @property
    def family(self) -> int:
        """The address family of a netfilter message."""
        return self.body[0]

    @property
    def attributes(self) -> bytes:
        """The attributes of a netfilter message: everything after struct nfgenmsg."""
        return self.body[_NFGENMSG.size :]


def netfilter_header(family: int, resource: int = 0) -> bytes:
    """The header with which every netfilter message begins."""
    return _NFGENMSG.pack(family, 0, resource)


def netfilter_message(kind: int, flags: int, sequence: int, family: int, body: bytes, *, resource: int = 0) -> bytes:
    """A netfilter message with its attributes. ``resource``: in host byte order, as stored."""
    return message(kind, flags, sequence, netfilter_header(family, resource) + body)


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A message of any family. ``body``: everything after struct nlmsghdr."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(datagram: bytes) -> Iterator[Received]:
    """Each message of a datagram; stops at a message with an impossible length."""
    at = 0
    while at + _HEADER.size <= len(datagram):
        size, kind, flags, sequence, port = _HEADER.unpack_from(datagram, at)
        if size < _HEADER.size:
            return
        yield Received(kind, flags, sequence, port, datagram[at + _HEADER.size : at + size])
        at += (size + 3) & ~3


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    size = ATTRIBUTE_HEADER.size + len(payload)
    return ATTRIBUTE_HEADER.pack(size, kind) + payload + bytes(-size % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, bytes([value]))


def u32(kind: int, value: int) -> bytes:
    """In host byte order."""
    return attribute(kind, value.to_bytes(4, sys.byteorder))


def be32(kind: int, value: int) -> bytes:
    return attribute(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def be64(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(8, "big"))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type without flags, payload) of each attribute; stops at an attribute with an impossible length."""
    at = 0
    while at + ATTRIBUTE_HEADER.size <= len(data):
        size, kind = ATTRIBUTE_HEADER.unpack_from(data, at)
        if size < ATTRIBUTE_HEADER.size:
            return
        yield kind & NLA_TYPE_MASK, data[at + ATTRIBUTE_HEADER.size : at + size]
        at += (size + 3) & ~3


def number(payload: bytes) -> int:
    """An unsigned integer in host byte order."""
    return int.from_bytes(payload, sys.byteorder)


def string(payload: bytes) -> str:
    """The text of an attribute, up to its NUL."""
    return payload.split(b"\0", 1)[0].decode(errors="surrogateescape")
