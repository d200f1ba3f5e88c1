"""``dossim suggest``: 1,000,000 packets of an attack and of a baseline: ``.venv/bin/python -m bench.bench_suggest``.

The cover alone (the engine: every budget to 10,240), then the whole suggestion with a limit of 0.1 % collateral, and
lists of the busiest networks for comparison. CPU time of the process, and its memory at most.
"""

from __future__ import annotations

import resource
import time
from ipaddress import ip_network

import numpy as np

from bench.attackers import sources, tally_of
from dossim.suggest.measure import Suggested, busiest, point
from dossim.suggest.solve import Problem, Solved
from dossim.suggest.suggest import INSTEAD, Wanted, suggest
from dossim.suggest.tally import Ranges, Tally, distinct

PACKETS = 1_000_000
BUDGET = 10_240
LIMIT = 0.001
SHOWN = (10, 100, 1_000, 10_240)


def main() -> None:
    attack, baseline = generated(PACKETS)
    protected = Ranges([ip_network("10.10.10.10/32")])
    print(f"{len(distinct(attack.key, baseline.key)):,} sources of {PACKETS:,} packets of each")
    problem = Problem(attack, baseline, protected)
    assert problem.parts
    started = time.process_time()
    with Solved(problem, BUDGET, 1.0) as solved:
        print(f"cover, every budget to {BUDGET:,}: {time.process_time() - started:.2f} s of CPU, {_memory()}")
        compare(solved, attack, baseline, protected)
    started = time.process_time()
    found = suggest(attack, baseline, Wanted(BUDGET, LIMIT, protected))
    print(f"suggestion of {found.here.size:,} networks: {time.process_time() - started:.2f} s of CPU, {_memory()}")
    print(f"  blocks {found.blocked_share:.1%}, collateral {found.here.share:.3%}, held out {found.held_out}")


def generated(packets: int) -> tuple[Tally, Tally]:
    """An attack and a baseline, half of which comes from the networks of the attack."""
    half = packets // 2
    return tally_of(sources(packets, 1, 1)), tally_of(np.concatenate([sources(half, 1, 2), sources(half, 2, 3)]))


def compare(solved: Solved, attack: Tally, baseline: Tally, protected: Ranges) -> None:
    """What gets through and what is denied, in % of doing nothing, for lists of several sizes."""
    print("size    " + "".join(f"{name:>12}" for name in ("cheapest", *(f"busiest /{length}" for length in INSTEAD))))
    for size in SHOWN:
        lists = [solved.suggested(size), *(busiest(attack, protected, length, size) for length in INSTEAD)]
        costs = [_cost(each, attack, baseline) for each in lists]
        print(f"{size:<8,}" + "".join(f"{100 * cost:>12.1f}" for cost in costs))


def _cost(suggested: Suggested, attack: Tally, baseline: Tally) -> float:
    found = point(suggested, attack, baseline)
    return 1 - found.blocked / attack.total + found.share


def _memory() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"


if __name__ == "__main__":
    main()
