"""The XDP backend's pure half: the rendered tries answer what walking the entries would, and diffs are the smallest."""

from __future__ import annotations

import struct
import time
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from enforcer.backends.xdp.apply import Difference, difference
from enforcer.backends.xdp.eligible import why_not
from enforcer.backends.xdp.layout import quoted
from enforcer.backends.xdp.render import MapContent, render
from enforcer.plan import InterfacePlan, PlannedEntry
from enforcer.policy.nets import Nets
from enforcer.policy.resources import TCP, UDP, Failsafe, IcmpMatch, PortRange
from enforcer.policy.ruletable import AddressMatch, Entry, IpSet, RuleTable
from enforcer.words import Action, Backend, Direction, Mode, Stage

Net = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


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
    planned = tuple(PlannedEntry(entry, Stage.DRIVER) for entry in entries)
    return InterfacePlan(table, Mode.NATIVE, Backend.IPTABLES, planned)


def deny(name: str, *nets: str, ip_version: int | None = None, ip_set: str | None = None) -> Entry:
    source = AddressMatch(nets=tuple(ip_network(net) for net in nets), ip_set=ip_set)
    return Entry(name, Action.DENY, ip_version=ip_version, source=source)


def elements(content: MapContent) -> dict[Net, int]:
    """A deny trie as a person would write it down."""
    found: dict[Net, int] = {}
    for key, value in content.items():
        (length,) = struct.unpack_from("=I", key)
        found[ip_network((key[4:], length))] = struct.unpack("=I", value)[0]
    return found


def lookup(content: MapContent, address: Address) -> int | None:
    """What the kernel's LPM trie answers: the value of the longest prefix."""
    matching = [(net.prefixlen, value) for net, value in elements(content).items() if address in net]
    return max(matching)[1] if matching else None


# -- which entries -------------------------------------------------------------------------------------------------

ANY = AddressMatch()
PORT = (PortRange(53, 53),)
NETS = (ip_network("10.0.0.0/8"),)


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(deny("a set", ip_set="s:1"), id="a set"),
        pytest.param(deny("nets", "10.0.0.0/8", "192.0.2.0/24"), id="nets"),
        pytest.param(deny("all sources"), id="all sources"),
        pytest.param(deny("one family", ip_version=4), id="one family"),
    ],
)
def test_xdp_decides_denials_by_source(entry: Entry) -> None:
    assert why_not(entry) == ""


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (Entry("e", Action.ALLOW), "XDP only drops; the action is Allow"),
        (Entry("e", Action.LOG), "XDP only drops; the action is Log"),
        (Entry("e", Action.PASS), "XDP only drops; the action is Pass"),
        (Entry("e", Action.DENY, direction=Direction.EGRESS), "XDP sees received packets only"),
        (Entry("e", Action.DENY, protocol=UDP), "matches on protocol"),
        (Entry("e", Action.DENY, not_protocol=UDP), "matches on protocol"),
        (Entry("e", Action.DENY, icmp=IcmpMatch(8)), "matches on ICMP type"),
        (Entry("e", Action.DENY, not_icmp=IcmpMatch(8)), "matches on ICMP type"),
        (Entry("e", Action.DENY, source=AddressMatch(ports=PORT)), "matches on source port"),
        (Entry("e", Action.DENY, source=AddressMatch(not_ports=PORT)), "matches on source port"),
        (Entry("e", Action.DENY, destination=AddressMatch(ports=PORT)), "matches on destination port"),
        (Entry("e", Action.DENY, destination=AddressMatch(not_ports=PORT)), "matches on destination port"),
        (Entry("e", Action.DENY, destination=AddressMatch(nets=NETS)), "matches on destination address"),
        (Entry("e", Action.DENY, destination=AddressMatch(not_nets=NETS)), "matches on destination address"),
        (Entry("e", Action.DENY, destination=AddressMatch(ip_set="s:1")), "matches on destination address"),
        (Entry("e", Action.DENY, destination=AddressMatch(not_ip_set="s:1")), "matches on destination address"),
        (Entry("e", Action.DENY, source=AddressMatch(not_nets=NETS)), "matches on sources outside of nets"),
        (Entry("e", Action.DENY, source=AddressMatch(not_ip_set="s:1")), "matches on sources outside of a set"),
        (
            Entry("e", Action.DENY, source=AddressMatch(nets=NETS, ip_set="s:1")),
            "matches on sources that are in nets and in a set",
        ),
    ],
)
def test_xdp_says_why_it_cannot_decide_the_others(entry: Entry, reason: str) -> None:
    assert why_not(entry) == reason


