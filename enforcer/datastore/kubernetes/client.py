"""The calls of the Kubernetes API that are made, over one connection.

The only module that speaks HTTP. A connection belongs to one thread; another ends it through :class:`Connections`.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

from enforcer.datastore.kubernetes.config import KubernetesConfig
from enforcer.policy.nodes import shown
from enforcer.system.files import UnreadableError
from enforcer.system.tls import client_context

_CONNECT_S, _ANSWER_S, _BODY_S = 5.0, 30.0, 120.0
_BODY_MAX_BYTES = 256 << 20  # a page of 500 objects of 1.5 MiB would have more; etcd's limit makes it improbable
_LINE_MAX_BYTES = 16 << 20  # one object of at most 2 MiB, as JSON in JSON
_ERROR_MAX_BYTES = 64 << 10
_CHUNK_BYTES = 1 << 16
# A peer that vanished without a word: noticed by the kernel after 25 s, at no cost for the server.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
_RETRY_AFTER_MOST_S = 300.0


class KubernetesError(Exception):
    """A call failed. ``status``: of HTTP, 0 without an answer. ``expired``: the revision is too old or too new, so
    everything must be listed. ``retry_s``: how long the server asks to wait.
    """

    def __init__(self, message: str, status: int = 0, *, expired: bool = False, retry_s: float = 0.0) -> None:
        super().__init__(message)
        self.status, self.expired, self.retry_s = status, expired, retry_s


class StoppedError(Exception):
    """The agent stops."""


class Connections:
    """The open connections of all threads, to end them at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._over = False

    @property
    def over(self) -> bool:
        return self._over

    def add(self, item: socket.socket) -> None:
        """Raises StoppedError after :meth:`end`."""
        with self._lock:
            if self._over:
                raise StoppedError
            self._open.add(item)

    def remove(self, item: socket.socket) -> None:
        with self._lock:
            self._open.discard(item)

    def end(self) -> None:
        """For good."""
        with self._lock:
            self._over = True
        self.interrupt()

    def interrupt(self) -> None:
        """End those that are open now."""
        with self._lock:
            for item in self._open:
                try:
                    socket.socket.shutdown(item, socket.SHUT_RDWR)  # not TLS's, which the reader is using
                except OSError:
                    continue


@dataclass(frozen=True)
class Request:
    """A path below the server's base, and its parameters."""

    path: str
    params: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.path}?{urlencode(self.params, quote_via=quote)}" if self.params else self.path


