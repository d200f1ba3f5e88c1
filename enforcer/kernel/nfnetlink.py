"""The door to nf_tables: netlink messages out, attributes in, and one atomic transaction. Nothing here has an opinion.

Spoken directly, without libnftables and without pyroute2's classes: for 100,000 intervals libnftables 1.0.6 took 1.1 s
and 212 MB to add them, 1.2 s to list them and 0.9 s to add one more, because it reads the set each time; packed here
nearly all the time is the kernel's. And only the kernel's own attributes can be compared with what was asked for,
whichever version of a library is installed (docs/nftables.md).

A transaction is one datagram (``nfnetlink_rcv_batch``): all of it happens or none. It names the generation of the
ruleset that its author has read, so that it fails when somebody was faster (:class:`RulesetChangedError`).
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from enforcer.model.errors import RAN_OUT, KernelError, PrivilegeError, UnsupportedKernelError
from enforcer.model.vocabulary import Word

NESTED, _TYPE_MASK = 0x8000, 0x3FFF

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_DUMP_INTERRUPTED = 0x10
_ERROR, _DONE = 2, 3
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_BATCH_GENERATION = 1  # NFNL_BATCH_GENID
_GET_GENERATION = 16
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_NETNS_COOKIE = 32, 33, 71
_SOL_NETLINK, _NETLINK_EXT_ACK, _NETLINK_CAP_ACK = 270, 11, 10
_ACK_TLVS, _ACK_CAPPED = 0x200, 0x100  # NLM_F_ACK_TLVS, NLM_F_CAPPED
_ACK_MESSAGE = 1  # NLMSGERR_ATTR_MSG

_HEADER = struct.Struct("=IHHIIBBH")  # struct nlmsghdr, struct nfgenmsg

# Ports of the sockets this process opened: what the kernel tells everybody of a transaction names its author by port.
own_ports: set[int] = set()
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_BYTES = 1 << 17
_SPARE_BYTES = 1 << 16
_MODULES = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)


class Family(Word):
    """A family of nf_tables by the name ``nft`` has for it."""

    IP = "ip"
    IP6 = "ip6"
    INET = "inet"
    NETDEV = "netdev"

    @property
    def number(self) -> int:
        numbers = {Family.IP: socket.AF_INET, Family.IP6: socket.AF_INET6, Family.INET: 1, Family.NETDEV: 5}
        return int(numbers[self])


class RulesetChangedError(KernelError):
    """Somebody changed the ruleset between reading it and changing it: read it again."""


@dataclass(frozen=True)
class Message:
    """One command of a transaction. ``what`` names it in an error; ``flags`` beside NLM_F_REQUEST."""

    command: int
    family: Family
    body: bytes
    what: str
    flags: int = 0


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute, padded to four octets."""
    size = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(size, kind) + payload + bytes(-size % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def be32(kind: int, value: int) -> bytes:
    return attribute(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def be64(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(8, "big"))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of a message or of a nested attribute, without the flags of their types."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3


def string(payload: bytes) -> str:
    return payload.split(b"\0", 1)[0].decode(errors="surrogateescape")


class NfTables:
    """The ruleset of one network namespace."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._sequence = 0

    @property
    def namespace(self) -> int:
        """A number that no other network namespace has or will have; 0 where the kernel has none (before 5.14)."""
        try:
            octets = self._channel.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError:
            return 0
        return int.from_bytes(octets, sys.byteorder)

    def generation(self) -> int:
        """The number that every change of the ruleset, whoever makes it, raises."""
        replies = self._ask(_GET_GENERATION, 0, b"", flags=0, what="read the generation of nf_tables")
        return next(int.from_bytes(value, "big") for body in replies for kind, value in attributes(body) if kind == 1)

    def dump(self, command: int, family: Family, body: bytes = b"", *, what: str) -> list[bytes]:
        """The attributes of every object asked for; none where what was asked about is not there."""
        try:
            return list(self._ask(command, family.number, body, flags=_DUMP, what=what))
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return []
            raise

    def commit(self, messages: Sequence[Message], generation: int) -> None:
        """All of these commands at once, or none of them and a KernelError.

        Raises RulesetChangedError when the ruleset is not of this generation any more.
        """
        self._batch(messages, be32(_BATCH_GENERATION, generation), complete=True)

    def check(self, messages: Sequence[Message]) -> None:
        """As :meth:`commit`, but the kernel gives all of it up in the end: a transaction without an end is none."""
        self._batch(messages, b"", complete=False)

    def _batch(self, messages: Sequence[Message], begin: bytes, *, complete: bool) -> None:
        first = self._sequence + 1
        last = len(messages) - 1
        parts = [_edge(_BATCH_BEGIN, first, begin)]
        for at, item in enumerate(messages):
            kind = _SUBSYSTEM << 8 | item.command
            flags = _REQUEST | item.flags | (_ACK if at == last else 0)
            parts.append(_message(kind, flags, first + 1 + at, item.family.number, 0, item.body))
        parts.append(_edge(_BATCH_END, first + len(messages) + 1) if complete else b"")
        self._sequence = first + len(messages) + 1
        datagram = b"".join(parts)
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            _allow(self._channel, option, len(datagram) + _SPARE_BYTES)
        self._channel.send(datagram)
        for sequence, number, sentence in self._answers():
            if number:
                at = sequence - first - 1
                what = messages[at].what if 0 <= at < len(messages) else "change nf_tables"
                raise _error(what, number, sentence)

    def _answers(self) -> Iterator[tuple[int, int, str]]:
        """Sequence, error number and sentence of each answer that waits; all of them came before send() returned."""
        while True:
            try:
                data = self._channel.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            for kind, flags, sequence, body in _messages(data):
                if kind == _ERROR:
                    yield sequence, -struct.unpack_from("=i", body)[0], _sentence(body, flags)

    def _ask(self, command: int, family: int, body: bytes, *, flags: int, what: str) -> Iterator[bytes]:
        self._sequence += 1
        kind = _SUBSYSTEM << 8 | command
        self._channel.send(_message(kind, _REQUEST | flags | (0 if flags else _ACK), self._sequence, family, 0, body))
        while True:
            for found, found_flags, sequence, content in _messages(self._channel.recv(_RECEIVE_BYTES)):
                if sequence != self._sequence:
                    continue
                if found_flags & _DUMP_INTERRUPTED:
                    raise RulesetChangedError(f"{what}: it changed while it was read", number=errno.EINTR)
                if found in (_DONE, _ERROR):
                    number = -struct.unpack_from("=i", content)[0]
                    if number:
                        raise _error(what, number, _sentence(content, found_flags))
                    return
                yield content[4:]  # behind struct nfgenmsg


@contextmanager
def nftables() -> Iterator[NfTables]:
    """The ruleset of the calling thread's network namespace."""
    try:
        channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    except OSError as error:
        if error.errno in RAN_OUT:
            raise KernelError("open a netlink socket", number=error.errno) from error
        raise UnsupportedKernelError("the kernel has no nfnetlink (CONFIG_NETFILTER_NETLINK)") from error
    with channel:
        channel.bind((0, 0))
        channel.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        channel.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        own_ports.add(channel.getsockname()[0])
        yield NfTables(channel)


def _message(kind: int, flags: int, sequence: int, family: int, resource: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0, family, 0, resource) + body


def _edge(kind: int, sequence: int, body: bytes = b"") -> bytes:
    """The message that begins or ends a transaction; its resource is the subsystem, in network order."""
    return _message(kind, _REQUEST, sequence, socket.AF_UNSPEC, socket.htons(_SUBSYSTEM), body)


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, sequence and content of each message in a datagram."""
    at = 0
    while at + 16 <= len(data):
        size, kind, flags, sequence = struct.unpack_from("=IHHI", data, at)
        yield kind, flags, sequence, data[at + 16 : at + size]
        at += (size + 3) & ~3


def _sentence(body: bytes, flags: int) -> str:
    """What the kernel says of an error beside its number, if anything."""
    if not flags & _ACK_TLVS or not flags & _ACK_CAPPED:
        return ""
    return next((string(value) for kind, value in attributes(body[4 + 16 :]) if kind == _ACK_MESSAGE), "")


def _allow(channel: socket.socket, option: int, size: int) -> None:
    """Room for a datagram of this size; without the privilege the transaction is refused anyway."""
    try:
        channel.setsockopt(socket.SOL_SOCKET, option, size)
    except PermissionError:
        return


def _error(what: str, number: int, sentence: str) -> Exception:
    if number in (errno.EPERM, errno.EACCES):
        return PrivilegeError(f"{what}: needs CAP_NET_ADMIN; run as root (sudo)")
    if number == errno.ERESTART:
        return RulesetChangedError(f"{what}: somebody changed the ruleset at the same time", number=number)
    if number in _MODULES:
        return UnsupportedKernelError(
            f"{what}: the kernel has no such part of nf_tables (CONFIG_NF_TABLES, CONFIG_NFT_*)"
        )
    return KernelError(f"{what}: {sentence}" if sentence else what, number=number)
