"""What ``enforcer deny`` writes, decided before anything is written. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from enforcer.emergency.act import Act, Deed, acts_of, canonical, is_act, later, until_of
from enforcer.emergency.beside import Beside, deny_list
from enforcer.emergency.effect import Effect, effects, tables_of
from enforcer.emergency.protection import Facts, never, protection
from enforcer.model.nets import IPNetwork, Nets
from enforcer.policy.compile import Compiler
from enforcer.policy.resources import GlobalNetworkSet, Resources
from enforcer.policy.schema import FEED

CIDRS_MAX = 100_000
_NAMED_MAX = 20


@dataclass(frozen=True)
class Wanted:
    """What is asked for. ``beside``: "" for the only list. ``insists``: although a guard refuses. ``shortens``: an
    earlier end counts.
    """

    nets: Sequence[IPNetwork]
    deed: Deed
    beside: str = ""
    insists: bool = False
    shortens: bool = False


@dataclass(frozen=True)
class DenyPlan:
    """``acts``: the objects to write. ``covered``: what is denied as long already, with the name of what denies it.
    ``refused``: why nothing is to be written; ``final``: insisting does not help. ``notes``: what the author should
    know.
    """

    beside: Beside
    acts: tuple[Act, ...] = ()
    covered: Mapping[IPNetwork, str] | None = None
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    final: bool = False


def deny_plan(resources: Resources, wanted: Wanted, facts: Facts) -> DenyPlan:
    """Raises UsageError where the list to stand beside is not known."""
    nets, compiler = canonical(wanted.nets), Compiler()
    present, problems = tables_of(resources, compiler)
    beside = deny_list(resources, present, wanted.beside)
    made = acts_of(nets, beside=beside.name, labels=beside.labels, deed=wanted.deed)
    after = list(tables_of(_with(resources, made), compiler)[0])
    lasting = _lasting(resources, wanted.deed.until_s)
    before = present if lasting is resources else tables_of(lasting, compiler)[0]
    guard = protection(resources, present, facts)
    final: list[str] = []
    hits: list[str] = []
    covered: dict[IPNetwork, str] = {}
    partly: Counter[str] = Counter()
    for net in nets:
        if sentence := never(net):
            final.append(sentence)
            continue
        hits += guard.hits(net)
        then = list(effects(after, net))
        if not any(each.denied_by for each in then):
            hits.append(_not_denied(net, then))
            continue
        partly.update({name for each in then if each.denied_by for name in each.partly})
        if not wanted.shortens and _is_covered(list(effects(before, net)), then):
            covered[net] = _holder(lasting, net)
    rest = [net for net in nets if net not in covered]
    acts = made if not covered else acts_of(rest, beside=beside.name, labels=beside.labels, deed=wanted.deed)
    notes = [*problems, *_notes(partly)]
    refused = [*final, *_limited([] if wanted.insists else list(dict.fromkeys(hits)))]
    if wanted.insists:
        notes += [f"insisted: {hit}" for hit in _limited(list(dict.fromkeys(hits)))]
    return DenyPlan(beside, tuple(acts) if rest else (), covered, tuple(refused), tuple(notes), final=bool(final))


def _with(resources: Resources, acts: Sequence[Act]) -> Resources:
    """The resources after these acts."""
    names = {act.name for act in acts}
    others = tuple(item for item in resources.global_network_sets if item.name not in names)
    made = tuple(GlobalNetworkSet(act.name, act.labels, nets=Nets.of(act.nets)) for act in acts)
    return replace(resources, global_network_sets=others + made)


def _lasting(resources: Resources, until_s: int | None) -> Resources:
    """The resources without the acts that end earlier, and without the sets of feeds: the next list of their publisher
    may lack any CIDR. The same object if there are none.
    """
    kept = tuple(item for item in resources.global_network_sets if _lasts(item, until_s))
    if len(kept) == len(resources.global_network_sets):
        return resources
    return replace(resources, global_network_sets=kept)


def _lasts(item: GlobalNetworkSet, until_s: int | None) -> bool:
    return FEED not in item.labels and (not is_act(item) or later(until_of(item)) >= later(until_s))


def _is_covered(before: Sequence[Effect], then: Sequence[Effect]) -> bool:
    """Whether each table denies without the act what it denies with it."""
    return all(
        earlier.denied_by and set(earlier.partly) <= set(each.partly)
        for earlier, each in zip(before, then, strict=True)
        if each.denied_by
    )


def _holder(resources: Resources, net: IPNetwork) -> str:
    """The set that has the network; the policy, if no single one has."""
    return next((f"gns/{item.name}" for item in resources.global_network_sets if item.nets.covers(net)), "the policy")


def _not_denied(net: IPNetwork, found: Sequence[Effect]) -> str:
    passed = dict.fromkeys(each.passed_by for each in found if each.passed_by)
    if passed:
        return f"nothing would be dropped of {net}: {', '.join(passed)} lets it pass first"
    return (
        f"nothing would be dropped of {net}: no Deny of untracked policy selects the labels of the list, for any "
        "HostEndpoint"
    )


def _notes(partly: Mapping[str, int]) -> Iterator[str]:
    for name, count in partly.items():
        yield f"{name} comes first and lets some packets of {count} of the CIDRs pass"


def _limited(sentences: list[str]) -> list[str]:
    more = len(sentences) - _NAMED_MAX
    return [*sentences[:_NAMED_MAX], *([f"and {more} more"] if more > 0 else [])]