class Client:
    """A context manager. All calls raise KubernetesError, and StoppedError once the agent stops."""

    def __init__(self, config: KubernetesConfig, connections: Connections) -> None:
        self._config, self._connections = config, connections
        self._http: HTTPConnection | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def get(self, path: str, **params: str) -> dict[str, Any]:
        """The JSON object at this path."""
        try:
            response = self._ask(Request(path, params))
            return _object(self._body(response, _BODY_MAX_BYTES))
        except (OSError, http.client.HTTPException, UnreadableError) as error:
            raise self._failure(error) from error

    def send(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create (POST), replace (PUT) or delete (DELETE) an object; what the server says to it."""
        try:
            response = self._ask(Request(path, {}), method, body)
            return _object(self._body(response, _BODY_MAX_BYTES))
        except (OSError, http.client.HTTPException, UnreadableError) as error:
            raise self._failure(error) from error

    def watch(self, path: str, *, first_s: float, later_s: float, **params: str) -> Iterator[dict[str, Any]]:
        """The events of a watch, one JSON object each, until the server ends it. The first item is {}: it has begun.

        ``first_s``: how long the server may be silent at first, ``later_s``: after its first event.
        """
        try:
            response = self._ask(Request(path, params))
            yield {}
            yield from map(_object, self._lines(response, first_s, later_s))
        except (OSError, http.client.HTTPException, UnreadableError) as error:
            raise self._failure(error) from error
        finally:
            self._close()

    # -- one request -----------------------------------------------------------------------------------------------

    def _ask(self, request: Request, method: str = "GET", body: dict[str, Any] | None = None) -> HTTPResponse:
        """An answer with a status of success."""
        if self._http is None or self._http.sock is None:
            self._connect()
        assert self._http is not None
        assert self._socket is not None
        self._socket.settimeout(_ANSWER_S)
        headers = {"Accept": "application/json", "User-Agent": "enforcer"}
        if token := self._config.token.read():
            headers["Authorization"] = f"Bearer {token}"
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass")
        self._http.request(method, self._config.server.base + str(request), content, headers)
        response = self._http.getresponse()
        if response.status not in (http.HTTPStatus.OK, http.HTTPStatus.CREATED, http.HTTPStatus.ACCEPTED):
            raise _refusal(response, self._body(response, _ERROR_MAX_BYTES, cut=True))
        return response

    def _body(self, response: HTTPResponse, most_bytes: int, *, cut: bool = False) -> bytes:
        until_s = time.monotonic() + _BODY_S
        parts, size = [], 0
        while part := response.read1(_CHUNK_BYTES):
            parts.append(part)
            size += len(part)
            if size > most_bytes:
                if cut:
                    self._close()
                    break
                raise KubernetesError(f"the answer is larger than {most_bytes >> 20} MiB")
            if time.monotonic() > until_s:
                raise TimeoutError
        response.close()  # so that the connection can be used again
        return b"".join(parts)

    def _lines(self, response: HTTPResponse, first_s: float, later_s: float) -> Iterator[bytes]:
        assert self._socket is not None
        self._socket.settimeout(first_s)
        parts: list[bytes] = []
        size = 0
        while part := response.read1(_CHUNK_BYTES):
            *lines, rest = part.split(b"\n")
            for line in lines:
                self._socket.settimeout(later_s)
                yield b"".join([*parts, line])
                parts, size = [], 0
            parts.append(rest)
            size += len(rest)
            if size > _LINE_MAX_BYTES:
                raise KubernetesError(f"an event is larger than {_LINE_MAX_BYTES >> 20} MiB", expired=True)
        if any(parts):
            raise KubernetesError("the last event is cut off", expired=True)

    # -- the connection --------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._close()
        server = self._config.server
        plain = socket.create_connection((server.host, server.port), timeout=_CONNECT_S)
        try:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                plain.setsockopt(socket.IPPROTO_TCP, option, value)
            self._connections.add(plain)
            self._socket = plain
            if server.tls:
                self._socket = _context(self._config).wrap_socket(plain, server_hostname=self._config.server_name)
                self._connections.remove(plain)
                self._connections.add(self._socket)
        except BaseException:
            self._connections.remove(plain)
            plain.close()
            self._socket = None
            raise
        self._http = HTTPConnection(server.host, server.port)
        self._http.auto_open = 0
        self._http.sock = self._socket

    def _close(self) -> None:
        if self._http is not None:
            self._http.close()
        if self._socket is not None:
            self._connections.remove(self._socket)
            self._socket.close()
        self._http = self._socket = None

    def _failure(self, error: BaseException) -> KubernetesError | StoppedError:
        self._close()
        return StoppedError() if self._connections.over else KubernetesError(_sentence(error))


def _context(config: KubernetesConfig) -> ssl.SSLContext:
    """Raises OSError and UnreadableError."""
    ca = config.ca.read()
    context = client_context(cadata=ca.decode() if ca else None)
    if config.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    cert, key = config.cert.read(), config.key.read()
    if cert and key:
        # Python loads certificates from files only: this one is in memory, and no other process can open it by name.
        descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(cert + b"\n" + key)
            file.flush()
            try:
                context.load_cert_chain(f"/proc/self/fd/{descriptor}")
            except (ssl.SSLError, OSError) as error:
                raise UnreadableError(f"{config.cert.called}: not a certificate with its key: {error}") from error
    return context


# -- what an answer says ---------------------------------------------------------------------------------------------


def _object(text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise KubernetesError("the answer is not JSON", expired=True) from error
    if not isinstance(data, dict):
        raise KubernetesError("the answer is not a JSON object", expired=True)
    return data


def _refusal(response: HTTPResponse, body: bytes) -> KubernetesError:
    """What a status other than 200 says, as a Status of Kubernetes or in plain text."""
    status = response.status
    try:
        told = _object(body)
    except KubernetesError:
        told = {"message": body.decode(errors="replace").strip().partition("\n")[0]}
    text = told.get("message")
    message = f": {shown(text, 300)[1:-1]}" if isinstance(text, str) and text else ""
    reason = http.client.responses.get(status, "")
    return KubernetesError(
        f"{status} {reason}".rstrip() + message,
        status,
        expired=status == http.HTTPStatus.GONE or "ResourceVersionTooLarge" in _causes(told),
        retry_s=_seconds(response.headers.get("Retry-After", ""), told),
    )


def _causes(status: Mapping[str, Any]) -> list[object]:
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    return [item.get("reason") for item in causes if isinstance(item, dict)] if isinstance(causes, list) else []


def _seconds(header: str, status: Mapping[str, Any]) -> float:
    details = status.get("details")
    told = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    if header.isascii() and header.isdecimal():
        told = int(header)
    return min(float(told), _RETRY_AFTER_MOST_S) if isinstance(told, int) and told > 0 else 0.0


def event_error(status: object) -> KubernetesError:
    """What an event of type ERROR says."""
    told = status if isinstance(status, dict) else {}
    code, message = told.get("code"), told.get("message")
    number = code if isinstance(code, int) else 0
    text = shown(message, 300)[1:-1] if isinstance(message, str) else "without a message"
    return KubernetesError(f"the watch ended: {number} {text}", number, expired=number == http.HTTPStatus.GONE)


def _sentence(error: BaseException) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"TLS: {error.verify_message}"
        case ssl.SSLError():
            return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
        case TimeoutError():
            return "no answer in time"
        case socket.gaierror():
            return f"the name of the server cannot be resolved: {error.strerror}"
        case http.client.IncompleteRead() | ConnectionResetError() | BrokenPipeError() | http.client.NotConnected():
            return "the connection was closed"
        case http.client.HTTPException():
            return "the answer is not HTTP"
        case OSError(strerror=str(text)):
            return text
    return str(error) or type(error).__name__
