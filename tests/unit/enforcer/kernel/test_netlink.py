"""The netlink codec, on messages as the kernel writes them."""

from __future__ import annotations

import socket
import struct

import pytest

from enforcer.kernel import netlink

PADDED = bytes.fromhex("0600 0100 6162 0000".replace(" ", "")) + bytes.fromhex("0800 0240 00000007".replace(" ", ""))


def test_attributes_are_padded_to_four_bytes_and_read_without_flags() -> None:
    packed = netlink.attribute(1, b"ab") + netlink.be32(2 | netlink.NLA_F_NET_BYTEORDER, 7)
    assert packed == PADDED
    assert list(netlink.attributes(packed)) == [(1, b"ab"), (2, b"\0\0\0\7")]


def test_nested_attributes_say_so_and_are_read_as_attributes() -> None:
    packed = netlink.nested(3, netlink.text(1, "raw"), netlink.be64(2, 1))
    assert struct.unpack_from("=HH", packed) == (len(packed), 3 | 0x8000)
    ((kind, inside),) = netlink.attributes(packed)
    assert (kind, list(netlink.attributes(inside))) == (3, [(1, b"raw\0"), (2, bytes(7) + b"\1")])


@pytest.mark.parametrize("size", [0, 3])
def test_a_length_that_cannot_be_ends_the_reading(size: int) -> None:
    assert list(netlink.attributes(PADDED + struct.pack("=HHI", size, 9, 0))) == [(1, b"ab"), (2, b"\0\0\0\7")]
    message = netlink.netfilter_message(0x0A00, 0, 1, socket.AF_INET, b"")
    assert len(list(netlink.messages(message + struct.pack("=IHHII", size, 0, 0, 0, 0)))) == 1


def test_a_datagram_is_its_messages() -> None:
    first = netlink.netfilter_message(0x0A07, netlink.NLM_F_REQUEST, 5, socket.AF_INET6, PADDED)
    second = struct.pack("=IHHIIi", 20, netlink.NLMSG_DONE, 0, 6, 77, 0)
    one, two = netlink.messages(first + second)
    assert (one.kind, one.flags, one.sequence, one.family, one.attributes) == (0x0A07, 1, 5, socket.AF_INET6, PADDED)
    assert not one.ends
    assert (two.ends, two.sequence, two.port, two.error) == (True, 6, 77, 0)


@pytest.mark.parametrize(
    ("flags", "said"),
    [(0, ""), (netlink.NLM_F_ACK_TLVS, ""), (netlink.NLM_F_ACK_TLVS | netlink.NLM_F_CAPPED, "no such chain")],
)
def test_an_error_has_its_number_and_its_words_where_only_the_header_is_repeated(flags: int, said: str) -> None:
    body = struct.pack("=iIHHII", -2, 20, 0, 0, 1, 0) + netlink.text(1, "no such chain")
    (answer,) = netlink.messages(struct.pack("=IHHII", 16 + len(body), netlink.NLMSG_ERROR, flags, 1, 0) + body)
    assert (answer.ends, answer.error, answer.error_message) == (True, 2, said)
