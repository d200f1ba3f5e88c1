"""A connection to ipset: one for single commands, one for members (linux/netfilter/ipset/ip_set.h).

One message carries thousands of members (many IPSET_ATTR_DATA in one IPSET_ATTR_ADT), so 100,000 members take a few
dozen messages. Sets are those of the calling thread's network namespace; no socket outlives the ``with`` block.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from enforcer.backends.iptables.members import pack
from enforcer.backends.iptables.rules import SetType
from enforcer.backends.netfilter.members import Members
from enforcer.kernel.netlink import (
    NETLINK_NETFILTER,
    NLA_F_NET_BYTEORDER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    Received,
    attributes,
    be32,
    messages,
    nested,
    netfilter_header,
    netfilter_message,
    string,
    text,
    u8,
)
from enforcer.kernel.netlink_conn import NetlinkConn, namespace_of
from enforcer.model.errors import RAN_OUT, KernelError, PrivilegeError, UnsupportedKernelError

_MIN_HASHSIZE, _MAX_HASHSIZE = 1024, 1 << 20
_BUCKET_LOAD = 4  # initial members of a bucket; the kernel's buckets hold up to 12

FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

SUBSYSTEM = 6 << 8  # NFNL_SUBSYS_IPSET, as it is in the type of a message
CMD_PROTOCOL, CMD_CREATE, CMD_DESTROY, CMD_SWAP, CMD_LIST, CMD_ADD, CMD_DEL, CMD_TEST, CMD_TYPE = (
    1,
    2,
    3,
    6,
    7,
    9,
    10,
    11,
    13,
)
FLAG_LIST_HEADER = 1 << 2

_PROTOCOL = 6  # the oldest version that supports all we need to change members
_WITH_INDEX = 7
_ATTR_PROTOCOL, _ATTR_SETNAME, _ATTR_TYPENAME, _ATTR_REVISION, _ATTR_FAMILY, _ATTR_FLAGS = 1, 2, 3, 4, 5, 6
_ATTR_DATA, _ATTR_ADT, _ATTR_LINENO, _ATTR_INDEX = 7, 8, 9, 11
_ATTR_SETNAME2 = _ATTR_TYPENAME
_DATA_TIMEOUT, _DATA_CADT_FLAGS, _DATA_HASHSIZE, _DATA_MAXELEM, _DATA_ELEMENTS = 6, 8, 18, 19, 24

_ERR_FIND_TYPE, _ERR_BUSY, _ERR_TYPE_MISMATCH, _ERR_EXIST = 4098, 4100, 4102, 4103
_ERR_REFERENCED, _ERR_TYPE_SPECIFIC = 4108, 4352
_RECEIVE_BYTES = 1 << 16

_REASONS = {
    _ERR_FIND_TYPE: "the kernel has no such set type (CONFIG_IP_SET_HASH_NET, CONFIG_IP_SET_HASH_IPPORT)",
    _ERR_BUSY: "a rule refers to it",
    _ERR_TYPE_MISMATCH: "the sets are of different types",
    _ERR_EXIST: "it exists with other options",
    _ERR_REFERENCED: "a rule refers to it",
    _ERR_TYPE_SPECIFIC: "it is full",  # IPSET_ERR_HASH_FULL
}


class SetBusyError(KernelError):
    """A rule refers to a set that was to be destroyed."""


@dataclass(frozen=True)
class SetHeader:
    """A set as the kernel describes it. ``index``: the number by which rules refer to it. ``options``: the flags it was
    created with; 0 for a set without options. ``members``: their number.
    """

    name: str
    type: str
    version: int
    index: int
    maxelem: int
    options: int = 0
    members: int = 0


class IpSetCommands(NetlinkConn):
    """Single commands, in the newest version of the protocol that the kernel has."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)
        self._revisions: dict[tuple[SetType, int], int] = {}
        try:
            (answer,) = self._command(CMD_PROTOCOL, u8(_ATTR_PROTOCOL, _PROTOCOL))
        except KernelError:
            self.close()
            raise
        self._version = dict(attributes(answer.attributes))[_ATTR_PROTOCOL][0]
        if self._version < _WITH_INDEX:
            self.close()
            raise UnsupportedKernelError(
                f"the kernel has version {self._version} of the ipset protocol, which does not report the index of a "
                f"set; version {_WITH_INDEX} is needed (Linux 4.20)"
            )

    def list_headers(self) -> list[Received]:
        flags = be32(_ATTR_FLAGS | NLA_F_NET_BYTEORDER, FLAG_LIST_HEADER)
        found = self._command(CMD_LIST, self._protocol + flags, NLM_F_DUMP)
        return [item for item in found if item.kind == SUBSYSTEM | CMD_LIST]

    def create(self, name: str, kind: SetType, version: int, *, maxelem: int, hashsize: int) -> None:
        sizes = (
            be32(_DATA_MAXELEM | NLA_F_NET_BYTEORDER, maxelem),
            be32(_DATA_HASHSIZE | NLA_F_NET_BYTEORDER, hashsize),
        )
        described = text(_ATTR_TYPENAME, str(kind)) + u8(_ATTR_REVISION, self._revision(kind, version))
        body = text(_ATTR_SETNAME, name) + described + u8(_ATTR_FAMILY, FAMILY[version]) + nested(_ATTR_DATA, *sizes)
        self._command(CMD_CREATE, self._protocol + body, NLM_F_ACK | NLM_F_EXCL)

    def destroy(self, name: str) -> None:
        self._command(CMD_DESTROY, self._protocol + text(_ATTR_SETNAME, name), NLM_F_ACK | NLM_F_EXCL)

    def swap(self, name: str, other: str) -> None:
        self._command(CMD_SWAP, self._protocol + text(_ATTR_SETNAME, name) + text(_ATTR_SETNAME2, other))

    @property
    def _protocol(self) -> bytes:
        return u8(_ATTR_PROTOCOL, self._version)

    def _revision(self, kind: SetType, version: int) -> int:
        """The newest revision of a set type that the kernel supports."""
        if (kind, version) not in self._revisions:
            body = self._protocol + text(_ATTR_TYPENAME, str(kind)) + u8(_ATTR_FAMILY, FAMILY[version])
            (answer,) = self._command(CMD_TYPE, body)
            self._revisions[kind, version] = dict(attributes(answer.attributes))[_ATTR_REVISION][0]
        return self._revisions[kind, version]

    def _command(self, command: int, body: bytes, flags: int = NLM_F_ACK) -> list[Received]:
        return self.ask(SUBSYSTEM | command, netfilter_header(socket.AF_INET) + body, flags, what="ask ipset")


