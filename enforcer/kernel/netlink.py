"""Netlink's wire format: messages and attributes (linux/netlink.h), netfilter's header (linux/netfilter/nfnetlink.h).

The one codec: nf_tables, ipset, nft_compat, rtnetlink, generic netlink. Pure: ``netlink_conn`` has the socket of those
who ask one question at a time.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

NETLINK_NETFILTER = 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_DUMP = 0x1, 0x4, 0x10, 0x200, 0x300
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200  # of an answer
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED, NLA_F_NET_BYTEORDER, NLA_TYPE_MASK = 0x8000, 0x4000, 0x3FFF

ATTRIBUTE_HEADER = struct.Struct("=HH")  # struct nlattr: length (header included, padding not), type
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_NFGENMSG = struct.Struct("=BBH")  # struct nfgenmsg: family, version (always 0), resource
_ERROR = struct.Struct("=i")  # struct nlmsgerr begins with the negative error number, then has the header refused
_ACK_MESSAGE = 1  # NLMSGERR_ATTR_MSG


@dataclass(frozen=True, slots=True)
class Received:
    """One message of a datagram. ``port`` is that of the socket that sent what is answered or told of.

    ``body`` is all that comes after struct nlmsghdr.
    """

    kind: int
    flags: int
    sequence: int
    port: int
    body: bytes

    @property
    def ends(self) -> bool:
        """Nothing more is answered."""
        return self.kind in (NLMSG_DONE, NLMSG_ERROR)

    @property
    def error(self) -> int:
        """The error number of an answer that ends; 0 where all went well."""
        return -int(_ERROR.unpack_from(self.body)[0])

    @property
    def error_message(self) -> str:
        """What the kernel says of an error beside its number, if anything (NETLINK_EXT_ACK with NETLINK_CAP_ACK)."""
        if not self.flags & NLM_F_ACK_TLVS or not self.flags & NLM_F_CAPPED:
            return ""
        found = attributes(self.body[_ERROR.size + _HEADER.size :])
        return next((string(value) for kind, value in found if kind == _ACK_MESSAGE), "")

    @property
    def family(self) -> int:
        """Of a message of netfilter."""
        return self.body[0]

    @property
    def attributes(self) -> bytes:
        """Of a message of netfilter: what comes after struct nfgenmsg."""
        return self.body[_NFGENMSG.size :]


def netfilter_header(family: int, resource: int = 0) -> bytes:
    """What every message of netfilter begins with."""
    return _NFGENMSG.pack(family, 0, resource)


def netfilter_message(kind: int, flags: int, sequence: int, family: int, body: bytes, *, resource: int = 0) -> bytes:
    """A message of netfilter with its attributes. ``resource`` as it is to lie in memory."""
    return message(kind, flags, sequence, netfilter_header(family, resource) + body)


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A message of any family. ``body`` is all that comes after struct nlmsghdr."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(datagram: bytes) -> Iterator[Received]:
    """Each message of a datagram; nothing after one whose length cannot be."""
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
    """In the byte order of this machine."""
    return attribute(kind, value.to_bytes(4, sys.byteorder))


def be32(kind: int, value: int) -> bytes:
    return attribute(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def be64(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(8, "big"))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type, without its flags, and payload of each attribute; nothing after one whose length cannot be."""
    at = 0
    while at + ATTRIBUTE_HEADER.size <= len(data):
        size, kind = ATTRIBUTE_HEADER.unpack_from(data, at)
        if size < ATTRIBUTE_HEADER.size:
            return
        yield kind & NLA_TYPE_MASK, data[at + ATTRIBUTE_HEADER.size : at + size]
        at += (size + 3) & ~3


def number(payload: bytes) -> int:
    """An unsigned integer in the byte order of this machine."""
    return int.from_bytes(payload, sys.byteorder)


def string(payload: bytes) -> str:
    """The text of an attribute, up to its NUL."""
    return payload.split(b"\0", 1)[0].decode(errors="surrogateescape")
