"""One attempted flow and its result: reached, or blocked by a certain entry at a certain stage."""

from __future__ import annotations

import itertools
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from enforcer.model.vocabulary import Stage
from tests.conformance.echo import ANSWER, IPV4_HEADER, REQUEST
from tests.conformance.topology import Host

DEADLINE_S = 60.0
SILENCE_S = 0.3  # how long no answer may arrive if no counter shows the drop
LINGER_S = 0.02  # how long no answer may arrive after a counter has shown it
_NO_LINGER = struct.pack("ii", 1, 0)  # close with RST, so that the port can be used again at once
_tokens = itertools.count(1)

FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
PING = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_ECHO_REQUEST = {4: 8, 6: 128}
_ECHO_REPLY = {4: 0, 6: 129}


@dataclass(frozen=True)
class Flow:
    """Client and server of a flow. ``protocol`` is tcp, udp, icmp, or the number of a raw IP protocol."""

    client: Host
    server: Host
    protocol: str | int = "udp"
    port: int = 8055
    sport: int = 0
    family: int = 4

    def __str__(self) -> str:
        sport = f":{self.sport}" if self.sport else ""
        return f"{self.client.name}{sport} -> {self.server.name} {self.protocol}/{self.port} IPv{self.family}"


def can_reach(flow: Flow, timeout_s: float = SILENCE_S) -> bool:
    """Whether an answer comes back."""
    with _Attempt(flow) as attempt:
        return attempt.answered(timeout_s)


def assert_reached(*flows: Flow) -> None:
    """Every flow gets its answer."""
    for flow in flows:
        assert can_reach(flow, DEADLINE_S), f"{flow}: no answer"


def assert_silent(*flows: Flow) -> None:
    """No flow gets an answer; the cause is asserted elsewhere."""
    with ExitStack() as stack:
        attempts = {flow: stack.enter_context(_Attempt(flow)) for flow in flows}
        deadline = time.monotonic() + SILENCE_S  # one wait for all of them
        for flow, attempt in attempts.items():
            assert not attempt.answered(max(0.0, deadline - time.monotonic())), f"{flow}: answered"


def assert_blocked(
    *flows: Flow, by: str, at: Stage, on: Host | None = None, passed: Sequence[tuple[Stage, str]] = ()
) -> None:
    """No flow gets an answer, because this entry, at this stage and no other, dropped it (on the server, or ``on``).

    ``passed``: entries that counted the packet and let it go on.
    """
    with ExitStack() as stack:
        attempts = {flow: _dropped_attempt(stack, flow, {(at, by), *passed}, on or flow.server) for flow in flows}
        deadline = time.monotonic() + LINGER_S
        for flow, attempt in attempts.items():
            assert not attempt.answered(max(0.0, deadline - time.monotonic())), f"{flow}: answered"


def _dropped_attempt(stack: ExitStack, flow: Flow, counted: set[tuple[Stage, str]], where: Host) -> _Attempt:
    """An attempt whose packet has been counted, by these entries and no others."""
    before = where.counts()
    attempt = stack.enter_context(_Attempt(flow))
    wait_until(lambda: bool(where.counts() - before), f"{flow}: no entry counted")
    assert set(where.counts() - before) == counted, f"{flow}: {where.counts() - before}"
    return attempt


def wait_until(holds: Callable[[], bool], otherwise: str) -> None:
    """Waits for an event; AssertionError at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, otherwise
        select.select([], [], [], 0.002)


@contextmanager
def connection(flow: Flow) -> Iterator[Callable[[bytes], bool]]:
    """An open TCP connection; what it yields sends a text and says whether the echo came back."""
    with flow.client.inside():
        sock = socket.socket(FAMILY[flow.family], socket.SOCK_STREAM)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        sock.settimeout(DEADLINE_S)
        sock.connect((flow.server.address(flow.family), flow.port))

        def talk(text: bytes) -> bool:
            sock.sendall(text)
            return sock.recv(len(text)) == text

        yield talk


class _Attempt:
    """A request that was sent."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._token = struct.pack("!HH", os.getpid() & 0xFFFF, next(_tokens) & 0xFFFF)
        self._sock = self._open()

    def __enter__(self) -> _Attempt:
        with suppress(BlockingIOError, PermissionError):  # the client's own policy may drop it
            self._request()
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def answered(self, timeout_s: float) -> bool:
        """Whether the answer arrives within this time."""
        deadline = time.monotonic() + timeout_s
        if self._flow.protocol == "tcp" and not self._connected(timeout_s):
            return False
        while select.select([self._sock], [], [], max(0.0, deadline - time.monotonic()))[0]:
            with suppress(OSError):
                if self._is_answer(self._sock.recv(2048)):
                    return True
        return False

    def _open(self) -> socket.socket:
        flow = self._flow
        kind, protocol = {
            "tcp": (socket.SOCK_STREAM, 0),
            "udp": (socket.SOCK_DGRAM, 0),
            "icmp": (socket.SOCK_RAW, int(PING[flow.family])),
        }.get(str(flow.protocol)) or (socket.SOCK_RAW, int(flow.protocol))
        with flow.client.inside():
            sock = socket.socket(FAMILY[flow.family], kind, protocol)
        if flow.protocol == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        if flow.sport:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # an echo server may use this port as well
            sock.bind((flow.client.address(flow.family), flow.sport))
        sock.setblocking(False)
        return sock

    def _request(self) -> None:
        flow = self._flow
        to = (flow.server.address(flow.family), flow.port if flow.protocol in ("tcp", "udp") else 0)
        if flow.protocol == "tcp":
            self._sock.connect(to)
        elif flow.protocol == "udp":
            self._sock.sendto(self._token, to)
        elif flow.protocol == "icmp":
            self._sock.sendto(_echo_request(flow.family, self._token), to)
        else:
            self._sock.sendto(REQUEST, to)

    def _connected(self, timeout_s: float) -> bool:
        if not select.select([], [self._sock], [], timeout_s)[1]:
            return False
        if self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return False
        self._sock.send(self._token)
        return True

    def _is_answer(self, data: bytes) -> bool:
        flow = self._flow
        if flow.protocol in ("tcp", "udp"):
            return data == self._token
        payload = data[IPV4_HEADER:] if flow.family == 4 else data
        if flow.protocol == "icmp":
            return payload[0] == _ECHO_REPLY[flow.family] and payload[4:8] == self._token
        return payload == ANSWER


def _echo_request(family: int, token: bytes) -> bytes:
    """An ICMP echo request; the kernel fills in the checksum of ICMPv6 only."""
    message = struct.pack("!BBH", _ECHO_REQUEST[family], 0, 0) + token
    total = sum(struct.unpack("!4H", message))
    total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]