# -- the deny tries ------------------------------------------------------------------------------------------------


def test_a_covered_prefix_has_the_entry_of_the_one_that_covers_it_when_that_comes_first() -> None:
    table = render(plan_of([deny("first", "10.0.0.0/8"), deny("second", "10.1.0.0/16", "192.0.2.0/24")]))
    assert table.entries == ("first", "second")
    assert elements(table.deny4) == {
        ip_network("10.0.0.0/8"): 0,
        ip_network("10.1.0.0/16"): 0,
        ip_network("192.0.2.0/24"): 1,
    }


def test_a_covered_prefix_keeps_its_own_entry_when_that_comes_first() -> None:
    table = render(plan_of([deny("first", "10.1.0.0/16"), deny("second", "10.0.0.0/8")]))
    assert elements(table.deny4) == {ip_network("10.0.0.0/8"): 1, ip_network("10.1.0.0/16"): 0}


def test_no_source_match_means_every_source_of_the_entrys_families() -> None:
    everywhere4, everywhere6 = {ip_network("0.0.0.0/0"): 0}, {ip_network("::/0"): 0}
    both = render(plan_of([deny("e")]))
    assert (elements(both.deny4), elements(both.deny6)) == (everywhere4, everywhere6)
    four = render(plan_of([deny("e", ip_version=4)]))
    assert (elements(four.deny4), elements(four.deny6)) == (everywhere4, {})
    six = render(plan_of([deny("e", ip_version=6)]))
    assert (elements(six.deny4), elements(six.deny6)) == ({}, everywhere6)


def test_an_entry_of_one_family_takes_only_that_family_of_its_set() -> None:
    sets = {"s:1": Nets.of(["10.0.0.0/8", "2001:db8::/32"])}
    six = render(plan_of([deny("e", ip_set="s:1", ip_version=6)], sets))
    assert (elements(six.deny4), elements(six.deny6)) == ({}, {ip_network("2001:db8::/32"): 0})


def test_an_empty_set_is_an_empty_trie() -> None:
    table = render(plan_of([deny("e", ip_set="s:1")], {"s:1": Nets()}))
    assert (len(table.deny4), len(table.deny6), table.entries) == (0, 0, ("e",))


def test_ipv6_can_be_left_alone() -> None:
    table = render(plan_of([deny("four", "10.0.0.0/8"), deny("six", "2001:db8::/32")]), ipv6=False)
    assert (len(table.deny4), len(table.deny6)) == (1, 0)


def test_keys_and_values_are_laid_out_as_abi_h_says() -> None:
    table = render(plan_of([deny("zero", "192.0.2.0/24"), deny("one", "10.1.2.3/32", "2001:db8::1/128")][::-1]))
    assert struct.pack("=I", 32) + bytes([10, 1, 2, 3]) in table.deny4.keys
    assert table.deny6.keys == struct.pack("=I", 128) + ip_address("2001:db8::1").packed
    assert table.deny6.values == struct.pack("=I", 0)


def families() -> st.SearchStrategy[Net]:
    """Prefixes that nest often: few bits differ, the lengths are spread."""
    four = st.builds(
        lambda value, length: ip_network((value << 24, length), strict=False), st.integers(0, 7), st.integers(0, 32)
    )
    six = st.builds(
        lambda value, length: ip_network((0x2001 << 112 | value << 64, length), strict=False),
        st.integers(0, 7),
        st.sampled_from([0, 16, 32, 48, 61, 62, 63, 64, 65, 128]),
    )
    return st.one_of(four, six)


LISTS = st.lists(st.lists(families(), max_size=6), max_size=4)


@given(LISTS)
@example([[ip_network("0.0.0.0/0")], [ip_network("0.0.0.0/32")]])
def test_the_tries_answer_the_first_entry_that_walking_them_would(lists: list[list[Net]]) -> None:
    sets = {f"s:{number}": Nets.of(nets) for number, nets in enumerate(lists)}
    table = render(plan_of([deny(name, ip_set=name) for name in sets], sets))
    for address in interesting(lists):
        walked = next((at for at, nets in enumerate(lists) if any(address in net for net in nets)), None)
        content = table.deny4 if address.version == 4 else table.deny6
        assert lookup(content, address) == walked, address


