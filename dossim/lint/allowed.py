"""allowed-earlier: Deny entries some of whose packets an earlier untracked Allow lets through. Pure.

An untracked Allow also bypasses all tracked policy: its packets are accepted in mangle and filter
(``felix/rules/static.go``). What tracked policies deny is found by compiling them as if they were untracked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from dossim.lint.boxes import Box, Space
from dossim.lint.entries import directions
from dossim.lint.finding import Finding, Level, Related, RuleId
from dossim.lint.shadow import Boxed, boxed, decided_by, takes
from dossim.lint.tables import Governed
from enforcer.model.vocabulary import Action, Direction
from enforcer.policy.compile import Compiler
from enforcer.policy.entries import unsupported_matches
from enforcer.policy.resources import GlobalNetworkPolicy, Resources, Rule
from enforcer.policy.ruletable import Entry, RuleTable

UNTRACKED = ", which is untracked and goes past tracked policy"


@dataclass(frozen=True)
class Opening:
    """An Allow, and an example of a packet that it lets through although a Deny matches it."""

    allow: Entry
    witness: Box


def allowed_earlier(
    governed: Governed, tracked: RuleTable | None, dead: Collection[Entry] = frozenset()
) -> Iterator[Finding]:
    """``tracked`` has the entries of the tracked policies that govern the same endpoint; ``dead`` entries, which never
    act, are not reported.
    """
    space = Space(tracked) if tracked is not None else None
    for direction, entries in directions(governed):
        items = boxed(entries, governed.space)
        for at, item in enumerate(items):
            if item.entry.action is Action.DENY and item.entry not in dead:
                yield from _finding(item, _openings(item, items[:at]), "")
        if tracked is None or space is None:
            continue
        for item in boxed(tracked.ingress if direction is Direction.INGRESS else tracked.egress, space):
            if item.entry.action is Action.DENY:
                yield from _finding(item, _openings(item, items), UNTRACKED, wholly=_wholly(item, items))


def _openings(item: Boxed, earlier: Sequence[Boxed]) -> list[Opening]:
    """The earlier Allow entries that provably match some of the entry's packets and are evaluated first."""
    found: list[Opening] = []
    for at, other in enumerate(earlier):
        if other.entry.action is not Action.ALLOW:
            continue
        for own in other.boxes:
            for box in item.boxes:
                if own.exact and box.exact and own.meets(box) and not takes(own & box, other, earlier[:at]):
                    found.append(Opening(other.entry, own & box))
    return found


def _wholly(item: Boxed, items: Sequence[Boxed]) -> bool:
    """Whether untracked Allows take every packet of a tracked entry."""
    by = decided_by(replace(item, entry=replace(item.entry, tier="")), items) if item.boxes else ()
    return bool(by) and all(entry.action is Action.ALLOW for entry in by)


def _finding(item: Boxed, openings: Sequence[Opening], why: str, *, wholly: bool = False) -> Iterator[Finding]:
    if not openings:
        return
    allows = list({opening.allow.name: opening.allow for opening in openings}.values())
    first = allows[0]
    more = f" (and {len(allows) - 1} more Allow entries)" if len(allows) > 1 else ""
    amount = "all" if wholly else "some"
    message = (
        f"{item.entry.name} (Deny) does not apply to {amount} packets that it matches: {first.name} (Allow, "
        f"{first.position}){why} lets them through first, {_example(openings[0].witness)}{more}"
    )
    related = tuple(Related(entry.position, f"Allow of {entry.name}, evaluated earlier") for entry in allows[:3])
    yield Finding(
        RuleId.ALLOWED_EARLIER, Level.WARNING if wholly else Level.NOTE, item.entry.position, message, related
    )


def _example(witness: Box) -> str:
    kind = IPv4Address if witness.version == 4 else IPv6Address
    if witness.source.is_full:
        return f"IPv{witness.version} from anywhere"
    return f"for example from {kind(int(witness.source.first[0]))}"


# -- tracked policies --------------------------------------------------------------------------------------------------


class TrackedPolicies:
    """Tables of the tracked policies, compiled as if they were untracked."""

    def __init__(self, resources: Resources) -> None:
        self._names = {item.name for item in resources.policies if not item.do_not_track}
        policies = [
            replace(item, do_not_track=True, pre_dnat=False)
            for item in resources.policies
            if item.name in self._names and not any(map(_is_beyond, _rules(item)))
        ]
        self._resources = replace(resources, policies=tuple(policies))
        self._compiler = Compiler()

    def table(self, governed: Governed) -> RuleTable | None:
        """The table of an interface; None when no untracked Allow could matter to it."""
        if not governed.table.tracked or not any(entry.action is Action.ALLOW for entry in governed.entries):
            return None
        interface = governed.interface
        return self._compiler.compile(
            self._resources, node=governed.node, interface=interface.name, addresses=interface.addresses
        )


def _rules(policy: GlobalNetworkPolicy) -> tuple[Rule, ...]:
    return policy.ingress + policy.egress


def _is_beyond(rule: Rule) -> bool:
    """Whether a rule matches on something that no table can express."""
    return bool(unsupported_matches(rule))
