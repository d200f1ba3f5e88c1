"""One HTTP request and its answer on a connection, within a time and a size. Enough for scrapers and probes.

The standard library's server waits for as long as a client sends a byte now and then, and wakes up twice a second.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

WITHIN_S = 5.0
_HEAD_MAX = 16 << 10
_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Request:
    """``headers``: by name in lower case."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Response:
    status: HTTPStatus
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/plain; charset=utf-8"})


Respond = Callable[[Request], Response]


def serve(connection: socket.socket, respond: Respond, *, within_s: float = WITHIN_S) -> None:
    """Answer one request, and end the connection. Raises OSError when the client takes too long or goes away."""
    request = _read(connection, time.monotonic() + within_s)
    if request is None:
        response = Response(HTTPStatus.BAD_REQUEST, b"no HTTP request\n")
    elif request.method not in ("GET", "HEAD"):
        response = Response(HTTPStatus.METHOD_NOT_ALLOWED, b"GET and HEAD only\n", {"Allow": "GET, HEAD"})
    else:
        response = respond(request)
    head = [f"HTTP/1.1 {response.status.value} {response.status.phrase}"]
    lines = {**response.headers, "Content-Length": str(len(response.body)), "Connection": "close"}
    head += [f"{name}: {value}" for name, value in lines.items()]
    body = b"" if request is not None and request.method == "HEAD" else response.body
    connection.settimeout(within_s)
    connection.sendall("\r\n".join([*head, "", ""]).encode("latin-1") + body)


def _read(connection: socket.socket, until_s: float) -> Request | None:
    """The request; None if it is none. A body is not read: GET has none."""
    data = b""
    while _END not in data:
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        more = connection.recv(4096)
        if not more or len(data) > _HEAD_MAX:
            return None
        data += more
    first, *lines = data.partition(_END)[0].decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    pairs = (line.partition(":") for line in lines)
    return Request(
        words[0], words[1].partition("?")[0], {name.strip().lower(): value.strip() for name, _, value in pairs}
    )
