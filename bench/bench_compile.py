"""How long a large policy takes to compile: ``.venv/bin/python -m bench.bench_compile``.

Each policy denies what its own selector selects: one set, or all of them; no two selectors have the same text. Each set
holds CIDRS CIDRs. The benchmark measures the CPU time of one process and its peak memory, resources included.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action
from enforcer.policy.compile import Compiler
from enforcer.policy.resources import (
    EntityRule,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    Resources,
    Rule,
)
from enforcer.policy.ruletable import RuleTable

POLICIES, SETS, CIDRS = 1_000, 100, 100_000

T = TypeVar("T")


def nets(seed: int, count: int) -> Nets:
    """Distinct prefixes of /24 to /32, as long lists have them."""
    rng = np.random.default_rng(seed)
    length = rng.integers(24, 33, size=2 * count, dtype=np.uint64)
    address = rng.integers(1 << 24, 223 << 24, size=2 * count, dtype=np.uint64)
    shift = np.uint64(32) - length
    rows = np.unique((address >> shift << shift) << np.uint64(8) | length)
    rows = np.sort(rng.choice(rows, size=count, replace=False))
    return Nets((rows >> np.uint64(8)).astype(np.uint32), (rows & np.uint64(0xFF)).astype(np.uint8))


def resources(policies: int, sets: int, cidrs: int) -> Resources:
    return Resources(
        host_endpoints=(HostEndpoint("jasper", {"role": "edge"}, node="jasper", interface_name="eth0"),),
        global_network_sets=tuple(
            GlobalNetworkSet(f"set-{n}", {"list": f"l{n}", "deny": "true"}, nets=nets(n, cidrs)) for n in range(sets)
        ),
        policies=tuple(_policy(n, sets) for n in range(policies)),
    )


def _policy(number: int, sets: int) -> GlobalNetworkPolicy:
    every = f"deny == 'true' && list != 'p{number}'"
    one = f"list == 'l{number % sets}' && list != 'p{number}'"
    return GlobalNetworkPolicy(
        f"p{number}",
        order=float(number),
        selector="role == 'edge'",
        ingress=(Rule(Action.DENY, source=EntityRule(selector=every if number % 10 == 0 else one)),),
        do_not_track=True,
        apply_on_forward=True,
    )


def timed(work: Callable[[], T]) -> tuple[float, T]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def main() -> None:
    policies, sets, cidrs = POLICIES, SETS, CIDRS
    state = resources(policies, sets, cidrs)
    compiler = Compiler()

    def compiled(wanted: Resources) -> RuleTable:
        return compiler.compile(wanted, node="jasper", interface="eth0")

    first_s, table = timed(lambda: compiled(state))
    assert len(table.ingress) == policies
    first, *others = state.global_network_sets
    changed = replace(state, global_network_sets=(replace(first, nets=nets(-1 % (1 << 32), cidrs)), *others))
    again_s, after = timed(lambda: compiled(changed))
    kept = sum(after.sets[uid] is table.sets[uid] for uid in table.sets)
    print(f"compile {policies:,} policies x {sets} sets x {cidrs:,} CIDRs: {first_s:.2f} s")
    print(f"compile again, one set changed: {again_s:.2f} s; {kept:,} of {len(table.sets):,} sets as they were")
    print(f"memory at most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


if __name__ == "__main__":
    main()
