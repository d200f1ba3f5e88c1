"""A Kubernetes API of a test: Calico's kinds, list and watch, and each way in which a real API server refuses.

What it does is what a real one was seen to do: each behaviour names its row of the table in docs/fleet.md, and
tests/contract/test_kubernetes_api.py makes the same requests to both.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from enforcer.policy.objects import PLURALS
from tests.support.certificates import Certificate

V1, V3 = "crd.projectcalico.org/v1", "projectcalico.org/v3"
KINDS = {kind: plural for plural, kind in PLURALS.items()} | {"ClusterInformation": "clusterinformations"}
CORE = ("namespaces", "nodes")

# The rows of docs/fleet.md ("What a real API server answers") that this double follows.
RECORDED = {
    "cache": "list with `resourceVersion=0`",
    "pages": "list with `limit`",
    "bad-token": "malformed continue token",
    "stale-token": "continue token after compaction",
    "future-list": "list at a future revision",
    "too-old": "watch from a revision that is too old",
    "future-watch": "watch from a revision of the future (restored backup)",
    "bookmarks": "bookmarks",
    "end": "end of a watch",
    "killed": "server killed during a watch",
    "absent": "kind without CRD",
    "unauthorized": "wrong token",
    "forbidden": "token without the permission",
    "too-many": "too many requests",
    "exists": "create of an object that exists",
    "stale-put": "replace with a resourceVersion that is not the present one",
    "put-absent": "replace or delete of an object that is gone",
    "stale-delete": "delete with a resourceVersion as precondition",
    "duplicate": "a network set with the same CIDR twice",
}

Answer = tuple[int, bytes, dict[str, str]]  # status, body, headers


def status(code: int, reason: str, message: str, **details: Any) -> Answer:
    told = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    body = {**told, "reason": reason, "details": details, "code": code}
    return code, json.dumps(body).encode() + b"\n", {"Content-Type": "application/json"}


NOT_FOUND: Answer = (404, b"404 page not found\n", {"Content-Type": "text/plain; charset=utf-8"})  # row: absent


@dataclass
class Api:
    """What is stored, and how the server behaves. All of it may change while it runs."""

    group: str = V1
    objects: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)  # plural, namespace, name
    revision: int = 100
    history: list[tuple[int, str, str, dict[str, Any]]] = field(default_factory=list)
    oldest: int = 0  # watches and continue tokens before this revision have expired
    absent: set[str] = field(default_factory=set)  # plurals without a CRD
    refuse: Callable[[str], Answer | None] = lambda _plural: None  # instead of a list or a watch
    refuse_watch: Callable[[str], Answer | None] = lambda _plural: None
    refuse_list: Callable[[str, str], Answer | None] = lambda _plural, _token: None  # "" is no token: the first page
    refuse_write: Callable[[str], Answer | None] = lambda _plural: None
    token: str = ""
    uid: str = "6f1c"  # of kube-system, "" if there is none
    bookmark_s: float = 58.9  # row: bookmarks
    changed: threading.Condition = field(default_factory=threading.Condition)

    def put(self, item: dict[str, Any]) -> None:
        item = deepcopy(item)
        plural = KINDS.get(item["kind"], f"{item['kind'].lower()}s")
        if plural not in CORE:
            item["apiVersion"] = self.group
        metadata = item["metadata"]
        key = (plural, metadata.get("namespace", ""), metadata["name"])
        with self.changed:
            self.revision += 1
            metadata["resourceVersion"] = str(self.revision)
            metadata.setdefault("uid", f"uid-{self.revision}")
            what = "MODIFIED" if key in self.objects else "ADDED"
            self.objects[key] = item
            self._record(plural, what, item)

    def delete(self, path: str) -> None:
        plural, _, name = path.partition("/")
        namespace, _, name = name.rpartition("/")
        with self.changed:
            item = deepcopy(self.objects.pop((plural, namespace, name)))
            self.revision += 1
            item["metadata"]["resourceVersion"] = str(self.revision)
            self._record(plural, "DELETED", item)

    def _record(self, plural: str, what: str, item: dict[str, Any]) -> None:
        self.history.append((self.revision, plural, what, deepcopy(item)))
        self.changed.notify_all()

    def compact(self) -> None:
        """Forget the history: what begins before now has expired."""
        with self.changed:
            self.oldest = self.revision
            self.history.clear()

    def restore(self, objects: dict[tuple[str, str, str], dict[str, Any]], revision: int) -> None:
        """Be as a backup was. The server has to be restarted for it, as a real one has."""
        with self.changed:
            self.objects, self.revision, self.oldest = deepcopy(objects), revision, 0
            self.history.clear()

    def listed(self, plural: str) -> list[dict[str, Any]]:
        return [item for key, item in sorted(self.objects.items()) if key[0] == plural]


class Double:
    """The server. It is stopped and started again at the same port, over the same state."""

    def __init__(self, api: Api, serving: Certificate | None = None, clients: Path | None = None) -> None:
        """``serving``: the certificate for TLS. ``clients``: the authority of client certificates."""
        self.api, self.serving, self.clients = api, serving, clients
        self.port = 0
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.serving else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = _Server(self.port, self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def kill(self) -> None:
        """Row killed: connections break in the middle of an answer."""
        assert self._server
        self._server.shutdown()
        self._server.server_close()
        self._server.end_all()
        self._server = None

    def __enter__(self) -> Double:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._server:
            self.kill()

    @contextmanager
    def down(self) -> Iterator[None]:
        self.kill()
        try:
            yield
        finally:
            self.start()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, double: Double) -> None:
        self.double, self.over = double, False
        self._open: list[socket.socket] = []
        self._tls: ssl.SSLContext | None = None
        if double.serving:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(double.serving.cert, double.serving.key)
            if double.clients:
                self._tls.load_verify_locations(double.clients)
                self._tls.verify_mode = ssl.CERT_OPTIONAL
        super().__init__(("127.0.0.1", port), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        accepted, address = super().get_request()
        if self._tls:
            accepted = self._tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        self._open.append(accepted)
        return accepted, address

    def end_all(self) -> None:
        self.over = True
        with self.double.api.changed:
            self.double.api.changed.notify_all()
        for each in self._open:
            with suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is what many tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_words: Any) -> None:
        """No log."""

    @property
    def api(self) -> Api:
        return self.server.double.api

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        params = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        with self.api.changed:
            answer = self._answer(parts.path, params)
        if answer is None:
            self._watch(parts.path.rpartition("/")[2], params)
            return
        self._send(answer)

    def do_POST(self) -> None:
        self._write()

    def do_PUT(self) -> None:
        self._write()

    def do_DELETE(self) -> None:
        self._write()

    def _write(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        with self.api.changed:
            self._send(self._written(urlsplit(self.path).path, body))

    def _written(self, path: str, body: dict[str, Any]) -> Answer:
        """The answer to a write below the path of a kind of Calico."""
        api = self.api
        if refused := self._unauthorized():
            return refused
        plural, _, name = path.removeprefix(f"/apis/{api.group}/").partition("/")
        if plural in api.absent or plural not in KINDS.values():
            return NOT_FOUND
        if refused := api.refuse_write(plural):
            return refused
        what = f'{plural}.{api.group.partition("/")[0]} "{name or body["metadata"]["name"]}"'
        held = api.objects.get((plural, "", name or body["metadata"]["name"]))
        if self.command == "POST" and held:
            return status(409, "AlreadyExists", f"{what} already exists")  # row: exists
        if self.command != "POST" and not held:
            return status(404, "NotFound", f"{what} not found")  # row: put-absent
        version = (body.get("preconditions") or body.get("metadata") or {}).get("resourceVersion")
        if self.command != "POST" and held and version and version != held["metadata"]["resourceVersion"]:
            return status(409, "Conflict", f"Operation cannot be fulfilled on {what}")  # rows: stale-put, stale-delete
        if self.command == "DELETE":
            api.delete(f"{plural}/{name}")
            return _json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        nets = body.get("spec", {}).get("nets", [])
        if again := [at for at, net in enumerate(nets) if net in nets[:at]]:  # row: duplicate
            message = f"{what} is invalid: spec.nets[{again[0]}]: Duplicate value"
            return status(422, "Invalid", message)
        api.put(body)
        made = api.objects[plural, "", body["metadata"]["name"]]
        code, content, headers = _json(made)
        return (201 if self.command == "POST" else code), content, headers

    def _unauthorized(self) -> Answer | None:
        certified = isinstance(self.connection, ssl.SSLSocket) and bool(self.connection.getpeercert())
        if self.api.token and not certified and self.headers.get("Authorization") != f"Bearer {self.api.token}":
            return status(401, "Unauthorized", "Unauthorized")  # row: unauthorized
        return None

    def _send(self, answer: Answer) -> None:
        code, body, headers = answer
        self.send_response(code)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, path: str, params: dict[str, str]) -> Answer | None:
        """The answer; None for a watch."""
        api = self.api
        if refused := self._unauthorized():
            return refused
        home, _, plural = path.rpartition("/")
        if path in ("/api/v1", f"/apis/{api.group}"):
            served = CORE if path == "/api/v1" else set(KINDS.values()) - set(CORE) - {"profiles"}
            resources = [{"name": name} for name in sorted(set(served) - api.absent)]
            return _json({"kind": "APIResourceList", "resources": resources})
        if path == "/api/v1/namespaces/kube-system":
            return (
                _json({"kind": "Namespace", "metadata": {"name": "kube-system", "uid": api.uid}})
                if api.uid
                else (status(404, "NotFound", 'namespaces "kube-system" not found'))
            )
        kind, _, name = path.removeprefix(f"/apis/{api.group}/").partition("/")
        if name and kind in KINDS.values() and kind not in api.absent:
            held = api.objects.get((kind, "", name))
            return _json(held) if held else status(404, "NotFound", f'{kind} "{name}" not found')
        is_core = home == "/api/v1" and plural in CORE
        if plural in api.absent or not (is_core or (home == f"/apis/{api.group}" and plural in KINDS.values())):
            return NOT_FOUND
        if refused := api.refuse(plural):
            return refused
        return api.refuse_watch(plural) if params.get("watch") else self._list(plural, params)

    def _list(self, plural: str, params: dict[str, str]) -> Answer:
        api = self.api
        if refused := api.refuse_list(plural, params.get("continue", "")):
            return refused
        wanted = params.get("resourceVersion", "")
        if wanted and int(wanted) > api.revision:  # row: future-list
            message = f"Timeout: Too large resource version: {wanted}, current: {api.revision}"
            causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
            return status(504, "Timeout", message, causes=causes, retryAfterSeconds=1)
        items = self._selected(api.listed(plural), params)
        begin, revision = 0, api.revision
        if token := params.get("continue"):
            try:
                begin, revision = map(int, base64.b64decode(token, validate=True).split(b","))
            except ValueError:
                return status(400, "BadRequest", "continue key is not valid")  # row: bad-token
            if revision < api.oldest:  # row: stale-token
                code, body, headers = status(410, "Expired", "The provided continue parameter is too old")
                told = json.loads(body)
                told["metadata"]["continue"] = _token(begin, api.revision)
                return code, json.dumps(told).encode(), headers
        limit = int(params.get("limit", "0"))
        end = len(items) if not limit or wanted == "0" else begin + limit  # rows: cache, pages
        metadata = {"resourceVersion": str(revision)}
        if end < len(items):
            metadata["continue"] = _token(end, revision)
        return _json({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items[begin:end]})

    @staticmethod
    def _selected(items: list[dict[str, Any]], params: dict[str, str]) -> list[dict[str, Any]]:
        name = params.get("fieldSelector", "").removeprefix("metadata.name=")
        return [item for item in items if not name or item["metadata"]["name"] == name]

    # -- watch -----------------------------------------------------------------------------------------------------

    def _watch(self, plural: str, params: dict[str, str]) -> None:
        api, now_s = self.api, time.monotonic()
        until_s = now_s + float(params["timeoutSeconds"])
        begin = int(params["resourceVersion"])
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if begin < api.oldest:  # row: too-old
            message = f"too old resource version: {begin} ({api.oldest})"
            self._event("ERROR", json.loads(status(410, "Expired", message)[1]))
            self._chunk(b"")
            return
        bookmark_s = now_s + api.bookmark_s
        sent = begin  # row: future-watch: nothing is newer, so nothing is sent
        while not self.server.over and (now_s := time.monotonic()) < until_s:
            with api.changed:
                news = [item for item in api.history if item[0] > sent and item[1] == plural]
                if not news:
                    api.changed.wait(max(0.0, min(until_s, bookmark_s) - now_s))
                revision = api.revision
            for number, _, what, item in news:
                if self._selected([item], params):
                    self._event(what, item)
                sent = number
            if time.monotonic() >= bookmark_s and not news and params.get("allowWatchBookmarks"):
                bookmark_s += api.bookmark_s
                if revision >= begin:
                    self._event("BOOKMARK", {"metadata": {"resourceVersion": str(revision)}})
        if not self.server.over:
            self._chunk(b"")  # row: end

    def _event(self, what: str, item: dict[str, Any]) -> None:
        self._chunk(json.dumps({"type": what, "object": item}).encode() + b"\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


def _json(data: object) -> Answer:
    return 200, json.dumps(data).encode(), {"Content-Type": "application/json"}


def _token(begin: int, revision: int) -> str:
    return base64.b64encode(b"%d,%d" % (begin, revision)).decode()


def forbidden(plural: str) -> Answer:
    """Row forbidden."""
    who = f'{plural}.{V1.partition("/")[0]} is forbidden: User "felix" cannot list resource "{plural}"'
    return status(403, "Forbidden", who)


def too_many(_plural: str) -> Answer:
    """Row too-many."""
    code, body, headers = status(429, "TooManyRequests", "Too many requests, please try again later.")
    return code, body, headers | {"Retry-After": "1"}
