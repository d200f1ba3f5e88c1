"""The calls of etcd's API that are made, over one connection to one endpoint.

The only module that imports grpcio, whose messages it turns into plain values. Of its two interfaces it uses the one
for asyncio, in a thread of its own: each thread that waits in the other one wakes five times a second.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import re
import ssl
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from enforcer.datastore.etcd.config import Endpoint, EtcdConfig
from enforcer.system import files
from enforcer.system.files import UnreadableError
from enforcer.system.stop import Stop
from enforcer.system.timer_slack import allow_late_timeouts

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C core would write to stderr between the lines of the log

import grpc
import grpc.aio

from enforcer.datastore.etcd import rpc_pb2

rpc: Any = rpc_pb2

logging.getLogger("grpc").propagate = False  # what it logs is raised as well
logging.getLogger("grpc").addHandler(logging.NullHandler())

_CALL_S = 5.0  # with one small answer
_PAGE_S = 60.0  # with up to 1 MiB of objects, or one that is larger
_POLL_S = 0.2  # how soon a wait for an answer ends after a stop
_CLOSE_S = 2.0
# Threads of grpc's core that have nothing to do look for work at short intervals, some ten times a second together.
_LATE_S = 1.0

# One connection for each channel, so that renewed certificates are used; whole lists; no proxy of the environment.
# The pings are the second line: grpc notices a silent peer only after the last of these three (20 s without it).
_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
]


class EtcdError(Exception):
    """A call failed. ``code``: the name of the gRPC status, such as PERMISSION_DENIED."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def is_transient(self) -> bool:
        """Whether a new connection to the same endpoint is enough: a token or a revision is out of date."""
        return self.code in ("UNAUTHENTICATED", "OUT_OF_RANGE") or "auth store is old" in str(self)


class StoppedError(Exception):
    """The agent stops."""


@dataclass(frozen=True)
class Header:
    """Which cluster answered, and in which state it was."""

    cluster: int
    revision: int
    term: int


@dataclass(frozen=True)
class KeyValue:
    """``revision``: of the last change of this key."""

    key: bytes
    value: bytes
    revision: int


@dataclass(frozen=True)
class Page:
    header: Header
    items: tuple[KeyValue, ...]
    more: bool


@dataclass(frozen=True)
class WatchEvent:
    item: KeyValue
    deleted: bool


@dataclass(frozen=True)
class Watched:
    """One answer of a watch, told apart by ``watch``. ``created``: it exists now. ``cancelled``: why it ended, "" if it
    did not. ``compacted``: it cannot begin where it should, because the history up to here is gone; 0 if it can.
    ``continued``: the next answer of this watch has the rest of the events of this one.
    """

    header: Header
    watch: int
    created: bool
    cancelled: str
    compacted: int
    continued: bool
    events: tuple[WatchEvent, ...]


@dataclass(frozen=True)
class Span:
    """The keys from ``first`` up to ``end``, without it; without ``end`` only the first."""

    first: bytes
    end: bytes = b""


def prefix(text: str) -> Span:
    """All keys that begin so."""
    first = text.encode()
    return Span(first, first[:-1] + bytes([first[-1] + 1]))


