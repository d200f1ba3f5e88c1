"""What ``enforcer allow`` changes: emergency objects only; and where else a network is denied. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, summarize_address_range

from enforcer.emergency.act import Act, Kind, act_of, is_act
from enforcer.emergency.effect import denying, effects, tables_of
from enforcer.emergency.merge import without
from enforcer.model.nets import IPNetwork, Nets
from enforcer.policy.compile import Compiler
from enforcer.policy.resources import GlobalNetworkSet, NetworkSet, Resources
from enforcer.policy.schema import FEED


@dataclass(frozen=True)
class Wider:
    """A network of an act that holds more than what is to be allowed, and what a split leaves of it."""

    act: str
    network: IPNetwork
    pieces: tuple[IPNetwork, ...]


@dataclass(frozen=True)
class Elsewhere:
    """A list that no act is, which denies the network still. ``entry``: what denies it. ``where``: the list's place.
    ``feed``: the feed that writes the list, "" if none does.
    """

    network: IPNetwork
    holder: str
    where: str
    entry: str
    feed: str = ""


@dataclass(frozen=True)
class AllowPlan:
    """``changed``: the acts to change. ``wider``: networks that only a split allows. ``elsewhere``: what stays."""

    changed: tuple[Act, ...]
    wider: tuple[Wider, ...]
    elsewhere: tuple[Elsewhere, ...]


def allow_plan(resources: Resources, nets: Sequence[IPNetwork], *, split: bool) -> AllowPlan:
    acts = [act_of(item) for item in resources.global_network_sets if is_act(item)]
    acts = [act for act in acts if act.kind is Kind.DENY]
    wider = tuple(item for act in acts for item in wider_of(act, nets))
    changed = tuple(act for act in acts if lifted(act, nets, split=split) is not act)
    rest = _after(resources, nets, split=split)
    return AllowPlan(changed, wider, tuple(_elsewhere(rest, nets)))


def wider_of(act: Act, nets: Iterable[IPNetwork]) -> Iterator[Wider]:
    """The networks of an act that strictly contain one of these."""
    wanted = Nets.of(nets)
    each = {version: [net for net in wanted if net.version == version] for version in (4, 6)}
    starts = {version: [int(net.network_address) for net in each[version]] for version in each}
    for held in act.nets:
        if wanted.overlaps(held) and not wanted.covers(held):
            first, last = int(held.network_address), int(held.broadcast_address)
            begin = bisect_left(starts[held.version], first)
            end = bisect_right(starts[held.version], last)
            yield Wider(act.name, held, _minus(held, each[held.version][begin:end]))


def lifted(act: Act, nets: Sequence[IPNetwork], *, split: bool) -> Act:
    """The act without these networks and all within them; the same object if it has none of them. With ``split`` a
    wider one is replaced by what is left of it.
    """
    wanted = Nets.of(nets)
    gone = [held for held in act.nets if wanted.covers(held)]
    instead: list[IPNetwork] = []
    for item in wider_of(act, nets) if split else ():
        gone.append(item.network)
        instead += item.pieces
    return without(act, gone, instead) if gone else act


def _minus(held: IPNetwork, inside: Sequence[IPNetwork]) -> tuple[IPNetwork, ...]:
    """The CIDRs of a network that are left without these, which are within it and in order."""
    rest: list[IPNetwork] = []
    at, end = int(held.network_address), int(held.broadcast_address)
    for net in inside:
        rest += _cidrs(held.version, at, int(net.network_address) - 1)
        at = max(at, int(net.broadcast_address) + 1)
    return (*rest, *_cidrs(held.version, at, end))


def _cidrs(version: int, first: int, last: int) -> Iterator[IPNetwork]:
    """Those of the addresses from first to last; none if last is before first."""
    if first <= last:
        if version == 4:
            yield from summarize_address_range(IPv4Address(first), IPv4Address(last))
        else:
            yield from summarize_address_range(IPv6Address(first), IPv6Address(last))


def _after(resources: Resources, nets: Sequence[IPNetwork], *, split: bool) -> Resources:
    """The resources after the change."""

    def changed(item: GlobalNetworkSet) -> GlobalNetworkSet:
        if not is_act(item):
            return item
        act = act_of(item)
        after = lifted(act, nets, split=split) if act.kind is Kind.DENY else act
        return item if after is act else replace(item, nets=Nets.of(after.nets))

    return replace(resources, global_network_sets=tuple(map(changed, resources.global_network_sets)))


def _elsewhere(resources: Resources, nets: Sequence[IPNetwork]) -> Iterator[Elsewhere]:
    """Where these networks are denied by lists that are no acts."""
    tables, _ = tables_of(resources, Compiler())
    lists: dict[str, GlobalNetworkSet | NetworkSet] = {
        f"gns/{item.name}": item for item in resources.global_network_sets if not is_act(item)
    }
    lists |= {f"ns/{item.namespace}/{item.name}": item for item in resources.network_sets}
    seen: set[tuple[IPNetwork, str]] = set()
    denied = list(denying(tables))
    for net in nets:
        having = [(entry, ip_set) for entry, ip_set in denied if ip_set.nets.overlaps(net)]
        found = list(effects(tables, net)) if having else []
        if any(each.passed_by for each in found) and not any(each.denied_by for each in found):
            continue  # an entry that comes first lets it pass
        for entry, ip_set in having:
            for name in ip_set.members:
                if name in lists and lists[name].nets.overlaps(net) and (net, name) not in seen:
                    seen.add((net, name))
                    held = lists[name]
                    yield Elsewhere(net, name, str(held.position), entry.name, held.labels.get(FEED, ""))
