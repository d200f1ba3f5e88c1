"""The parts of rules: names within the length limit, any number of ports, comments of any length."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.backends.iptables.entry_rules import comments
from enforcer.backends.iptables.match import PortTest, SetRegistry, match_of, port_matches
from enforcer.backends.iptables.rules import (
    COMMENT_LENGTH,
    PORT_SLOTS,
    Comment,
    Log,
    PortsMatch,
    Rule,
)
from enforcer.backends.netfilter.names import CHAIN_LENGTH, SET_LENGTH, ChainKind, chain_name, scratch_name, set_name
from enforcer.model.vocabulary import Action, Side
from enforcer.policy.resources import PortRange
from enforcer.policy.ruletable import PortSet, RuleTable
from tests.support.entries import SideMatch, entry_of


def ports(*numbers: int | tuple[int, int]) -> tuple[PortRange, ...]:
    return tuple(PortRange(item, item) if isinstance(item, int) else PortRange(*item) for item in numbers)


# --- names ----------------------------------------------------------------------------------------


@given(st.sampled_from(ChainKind), st.text("abc-/", min_size=1, max_size=15), st.text("abc-", max_size=260))
def test_chain_names_fit_and_are_stable(kind: ChainKind, interface: str, tier: str) -> None:
    name = chain_name(kind, interface, tier)
    assert len(name) <= CHAIN_LENGTH
    assert name == chain_name(kind, interface, tier)


def test_long_names_that_differ_at_the_end_stay_apart() -> None:
    first, second = (chain_name(ChainKind.TIER_IN, "eth0", "x" * 40 + end) for end in "ab")
    assert first != second


@pytest.mark.parametrize("version", [4, 6])
def test_set_names_fit_and_show_whose_they_are(version: int) -> None:
    name = set_name(version, b"s:some-selector")
    assert name.startswith(f"enf{version}-")
    assert scratch_name(name).startswith(f"enf{version}-")
    assert len(scratch_name(name)) <= SET_LENGTH
    assert scratch_name(name) != name


# --- ports ----------------------------------------------------------------------------------------

port_ranges = st.builds(
    lambda one, other: PortRange(min(one, other), max(one, other)), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)
)
single_ports = st.builds(lambda port: PortRange(port, port), st.integers(0, 0xFFFF))


def holds(matches: tuple[PortsMatch, ...], port: int) -> bool:
    return all(any(port in item for item in match.ports) != match.inverted for match in matches)


@given(st.lists(port_ranges | single_ports, min_size=1, max_size=50), st.data())
def test_port_matches_hold_for_exactly_the_ports_of_the_list(listed: list[PortRange], data: st.DataObject) -> None:
    matches = port_matches(Side.SOURCE, listed)
    assert matches
    edges = {edge for item in listed for edge in (item.first - 1, item.first, item.last, item.last + 1)}
    for port in {*edges, 0, 0xFFFF, data.draw(st.integers(0, 0xFFFF))} - {-1, 0x10000}:
        assert holds(matches, port) == any(port in item for item in listed)
    for match in matches:
        assert 0 < sum(1 if item.first == item.last else 2 for item in match.ports) <= PORT_SLOTS


@pytest.mark.parametrize(("count", "rules"), [(0, 0), (15, 1), (16, 2)], ids=["none", "as many as fit", "one more"])
def test_ports_beyond_the_slots_of_one_match(count: int, rules: int) -> None:
    assert len(port_matches(Side.SOURCE, ports(*range(10, 10 + 3 * count, 3)))) == (rules if count < 16 else 3)


lists_of_ports = st.lists(port_ranges | single_ports, max_size=20).map(tuple)
lists_of_names = st.lists(st.sampled_from(["n:web", "n:admin"]), max_size=2, unique=True).map(tuple)
ADDRESS = ip_address("10.0.0.1")
NAMED = {"n:web": (80, 443), "n:admin": (443, 8443)}  # a port may have two names
PORT_SETS = {name: PortSet(name, name, 6, tuple((ADDRESS, port) for port in given)) for name, given in NAMED.items()}


@given(
    st.builds(
        SideMatch,
        ports=lists_of_ports,
        not_ports=lists_of_ports,
        named_ports=lists_of_names,
        not_named_ports=lists_of_names,
    ),
    st.sampled_from(Action),
    st.sampled_from([0, 79, 80, 443, 8443, 0xFFFF]) | st.integers(0, 0xFFFF),
)
def test_alternatives_hold_for_the_ports_wanted_and_for_log_only_one_does(
    wanted: SideMatch, action: Action, port: int
) -> None:
    sets = SetRegistry()
    entry = entry_of("e", action, protocol=6, destination=wanted)
    found = match_of(entry, RuleTable("eth0", port_sets=PORT_SETS), 4, sets)
    members = {spec.name: {item.port for item in spec.ports} for spec in sets.specs()}

    def held(test: PortTest) -> bool:
        names = [(port in members[match.set_name]) != match.inverted for match in test.names]
        return holds(test.numbers, port) and all(names)

    def among(ranges: tuple[PortRange, ...], names: tuple[str, ...]) -> bool:
        return any(port in item for item in ranges) or any(port in NAMED[name] for name in names)

    on_ports = bool(wanted.ports or wanted.named_ports)
    expected = (not on_ports or among(wanted.ports, wanted.named_ports)) and not among(
        wanted.not_ports, wanted.not_named_ports
    )
    holding = [held(test) for test in found.ports]
    assert any(holding) == expected
    assert action is not Action.LOG or sum(holding) == expected
    numbers = [match for test in found.ports for match in test.numbers]
    assert not numbers or found.ports[0].numbers, "the first alternative has a number if any does"


# --- texts ----------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=600))
def test_a_comment_of_any_length_is_read_back_whole(text: str) -> None:
    matches = comments(text)
    assert Rule(Log("x"), matches=tuple(matches)).comment == text
    assert all(isinstance(item, Comment) and len(item.text.encode()) <= COMMENT_LENGTH for item in matches)
