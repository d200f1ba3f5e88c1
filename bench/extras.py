"""Measurements beyond one deny list: many entries, loading, one CIDR more, memory, capacity."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path

from bench import contenders
from bench.cidrs import nets4, nets6, sources4
from bench.traffic import NETNS, Traffic
from enforcer.backends.xdp.backend import XdpBackend
from enforcer.backends.xdp.lists import Lists
from enforcer.kernel.bpf.bpffs import ensure_bpffs
from enforcer.kernel.netns import entered
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action
from enforcer.planning.plan import Plan
from enforcer.policy.resources import IcmpMatch, PortRange
from enforcer.policy.ruletable import Entry
from tests.support.entries import SideMatch, entry_of

ICMP, TCP, UDP = 1, 6, 17
LISTED = 10_000


def measure(wire: Traffic, rounds: int, frames: int, *, quick: bool, capacity: bool) -> dict[str, object]:
    found: dict[str, object] = {"entries": many_entries(wire, rounds, frames)}
    found["memory"] = {"ipv4": memory(wire, nets4(100_000)), "ipv6": memory(wire, nets6(100_000))}
    found["load"] = load(wire, 100_000 if quick else 1_000_000)
    if capacity:
        found["capacity"] = load(wire, 10_000_000)
    return found


def entries64() -> tuple[Entry, ...]:
    """63 entries that match on protocols, ports, ranges and types, none of which matches; then the deny list."""
    made = []
    for number in range(63):
        source = SideMatch(nets=(ip_network(f"{1 + number % 4}.0.0.0/{2 + number % 3}", strict=False),))
        ports = SideMatch(ports=(PortRange(20_000 + 7 * number, 20_003 + 7 * number), PortRange(number, number)))
        if number % 3 == 2:
            made.append(entry_of(f"icmp{number}", Action.DENY, protocol=ICMP, icmp=IcmpMatch(number), source=source))
        else:
            protocol = (TCP, UDP)[number % 3]
            made.append(entry_of(f"e{number}", Action.DENY, protocol=protocol, source=source, destination=ports))
    return (*made, contenders.DENY)


def many_entries(wire: Traffic, rounds: int, frames: int) -> dict[str, float]:
    """64 entries with protocols and ports, above the same deny list as the only entry."""
    nets = nets4(LISTED)
    wire.sources4(sources4(nets))
    with ExitStack() as stack:
        one = contenders.ours(wire, stack, nets, False)
        many = contenders.ours(wire, stack, nets, False, contenders.plan_of(nets, *entries64()))
        times: list[tuple[float, float]] = []
        for _ in range(rounds):
            for item in (one, many):
                wire.send(item.pair, frames // 20, version=4)
            times.append((wire.send(one.pair, frames, version=4), wire.send(many.pair, frames, version=4)))
    return {"above_one_entry_ns": round(statistics.median(b - a for a, b in times), 1)}


def memory(wire: Traffic, nets: Nets) -> int:
    """Bytes of all six tables; one family is empty."""
    with ExitStack() as stack:
        return contenders.ours(wire, stack, nets, False).memory or 0


def load(wire: Traffic, count: int) -> dict[str, float]:
    """Whole passes of the backend: the first, until an interface filters; a second, unchanged; then one CIDR more."""
    ensure_bpffs()
    pin_root = wire.pin_root()
    pair, nets = wire.pair(), nets4(count)
    backend = XdpBackend(pin_root)
    found: dict[str, float] = {"cidrs": count}
    with entered(NETNS / pair.namespace):
        try:
            plan = Plan("bench", (contenders.plan_of(nets),))
            found["load_s"] = round(_timed(lambda: backend.apply(plan)), 3)
            found["again_s"] = round(_timed(lambda: backend.apply(plan)), 3)
            found |= _one_cidr(pin_root, plan)
        finally:
            backend.detach()
    return found


def _one_cidr(pin_root: Path, plan: Plan) -> dict[str, float]:
    adds, removes = [], []
    with Lists(pin_root, plan) as lists:
        for number in range(100):
            cidr = [f"223.{number}.{number}.{number}/32"]
            # For mypy: a lambda with a default
            adds.append(_timed(lambda cidr=cidr: lists.add(contenders.SET, cidr)))  # type: ignore[misc]
            # For mypy: a lambda with a default
            removes.append(_timed(lambda cidr=cidr: lists.remove(contenders.SET, cidr)))  # type: ignore[misc]
    return {
        "add_one_ms": round(1000 * statistics.median(adds), 3),
        "remove_one_ms": round(1000 * statistics.median(removes), 3),
    }


def _timed(work: object) -> float:
    assert callable(work)
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
