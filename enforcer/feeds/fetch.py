"""Fetches a list: from a file, standard input or by https, within a limit of bytes and time.

Over https the certificate is verified, redirects lead to https alone, and a list that has not changed is not sent again
(RFC 9110: ETag, If-Modified-Since). http is for a CrowdSec Local API on this host only, which redirects nowhere.
"""

from __future__ import annotations

import http.client
import os
import ssl
import stat
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    BaseHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

import enforcer
from enforcer.feeds.config import STDIN, Feed
from enforcer.system import files
from enforcer.system.tls import client_context

_WITHIN_S = 300.0
_SILENCE_S = 30.0
_CHUNK_BYTES = 1 << 16
_STREAM = "/v1/decisions/stream?startup="
_KEY_MAX_BYTES = 4096


class FetchError(Exception):
    """The list was not received as a whole; the message says why."""


@dataclass(frozen=True)
class Fetched:
    """``etag``, ``modified``: validators of the content, "" if there are none."""

    content: bytes
    etag: str = ""
    modified: str = ""


def fetch(feed: Feed, *, etag: str = "", modified: str = "", startup: bool = True) -> Fetched | None:
    """The list; None if it is still the one that has these validators. ``startup``: for CrowdSec, all decisions instead
    of what has changed. Raises FetchError.
    """
    if feed.source == STDIN:
        return Fetched(_stdin(feed))
    if not feed.is_url:
        return Fetched(_file(feed))
    headers = {"User-Agent": f"enforcer-feed/{enforcer.__version__}", "Accept-Encoding": "identity"}
    if feed.shape is None:
        url = f"{feed.source.rstrip('/')}{_STREAM}{'true' if startup else 'false'}"
        return _request(feed, url, {**headers, "X-Api-Key": _key(feed)})
    if etag:
        headers["If-None-Match"] = etag
    if modified:
        headers["If-Modified-Since"] = modified
    return _request(feed, feed.source, headers)


def has_input() -> bool:
    """Whether standard input is a file or a pipe: not a terminal, and not /dev/null, as in a service."""
    try:
        return sys.stdin is not None and not stat.S_ISCHR(os.fstat(sys.stdin.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):  # not a file of the system
        return True


def _stdin(feed: Feed) -> bytes:
    if sys.stdin is None:
        raise FetchError("standard input is closed")
    content = sys.stdin.buffer.read(feed.limits.bytes + 1)
    _require_size(len(content), feed)
    return content


def _file(feed: Feed) -> bytes:
    try:
        return files.read(feed.source, limit_bytes=feed.limits.bytes, instead=_INSTEAD)
    except OSError as error:
        raise FetchError(files.cannot_read(error)) from error
    except files.UnreadableError as error:
        raise FetchError(str(error)) from error


_INSTEAD = "limits.bytes of the feed raises the limit"


def _require_size(size: int, feed: Feed) -> None:
    if size > feed.limits.bytes:
        raise FetchError(f"larger than {feed.limits.bytes:,} bytes; {_INSTEAD}")


def _key(feed: Feed) -> str:
    assert feed.key_file is not None
    try:
        key = files.read_text(str(feed.key_file), limit_bytes=_KEY_MAX_BYTES, instead="expected an API key").strip()
    except files.UnreadableError as error:
        raise FetchError(f"{feed.key_file}: {error}") from error
    if not key or not key.isascii() or not key.isprintable():
        raise FetchError(f"{feed.key_file}: holds no API key")
    return key


class _Redirects(HTTPRedirectHandler):
    max_redirections = 5

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if not self._allowed:
            raise FetchError(f"it redirects to {newurl!r}, with the API key")
        if urlsplit(newurl).scheme != "https":
            raise FetchError(f"it redirects to {newurl!r}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(feed: Feed) -> OpenerDirector:
    try:
        context = client_context(cafile=None if feed.ca_file is None else str(feed.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise FetchError(f"{feed.ca_file}: cannot be read as certificates: {error.strerror or error}") from error
    handlers: list[BaseHandler] = [HTTPSHandler(context=context), _Redirects(allowed=feed.shape is not None)]
    if feed.source.startswith("http://"):
        handlers.append(ProxyHandler({}))  # it is on this host, and a proxy would read the key
    return build_opener(*handlers)


def _request(feed: Feed, url: str, headers: Mapping[str, str]) -> Fetched | None:
    until_s = time.monotonic() + _WITHIN_S
    try:
        with _opener(feed).open(Request(url, headers=dict(headers)), timeout=_SILENCE_S) as answer:
            return _received(answer, feed, until_s)
    except HTTPError as error:
        error.close()
        if error.code == HTTPStatus.NOT_MODIFIED:
            return None
        hint = (
            "; is the API key that of a bouncer (cscli bouncers add)?"
            if error.code == HTTPStatus.FORBIDDEN and feed.shape is None
            else ""
        )
        raise FetchError(f"HTTP {error.code} {error.reason}{hint}") from error
    except URLError as error:
        raise FetchError(_reason(error.reason)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(_reason(error)) from error


def _reason(error: object) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case TimeoutError():
            return f"no answer for {_SILENCE_S:.0f} s"
        case http.client.IncompleteRead():
            return "the answer is cut off"
        case OSError():
            return error.strerror or str(error)
    return str(error) or type(error).__name__


def _received(answer: Any, feed: Feed, until_s: float) -> Fetched:
    headers: Message = answer.headers
    if (encoding := headers.get("Content-Encoding", "identity")) != "identity":
        raise FetchError(f"it is encoded as {encoding}, which was not asked for")
    length = headers.get("Content-Length", "")
    if length.isdigit():
        _require_size(int(length), feed)
    parts: list[bytes] = []
    size = 0
    while part := answer.read1(_CHUNK_BYTES):
        parts.append(part)
        size += len(part)
        _require_size(size, feed)
        if time.monotonic() > until_s:
            raise FetchError(f"not received within {_WITHIN_S:.0f} s")
    if length.isdigit() and size < int(length):
        raise FetchError(f"the answer is cut off: {size:,} of {int(length):,} bytes")
    return Fetched(b"".join(parts), headers.get("ETag", ""), headers.get("Last-Modified", ""))
