"""Totals of parts, merged, are those of the whole, however it is divided."""

from __future__ import annotations

import random
from functools import reduce
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from dossim.drill.judged import every
from dossim.drill.run import predict_capture
from dossim.drill.situation import Situation
from dossim.drill.totals import Totals
from dossim.packet.capture import Capture
from enforcer.policy.resources import Resources
from tests.support.examples import examples
from tests.unit.dossim.test_judged import HOST, frame, pseudo_sum

KINDS = [
    frame(4, 6, None),
    frame(4, 6, 0x1234),
    frame(4, 17, 0),
    frame(4, 6, 0, sender=b"\2\0\0\0\0\1"),
    frame(6, 6, pseudo_sum(6, 6)),
    frame(4, 6, None)[:30],
    bytes(4),
]


def totals_of(frames: list[bytes]) -> Totals:
    capture = Capture.from_frames(frames)
    return predict_capture(capture, Situation(Resources(), HOST), recorded=every(capture)).totals


@settings(max_examples=examples(20, nightly=200))
@given(st.integers(0, 1 << 32), st.lists(st.integers(0, 60), max_size=5))
def test_parts_add_up_and_merge_in_any_grouping(seed: int, cuts: list[int]) -> None:
    frames = random.Random(seed).choices(KINDS, k=60)
    bounds = [0, *sorted(cuts), 60]
    parts = [totals_of(frames[start:end]) for start, end in pairwise(bounds)]
    from_left = reduce(Totals.merged, parts)
    from_right = reduce(lambda later, before: before.merged(later), reversed(parts))
    assert from_left == from_right == totals_of(frames)
    assert from_left.packets == 60
    assert from_left.merged(Totals()) == Totals().merged(from_left) == from_left


def test_what_is_shown_is_counted() -> None:
    found = totals_of(KINDS)
    assert found.stages() == {"ip-input": 1, "socket": 1, "delivered": 3}
    assert [count for _, count in found.open_reasons()] == [1, 1]
