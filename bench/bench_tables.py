"""How long address tables take to build and change, and their size: ``.venv/bin/python -m bench.bench_tables``.

Wall-clock time in one process, without a kernel: arrays take the place of maps. Prefixes are of /24 to /32 (IPv4), and
of the usual lengths from /32 on, an eighth of them addresses (IPv6): ``mixed`` all over 2000::/4, ``clustered`` within
one /32. ``one CIDR`` adds or removes one of /16 to /32 (/48 to /128): the median of 200, with the CPU caches full of
the new set.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bench.bench_compile import nets as nets4
from enforcer.backends.xdp.tables.classes import Classified, classify
from enforcer.backends.xdp.tables.format import PAGE_WORDS
from enforcer.backends.xdp.tables.image4 import Image4, build4, read4
from enforcer.backends.xdp.tables.image6 import Image6, build6, read6
from enforcer.backends.xdp.tables.live import Arrays, Changed, Live
from enforcer.model.nets import Nets

T = TypeVar("T")

FOUR = (100, 10_000, 100_000, 1_000_000, 10_000_000)
SIX = (100_000, 1_000_000)


def nets6(seed: int, count: int, *, clustered: bool) -> Nets:
    """Distinct prefixes of the usual lengths."""
    rng = np.random.default_rng(seed)
    lengths = (48, 56, 56, 60, 64, 64, 64, 128) if clustered else (32, 40, 44, 48, 48, 56, 64, 128)
    length = rng.choice(np.array(lengths, np.uint8), size=count)
    high = rng.integers(0, 1 << (32 if clustered else 60), size=count, dtype=np.uint64)
    high |= np.uint64(0x20010DB8 << 32 if clustered else 2 << 60)
    shift = np.where(length < 64, 64 - length, 0).astype(np.uint64)
    high = high >> shift << shift
    low = np.where(length == 128, rng.integers(0, 1 << 63, size=count, dtype=np.uint64), np.uint64(0))
    return Nets.union([Nets(net6=np.column_stack([high, low]), len6=length), Nets()])


def timed(work: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def arrays_of(image4: Image4, image6: Image6) -> Arrays:
    """The tables with room for half as many again, as the backend creates them in the kernel."""

    def longer(array: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        result = np.zeros(-(-len(array) * 3 // 2 // PAGE_WORDS) * PAGE_WORDS, np.uint32)
        result[: len(array)] = array
        return result

    nodes = np.concatenate([image6.nodes, np.zeros(max(1024, len(image6.nodes) // 2), image6.nodes.dtype)])
    return Arrays(
        image4.sieve,
        image4.root,
        longer(image4.lists),
        image6.root,
        nodes,
        longer(image6.buckets),
        longer(image6.lists),
    )


def median_change_us(live: Live, nets: Nets, changes: list[Nets]) -> float:
    """Microseconds to add one CIDR, or to remove it again."""
    found = []
    for one in changes:
        more = Nets.union([nets, one])
        for after in (more, nets):
            change = {"a": Changed(after, one)}
            # For mypy: a lambda with a default
            spent, _ = timed(lambda change=change: live.change(change, new_class=_no_rows, fence=_no_fence))  # type: ignore[misc]
            found.append(spent)
            live.release()
    return float(np.median(found)) * 1e6


def _no_rows(number: int, members: frozenset[str]) -> None:
    """There are no rows to write here."""


def _no_fence() -> None:
    """There are no readers here."""


def report(name: str, nets: Nets, singles: list[Nets]) -> None:
    classify_s, found = timed(lambda: classify({"a": nets}))
    build4_s, image4 = timed(lambda: build4(found.segments4))
    build6_s, image6 = timed(lambda: build6(found.segments6))
    arrays = arrays_of(image4, image6)
    read_s, _ = timed(lambda: _read(arrays))
    live = Live(arrays, found.members)
    print(
        f"{name:24} {len(nets):>10,} CIDRs: classify {classify_s:7.3f} s, build {build4_s + build6_s:6.3f} s, "
        f"read back {read_s:6.3f} s, {_size(found, image4, image6) / 1e6:7.2f} MB, "
        f"one CIDR {median_change_us(live, nets, singles[: 20 if len(nets) > 2_000_000 else 100]):5.0f} µs"
    )


def _read(arrays: Arrays) -> None:
    read4(arrays.root4, arrays.lists4)
    read6(arrays.root6, arrays.nodes6, arrays.buckets6, arrays.lists6)


def _size(found: Classified, image4: Image4, image6: Image6) -> int:
    if len(found.segments4) > 1:
        return image4.sieve.nbytes + image4.root.nbytes + image4.lists.nbytes
    return sum(array.nbytes for array in (image6.root, image6.nodes, image6.buckets, image6.lists))


def main() -> None:
    rng = np.random.default_rng(5)
    four = [Nets.of([f"{rng.integers(1, 223)}.{rng.integers(256)}.3.7/{rng.integers(16, 33)}"]) for _ in range(100)]
    six = [Nets.of([f"2001:db8:{rng.integers(65536):x}:9::7/{rng.integers(48, 129)}"]) for _ in range(100)]
    for count in FOUR:
        report("IPv4", nets4(1, count), four)
    for count in SIX:
        for clustered in (False, True):
            report(f"IPv6 {'clustered' if clustered else 'mixed'}", nets6(1, count, clustered=clustered), six)


if __name__ == "__main__":
    main()
