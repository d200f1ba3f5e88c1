"""A netlink socket for one request at a time: it sends the request and receives the whole reply.

A socket belongs to the network namespace of the thread that opens it. Opening one costs only a system call, so each
caller opens its own and closes it.
"""

from __future__ import annotations

import errno
import socket
import sys
from types import TracebackType
from typing import TypeVar

from enforcer.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    Received,
    message,
    messages,
)
from enforcer.model.errors import KernelError

NETLINK_ROUTE, NETLINK_GENERIC = 0, 16

_RECEIVE_BYTES = 1 << 17  # larger than any message of a dump, which has at most 32 KiB
_ATTEMPTS = 10
_SO_NETNS_COOKIE = 71


Conn = TypeVar("Conn", bound="NetlinkConn")


class NetlinkConn:
    """A connection to one netlink protocol. Raises KernelError if the kernel does not have it."""

    def __init__(self, protocol: int) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as error:
            raise KernelError("open a netlink socket", number=error.errno or 0) from error
        self._sequence = 0

    def __enter__(self: Conn) -> Conn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def dump(self, kind: int, body: bytes, *, what: str) -> list[Received]:
        """A consistent list of all objects of a kind: the dump is repeated if they change meanwhile."""
        for _ in range(_ATTEMPTS):
            found = self.ask(kind, body, NLM_F_DUMP, what=what)
            if not any(item.flags & NLM_F_DUMP_INTR for item in found):
                return found
        raise KernelError(f"{what}: it changed each time it was read", number=errno.EINTR)

    def ask(self, kind: int, body: bytes, flags: int = NLM_F_ACK, *, what: str) -> list[Received]:
        """Send a request; returns the messages before the acknowledgement, or of the dump. Raises KernelError."""
        self._sequence += 1
        found: list[Received] = []
        try:
            self._socket.send(message(kind, NLM_F_REQUEST | flags, self._sequence, body))
            while True:
                for item in messages(self._socket.recv(_RECEIVE_BYTES)):
                    if item.sequence != self._sequence:
                        continue  # the reply to an earlier, abandoned request
                    if not item.ends:
                        found.append(item)
                        continue
                    if item.error:
                        raise KernelError(what, number=item.error)
                    if item.kind != NLMSG_ERROR:
                        found.append(item)  # its flags also report an interrupted dump
                    return found
        except OSError as error:
            raise KernelError(what, number=error.errno or 0) from error


def namespace_of(conn: socket.socket) -> int:
    """The number of a socket's network namespace, which no other ever has; 0 if the kernel has none (before 5.14)."""
    try:
        cookie = conn.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    except OSError:
        return 0
    return int.from_bytes(cookie, sys.byteorder)
