"""A TCP proxy whose network gets slow, loses everything without a word, or is cut."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK = 1 << 16


class TcpProxy:
    """A context manager; forwards what comes to ``port`` of loopback. Its threads are in the network namespace of the
    one that enters it. ``delay_s``: of each piece of data, in each direction; while ``is_silent``, nothing passes, and
    no connection is closed; while ``is_cut``, new connections are closed at once.
    """

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self.delay_s = 0.0
        self.is_silent = False
        self.is_cut = False
        self._open: list[socket.socket] = []

    def __enter__(self) -> TcpProxy:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        _close(self._listener, *self._open)

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Close every connection, and each that is made meanwhile."""
        self.is_cut = True
        _close(*self._open)
        yield
        self.is_cut = False

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.is_cut:
                    near.close()
                    continue
                self._open.append(near)
                try:
                    far = socket.create_connection(self._target)
                except OSError:
                    near.close()
                    continue
                self._open.append(far)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(one, other), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(_CHUNK):
                time.sleep(self.delay_s)
                if not self.is_silent:
                    sink.sendall(data)
        except OSError:
            pass
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


class Garbage:
    """A context manager: a server on a port of loopback that answers every connection with bytes of no protocol."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __enter__(self) -> Garbage:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                with suppress(OSError):
                    near.sendall(os.urandom(1000))
                near.close()
