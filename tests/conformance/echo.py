"""Echo servers of every host, in one thread: TCP and UDP on the ports of the tests, and two raw IP protocols."""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conformance.topology import Host

# Two plain ports, the failsafe of Calico's XDP test, and default failsafes: inbound, inbound and outbound.
PORTS = (8055, 8056, 1234, 22, 2379)
RAW_PROTOCOLS = (253, 254)
IPV4_HEADER = 20


class EchoServers:
    """A context manager. A socket belongs to the namespace it was created in, so one thread can serve all of them."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)

    def __enter__(self) -> EchoServers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._wake_write, b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def serve(self, host: Host) -> None:
        """Listen on a host, on every port and both families."""
        with host.inside():
            for port in PORTS:
                self._listen(socket.SOCK_STREAM, port, _accept)
                self._listen(socket.SOCK_DGRAM, port, _answer_datagram)
            for protocol in RAW_PROTOCOLS:
                for family in (socket.AF_INET, socket.AF_INET6):
                    self._register(socket.socket(family, socket.SOCK_RAW, protocol), _answer_raw)

    def _listen(self, kind: socket.SocketKind, port: int, react: Callable[..., socket.socket | None]) -> None:
        sock = socket.socket(socket.AF_INET6, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            sock.listen(64)
        self._register(sock, react)

    def _register(self, sock: socket.socket, react: Callable[..., socket.socket | None]) -> None:
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, react)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                assert isinstance(key.fileobj, socket.socket)
                with suppress(BlockingIOError):
                    self._react(key.fileobj, key.data)

    def _react(self, sock: socket.socket, react: Callable[..., socket.socket | None]) -> None:
        try:
            accepted = react(sock)
        except BlockingIOError:
            raise
        except OSError:  # an answer our own policy refuses, or a connection reset
            if react is _echo:
                self._close(sock)
            return
        if accepted is not None:
            self._register(accepted, _echo)
        elif react is _echo and sock.fileno() < 0:
            self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(sock)
        sock.close()


def _accept(sock: socket.socket) -> socket.socket:
    return sock.accept()[0]


def _echo(sock: socket.socket) -> None:
    data = sock.recv(2048)
    if not data:
        raise ConnectionResetError
    sock.send(data)


def _answer_datagram(sock: socket.socket) -> None:
    data, sender = sock.recvfrom(2048)
    sock.sendto(data, sender)


def _answer_raw(sock: socket.socket) -> None:
    """Answer requests only: the other end listens to the same protocol, so an answer must not be answered."""
    data, sender = sock.recvfrom(2048)
    payload = data[IPV4_HEADER:] if sock.family == socket.AF_INET else data
    if payload == REQUEST:
        sock.sendto(ANSWER, sender)


REQUEST, ANSWER = b"?", b"!"
