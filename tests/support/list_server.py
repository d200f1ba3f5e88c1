"""A publisher of lists: a real HTTPS server on loopback that answers as a test says."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.certificates import Certificate


@dataclass
class Answer:
    """``length``: the Content-Length that is claimed, None: that of the content; -1: none."""

    content: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None


@dataclass
class Publisher:
    """``answers``: by path with query. ``seen``: each request with its headers, in order."""

    url: str
    answers: dict[str, Answer] = field(default_factory=dict)
    seen: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [path for path, _ in self.seen]


@contextmanager
def publisher(certificate: Certificate | None = None) -> Iterator[Publisher]:
    """Without a certificate: plain HTTP."""
    made: Publisher

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.seen.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
            answer = made.answers.get(self.path, Answer(status=404))
            etag = answer.headers.get("ETag")
            is_known = answer.status == 200 and etag is not None and self.headers.get("If-None-Match") == etag
            self.send_response(304 if is_known else answer.status)
            for key, value in answer.headers.items():
                self.send_header(key, value)
            if not is_known and answer.length != -1:
                self.send_header("Content-Length", str(len(answer.content) if answer.length is None else answer.length))
            self.end_headers()
            if not is_known:
                self.wfile.write(answer.content)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.cert, certificate.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    made = Publisher(f"{'http' if certificate is None else 'https'}://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
