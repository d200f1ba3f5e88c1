"""What ``enforcer list`` shows: the acts, or where an address stands. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from enforcer.emergency.act import Act, act_of, is_act
from enforcer.emergency.effect import effects, tables_of
from enforcer.model.nets import IPNetwork
from enforcer.policy.compile import Compiler
from enforcer.policy.resources import GlobalNetworkSet, NetworkSet, Resources


@dataclass(frozen=True)
class Holding:
    """A set that has a network, or a part of it. ``act``: if it is one. ``whole``: it has all of it."""

    name: str
    where: str
    whole: bool
    act: Act | None


@dataclass(frozen=True)
class Standing:
    """A network, what has it, and what decides. ``denied_by``, ``passed_by``: entries, for any kind of HostEndpoint."""

    network: IPNetwork
    holdings: tuple[Holding, ...]
    denied_by: tuple[str, ...]
    passed_by: tuple[str, ...]


def acts_in(resources: Resources) -> list[Act]:
    """All acts, those that end first before others."""
    acts = [act_of(item) for item in resources.global_network_sets if is_act(item)]
    return sorted(acts, key=lambda act: (act.until_s is None, act.until_s or 0, act.name))


def standings(resources: Resources, nets: Sequence[IPNetwork]) -> Iterator[Standing]:
    tables, _ = tables_of(resources, Compiler())
    for net in nets:
        found = list(effects(tables, net))
        yield Standing(
            net,
            tuple(_holdings(resources, net)),
            tuple(dict.fromkeys(each.denied_by for each in found if each.denied_by)),
            tuple(dict.fromkeys(name for each in found for name in (*each.partly, each.passed_by) if name)),
        )


def _holdings(resources: Resources, net: IPNetwork) -> Iterator[Holding]:
    sets: list[GlobalNetworkSet | NetworkSet] = [*resources.global_network_sets, *resources.network_sets]
    for item in sets:
        if item.nets.overlaps(net):
            name = f"ns/{item.namespace}/{item.name}" if isinstance(item, NetworkSet) else f"gns/{item.name}"
            act = act_of(item) if isinstance(item, GlobalNetworkSet) and is_act(item) else None
            yield Holding(name, str(item.position), item.nets.covers(net), act)
