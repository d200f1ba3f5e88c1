"""A connection to ipset: pyroute2 for single commands, packed netlink messages for members.

Members travel thousands to a message (many IPSET_ATTR_DATA in one IPSET_ATTR_ADT): 100,000 of them are a few dozen
messages. A set belongs to the network namespace of the calling thread; no socket outlives the ``with`` block.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyroute2 import IPSet
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_IPSET
from pyroute2.netlink.nfnetlink.ipset import (
    IPSET_CMD_ADD,
    IPSET_CMD_DEL,
    IPSET_CMD_LIST,
    IPSET_ERR_BUSY,
    IPSET_ERR_EXIST,
    IPSET_ERR_FIND_TYPE,
    IPSET_ERR_REFERENCED,
    IPSET_ERR_TYPE_MISMATCH,
    IPSET_ERR_TYPE_SPECIFIC,
    IPSET_FLAG_LIST_HEADER,
)

from enforcer.backends.iptables.members import Members, none_of, pack, parse
from enforcer.backends.iptables.rules import SetType
from enforcer.kernel.netlink import (
    NETLINK_NETFILTER,
    NLA_F_NET_BYTEORDER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    attribute,
    attributes,
    be32,
    messages,
    nested,
    netfilter_message,
    text,
)
from enforcer.model.errors import RAN_OUT, KernelError, PrivilegeError, UnsupportedKernelError

_MIN_HASHSIZE, _MAX_HASHSIZE = 1024, 1 << 20
_BUCKET_LOAD = 4  # members a bucket should start with; the kernel's buckets hold up to 12

FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

_PROTOCOL = 6  # the oldest that has all we use
_ATTR_PROTOCOL, _ATTR_SETNAME, _ATTR_ADT, _ATTR_LINENO = 1, 2, 8, 9
_RECEIVE_BYTES = 1 << 16

_REASONS = {
    IPSET_ERR_FIND_TYPE: "the kernel has no such set type (CONFIG_IP_SET_HASH_NET, CONFIG_IP_SET_HASH_IPPORT)",
    IPSET_ERR_BUSY: "a rule refers to it",
    IPSET_ERR_TYPE_MISMATCH: "the sets are of different types",
    IPSET_ERR_EXIST: "it exists with other options",
    IPSET_ERR_REFERENCED: "a rule refers to it",
    IPSET_ERR_TYPE_SPECIFIC: "it is full",  # IPSET_ERR_HASH_FULL
}


class SetBusyError(KernelError):
    """A rule refers to a set that was to be destroyed."""


@dataclass(frozen=True)
class SetHeader:
    """A set as the kernel describes it. ``index`` is the number rules know it by; ``options`` any it was made with."""

    name: str
    type: str
    version: int
    index: int
    maxelem: int
    options: int = 0


class IpSets:
    """The sets of one network namespace."""

    def __init__(self, control: Any, bulk: socket.socket) -> None:
        self._control = control
        self._bulk = bulk
        self._sequence = 0

    def headers(self) -> dict[str, SetHeader]:
        """All sets there are, ours or not, without their members."""
        with _as_kernel_error("list the ipsets"):
            messages = list(self._control.list(flags=IPSET_FLAG_LIST_HEADER))
        return {header.name: header for header in map(_header, messages)}

    def create(self, name: str, kind: SetType, version: int, size: int, *, limit: int) -> None:
        """An empty set made for ``size`` members, with room for ``limit`` if that is more."""
        buckets = 1 << max(size // _BUCKET_LOAD - 1, 0).bit_length()
        hashsize = min(max(buckets, _MIN_HASHSIZE), _MAX_HASHSIZE)
        maxelem = max(size, limit)
        with _as_kernel_error(f"create ipset {name}"):
            self._control.create(name, stype=str(kind), family=FAMILY[version], maxelem=maxelem, hashsize=hashsize)

    def destroy(self, name: str) -> None:
        """Raises SetBusyError while a rule refers to the set."""
        with _as_kernel_error(f"destroy ipset {name}"):
            self._control.destroy(name)

    def swap(self, name: str, other: str) -> None:
        """Exchanges two sets at once: rules that refer to one of the names find the other's members from now on."""
        with _as_kernel_error(f"swap ipsets {name} and {other}"):
            self._control.swap(name, other)

    def add(self, name: str, version: int, members: Members, kind: SetType = SetType.NET) -> None:
        self._change(IPSET_CMD_ADD, name, version, members, kind)

    def delete(self, name: str, version: int, members: Members, kind: SetType = SetType.NET) -> None:
        self._change(IPSET_CMD_DEL, name, version, members, kind)

    def members(self, name: str, version: int) -> Members | None:
        """All members, sorted; None if one of them is not a plain prefix or, all of them, address and port."""
        self._send(IPSET_CMD_LIST, NLM_F_DUMP, version, _of_set(name))
        replies = [data for data in self._replies(f"list ipset {name}") if data]
        for kind in SetType:
            parts = [parse(data, version, kind) for data in replies]
            found = [part for part in parts if part is not None]
            if len(found) == len(parts):
                return np.unique(np.concatenate([none_of(version, kind), *found]))
        return None

    def _change(self, command: int, name: str, version: int, members: Members, kind: SetType) -> None:
        """Adds or deletes; what is there already, or not there any more, is no error (no NLM_F_EXCL)."""
        fixed = _of_set(name) + be32(_ATTR_LINENO | NLA_F_NET_BYTEORDER, 0)  # demanded of a message with an ADT
        for piece in pack(members, version, kind):
            self._send(command, NLM_F_ACK, version, fixed + nested(_ATTR_ADT, piece))
            for _ in self._replies(f"change the members of ipset {name}"):
                pass

    def _send(self, command: int, flags: int, version: int, body: bytes) -> None:
        self._sequence += 1
        kind = NFNL_SUBSYS_IPSET << 8 | command
        self._bulk.send(netfilter_message(kind, NLM_F_REQUEST | flags, self._sequence, FAMILY[version], body))

    def _replies(self, what: str) -> Iterator[bytes]:
        """The IPSET_ATTR_ADT contents of all answers to the last message. KernelError if the kernel refused it."""
        while True:
            for message in messages(self._bulk.recv(_RECEIVE_BYTES)):
                if message.sequence != self._sequence:
                    continue
                if message.ends:
                    _check(what, message.error)
                    return
                yield from (body for kind, body in attributes(message.attributes) if kind == _ATTR_ADT)