class IpSetsConn(Protocol):
    """The sets of one network namespace as the reconciler uses them: :class:`IpSets`, or a fake."""

    def headers(self) -> dict[str, SetHeader]:
        """All sets by name, foreign ones included, without their members."""

    def create(self, name: str, kind: SetType, version: int, size: int, *, limit: int) -> None:
        """Creates an empty set, hashed for ``size`` members; maxelem is the larger of ``size`` and ``limit``."""

    def destroy(self, name: str) -> None:
        """Raises SetBusyError while a rule refers to the set."""

    def swap(self, name: str, other: str) -> None:
        """Swaps the members of two sets atomically, also for rules that refer to them."""

    def add(self, name: str, version: int, members: Members, kind: SetType = SetType.NET) -> None:
        """Adds members. A member that already exists is not an error."""

    def delete(self, name: str, version: int, members: Members, kind: SetType = SetType.NET) -> None:
        """Deletes members. A member that does not exist is not an error."""

    def listing(self, name: str, version: int) -> bytes:
        """All members as the kernel lists them (IPSET_ATTR_DATA): :func:`members_in`."""

    @property
    def namespace(self) -> int:
        """A number that no other network namespace ever has; 0 if the kernel has none."""


Connect = Callable[[], AbstractContextManager[IpSetsConn]]


