"""The CIDRs and sources of the benchmark are as documented."""

from __future__ import annotations

import numpy as np
import pytest

from bench.cidrs import POOL, misses4, nets4, nets6, sources4, sources6


@pytest.mark.parametrize("count", [1, 100, 10_000])
def test_as_many_distinct_cidrs_as_requested_and_the_same_every_time(count: int) -> None:
    nets = nets4(count)
    assert len(np.unique(nets.net4.astype(np.uint64) << np.uint64(8) | nets.len4)) == count
    assert (nets4(count).net4 == nets.net4).all()
    assert nets.len4.min() >= 16


@pytest.mark.parametrize("clustered", [False, True])
def test_ipv6_cidrs_lie_where_they_should(clustered: bool) -> None:
    nets = nets6(1_000, clustered=clustered)
    assert len(nets.net6) == 1_000
    first = nets.net6[:, 0] >> np.uint64(32 if clustered else 61)
    assert set(first.tolist()) == {0x20010DB8 if clustered else 1}


def test_sources_are_listed_and_misses_are_not() -> None:
    nets = nets4(1_000)
    assert nets.contains4(sources4(nets)).all()
    found = misses4(nets)
    assert len(found) == POOL
    assert not nets.contains4(found).any()


def test_ipv6_sources_are_listed() -> None:
    nets = nets6(100)
    networks = {(int(high), int(low), int(length)) for (high, low), length in zip(nets.net6, nets.len6, strict=True)}
    lengths = {length for _, _, length in networks}
    for high, low in sources6(nets)[:200].tolist():
        address = high << 64 | low
        prefixes = {(address >> 128 - length << 128 - length, length) for length in lengths}
        assert any((net >> 64, net & (1 << 64) - 1, length) in networks for net, length in prefixes)
