"""Nets: canonical sets of CIDRs, and membership in them, one by one and in bulk."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network

import numpy as np
import pytest

from enforcer.model.nets import Nets, parse_cidr

CIDRS: list[tuple[str, tuple[int, int, int]]] = [
    ("10.1.2.3", (4, 0x0A010203, 32)),
    ("10.1.2.3/8", (4, 0x0A000000, 8)),
    ("0.0.0.0/0", (4, 0, 0)),
    ("255.255.255.255/32", (4, 0xFFFFFFFF, 32)),
    ("10.0.0.0/08", (4, 0x0A000000, 8)),
    ("::", (6, 0, 128)),
    ("2001:DB8::1/32", (6, 0x20010DB8 << 96, 32)),
    ("::/0", (6, 0, 0)),
    # IPv4-mapped: Go's ParseIP and ParseCIDR give 16 bytes that To4 takes for IPv4, and the mask loses 96 bits.
    ("::ffff:203.0.113.9", (4, 0xCB007109, 32)),
    ("::FFFF:cb00:7109", (4, 0xCB007109, 32)),
    ("::ffff:203.0.113.9/128", (4, 0xCB007109, 32)),
    ("::ffff:203.0.113.9/120", (4, 0xCB007100, 24)),
    ("::ffff:203.0.113.9/97", (4, 0x80000000, 1)),
    ("::ffff:203.0.113.9/96", (4, 0, 0)),
    ("::ffff:203.0.113.9/95", (6, 0xFFFE << 32, 95)),  # shorter: no longer IPv4-mapped
    ("::203.0.113.9", (6, 0xCB007109, 128)),  # IPv4-compatible addresses are IPv6 (RFC 4291, 2.5.5.1)
    ("64:ff9b::203.0.113.9", (6, 0x64FF9B << 96 | 0xCB007109, 128)),
]


@pytest.mark.parametrize(("text", "value"), CIDRS)
def test_cidr(text: str, value: tuple[int, int, int]) -> None:
    assert parse_cidr(text) == value


NOT_CIDRS = [
    "", "/", "10.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/8/8", "10.0.0.256",
    "010.0.0.1",
    " 10.0.0.1", "10.0.0.1\n", "::/129", "fe80::1%eth0", "1::2::3", "10.0.0.1\0", "10.0.0.0/٣", "é",
    "10.0.0.0/" + "9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("text", NOT_CIDRS, ids=[ascii(text[:20]) for text in NOT_CIDRS])
def test_no_cidr(text: str) -> None:
    with pytest.raises(ValueError, match="expected "):
        parse_cidr(text)


def test_order_repetition_and_host_bits_do_not_bear_and_covered_nets_stay() -> None:
    nets = Nets.of(["10.0.0.0/8", "10.1.2.3/8", "::1", "10.0.0.0/16", "9.9.9.9"])
    assert nets == Nets.of(["9.9.9.9/32", "10.0.0.0/16", "::1/128", "10.0.0.0/8"])
    assert hash(nets) == hash(Nets.of(list(nets)))
    assert [str(net) for net in nets] == ["9.9.9.9/32", "10.0.0.0/8", "10.0.0.0/16", "::1/128"]
    assert len(nets) == 4
    assert nets != Nets()
    assert nets != "10.0.0.0/8"


def test_union_keeps_every_cidr_once() -> None:
    one, other = Nets.of(["10.0.0.0/8", "::1"]), Nets.of(["10.0.0.0/8", "9.0.0.0/8", "::2"])
    assert one | other == Nets.of(["9.0.0.0/8", "10.0.0.0/8", "::1", "::2"])
    assert Nets.union([]) == Nets()
    assert Nets.union([one]) is one


def test_repr_is_short() -> None:
    assert repr(Nets.of(["10.0.0.0/8"])) == "Nets(10.0.0.0/8)"
    assert repr(Nets.of(f"10.0.0.{i}" for i in range(9))).endswith("10.0.0.3/32, ... 9 in all)")


MEMBERS: list[tuple[str, list[str], list[str], list[str]]] = [
    ("the first and the last of a net", ["10.1.0.0/16"], ["10.1.0.0", "10.1.255.255"], ["10.0.255.255", "10.2.0.0"]),
    ("a host", ["10.0.0.1"], ["10.0.0.1"], ["10.0.0.0", "10.0.0.2"]),
    ("everything of one family", ["0.0.0.0/0"], ["0.0.0.0", "255.255.255.255"], ["::", "::1"]),
    ("a net within another", ["10.0.0.0/8", "10.1.0.0/16"], ["10.1.0.0", "10.200.0.0"], ["11.0.0.0", "9.255.255.255"]),
    ("neighbours", ["10.0.0.0/31", "10.0.0.2/32"], ["10.0.0.0", "10.0.0.1", "10.0.0.2"], ["10.0.0.3"]),
    ("IPv6", ["2001:db8::/32"], ["2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"], ["2001:db7::", "2001:db9::"]),
    ("a net within another, IPv6", ["fd00::/8", "fd00::1/128"], ["fd00::1", "fdff::"], ["fe00::", "fcff::"]),
    ("everything of the other family", ["::/0"], ["::", "ffff::"], ["0.0.0.0"]),
    ("nothing", [], [], ["0.0.0.0", "::"]),
]


@pytest.mark.parametrize(("cidrs", "inside", "outside"), [row[1:] for row in MEMBERS], ids=[row[0] for row in MEMBERS])
def test_membership(cidrs: list[str], inside: list[str], outside: list[str]) -> None:
    nets = Nets.of(cidrs)
    for text, expected in [(text, True) for text in inside] + [(text, False) for text in outside]:
        address = ip_address(text)
        assert nets.contains(address) is expected, text
        if isinstance(address, IPv6Address):
            halves = np.array([int(address) >> 64], np.uint64), np.array([int(address) & (1 << 64) - 1], np.uint64)
            assert nets.contains6(*halves).tolist() == [expected], text
        else:
            assert nets.contains4(np.array([int(address)], np.uint32)).tolist() == [expected], text


def test_covering_is_the_longest_prefix() -> None:
    nets = Nets.of(["10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/24", "fd00::/8", "fd00::/16"])
    assert nets.covering(ip_address("10.1.0.5")) == ip_network("10.1.0.0/24")
    assert nets.covering(ip_address("10.1.1.5")) == ip_network("10.1.0.0/16")
    assert nets.covering(ip_address("10.2.0.0")) == ip_network("10.0.0.0/8")
    assert nets.covering(ip_address("11.0.0.0")) is None
    assert nets.covering(ip_address("fd00::1")) == ip_network("fd00::/16")
    assert nets.covering(ip_address("fd01::1")) == ip_network("fd00::/8")
    assert nets.covering(ip_address("fe00::")) is None


def test_bulk_membership_equals_membership_one_by_one() -> None:
    rng = np.random.default_rng(1)
    nets = Nets.of(
        f"{a}.{b}.0.0/{length}" for a, b, length in rng.integers([0, 0, 4], [256, 256, 20], (200, 3)).tolist()
    )
    addresses = rng.integers(0, 2**32, 500, dtype=np.uint32)
    expected = [any(ip_address(int(value)) in net for net in nets) for value in addresses[:50]]
    assert nets.contains4(addresses)[:50].tolist() == expected
    assert nets.contains4(addresses).tolist() == [nets.contains(ip_address(int(value))) for value in addresses]
