"""One request, one answer: what a client may send, and how long it may take."""

from __future__ import annotations

import socket
import threading
from http import HTTPStatus

import pytest

from enforcer.monitor.http import Request, Response, serve


def respond(request: Request) -> Response:
    return Response(HTTPStatus.OK, f"{request.path} {request.headers.get('accept', '-')}".encode())


def exchange(data: bytes, *, end: bool = False) -> bytes:
    """What the server answers to these bytes."""
    client, server = socket.socketpair()
    with client:
        thread = threading.Thread(target=_serve, args=(server,))
        thread.start()
        client.sendall(data)
        if end:
            client.shutdown(socket.SHUT_WR)
        client.settimeout(10)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
        thread.join()
        return answer


def _serve(server: socket.socket) -> None:
    with server:
        serve(server, respond)


def test_a_request_is_answered_and_the_connection_ends() -> None:
    head, _, body = exchange(b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\nACCEPT:  text/plain \r\n\r\n").partition(
        b"\r\n\r\n"
    )
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 19" in head
    assert b"Connection: close" in head
    assert body == b"/metrics text/plain"


def test_head_has_the_length_and_no_body() -> None:
    answer = exchange(b"HEAD /x HTTP/1.0\r\n\r\n")
    assert b"Content-Length: 4" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"GET / SPDY/3\r\n\r\n", b"400"),
    ],
    ids=["another method", "no version", "TLS on a plain port", "another protocol"],
)
def test_no_request(data: bytes, status: bytes) -> None:
    assert exchange(data).split(b" ")[1] == status


def test_a_client_that_goes_away_in_the_middle() -> None:
    assert exchange(b"GET / HT", end=True).startswith(b"HTTP/1.1 400")


def test_a_head_without_an_end() -> None:
    client, server = socket.socketpair()
    with client, server:
        client.sendall(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 4000)
        serve(server, respond)
        assert client.recv(4096).startswith(b"HTTP/1.1 400")


def test_a_slow_client_ends_in_time_even_if_it_sends_a_byte_now_and_then() -> None:
    client, server = socket.socketpair()
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.02):
            client.send(b"G")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        with client, server, pytest.raises(TimeoutError):
            serve(server, respond, within_s=0.2)
    finally:
        stop.set()
        thread.join()
