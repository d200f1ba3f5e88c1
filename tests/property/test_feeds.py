"""Feeds: the canonical form has the same addresses, and a refresh changes few sets."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.feeds.canonical import Protected, aggregated, size_of, without
from enforcer.feeds.chunks import Part, chunks, name_of, part_of
from enforcer.lists.entry import BITS, Network
from tests.support.examples import examples

# Networks of a few addresses each, at both ends of either family, so that they touch, nest and are siblings.
_WIDTH = 7  # bits


def networks(version: int) -> st.SearchStrategy[Network]:
    bits = BITS[version]
    top = ((1 << bits) - 1) >> _WIDTH << _WIDTH

    @st.composite
    def one(draw: st.DrawFn) -> Network:
        host = draw(st.integers(0, _WIDTH))
        begin = draw(st.sampled_from([0, top])) | draw(st.integers(0, (1 << _WIDTH) - 1)) >> host << host
        return version, begin, bits - host

    return one()


some = st.lists(networks(4) | networks(6), max_size=40)


def addresses(of: list[Network]) -> set[tuple[int, int]]:
    return {(version, value + at) for version, value, length in of for at in range(1 << (BITS[version] - length))}


@given(some)
@settings(max_examples=examples(100, nightly=20_000))
def test_the_canonical_form_has_the_same_addresses_and_is_the_shortest(given_networks: list[Network]) -> None:
    found = aggregated(given_networks)
    assert addresses(found) == addresses(given_networks)
    assert len(found) <= len(set(given_networks))
    assert aggregated(reversed(found)) == found == sorted(found)
    assert sum(1 << (BITS[version] - length) for version, _, length in found) == len(addresses(found))
    for version, value, length in found:  # no sibling is there: the two would be one
        sibling = (version, value ^ 1 << (BITS[version] - length), length)
        assert length == 0 or sibling not in found
    assert size_of(found).addresses4 == sum(version == 4 for version, _ in addresses(found))


@given(some, some)
@settings(max_examples=examples(100, nightly=20_000))
def test_what_is_protected_is_taken_out_and_nothing_else(given_networks: list[Network], safe: list[Network]) -> None:
    protected = [Protected(network, "safe") for network in safe]
    kept, taken = without(given_networks, protected)
    assert addresses(kept) == addresses(given_networks) - addresses(safe)
    assert all(addresses([item.network]) & addresses([item.because.network]) for item in taken)
    assert {item.network for item in taken} == {item for item in given_networks if addresses([item]) & addresses(safe)}
    outermost = [
        item for item in safe if not any(other != item and addresses([item]) <= addresses([other]) for other in safe)
    ]
    assert {item.because.network for item in taken} == {
        item for item in outermost if addresses([item]) & addresses(given_networks)
    }


_MOST, _FEW = 8, 4


@st.composite
def wide(draw: st.DrawFn) -> set[Network]:
    """Hosts that have few distinct beginnings, so that sets are cut several times."""
    bytes_of = st.sampled_from([0, 1, 16, 17, 200, 255])
    rows = draw(st.lists(st.tuples(bytes_of, bytes_of, bytes_of, bytes_of), max_size=120))
    return {(4, int.from_bytes(bytes(row), "big"), 32) for row in rows}


@given(wide(), st.lists(wide(), max_size=4))
@settings(max_examples=examples(100, nightly=20_000))
def test_a_refresh_changes_few_sets(first: set[Network], later: list[set[Network]]) -> None:
    held = chunks(first, most=_MOST, few=_FEW)
    before = first
    for now in later:
        found = chunks(now, held.keys(), most=_MOST, few=_FEW)
        changed = sum(found.get(part) != held.get(part) for part in found.keys() | held.keys())
        assert changed <= 17 * len(before ^ now)
        held, before = found, now


@given(st.lists(wide(), min_size=1, max_size=4))
@settings(max_examples=examples(100, nightly=20_000))
def test_each_network_is_in_one_set_that_is_not_too_large(lists: list[set[Network]]) -> None:
    held: dict[Part, list[Network]] = {}
    for now in lists:
        held = {part: list(rows) for part, rows in chunks(now, held.keys(), most=_MOST, few=_FEW).items()}
        assert sorted(network for rows in held.values() for network in rows) == sorted(now)
        assert all(1 <= len(rows) <= _MOST for rows in held.values())
        for part, rows in held.items():
            assert all(f"{value:08x}".startswith(part.digits) for _, value, _ in rows)


@given(
    st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True),
    st.sampled_from([4, 6]),
    st.text("0123456789abcdef", max_size=8),
)
@settings(max_examples=examples(100, nightly=20_000))
def test_the_name_of_a_set_says_its_feed_and_its_part(feed: str, version: int, digits: str) -> None:
    name = name_of(feed, Part(version, digits))
    assert part_of(feed, name) == Part(version, digits)
    assert part_of(f"{feed}x", name) is None
