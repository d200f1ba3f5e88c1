"""The maps for a device: looking up one prefix length after the other gives the result of evaluating the entries."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from enforcer.backends.xdp import offload
from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.backends.xdp.offload import MAX_LENGTHS6, Filling, OffloadTable, TooManyLengthsError
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action, Backend, Mode, Stage
from enforcer.planning.plan import InterfacePlan, PlannedEntry
from enforcer.policy.resources import TCP, UDP, Failsafe
from enforcer.policy.ruletable import Entry, IpSet, RuleTable
from tests.support.entries import SideMatch, entry_of

RECEIVER = Receiver(bytes.fromhex("060000000001"))
Net = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def render_offload(plan: InterfacePlan, *, ipv6: bool = True) -> OffloadTable:
    return offload.render_offload(plan, receiver=RECEIVER, ipv6=ipv6)


def plan_of(
    entries: list[Entry],
    sets: dict[str, Nets] | None = None,
    *,
    inbound: tuple[Failsafe, ...] = (),
    outbound: tuple[Failsafe, ...] = (),
) -> InterfacePlan:
    table = RuleTable(
        "eth0",
        "hep",
        tuple(entries),
        failsafe_inbound=inbound,
        failsafe_outbound=outbound,
        sets={name: IpSet(name, "", nets) for name, nets in (sets or {}).items()},
    )
    planned = tuple(PlannedEntry(entry, Stage.NIC_OFFLOAD) for entry in entries)
    return InterfacePlan(table, Mode.OFFLOAD, Backend.IPTABLES, planned, held=len(entries))


def deny(name: str, *nets: str, ip_version: int | None = None, ip_set: str | None = None) -> Entry:
    source = SideMatch(nets=tuple(ip_network(net) for net in nets), ip_set=ip_set)
    return entry_of(name, Action.DENY, ip_version=ip_version, source=source)


def elements(filling: Filling) -> Iterator[tuple[bytes, bytes]]:
    key, value = (len(part) // max(1, filling.count) for part in (filling.keys, filling.values))
    for at in range(filling.count):
        yield filling.keys[at * key : at * key + key], filling.values[at * value : at * value + value]


def nets_of(filling: Filling) -> dict[Net, int]:
    """A deny map in readable form."""
    return {
        ip_network((key[4:], struct.unpack_from("=I", key)[0])): struct.unpack("=I", value)[0]
        for key, value in elements(filling)
    }


def lookup(table: OffloadTable, address: Address) -> int | None:
    """As the program does: for each length in order, look up the masked address."""
    deny_map = dict(elements(table.maps[f"deny{address.version}"]))
    for _, length in elements(table.maps[f"lengths{address.version}"]):
        masked = bytes(byte & mask for byte, mask in zip(address.packed, length[4:], strict=True))
        value = deny_map.get(length[:4] + masked)
        if value is not None:
            return int(struct.unpack("=I", value)[0])
    return None


# -- deny maps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "numbers"),
    [
        pytest.param("10.0.0.0/8", "10.1.0.0/16", (0, 0), id="the covering prefix comes first: its entry for both"),
        pytest.param("10.1.0.0/16", "10.0.0.0/8", (0, 1), id="the covered prefix comes first: each its own"),
        pytest.param("2001:db8::/32", "2001:db8:1::/48", (0, 0), id="IPv6, the covering one first"),
        pytest.param("2001:db8:1::/48", "2001:db8::/32", (0, 1), id="IPv6, the covered one first"),
    ],
)
def test_nested_prefixes_have_the_lowest_entry_that_covers_them(
    first: str, second: str, numbers: tuple[int, int]
) -> None:
    table = render_offload(plan_of([deny("first", first), deny("second", second)]))
    assert table.entries == ("first", "second")
    found = {**nets_of(table.maps["deny4"]), **nets_of(table.maps["deny6"])}
    assert found == dict(zip([ip_network(first), ip_network(second)], numbers, strict=True))


def test_no_source_match_means_every_source_of_the_entrys_families() -> None:
    everywhere = {4: {ip_network("0.0.0.0/0"): 0}, 6: {ip_network("::/0"): 0}}
    for version, families in ((None, (4, 6)), (4, (4,)), (6, (6,))):
        maps = render_offload(plan_of([deny("e", ip_version=version)])).maps
        assert [nets_of(maps[f"deny{family}"]) for family in (4, 6)] == [
            everywhere[family] if family in families else {} for family in (4, 6)
        ]


def test_an_entry_of_one_family_takes_only_that_family_of_its_set() -> None:
    sets = {"s:1": Nets.of(["10.0.0.0/8", "2001:db8::/32"])}
    maps = render_offload(plan_of([deny("e", ip_set="s:1", ip_version=6)], sets)).maps
    assert (nets_of(maps["deny4"]), nets_of(maps["deny6"])) == ({}, {ip_network("2001:db8::/32"): 0})


def test_ipv6_can_be_left_alone() -> None:
    maps = render_offload(plan_of([deny("four", "10.0.0.0/8"), deny("six", "2001:db8::/32")]), ipv6=False).maps
    assert (maps["deny4"].count, maps["deny6"].count) == (1, 0)


# -- lengths -------------------------------------------------------------------------------------------------------


def test_lengths_are_those_that_occur_the_longest_first_with_their_masks() -> None:
    maps = render_offload(plan_of([deny("e", "10.0.0.0/8", "10.1.0.0/31", "11.0.0.0/8", "::/0", "2001:db8::/65")])).maps
    assert list(elements(maps["lengths4"])) == [
        (struct.pack("=I", 0), struct.pack("=I", 31) + bytes([255, 255, 255, 254])),
        (struct.pack("=I", 1), struct.pack("=I", 8) + bytes([255, 0, 0, 0])),
    ]
    assert list(elements(maps["lengths6"])) == [
        (struct.pack("=I", 0), struct.pack("=I", 65) + b"\xff" * 8 + b"\x80" + bytes(7)),
        (struct.pack("=I", 1), struct.pack("=I", 0) + bytes(16)),
    ]


def test_without_prefixes_there_is_one_length_that_finds_nothing() -> None:
    table = render_offload(plan_of([deny("e", ip_set="s:1")], {"s:1": Nets()}))
    assert [table.maps[name].count for name in ("lengths4", "deny4", "lengths6", "deny6")] == [1, 0, 1, 0]
    assert lookup(table, ip_address("0.0.0.0")) is None


def test_more_ipv6_lengths_than_there_is_room_for_are_refused() -> None:
    nets = [f"::/{length}" for length in range(MAX_LENGTHS6 + 1)]
    assert render_offload(plan_of([deny("e", *nets[1:])])).maps["lengths6"].count == MAX_LENGTHS6
    with pytest.raises(TooManyLengthsError, match="eth0: IPv6 sources of 33 different prefix lengths"):
        render_offload(plan_of([deny("e", *nets)]))


# -- properties ----------------------------------------------------------------------------------------------------


def prefixes() -> st.SearchStrategy[Net]:
    """Prefixes that often nest: few bits differ, the lengths vary."""
    four = st.builds(
        lambda value, length: ip_network((value << 24, length), strict=False), st.integers(0, 7), st.integers(0, 32)
    )
    six = st.builds(
        lambda value, length: ip_network((0x2001 << 112 | value << 64, length), strict=False),
        st.integers(0, 7),
        st.sampled_from([0, 16, 32, 48, 61, 62, 63, 64, 65, 128]),
    )
    return st.one_of(four, six)


@given(st.lists(st.lists(prefixes(), max_size=6), max_size=4))
@example([[ip_network("0.0.0.0/0")], [ip_network("0.0.0.0/32")]])
def test_the_lookups_answer_the_first_entry_that_walking_them_would(lists: list[list[Net]]) -> None:
    sets = {f"s:{number}": Nets.of(nets) for number, nets in enumerate(lists)}
    table = render_offload(plan_of([deny(name, ip_set=name) for name in sets], sets))
    for address in interesting(lists):
        walked = next((at for at, nets in enumerate(lists) if any(address in net for net in nets)), None)
        assert lookup(table, address) == walked, address


def interesting(lists: list[list[Net]]) -> set[Address]:
    """The first and last address of every net, and the adjacent ones outside."""
    found: set[Address] = {ip_address("0.0.0.0"), ip_address("255.255.255.255"), ip_address("::")}
    for net in (net for nets in lists for net in nets):
        kind = type(net.network_address)
        first, last = int(net.network_address), int(net.broadcast_address)
        found |= {kind(value) for value in (first, last, first - 1, last + 1) if 0 <= value < 1 << net.max_prefixlen}
    return found


def test_a_hundred_thousand_prefixes_in_two_entries() -> None:
    rng = np.random.default_rng(1)
    length = rng.integers(16, 33, 100_000).astype(np.uint64)
    network = rng.integers(0, 1 << 32, 100_000, np.uint64) >> (np.uint64(32) - length) << (np.uint64(32) - length)
    key = np.unique(network << np.uint64(8) | length)
    nets = Nets((key >> np.uint64(8)).astype(np.uint32), (key & np.uint64(255)).astype(np.uint8))
    plan = plan_of([deny("a", ip_set="s:1"), deny("b", "10.0.0.0/8")], {"s:1": nets})
    assert render_offload(plan).maps["deny4"].count >= len(nets)


# -- settings and failsafes ----------------------------------------------------------------------------------------


def test_the_address_stands_in_a_map() -> None:
    settings = render_offload(plan_of([])).maps["settings"]
    assert list(elements(settings)) == [(bytes(4), RECEIVER.address + bytes(2))]


def test_failsafes_are_kept_by_side_and_with_the_questions_left_when_ports_are_unknown() -> None:
    plan = plan_of([], inbound=(Failsafe(TCP, 22),), outbound=(Failsafe(UDP, 53, ip_network("10.0.0.0/8")),))
    assert {key for key, _ in elements(render_offload(plan).maps["failsafe"])} == {
        bytes([0, 22, TCP, 0]),  # to port 22
        bytes([0, 53, UDP, 1]),  # from port 53, whatever the net
        bytes([0, 0, TCP, 2]),  # TCP with unknown ports
        bytes([0, 0, UDP, 2]),
        bytes([0, 0, 0, 2]),  # unknown protocol
    }


def test_no_failsafe_leaves_no_question() -> None:
    assert render_offload(plan_of([])).maps["failsafe"].count == 0
