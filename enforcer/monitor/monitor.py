"""Monitor: serves metrics, health and status of an agent, in threads of its own that never touch what it enforces.

One thread sleeps until somebody connects, the configuration changes or the textfile is due; each connection has a
short-lived thread. What cannot be served (a port that is taken, a certificate that cannot be read) is logged once and
tried again every half minute: the agent enforces all the same.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from enforcer.agent.state import AgentState
from enforcer.agent.threads import Helper
from enforcer.enforcement.apply import Enforcer
from enforcer.model.errors import EnforcerError
from enforcer.monitor import http, listeners, status_socket
from enforcer.monitor.counters import CounterReader
from enforcer.monitor.exposition import Render, renderer
from enforcer.monitor.health import health_of
from enforcer.monitor.report import report_of
from enforcer.monitor.settings import Address, Given, Wanted, wanted
from enforcer.monitor.textfile import EVERY_S, remove_textfile, write_textfile
from enforcer.system.log import event

if TYPE_CHECKING:
    from enforcer.monitor.tls import TlsContext

_RETRY_S = 30.0
_AT_ONCE = 8  # connections; more are closed at once
_END_WITHIN_S = 0.5
_PLAIN_TEXT = "text/plain; version=0.0.4"  # what node_exporter reads

Serve = Callable[[socket.socket], None]


@dataclass
class _Server:
    """Sockets, and what answers there. ``free``: for so many more connections at once; a server that is busy keeps no
    other one from answering.
    """

    sockets: list[socket.socket]
    serve: Serve
    free: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_AT_ONCE))


class Monitor:
    """A context manager, entered in the network namespace of the agent. ``textfile``: a file to keep up to date.
    ``entries``: with metrics of single entries. ``path``: of the status socket; None: the namespace's own.
    """

    def __init__(
        self,
        state: AgentState,
        enforcer: Enforcer,
        given: Given,
        *,
        textfile: Path | None = None,
        entries: bool = False,
        path: Path | None = None,
    ) -> None:
        self._state = state
        self._given = given
        self._textfile = textfile
        self._path = path
        self._counters = CounterReader(enforcer.counters, entries=entries)
        self._wanted: Wanted | None = None
        self._servers: dict[str, _Server] = {}
        self._due_s: dict[str, float] = {}  # when to try again, monotonic clock
        self._written_s: float | None = None
        self._renders: dict[bool, Render] = {}
        self._selector: selectors.BaseSelector
        self._event = -1
        self._stopping = False
        self._thread: Helper | None = None
        self._logged: set[str] = set()

    def __enter__(self) -> Monitor:
        try:
            self._path = self._path or status_socket.socket_path()
            self._selector = selectors.DefaultSelector()
            self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._selector.register(self._event, selectors.EVENT_READ)
            self._thread = Helper(self._run)
            self._state.on_felix = self._wake
        except (OSError, RuntimeError, MemoryError) as error:
            self._log_once("cannot begin: no metrics, no health, no status until the agent starts again", error)
        return self

    def __exit__(self, *_: object) -> None:
        self._state.on_felix = lambda: None
        self._stopping = True
        if self._thread is None:
            return
        self._wake()
        until_s = time.monotonic() + _END_WITHIN_S
        while not self._thread.has_ended() and time.monotonic() < until_s:
            time.sleep(0.005)

    def _wake(self) -> None:
        os.eventfd_write(self._event, 1)

    # -- in its own thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                try:
                    self._look()
                    self._wait()
                except Exception as error:
                    self._log_once("metrics, health and status failed; continuing", error)
                    time.sleep(1.0)
        finally:
            for name in tuple(self._servers):
                self._close(name)
            if self._textfile is not None:
                remove_textfile(self._textfile)

    def _look(self) -> None:
        """Bring the servers in line with the configuration, and write the textfile if it is due."""
        now = wanted(self._state.view().felix, self._given)
        before, self._wanted = self._wanted, now
        metrics = None if before is None else (before.metrics, before.tls, before.process)
        if (now.metrics, now.tls, now.process) != metrics:
            self._close("metrics")
            self._due_s["metrics"] = 0.0
        if before is None or now.health != before.health:
            self._close("health")
            self._due_s["health"] = 0.0
        self._open("status", lambda: self._status_server())
        if now.metrics is not None:
            self._open("metrics", partial(self._metrics_server, now, now.metrics))
        if now.health is not None:
            self._open("health", partial(self._health_server, now.health))
        if self._textfile is not None and (self._written_s is None or time.monotonic() >= self._written_s + EVERY_S):
            self._write(self._textfile)

    def _open(self, name: str, make: Callable[[], _Server]) -> None:
        """Start a server unless it runs; a failure is logged once, and tried again later."""
        if name in self._servers or time.monotonic() < self._due_s.get(name, 0.0):
            return
        try:
            server = make()
        except (EnforcerError, OSError) as error:
            self._due_s[name] = time.monotonic() + _RETRY_S
            self._log_once(f"cannot serve {name}; trying again; policy is still enforced", error)
            return
        self._servers[name] = server
        self._due_s.pop(name, None)
        self._logged.clear()  # what fails again is logged again
        for sock in server.sockets:
            self._selector.register(sock, selectors.EVENT_READ, server)

    def _close(self, name: str) -> None:
        server = self._servers.pop(name, None)
        if server is None:
            return
        for sock in server.sockets:
            self._selector.unregister(sock)
            sock.close()
        if name == "status" and self._path is not None:
            with suppress(OSError):
                self._path.unlink()

    def _wait(self) -> None:
        """Sleep until something is to be done, and accept connections."""
        limits = [at for name, at in self._due_s.items() if name not in self._servers and at > 0]
        if self._textfile is not None:
            limits.append((self._written_s or 0.0) + EVERY_S)
        timeout = max(0.0, min(limits) - time.monotonic()) if limits else None
        for key, _ in self._selector.select(timeout):
            if key.fileobj == self._event:
                os.eventfd_read(self._event)
            else:
                assert isinstance(key.fileobj, socket.socket)
                self._accept(key.fileobj, key.data)

    def _accept(self, sock: socket.socket, server: _Server) -> None:
        try:
            connection, _ = sock.accept()
        except BlockingIOError:
            return
        except OSError as error:  # no descriptors: do not spin
            self._log_once("cannot accept connections; continuing", error)
            time.sleep(1.0)
            return
        if not server.free.acquire(blocking=False):
            connection.close()
            return
        try:
            Helper(partial(self._serve, connection, server))
        except (RuntimeError, MemoryError) as error:
            self._log_once("cannot start a thread for a connection", error)
            connection.close()
            server.free.release()

    def _write(self, path: Path) -> None:
        self._written_s = time.monotonic()
        try:
            body, _ = self._render()(_PLAIN_TEXT, "")
            write_textfile(path, body)
        except (EnforcerError, OSError) as error:
            self._log_once("cannot write the metrics file; trying again", error)

    # -- the servers ---------------------------------------------------------------------------------------------------

    def _status_server(self) -> _Server:
        assert self._path is not None
        return _Server([status_socket.listen(self._path)], self._send_report)

    def _health_server(self, address: Address) -> _Server:
        server = _Server(listeners.listen(address), lambda connection: http.serve(connection, self._health))
        event(logging.INFO, "serving health", address=address)
        return server

    def _metrics_server(self, now: Wanted, address: Address) -> _Server:
        self._render()
        if now.tls is None:
            server = _Server(listeners.listen(address), lambda connection: http.serve(connection, self._metrics))
        else:
            from enforcer.monitor.tls import TlsContext  # OpenSSL, which few agents need

            context = TlsContext(now.tls)
            server = _Server(listeners.listen(address), partial(self._serve_tls, context))
        event(logging.INFO, "serving metrics", address=address, tls="yes" if now.tls else "no")
        return server

    def _render(self) -> Render:
        """Raises HostError where prometheus_client is not installed."""
        process = self._wanted is None or self._wanted.process
        if process not in self._renders:
            self._renders[process] = renderer(self._state.view, self._counters, process=process)
        return self._renders[process]

    # -- in a thread for each connection -------------------------------------------------------------------------------

    def _serve(self, connection: socket.socket, server: _Server) -> None:
        try:
            with connection:
                server.serve(connection)
        except OSError:
            pass  # the client has gone away, is too slow or, with TLS, has no valid certificate
        except Exception as error:
            self._log_once("cannot answer a request; continuing", error)
        finally:
            server.free.release()

    def _serve_tls(self, context: TlsContext, connection: socket.socket) -> None:
        connection.settimeout(http.WITHIN_S)
        with context.current().wrap_socket(connection, server_side=True) as wrapped:
            http.serve(wrapped, self._metrics)

    def _metrics(self, request: http.Request) -> http.Response:
        if request.path not in ("/metrics", "/"):
            return http.Response(HTTPStatus.NOT_FOUND, b"/metrics\n")
        body, headers = self._render()(request.headers.get("accept", ""), request.headers.get("accept-encoding", ""))
        return http.Response(HTTPStatus.OK, body, headers)

    def _health(self, request: http.Request) -> http.Response:
        timeouts_s = dict(self._wanted.timeouts_s) if self._wanted else {}
        health = health_of(self._state.view(), timeouts_s, now_s=time.time())
        match request.path:
            case "/liveness" | "/healthz":
                good = health.live
            case "/readiness" | "/readyz":
                good = health.ready
            case _:
                return http.Response(HTTPStatus.NOT_FOUND, b"/liveness, /readiness\n")
        return http.Response(HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, health.table().encode())

    def _send_report(self, connection: socket.socket) -> None:
        status_socket.answer(connection, report_of(self._state.view(), self._wanted))

    def _log_once(self, message: str, error: BaseException) -> None:
        problem = str(error) if isinstance(error, EnforcerError) else f"{type(error).__name__}: {error}"
        if f"{message}: {problem}" not in self._logged:
            self._logged.add(f"{message}: {problem}")
            event(logging.ERROR, message, problem=problem)
