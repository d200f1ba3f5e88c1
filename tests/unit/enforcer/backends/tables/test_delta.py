"""A few changed CIDRs: which they are, and the segments after them, compared with a sweep over everything."""

from __future__ import annotations

import random

import numpy as np
import pytest

from enforcer.backends.xdp.tables.classes import Segments4, classify
from enforcer.backends.xdp.tables.delta import few_changes, with_slots
from enforcer.backends.xdp.tables.image4 import Slots4, build4, decode4
from enforcer.model.nets import Nets
from tests.unit.enforcer.backends.tables import brute

LISTED = Nets.of(["10.1.0.0/24", "10.2.0.0/16", "2001:db8::/48"])


def test_what_was_added_and_what_was_removed() -> None:
    now = Nets.of(["10.1.0.0/24", "10.2.0.0/15", "192.0.2.1", "2001:db8::/48"])
    changes = few_changes({"a": LISTED, "b": LISTED}, {"a": now, "b": LISTED})
    assert changes is not None
    assert changes.keys() == {"a"}
    assert changes["a"].nets is now
    assert changes["a"].ranges == Nets.of(["10.2.0.0/16", "10.2.0.0/15", "192.0.2.1"])


def test_equal_lists_are_no_change() -> None:
    assert few_changes({"a": LISTED}, {"a": LISTED | Nets()}) == {}


@pytest.mark.parametrize(
    "now",
    [
        {"a": LISTED, "b": LISTED},
        {"b": LISTED},
        {"a": LISTED | Nets.of(["2001:db8:1::/48"])},
        {"a": LISTED | Nets.of([f"192.0.2.{number}" for number in range(65)])},
    ],
    ids=["another atom", "an atom gone", "IPv6", "more than a few"],
)
def test_what_a_sweep_is_for(now: dict[str, Nets]) -> None:
    assert few_changes({"a": LISTED}, now) is None


def _segments(cidrs: set[str]) -> Segments4:
    return classify({"a": Nets.of(sorted(cidrs))}, {frozenset(): 0, frozenset("a"): 1}).segments4


def _slots(segments: Segments4) -> Slots4:
    image = build4(segments)
    return decode4(image.root, image.lists, np.arange(1 << 16))


def _some(rng: random.Random) -> str:
    first, second, third = rng.choice((0, 10, 255)), rng.choice((0, 1, 2, 254, 255)), rng.choice((0, 7, 255))
    return f"{first}.{second}.{third}.0/{rng.choice((8, 15, 16, 20, 24, 24))}"


@pytest.mark.parametrize("seed", range(30))
def test_segments_with_some_slots_of_others_are_those_of_a_sweep(seed: int) -> None:
    rng = random.Random(seed)
    old, new = (_segments({_some(rng) for _ in range(rng.randint(1, 6))}) for _ in range(2))
    before, after = _slots(old), _slots(new)
    first, first_was = np.cumsum(after.count) - after.count, np.cumsum(before.count) - before.count
    differ = np.flatnonzero((after.count + before.count > 2) | (after.cls[first] != before.cls[first_was]))
    image = build4(new)
    assert brute.same(with_slots(old, decode4(image.root, image.lists, differ)), new)
