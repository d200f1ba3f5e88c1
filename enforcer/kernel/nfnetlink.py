"""A connection to nf_tables: dumps, and atomic transactions. No logic.

It uses netlink directly, without libnftables or pyroute2's classes. For 100,000 intervals, libnftables 1.0.6 took 1.1 s
and 212 MB to add them, 1.2 s to list them and 0.9 s to add one more, because it reads the set each time; here nearly
all of the time is spent in the kernel. Also, only the kernel's own attributes can be compared with what was requested,
whichever version of a library is installed (docs/nftables.md).

A transaction is one datagram (``nfnetlink_rcv_batch``), applied completely or not at all. It contains the generation of
the ruleset that its author has read, so it fails if another program was faster (:class:`RulesetChangedError`).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from enforcer.kernel.bpf.rcu import wait_for_readers
from enforcer.kernel.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    Received,
    attributes,
    be32,
    messages,
    netfilter_message,
)
from enforcer.kernel.netlink_conn import namespace_of
from enforcer.model.errors import RAN_OUT, KernelError, PrivilegeError, UnsupportedKernelError
from enforcer.model.vocabulary import Word

SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES

_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_BATCH_GENERATION = 1  # NFNL_BATCH_GENID
_GET_GENERATION = 16
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SOL_NETLINK, _NETLINK_EXT_ACK, _NETLINK_CAP_ACK = 270, 11, 10

# The ports of the sockets of this process: notifications identify the author of a transaction by its port.
own_ports: set[int] = set()

_RECEIVE_BYTES = 1 << 17
_SPARE_BYTES = 1 << 16
_MODULES = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)


class Family(Word):
    """A family of nf_tables, by its name in ``nft``."""

    IP = "ip"
    IP6 = "ip6"
    INET = "inet"
    NETDEV = "netdev"

    @property
    def number(self) -> int:
        numbers = {Family.IP: socket.AF_INET, Family.IP6: socket.AF_INET6, Family.INET: 1, Family.NETDEV: 5}
        return int(numbers[self])


class RulesetChangedError(KernelError):
    """Another program changed the ruleset after it was read. Read it again and retry."""


@dataclass(frozen=True)
class Message:
    """One command of a transaction. ``what``: its description in errors; ``flags``: in addition to NLM_F_REQUEST."""

    command: int
    family: Family
    body: bytes
    what: str
    flags: int = 0


class NfTablesConn(Protocol):
    """The ruleset of one network namespace as the reconciler uses it: :class:`NfTables`, or a fake."""

    @property
    def namespace(self) -> int:
        """A number that no other network namespace ever has; 0 if the kernel has none."""

    def generation(self) -> int:
        """The generation number, which every change of the ruleset by any program increments."""

    def dump(self, command: int, family: Family, body: bytes = b"", *, what: str) -> list[bytes]:
        """The attributes of every matching object; none if the parent object does not exist."""

    def commit(self, messages: Sequence[Message], generation: int) -> None:
        """All of these commands at once, or none of them and a KernelError.

        Raises RulesetChangedError when the ruleset is not of this generation any more.
        """

    def check(self, messages: Sequence[Message]) -> None:
        """Validate these commands like :meth:`commit`, but abort the transaction."""

    def wait_for_packets(self) -> None:
        """Wait until no packet is being evaluated by rules that were replaced before the call."""


Connect = Callable[[], AbstractContextManager[NfTablesConn]]


class NfTables:
    """The ruleset of one network namespace, over netlink."""

    def __init__(self, conn: socket.socket) -> None:
        self._conn = conn
        self._sequence = 0

    @property
    def namespace(self) -> int:
        return namespace_of(self._conn)

    def generation(self) -> int:
        """The generation number, which every change of the ruleset by any program increments."""
        replies = self._ask(_GET_GENERATION, 0, b"", flags=0, what="read the generation of nf_tables")
        return next(int.from_bytes(value, "big") for body in replies for kind, value in attributes(body) if kind == 1)

    def dump(self, command: int, family: Family, body: bytes = b"", *, what: str) -> list[bytes]:
        """The attributes of every matching object; none if the parent object does not exist."""
        try:
            return list(self._ask(command, family.number, body, flags=NLM_F_DUMP, what=what))
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return []
            raise

    def commit(self, commands: Sequence[Message], generation: int) -> None:
        """All of these commands at once, or none of them and a KernelError.

        Raises RulesetChangedError when the ruleset is not of this generation any more.
        """
        self._batch(commands, be32(_BATCH_GENERATION, generation), complete=True)

    def check(self, commands: Sequence[Message]) -> None:
        """Like :meth:`commit`, but the kernel aborts: a transaction without its end message is only validated."""
        self._batch(commands, b"", complete=False)

    def wait_for_packets(self) -> None:
        """A packet is evaluated in one RCU read-side section (net/netfilter/core.c: ``nf_hook``)."""
        wait_for_readers()

    def _batch(self, commands: Sequence[Message], begin: bytes, *, complete: bool) -> None:
        first = self._sequence + 1
        last = len(commands) - 1
        parts = [_edge(_BATCH_BEGIN, first, begin)]
        for at, item in enumerate(commands):
            kind = SUBSYSTEM << 8 | item.command
            flags = NLM_F_REQUEST | item.flags | (NLM_F_ACK if at == last else 0)
            parts.append(netfilter_message(kind, flags, first + 1 + at, item.family.number, item.body))
        parts.append(_edge(_BATCH_END, first + len(commands) + 1) if complete else b"")
        self._sequence = first + len(commands) + 1
        datagram = b"".join(parts)
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            _allow(self._conn, option, len(datagram) + _SPARE_BYTES)
        self._conn.send(datagram)
        for answer in self._answers():
            if answer.error:
                at = answer.sequence - first - 1
                what = commands[at].what if 0 <= at < len(commands) else "change nf_tables"
                raise refusal(what, answer.error, answer.error_message)

    def _answers(self) -> Iterator[Received]:
        """Each pending reply to a command; all of them arrived before send() returned."""
        while True:
            try:
                data = self._conn.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            yield from (message for message in messages(data) if message.kind == NLMSG_ERROR)

    def _ask(self, command: int, family: int, body: bytes, *, flags: int, what: str) -> Iterator[bytes]:
        self._sequence += 1
        kind, flags = SUBSYSTEM << 8 | command, NLM_F_REQUEST | (flags or NLM_F_ACK)
        self._conn.send(netfilter_message(kind, flags, self._sequence, family, body))
        while True:
            for message in messages(self._conn.recv(_RECEIVE_BYTES)):
                if message.sequence != self._sequence:
                    continue
                if message.flags & NLM_F_DUMP_INTR:
                    raise RulesetChangedError(f"{what}: it changed while it was read", number=errno.EINTR)
                if message.ends:
                    if message.error:
                        raise refusal(what, message.error, message.error_message)
                    return
                yield message.attributes


@contextmanager
def nftables() -> Iterator[NfTables]:
    """The ruleset of the calling thread's network namespace."""
    try:
        conn = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    except OSError as error:
        if error.errno in RAN_OUT:
            raise KernelError("open a netlink socket", number=error.errno) from error
        raise UnsupportedKernelError("the kernel has no nfnetlink (CONFIG_NETFILTER_NETLINK)") from error
    with conn:
        conn.bind((0, 0))
        conn.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        conn.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        own_ports.add(conn.getsockname()[0])
        yield NfTables(conn)