def _of_set(name: str) -> bytes:
    """The attributes with which a message about a set begins."""
    return attribute(_ATTR_PROTOCOL, bytes([_PROTOCOL])) + text(_ATTR_SETNAME, name)


@contextmanager
def ipsets() -> Iterator[IpSets]:
    """The sets of the calling thread's network namespace."""
    with _as_kernel_error("speak with ipset"):
        control = IPSet()
    try:
        with _as_kernel_error("speak with ipset"):
            bulk = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        with bulk:
            bulk.bind((0, 0))
            yield IpSets(control, bulk)
    finally:
        control.close()


def _header(message: Any) -> SetHeader:
    data = message.get_attr("IPSET_ATTR_DATA")
    return SetHeader(
        name=message.get_attr("IPSET_ATTR_SETNAME"),
        type=message.get_attr("IPSET_ATTR_TYPENAME"),
        version=6 if message.get_attr("IPSET_ATTR_FAMILY") == socket.AF_INET6 else 4,
        index=message.get_attr("IPSET_ATTR_INDEX"),
        maxelem=data.get_attr("IPSET_ATTR_MAXELEM") or 0,
        # A timeout is an option too, though not a flag.
        options=(data.get_attr("IPSET_ATTR_CADT_FLAGS") or 0) | (data.get_attr("IPSET_ATTR_TIMEOUT") is not None),
    )


@contextmanager
def _as_kernel_error(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        _check(what, error.code, error)
    except OSError as error:
        _check(what, error.errno or 0, error)


def _check(what: str, number: int, cause: Exception | None = None) -> None:
    """Raises what an error number of ipset means; nothing for 0."""
    if number == 0:
        return
    if number in (errno.EPERM, errno.EACCES):
        raise PrivilegeError(f"cannot {what}: needs CAP_NET_ADMIN; run as root") from cause
    if number in (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT) and "speak" in what:
        raise UnsupportedKernelError(f"cannot {what}: the kernel has none (CONFIG_IP_SET, module ip_set)") from cause
    if number in RAN_OUT:
        raise KernelError(f"cannot {what}", number=number) from cause
    reason = _REASONS.get(number) or (os.strerror(number) if number in errno.errorcode else f"ipset error {number}")
    kind = SetBusyError if number in (IPSET_ERR_BUSY, IPSET_ERR_REFERENCED) else KernelError
    raise kind(f"cannot {what}: {reason}") from cause