def interesting(lists: list[list[Net]]) -> set[Address]:
    """The first and last address of every net, and their neighbours outside."""
    found: set[Address] = {ip_address("0.0.0.0"), ip_address("255.255.255.255"), ip_address("::")}
    for net in (net for nets in lists for net in nets):
        kind = type(net.network_address)
        first, last = int(net.network_address), int(net.broadcast_address)
        found |= {kind(value) for value in (first, last, first - 1, last + 1) if 0 <= value < 1 << net.max_prefixlen}
    return found


@given(LISTS)
def test_no_prefix_is_invented_lost_or_repeated(lists: list[list[Net]]) -> None:
    sets = {f"s:{number}": Nets.of(nets) for number, nets in enumerate(lists)}
    table = render(plan_of([deny(name, ip_set=name) for name in sets], sets))
    listed = {net for nets in lists for net in nets}
    assert set(elements(table.deny4)) | set(elements(table.deny6)) == listed
    assert len(table.deny4) + len(table.deny6) == len(listed)


def test_a_hundred_thousand_prefixes_in_two_entries_take_less_than_a_second() -> None:
    rng = np.random.default_rng(1)
    length = rng.integers(16, 33, 100_000).astype(np.uint64)
    network = rng.integers(0, 1 << 32, 100_000, np.uint64) >> (np.uint64(32) - length) << (np.uint64(32) - length)
    key = np.unique(network << np.uint64(8) | length)
    nets = Nets((key >> np.uint64(8)).astype(np.uint32), (key & np.uint64(255)).astype(np.uint8))
    plan = plan_of([deny("a", ip_set="s:1"), deny("b", "10.0.0.0/8")], {"s:1": nets})
    begin = time.perf_counter()
    table = render(plan)
    assert time.perf_counter() - begin < 1
    assert len(table.deny4) >= len(nets)


# -- failsafes -----------------------------------------------------------------------------------------------------


def test_failsafes_are_kept_by_side_and_with_the_questions_left_when_ports_are_unknown() -> None:
    plan = plan_of([], inbound=(Failsafe(TCP, 22),), outbound=(Failsafe(UDP, 53, ip_network("10.0.0.0/8")),))
    keys = {key for key, _ in render(plan).failsafe.items()}
    assert keys == {
        bytes([0, 22, TCP, 0]),  # to port 22
        bytes([0, 53, UDP, 1]),  # from port 53, whatever the net
        bytes([0, 0, TCP, 2]),  # TCP with unknown ports
        bytes([0, 0, UDP, 2]),
        bytes([0, 0, 0, 2]),  # unknown protocol
    }


def test_no_failsafe_leaves_no_question() -> None:
    assert len(render(plan_of([])).failsafe) == 0


# -- difference ----------------------------------------------------------------------------------------------------


def content(elements: dict[bytes, bytes]) -> MapContent:
    return MapContent(1, 1, b"".join(elements), b"".join(elements.values()))


def test_a_difference_adds_changes_and_removes_only_what_it_must() -> None:
    change = difference("deny4", {b"a": b"0", b"b": b"0", b"c": b"0"}, content({b"a": b"0", b"b": b"1", b"d": b"0"}))
    assert change == Difference("deny4", ((b"b", b"1"), (b"d", b"0")), (b"c",), changed=1)
    assert change.added == 1


ELEMENTS = st.dictionaries(st.binary(min_size=1, max_size=1), st.binary(min_size=1, max_size=1))


@given(ELEMENTS, ELEMENTS)
def test_a_difference_leads_from_what_there_is_to_what_is_wanted(
    actual: dict[bytes, bytes], wanted: dict[bytes, bytes]
) -> None:
    change = difference("deny4", actual, content(wanted))
    result = {key: value for key, value in (actual | dict(change.put)).items() if key not in change.removed}
    assert result == wanted
    assert difference("deny4", result, content(wanted)) == Difference("deny4")


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("interface", "name"), [("eth0", "eth0"), ("eth0.100", "eth0%2E100"), ("a%b", "a%25b")])
def test_interface_names_become_names_that_bpffs_takes(interface: str, name: str) -> None:
    assert quoted(interface) == name