class Client:
    """A connection; a context manager. All calls raise EtcdError, and StoppedError soon after ``stop`` is set."""

    def __init__(self, endpoint: Endpoint, config: EtcdConfig, stop: threading.Event) -> None:
        """Raises EtcdError if a certificate cannot be read, and RuntimeError when no thread can be started."""
        self._config, self._stop = config, stop
        self._metadata: list[tuple[str, str]] = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: None)  # what fails is raised as well
        self._jobs: set[concurrent.futures.Future[None]] = set()
        threading.Thread(target=self._run, daemon=True).start()
        try:
            self._channel: Any = self._wait(_channel(endpoint, config))
        except BaseException:
            self._loop.call_soon_threadsafe(self._loop.stop)
            raise
        unary, stream = self._channel.unary_unary, self._channel.stream_stream
        self._range = unary("/etcdserverpb.KV/Range", rpc.RangeRequest.SerializeToString, rpc.RangeResponse.FromString)
        self._txn = unary("/etcdserverpb.KV/Txn", rpc.TxnRequest.SerializeToString, rpc.TxnResponse.FromString)
        self._grant = unary(
            "/etcdserverpb.Lease/LeaseGrant", rpc.LeaseGrantRequest.SerializeToString, rpc.LeaseGrantResponse.FromString
        )
        self._revoke = unary(
            "/etcdserverpb.Lease/LeaseRevoke",
            rpc.LeaseRevokeRequest.SerializeToString,
            rpc.LeaseRevokeResponse.FromString,
        )
        self._authenticate = unary(
            "/etcdserverpb.Auth/Authenticate",
            rpc.AuthenticateRequest.SerializeToString,
            rpc.AuthenticateResponse.FromString,
        )
        self._watch = stream(
            "/etcdserverpb.Watch/Watch", rpc.WatchRequest.SerializeToString, rpc.WatchResponse.FromString
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(Exception):  # it ends with its thread at the latest
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _end(self) -> None:
        await self._channel.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _run(self) -> None:
        """The thread of all calls, which also starts those of grpc."""
        try:
            allow_late_timeouts(_LATE_S)
            self._loop.run_forever()
        finally:
            self._loop.close()

    def authenticate(self) -> None:
        """Log in if a user is configured: later calls carry the token."""
        if self._config.username:
            request = rpc.AuthenticateRequest(name=self._config.username, password=self._config.password)
            self._metadata = [("token", self._wait(_sound(self._authenticate, request, _CALL_S, [])).token)]

    def range(
        self, span: Span, *, limit: int = 0, revision: int = 0, serializable: bool = False, keys_only: bool = False
    ) -> Page:
        """The keys in order. ``serializable``: as this member knows them, without asking the others."""
        within_s = _CALL_S if keys_only else _PAGE_S
        return _page(self._wait(self._begin(span, limit, revision, serializable, keys_only, within_s)))

    def put(self, key: bytes, value: bytes, *, expected: int, lease: int = 0) -> bool:
        """Store a value if the key was last changed at the revision ``expected``, 0: does not exist. Whether it did.

        ``lease``: with which the key ends; 0: it has none, also if it had one.
        """
        op = rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value, lease=lease))
        return self._if_unchanged(key, expected, op)

    def delete(self, key: bytes, *, expected: int) -> bool:
        """Delete a key if it was last changed at this revision. Whether it did."""
        return self._if_unchanged(key, expected, rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key)))

    def _if_unchanged(self, key: bytes, expected: int, op: Any) -> bool:
        compare = rpc.Compare(key=key, target=rpc.Compare.MOD, mod_revision=expected)
        if not expected:
            compare = rpc.Compare(key=key, target=rpc.Compare.VERSION, version=0)
        return bool(self._call(self._txn, rpc.TxnRequest(compare=[compare], success=[op])).succeeded)

    def grant(self, ttl_s: int) -> int:
        """A new lease that ends after this time."""
        return int(self._call(self._grant, rpc.LeaseGrantRequest(TTL=ttl_s)).ID)

    def revoke(self, lease: int) -> None:
        """End a lease, and delete the keys that have it."""
        self._call(self._revoke, rpc.LeaseRevokeRequest(ID=lease))

    def _call(self, method: Any, request: Any) -> Any:
        return self._wait(_sound(method, request, _CALL_S, self._metadata))

    def look(self, span: Span, within_s: float, done: Callable[[Header | EtcdError], None]) -> None:
        """Ask for one key, without waiting: ``done`` is called in another thread.

        The answer is that of a majority: ``etcd grpc-proxy`` answers serializable reads from its cache, even when there
        is no etcd behind it any more (server/proxy/grpcproxy/kv.go).
        """

        async def ask() -> None:
            try:
                done(_header((await self._begin(span, 1, 0, False, True, within_s)).header))
            except (EtcdError, grpc.RpcError, asyncio.CancelledError) as error:
                done(_failure(error))

        self._start(ask())

    def on_stop(self, call: Callable[[], None]) -> bool:
        """Call this, in another thread, when ``stop`` is set; False if that cannot be waited for."""
        if not isinstance(self._stop, Stop):
            return False
        descriptor = self._stop.fileno()

        def stopped() -> None:
            self._loop.remove_reader(descriptor)
            call()

        self._loop.call_soon_threadsafe(self._loop.add_reader, descriptor, stopped)
        return True

    def _start(self, job: Coroutine[Any, Any, None]) -> None:
        """Run it without waiting."""
        started = asyncio.run_coroutine_threadsafe(job, self._loop)
        self._jobs.add(started)  # asyncio itself does not keep it
        started.add_done_callback(self._jobs.discard)

    def _begin(
        self, span: Span, limit: int, revision: int, serializable: bool, keys_only: bool, within_s: float
    ) -> Coroutine[Any, Any, Any]:
        request = rpc.RangeRequest(
            key=span.first,
            range_end=span.end,
            limit=limit,
            revision=revision,
            serializable=serializable,
            keys_only=keys_only,
        )
        return _sound(self._range, request, within_s, self._metadata)

    def watch(self, spans: Sequence[tuple[Span, int]], found: Callable[[Watched | Exception], None]) -> None:
        """What happens to keys from these revisions on, all over one stream: ``found`` is called in another thread.

        Ends with an EtcdError; closing the client ends it. The member must have a leader, so that one that is cut off
        from the others says so.
        """

        async def follow() -> None:
            call = self._watch(metadata=[*self._metadata, ("hasleader", "true")])
            try:
                with suppress(asyncio.InvalidStateError):  # it has ended: reading says why
                    for span, revision in spans:
                        await call.write(_create(span, revision))
                while (answer := await call.read()) is not grpc.aio.EOF:
                    found(_watched(_known(answer)))
                found(EtcdError("UNAVAILABLE", "the watch ended"))
            except (EtcdError, grpc.RpcError, asyncio.CancelledError) as error:
                found(_failure(error))
            except Exception as error:
                found(error)
            finally:
                call.cancel()

        self._start(follow())

    def _wait(self, job: Coroutine[Any, Any, Any]) -> Any:
        call = asyncio.run_coroutine_threadsafe(job, self._loop)
        while True:
            try:
                return call.result(timeout=_POLL_S)
            except concurrent.futures.TimeoutError as error:
                if self._stop.is_set():
                    call.cancel()
                    raise StoppedError from error
            except (EtcdError, grpc.RpcError, concurrent.futures.CancelledError) as error:
                raise _failure(error) from error


