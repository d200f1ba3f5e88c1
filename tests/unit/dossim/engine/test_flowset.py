"""Flows are counted once each, by the kind of their first packet, up to as many as are kept."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dossim.engine.flowset import FlowSet

KINDS = 3
PACKETS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, KINDS - 1)), max_size=60)


def keys_of(numbers: list[int]) -> np.ndarray:
    keys = np.zeros((len(numbers), 6), np.uint64)
    keys[:, 0], keys[:, 5] = numbers, [number % 3 for number in numbers]
    return keys


@given(st.lists(PACKETS, max_size=3), st.sampled_from((5, 1_000)))
def test_each_flow_counts_once(batches: list[list[tuple[int, int]]], most: int) -> None:
    flows, seen, counts, is_more = FlowSet(KINDS, most), set[int](), [0] * KINDS, False
    for batch in batches:
        flows.add(keys_of([number for number, _ in batch]), np.array([kind for _, kind in batch], np.uint8))
        for number, kind in batch:
            if number not in seen and len(seen) < most:
                seen.add(number)
                counts[kind] += 1
            is_more |= number not in seen
    assert (flows.counts.tolist(), flows.is_more) == (counts, is_more)


def test_many_flows_stay_apart() -> None:
    flows, count = FlowSet(1), 300_000
    keys = keys_of(list(range(count)))
    for _ in range(2):
        flows.add(keys, np.zeros(count, np.uint8))
    assert (flows.counts.tolist(), flows.is_more) == ([count], False)


def test_zeros_are_a_flow_as_any() -> None:
    flows = FlowSet(1)
    flows.add(np.zeros((2, 6), np.uint64), np.zeros(2, np.uint8))
    assert flows.counts.tolist() == [1]
