"""A netlink socket for one question at a time: the request goes out, all of its answer comes back.

A socket belongs to the network namespace of the thread that opens it. Opening one is a system call, so each caller
opens its own and closes it again.
"""

from __future__ import annotations

import errno
import socket
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

_RECEIVE_BYTES = 1 << 17  # no message of a dump is larger: the kernel makes them of 32 KiB at most
_ATTEMPTS = 10


Conn = TypeVar("Conn", bound="NetlinkConn")


class NetlinkConn:
    """A connection to one netlink protocol. Raises KernelError where there is none."""

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
        """All objects of a kind, as they were at one moment: asked for again where they changed meanwhile."""
        for _ in range(_ATTEMPTS):
            found = self.ask(kind, body, NLM_F_DUMP, what=what)
            if not any(item.flags & NLM_F_DUMP_INTR for item in found):
                return found
        raise KernelError(f"{what}: it changed each time it was read", number=errno.EINTR)

    def ask(self, kind: int, body: bytes, flags: int = NLM_F_ACK, *, what: str) -> list[Received]:
        """What is answered before the acknowledgement, or the end of a dump. Raises KernelError where it is refused."""
        self._sequence += 1
        found: list[Received] = []
        try:
            self._socket.send(message(kind, NLM_F_REQUEST | flags, self._sequence, body))
            while True:
                for item in messages(self._socket.recv(_RECEIVE_BYTES)):
                    if item.sequence != self._sequence:
                        continue  # of a question that was given up
                    if not item.ends:
                        found.append(item)
                        continue
                    if item.error:
                        raise KernelError(what, number=item.error)
                    if item.kind != NLMSG_ERROR:
                        found.append(item)  # the flags of NLMSG_DONE tell of an interrupted dump as well
                    return found
        except OSError as error:
            raise KernelError(what, number=error.errno or 0) from error