class IpSets:
    """The sets of one network namespace. :class:`IpSetsConn` documents the methods."""

    def __init__(self, control: IpSetCommands, bulk: socket.socket) -> None:
        self._control = control
        self._bulk = bulk
        self._sequence = 0

    def headers(self) -> dict[str, SetHeader]:
        with _as_kernel_error("list the ipsets"):
            found = self._control.list_headers()
        return {header.name: header for header in map(_header, found)}

    def create(self, name: str, kind: SetType, version: int, size: int, *, limit: int) -> None:
        buckets = 1 << max(size // _BUCKET_LOAD - 1, 0).bit_length()
        hashsize = min(max(buckets, _MIN_HASHSIZE), _MAX_HASHSIZE)
        maxelem = max(size, limit)
        with _as_kernel_error(f"create ipset {name}"):
            self._control.create(name, kind, version, maxelem=maxelem, hashsize=hashsize)

    def destroy(self, name: str) -> None:
        with _as_kernel_error(f"destroy ipset {name}"):
            self._control.destroy(name)

    def swap(self, name: str, other: str) -> None:
        with _as_kernel_error(f"swap ipsets {name} and {other}"):
            self._control.swap(name, other)

    def add(self, name: str, version: int, members: Members, kind: SetType = SetType.NET) -> None:
        self._change(CMD_ADD, name, version, members, kind)

    def delete(self, name: str, version: int, members: Members, kind: SetType = SetType.NET) -> None:
        self._change(CMD_DEL, name, version, members, kind)

    def listing(self, name: str, version: int) -> bytes:
        self._send(CMD_LIST, NLM_F_DUMP, version, _of_set(name))
        return b"".join(self._replies(f"list ipset {name}"))

    @property
    def namespace(self) -> int:
        return namespace_of(self._bulk)

    def _change(self, command: int, name: str, version: int, members: Members, kind: SetType) -> None:
        """Adds or deletes; members that already exist, or are already gone, are no error (no NLM_F_EXCL)."""
        fixed = _of_set(name) + be32(_ATTR_LINENO | NLA_F_NET_BYTEORDER, 0)  # required in a message with an ADT
        for piece in pack(members, version, kind):
            self._send(command, NLM_F_ACK, version, fixed + nested(_ATTR_ADT, piece))
            for _ in self._replies(f"change the members of ipset {name}"):
                pass

    def _send(self, command: int, flags: int, version: int, body: bytes) -> None:
        self._sequence += 1
        kind = SUBSYSTEM | command
        self._bulk.send(netfilter_message(kind, NLM_F_REQUEST | flags, self._sequence, FAMILY[version], body))

    def _replies(self, what: str) -> Iterator[bytes]:
        """The IPSET_ATTR_ADT contents of all answers to the last message. KernelError if the kernel refused it."""
        while True:
            for message in messages(self._bulk.recv(_RECEIVE_BYTES)):
                if message.sequence != self._sequence:
                    continue
                if message.ends:
                    check(what, message.error)
                    return
                yield from (body for kind, body in attributes(message.attributes) if kind == _ATTR_ADT)


def _of_set(name: str) -> bytes:
    """The first attributes of a message about a set."""
    return u8(_ATTR_PROTOCOL, _PROTOCOL) + text(_ATTR_SETNAME, name)


@contextmanager
def ipsets() -> Iterator[IpSets]:
    """The sets of the calling thread's network namespace."""
    with _as_kernel_error("open ipset", opening=True):
        control = IpSetCommands()
    try:
        with _as_kernel_error("open ipset", opening=True):
            bulk = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        with bulk:
            bulk.bind((0, 0))
            yield IpSets(control, bulk)
    finally:
        control.close()


def _header(message: Received) -> SetHeader:
    values = dict(attributes(message.attributes))
    data = dict(attributes(values.get(_ATTR_DATA, b"")))
    return SetHeader(
        name=string(values[_ATTR_SETNAME]),
        type=string(values[_ATTR_TYPENAME]),
        version=6 if values[_ATTR_FAMILY][0] == socket.AF_INET6 else 4,
        index=int.from_bytes(values[_ATTR_INDEX], "big"),
        maxelem=int.from_bytes(data.get(_DATA_MAXELEM, b""), "big"),
        # A timeout is an option too, though not a flag.
        options=int.from_bytes(data.get(_DATA_CADT_FLAGS, b""), "big") | (_DATA_TIMEOUT in data),
        members=int.from_bytes(data.get(_DATA_ELEMENTS, b""), "big"),
    )


@contextmanager
def _as_kernel_error(what: str, *, opening: bool = False) -> Iterator[None]:
    try:
        yield
    except KernelError as error:
        check(what, error.errno, error, opening=opening)
        raise
    except OSError as error:
        check(what, error.errno or 0, error, opening=opening)


def check(what: str, number: int, cause: Exception | None = None, *, opening: bool = False) -> None:
    """Raises the error for an error number of ipset; does nothing for 0. ``opening``: this is the first request."""
    if number == 0:
        return
    if number in (errno.EPERM, errno.EACCES):
        raise PrivilegeError(f"cannot {what}: needs CAP_NET_ADMIN; run as root") from cause
    if number in (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT) and opening:
        raise UnsupportedKernelError(f"cannot {what}: the kernel lacks ipset (CONFIG_IP_SET, module ip_set)") from cause
    if number in RAN_OUT:
        raise KernelError(f"cannot {what}", number=number) from cause
    reason = _REASONS.get(number) or (os.strerror(number) if number in errno.errorcode else f"ipset error {number}")
    kind = SetBusyError if number in (_ERR_BUSY, _ERR_REFERENCED) else KernelError
    raise kind(f"cannot {what}: {reason}") from cause
