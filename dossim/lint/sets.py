"""Findings about network sets and selectors: unused, empty, selecting nothing, overlapping. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

import numpy as np

from dossim.lint.finding import Finding, Level, Related, RuleId, some
from dossim.lint.members import Member, Members, rules_of, selectors_of
from dossim.lint.ranges import Numbers, bounds
from enforcer.emergency.act import PROTECTED_LABEL
from enforcer.model.errors import Position
from enforcer.model.nets import IPNetwork
from enforcer.policy.labels import endpoint_labels, policy_selector
from enforcer.policy.resources import Resources
from enforcer.policy.selector import parse

EXAMPLES = 3
OTHER_USERS = ("NetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy")


@dataclass(frozen=True)
class Use:
    """A selector in a rule, and what it selects."""

    entry: str
    position: Position
    field: str
    selector: str
    excludes: bool
    is_untracked: bool
    members: tuple[Member, ...]


def uses_of(resources: Resources, members: Members) -> list[Use]:
    """Every selector in every rule, with what it selects."""
    selected: dict[str, tuple[Member, ...]] = {}
    found: list[Use] = []
    for policy in resources.policies:
        for name, rule in rules_of(policy):
            for field, text, excludes in selectors_of(rule):
                if text not in selected:
                    selected[text] = tuple(members.selected(text))
                use = Use(name, rule.position, field, text, excludes, policy.do_not_track, selected[text])
                found.append(use)
    return found


def unused_sets(resources: Resources, members: Members, uses: Sequence[Use]) -> Iterator[Finding]:
    """unused-set; nothing is reported if there is no policy at all."""
    if not resources.policies:
        return
    used = {member.name for use in uses for member in use.members}
    others = [kind for kind in OTHER_USERS if kind in resources.skipped]
    level = Level.NOTE if others else Level.WARNING
    but = f"; {' and '.join(others)} resources are not examined" if others else ""
    for member in members.sets:
        if member.name not in used and member.labels.get(PROTECTED_LABEL) != "true":  # 'enforcer deny' reads those
            labels = ", ".join(f"{key}={value}" for key, value in sorted(member.labels.items())) or "no labels"
            message = f"{member.name} ({labels}) is selected by no rule of a GlobalNetworkPolicy{but}"
            yield Finding(RuleId.UNUSED_SET, level, member.position, message)


def policies_for_nobody(resources: Resources) -> Iterator[Finding]:
    """selector-matches-nothing for policies that apply only to HostEndpoints: others may be for workloads."""
    profiles = {item.name: item for item in resources.profiles}
    endpoints = [endpoint_labels(item, profiles) for item in resources.host_endpoints]
    for policy in resources.policies:
        text = policy_selector(policy)
        if not (policy.do_not_track or policy.pre_dnat) or any(parse(text).evaluate(labels) for labels in endpoints):
            continue
        shown = text or "all()"
        if endpoints:
            found = f"none of the {len(endpoints)} HostEndpoints" if len(endpoints) > 1 else "not the one HostEndpoint"
            level, why = Level.WARNING, f"selects {found} given"
        else:
            level, why = Level.NOTE, "has nothing to select: no HostEndpoint was given"
        message = f"gnp/{policy.name}: the policy's selector ({shown}) {why}, so the policy is enforced nowhere"
        yield Finding(RuleId.SELECTS_NOTHING, level, policy.position, message)


def rules_for_nobody(resources: Resources, uses: Sequence[Use]) -> Iterator[Finding]:
    """selector-matches-nothing and empty-set for untracked rules; those of tracked policies may select workloads."""
    empty: dict[str, tuple[Member, list[str]]] = {}
    given = len(resources.global_network_sets) + len(resources.network_sets)
    for use in uses:
        if not use.is_untracked:
            continue
        if not use.members:
            effect = "it excludes nothing" if use.excludes else "the entry matches nothing"
            what = (
                "no network set, and no HostEndpoint with expectedIPs" if given else "nothing: no network set was given"
            )
            message = f"{use.entry}: {use.field} ({use.selector}) selects {what}, so {effect}"
            yield Finding(RuleId.SELECTS_NOTHING, Level.WARNING, use.position, message)
        for member in use.members:
            if member.is_set and not len(member.nets):
                entries = empty.setdefault(member.name, (member, []))[1]
                entries += [use.entry] * (use.entry not in entries)
    for member, entries in empty.values():
        message = f"{member.name} holds no CIDR yet; it is meant for {some(entries)}"
        yield Finding(RuleId.EMPTY_SET, Level.NOTE, member.position, message)


# -- overlapping CIDRs -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Covered:
    """CIDRs of one member that lie in others: their number, and the first few, each with the CIDR that covers it and
    its member.
    """

    count: int
    examples: tuple[tuple[IPNetwork, IPNetwork, str], ...]


def overlapping(members: Members, uses: Sequence[Use]) -> Iterator[Finding]:
    """overlapping-cidrs: for each set one finding on overlaps within it, one on overlaps with other sets of the same
    rule.
    """
    for member in members.sets:
        own = _covered([member]).get(member.name)
        if own:
            yield _finding(member, own, members, f"of its {len(member.nets):,} CIDRs lie in other CIDRs of the set")
    groups = {tuple(item.name for item in use.members if item.is_set): use for use in uses}
    told: set[str] = set()
    for names, use in groups.items():
        together = [members.by_name[name] for name in names]
        for name, covered in _covered(together).items() if len(together) > 1 else ():
            if name not in told:
                told.add(name)
                text = f"of its CIDRs lie in CIDRs of other sets in {use.entry}"
                yield _finding(members.by_name[name], covered, members, text)


def _finding(member: Member, covered: Covered, members: Members, text: str) -> Finding:
    shown = ", ".join(
        f"{net} in {by}{f' of {owner}' if owner != member.name else ''}" for net, by, owner in covered.examples
    )
    more = ", ..." if covered.count > len(covered.examples) else ""
    net, by, owner = covered.examples[0]
    place = members.by_name[owner]
    related = Related(members.place(place, by), f"{by}, which covers {net}")
    message = f"{member.name}: {covered.count:,} {text}: {shown}{more}"
    return Finding(RuleId.OVERLAPPING, Level.NOTE, members.place(member, net), message, (related,))


def _covered(together: Sequence[Member]) -> dict[str, Covered]:
    """For each member its CIDRs that a CIDR of another member covers; for a single member, those that its own CIDRs
    cover.
    """
    found: dict[str, Covered] = {}
    for version in (4, 6):
        for name, part in _covered_of(together, version).items():
            before = found.get(name, Covered(0, ()))
            examples = (*before.examples, *part.examples)[:EXAMPLES]
            found[name] = Covered(before.count + part.count, examples)
    return found


def _covered_of(together: Sequence[Member], version: int) -> dict[str, Covered]:
    """CIDRs nest or are disjoint: in order of (network, length), one is covered if it begins before an earlier one
    ends.

    The CIDR that covers it is the outermost: the last one that began after all before it had ended. Between sets only
    that one is compared: nesting within one set is reported for that set.
    """
    pairs = [bounds(item.nets, version) for item in together]
    owners = np.repeat(np.arange(len(together)), [len(first) for first, _ in pairs])
    first = np.concatenate([first for first, _ in pairs])
    last = np.concatenate([last for _, last in pairs])
    if len(first) < 2:
        return {}
    if len(together) > 1:
        # A CIDR sorts before those it covers; of equal CIDRs, that of the set named first comes first.
        order = np.argsort(_downwards(last, version), kind="stable")
        order = order[np.argsort(first[order], kind="stable")]
        first, last, owners = first[order], last[order], owners[order]
    ends = np.maximum.accumulate(last)
    begins = np.concatenate([[True], first[1:] > ends[:-1]]).astype(np.bool_)
    outermost = np.maximum.accumulate(np.where(begins, np.arange(len(first)), 0))
    covered = ~begins if len(together) == 1 else ~begins & (owners != owners[outermost])
    found: dict[str, Covered] = {}
    for index in np.flatnonzero(np.bincount(owners[covered])).tolist():
        at = np.flatnonzero(covered & (owners == index))
        examples = tuple(
            (
                _net(version, first[i], last[i]),
                _net(version, first[outermost[i]], last[outermost[i]]),
                together[int(owners[outermost[i]])].name,
            )
            for i in at[:EXAMPLES].tolist()
        )
        found[together[index].name] = Covered(len(at), examples)
    return found


def _downwards(last: Numbers, version: int) -> Numbers:
    return np.uint64(2**32) - last if version == 4 else -last


def _net(version: int, first: object, last: object) -> IPNetwork:
    low, high = int(str(first)), int(str(last))
    bits = 32 if version == 4 else 128
    address = low.to_bytes(bits // 8, "big")
    return ip_network((address, bits - (high - low).bit_length()))