def _edge(kind: int, sequence: int, body: bytes = b"") -> bytes:
    """The message that begins or ends a transaction. Its resource is the subsystem in network byte order."""
    resource = socket.htons(SUBSYSTEM)
    return netfilter_message(kind, NLM_F_REQUEST, sequence, socket.AF_UNSPEC, body, resource=resource)


def _allow(conn: socket.socket, option: int, size: int) -> None:
    """Set a socket buffer for a datagram of this size. Without the privilege, the transaction is refused anyway."""
    try:
        conn.setsockopt(socket.SOL_SOCKET, option, size)
    except PermissionError:
        return


def refusal(what: str, number: int, sentence: str = "") -> Exception:
    """The error for the kernel's error number and its message (extack)."""
    if number in (errno.EPERM, errno.EACCES):
        return PrivilegeError(f"{what}: needs CAP_NET_ADMIN; run as root (sudo)")
    if number == errno.ERESTART:
        return RulesetChangedError(f"{what}: another program changed the ruleset at the same time", number=number)
    if number in _MODULES:
        return UnsupportedKernelError(
            f"{what}: the kernel has no such part of nf_tables (CONFIG_NF_TABLES, CONFIG_NFT_*)"
        )
    return KernelError(f"{what}: {sentence}" if sentence else what, number=number)
