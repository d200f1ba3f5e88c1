"""Parsing of rtnetlink messages from bytes; tests/kernel/test_probe.py has messages of the running kernel."""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import ip_address

import pytest

from enforcer.kernel import netlink_conn
from enforcer.kernel.links import Link, LinkConn
from enforcer.kernel.netlink import NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, attribute, message, nested, text, u32
from enforcer.model.errors import KernelError
from enforcer.model.vocabulary import Mode

DONE = struct.pack("=i", 0)
VIA6 = attribute(18, struct.pack("=H", socket.AF_INET6) + ip_address("fd00::9").packed)


class Kernel:
    """A socket that answers each request with the next of these lists of (type, flags, body)."""

    def __init__(self, *answers: list[tuple[int, int, bytes]]) -> None:
        self._answers = list(answers)
        self._waiting: list[bytes] = []

    def send(self, data: bytes) -> None:
        (sequence,) = struct.unpack_from("=I", data, 8)
        self._waiting = [message(kind, flags, sequence, body) for kind, flags, body in self._answers.pop(0)]
        self._waiting.insert(0, message(NLMSG_ERROR, 0, sequence - 1, struct.pack("=i", -errno.EIO)))  # of another one

    def recv(self, size: int) -> bytes:
        return self._waiting.pop(0)

    def close(self) -> None:
        pass


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]  # a fixture that is a function
    def of(*answers: list[tuple[int, int, bytes]]) -> LinkConn:
        monkeypatch.setattr(netlink_conn.socket, "socket", lambda *_: Kernel(*answers))
        return LinkConn()

    return of


def link(*attributes: bytes, index: int = 2) -> tuple[int, int, bytes]:
    return 16, 0, struct.pack("=BxHiII", 0, 1, index, 0, 0) + b"".join(attributes)


def route(*attributes: bytes) -> tuple[int, int, bytes]:
    return 24, 0, bytes(12) + b"".join(attributes)


def test_all_that_a_link_says(answering) -> None:  # type: ignore[no-untyped-def]  # a fixture that is a function
    said = (
        text(3, "eth0"), u32(4, 1500), attribute(1, b"\x02\0\0\0\0\1"), u32(5, 7), u32(10, 4),
        nested(18, text(1, "macvlan"), text(4, "bridge")), attribute(37, struct.pack("=i", 3)),
        nested(52, text(53, "one"), text(53, "two")), nested(43, attribute(2, b"\4"), u32(6, 11), u32(5, 12)),
    )  # fmt: skip
    (found,) = answering([link(*said), (NLMSG_DONE, 0, DONE)]).links()
    assert found == Link(
        2, "eth0", 1500, 1, b"\x02\0\0\0\0\1", 7, 3, 4, "macvlan", "bridge", ("one", "two"),
        {Mode.NATIVE: 12, Mode.GENERIC: 11},
    )  # fmt: skip
    assert list(found.programs) == [Mode.NATIVE, Mode.GENERIC]
    assert found.lower == 0


# For mypy: a fixture that is a function
def test_next_hops_of_one_of_several_and_of_the_other_family(answering) -> None:  # type: ignore[no-untyped-def]
    def hop(index: int, body: bytes) -> bytes:
        return struct.pack("=HBBi", 8 + len(body), 0, 0, index) + body

    gateway = attribute(5, ip_address("10.0.0.1").packed)
    several = attribute(9, hop(3, attribute(5, ip_address("10.0.0.2").packed)) + hop(4, VIA6) + hop(5, b""))
    routes = [route(u32(4, 2), gateway), route(several), route(u32(4, 6)), route(gateway)]
    found = list(answering([*routes, (NLMSG_DONE, 0, DONE)]).next_hops())
    assert found == [(2, ip_address("10.0.0.1")), (3, ip_address("10.0.0.2")), (4, ip_address("fd00::9"))]


# For mypy: a fixture that is a function
def test_a_dump_that_changed_meanwhile_is_requested_again(answering) -> None:  # type: ignore[no-untyped-def]
    stale = [link(text(3, "old0")), (NLMSG_DONE, NLM_F_DUMP_INTR, DONE)]
    fresh = [link(text(3, "new0")), (NLMSG_DONE, 0, DONE)]
    assert [item.name for item in answering(stale, fresh).links()] == ["new0"]
    with pytest.raises(KernelError) as caught:
        answering(*[stale] * 20).links()
    assert caught.value.errno == errno.EINTR


def test_what_is_refused_is_an_error(answering) -> None:  # type: ignore[no-untyped-def]  # a fixture that is a function
    with pytest.raises(KernelError) as caught:
        answering([(NLMSG_ERROR, 0, struct.pack("=i", -errno.EPERM) + bytes(16))]).links()
    assert caught.value.errno == errno.EPERM


@pytest.mark.parametrize(("number", "expected"), [(5, 5), (-1, None)])
# For mypy: a fixture that is a function
def test_the_id_of_a_namespace(answering, number: int, expected: int | None) -> None:  # type: ignore[no-untyped-def]
    answer = (88, 0, bytes(4) + attribute(1, struct.pack("=i", number)))
    assert answering([answer, (NLMSG_ERROR, 0, DONE + bytes(16))]).namespace_id(9) == expected