async def _sound(method: Any, request: Any, within_s: float, metadata: list[tuple[str, str]]) -> Any:
    return _known(await method(request, timeout=within_s, metadata=metadata))


def _known(answer: Any) -> Any:
    """Raises EtcdError for bytes that are no message, which grpc only logs."""
    if answer is None:
        raise EtcdError("INTERNAL", "the answer is not one of etcd")
    return answer


async def _channel(endpoint: Endpoint, config: EtcdConfig) -> Any:
    if not endpoint.tls:
        return grpc.aio.insecure_channel(endpoint.target, options=_OPTIONS)
    return grpc.aio.secure_channel(endpoint.target, _credentials(config), options=_OPTIONS)


def _credentials(config: EtcdConfig) -> Any:
    try:
        ca, cert, key = config.ca.read() or _system_roots(), config.cert.read(), config.key.read()
    except UnreadableError as error:
        raise EtcdError("UNREADABLE", str(error)) from error
    return grpc.ssl_channel_credentials(ca, key, cert)


def _system_roots() -> bytes | None:
    """The host's certificate authorities; None for those of grpcio."""
    path = ssl.get_default_verify_paths().cafile
    try:
        return files.read(path) if path else None
    except (OSError, UnreadableError):
        return None


def _create(span: Span, revision: int) -> Any:
    create = rpc.WatchCreateRequest(key=span.first, range_end=span.end, start_revision=revision, fragment=True)
    return rpc.WatchRequest(create_request=create)


def _header(header: Any) -> Header:
    return Header(header.cluster_id, header.revision, header.raft_term)


def _item(found: Any) -> KeyValue:
    return KeyValue(found.key, found.value, found.mod_revision)


def _page(answer: Any) -> Page:
    return Page(_header(answer.header), tuple(map(_item, answer.kvs)), answer.more)


def _watched(answer: Any) -> Watched:
    cancelled = (answer.cancel_reason or "without a reason") if answer.canceled else ""
    events = tuple(WatchEvent(_item(found.kv), found.type == rpc.Event.DELETE) for found in answer.events)
    return Watched(
        header=_header(answer.header),
        watch=answer.watch_id,
        created=answer.created,
        cancelled=cancelled,
        compacted=answer.compact_revision,
        continued=answer.fragment,
        events=events,
    )


# How grpc tells that the other side ended the connection, which varies with the moment.
_CLOSED = re.compile(r"Socket closed|reset by peer|Stream removed|Broken pipe|GOAWAY|Handshake read failed|FD Shutdown")
_TLS = re.compile(r"OPENSSL_internal:(?P<what>[A-Z0-9_]+)(?:: (?P<why>.*?))?(?:: OK)?$")
# What it puts before the sentence that matters.
_AROUND = re.compile(
    r"^(?:failed to connect to all addresses; last error: )?(?:[A-Z_]+: )?(?:ipv[46]:\S+?:\d+: )?"
    r"(?:Failed to connect to remote host: )?(?:connect: )?"
)


def _failure(error: Any) -> EtcdError:
    if isinstance(error, EtcdError):
        return error
    if isinstance(error, (asyncio.CancelledError, concurrent.futures.CancelledError)):
        return EtcdError("CANCELLED", "the call was cancelled")
    code, said = error.code(), str(error.details() or "")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return EtcdError(code.name, "no answer in time")
    if _CLOSED.search(said):
        return EtcdError(code.name, "the connection was closed")
    if tls := _TLS.search(said):
        return EtcdError(
            code.name, "TLS: " + ": ".join(filter(None, (tls["what"].replace("_", " ").lower(), tls["why"])))
        )
    said = _AROUND.sub("", said.replace("\n", " ")).strip()
    return EtcdError(code.name, said or code.name)
