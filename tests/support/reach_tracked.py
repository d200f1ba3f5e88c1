"""Packets that reach the entries of tracked policy, as :mod:`tests.support.reach` has them for untracked policy.

For each entry of a chain that received packets meet, random candidates are built from the values of its conditions, and
``predict`` tells which of them it decides. The first of those is taken with points adjacent to its edges, and with some
candidates that the entry does not decide.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.predict import Tables, predict
from enforcer.model.vocabulary import Action, Direction
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.ruletable import Entry, RuleTable
from enforcer.policy.tracked import Hook, TierChain, TrackedChain, TrackedTable
from tests.support.reach import ADJACENT, KEPT_OUTSIDE, Point, adjacent_points, candidate, numbers

CANDIDATES = 16
_THROUGH = (Hook.FORWARD_IN, Hook.FORWARD_OUT)
# Where forwarded packets go: inside, where the host has routes there, or out again.
_BEYOND = {4: numbers(["192.0.2.5", "8.8.4.4"]), 6: numbers(["2001:db8:5::5", "2600::2"])}


@dataclass(frozen=True)
class Reached:
    """Frames, and for each entry the numbers of the candidates that it decides, were each the first packet to
    arrive.
    """

    frames: tuple[bytes, ...]
    decided: dict[str, tuple[int, ...]]


def reach_tracked(
    tables: Tables,
    plan: InterfacePlan,
    host: Host,
    seed: int = 0,
    *,
    candidates_each: int = CANDIDATES,
    adjacent: int = 2 * ADJACENT,
) -> Reached:
    """Frames for every entry of the chains that received packets meet."""
    rng = random.Random(seed)
    frames: list[bytes] = []
    decided: dict[str, tuple[int, ...]] = {}
    for chain, view in _chains(tables, host):
        for entry in view.ingress + view.egress:
            denying = Tables(_denying(tables.outside, entry), _denying(tables.inside, entry))
            points = [
                _aimed(rng, candidate(rng, entry, view, version), chain)
                for version in (4, 6)
                if version in entry.families
                for _ in range(candidates_each)
            ]
            hits = _decided([point.frame() for point in points], denying, plan, host, entry)
            chosen = [point for at, point in enumerate(points) if at not in hits][:KEPT_OUTSIDE]
            if hits:
                first = points[rng.choice(hits)]
                near = list(adjacent_points(rng, first, entry, view))
                chosen += [first, *rng.sample(near, min(adjacent, len(near)))]
            frames += [point.frame() for point in chosen]
            decided[entry.name] = decided.get(entry.name, ()) + hits
    return Reached(tuple(frames), decided)


def _chains(tables: Tables, host: Host) -> Iterator[tuple[TrackedChain, RuleTable]]:
    """The chains with entries, each as a table of its entries with its failsafes and sets."""
    of_outside = {Hook.PRE_DNAT, Hook.INPUT, *(_THROUGH if host.forward else ())}
    of_inside = {Hook.FORWARD_OUT} if host.forward and host.routes else set[Hook]()
    for table, hooks in ((tables.outside, of_outside), (tables.inside, of_inside)):
        for chain in table.chains if table else ():
            if chain.hook in hooks:
                assert table is not None
                yield chain, _view(chain, table)


def _view(chain: TrackedChain, table: TrackedTable) -> RuleTable:
    entries, none = tuple(chain.entries()), ()
    inbound = chain.hook.direction is Direction.INGRESS
    return RuleTable(
        table.interface,
        table.endpoint,
        ingress=entries if inbound else none,
        egress=none if inbound else entries,
        failsafe_inbound=chain.failsafes if inbound else none,
        failsafe_outbound=none if inbound else chain.failsafes,
        sets=table.sets,
        port_sets=table.port_sets,
    )


def _aimed(rng: random.Random, point: Point, chain: TrackedChain) -> Point:
    """The point, or one with another host as destination: nearly always in filter FORWARD, at times in mangle."""
    if chain.hook is Hook.INPUT or (chain.hook is Hook.PRE_DNAT and rng.randrange(4)):
        return point
    return point if rng.randrange(6) == 0 else replace(point, destination=rng.choice(_BEYOND[point.version]))


def _denying(table: TrackedTable | None, entry: Entry) -> TrackedTable | None:
    """The table with the entry's action Deny, wherever it stands."""
    if table is None:
        return None

    def changed(tier: TierChain) -> TierChain:
        return replace(
            tier,
            entries=tuple(replace(one, action=Action.DENY) if one.name == entry.name else one for one in tier.entries),
        )

    chains = tuple(
        replace(chain, tiers=tuple(map(changed, chain.tiers)), profiles=tuple(map(changed, chain.profiles)))
        for chain in table.chains
    )
    return replace(table, chains=chains)


def _decided(frames: Sequence[bytes], tables: Tables, plan: InterfacePlan, host: Host, entry: Entry) -> tuple[int, ...]:
    prediction = predict(Capture.from_frames(frames), plan, host, tables)
    return tuple(at for at in range(len(frames)) if prediction.disposition(at).entry == entry.name)
