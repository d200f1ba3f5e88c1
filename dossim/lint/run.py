"""lint: every finding about some resources, ordered by position. Pure: the caller reads the files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from dossim.lint.addresses import own_address_denied, owners_of
from dossim.lint.allowed import TrackedPolicies, allowed_earlier
from dossim.lint.early import not_early
from dossim.lint.entries import dead_entries, partly_bypassed
from dossim.lint.finding import Finding, Level, RuleId
from dossim.lint.members import Members, ReadText
from dossim.lint.neighbours import discovery_denied
from dossim.lint.sets import overlapping, policies_for_nobody, rules_for_nobody, unused_sets, uses_of
from dossim.lint.tables import Governed, governed_tables
from dossim.lint.tracked import tracked_findings
from enforcer.lists.recognise import FEED
from enforcer.model.choices import TrackedChoice
from enforcer.model.facts import HostFacts
from enforcer.policy.compile import BUILT_IN_TIERS
from enforcer.policy.reading import DUPLICATE
from enforcer.policy.resources import Resources
from enforcer.policy.ruletable import Entry
from enforcer.policy.validate import PORT_BY_NUMBER
from enforcer.policy.values import MAPPED_NET


def lint(
    resources: Resources,
    *,
    node: str | None = None,
    facts: HostFacts | None = None,
    read_text: ReadText = lambda path: "",
    tracked: TrackedChoice = TrackedChoice.MODEL,
) -> list[Finding]:
    """All findings, for one node or for every node that has a HostEndpoint.

    ``facts`` name the interfaces of their node. ``read_text`` reads a file's text again ("" if it cannot), so that
    findings name the line of a CIDR instead of that of its set. ``tracked``: whether tracked policy is enforced, which
    decides how bad it is what it closes. Raises UnsupportedRuleError as compiling does.
    """
    nodes = [node] if node is not None else sorted({item.node for item in resources.host_endpoints})
    members = Members.of(resources, read_text)
    tables = governed_tables(resources, nodes, facts)
    dead = dead_entries(tables)
    of_tables = _of_tables(resources, tables, facts, members, dead)
    found = [*_of_resources(resources, members), *dead.values(), *of_tables, *not_applied(resources, nodes)]
    found += tracked_findings(resources, nodes, facts, tracked)
    return sorted(dict.fromkeys(found), key=lambda item: (item.position, item.level.rank, item.rule, item.message))


def _of_resources(resources: Resources, members: Members) -> Iterator[Finding]:
    uses = uses_of(resources, members)
    yield from tiers_missing(resources)
    yield from policies_for_nobody(resources)
    yield from rules_for_nobody(resources, uses)
    yield from unused_sets(resources, members, uses)
    yield from overlapping(members, uses)
    yield from noted(resources)


def _of_tables(
    resources: Resources,
    tables: Sequence[Governed],
    facts: HostFacts | None,
    members: Members,
    dead: Collection[Entry],
) -> Iterator[Finding]:
    owners = owners_of(resources, facts)
    tracked = TrackedPolicies(resources)
    for governed in tables:
        yield from partly_bypassed(governed, dead)
        yield from own_address_denied(governed, owners, members)
        yield from allowed_earlier(governed, tracked.table(governed), dead)
        yield from not_early(governed, dead)
        yield from discovery_denied(governed)


_OF_NOTE = {
    DUPLICATE: (RuleId.DUPLICATE, Level.WARNING),
    PORT_BY_NUMBER: (RuleId.PORT_BY_NUMBER, Level.ERROR),
    MAPPED_NET: (RuleId.MAPPED_NET, Level.WARNING),
    FEED: (RuleId.FEED, Level.WARNING),
}


def noted(resources: Resources) -> Iterator[Finding]:
    """The loader's notes about accepted input without effect."""
    for note in resources.notes:
        rule, level = _OF_NOTE.get(note.kind, (RuleId.PASSED, Level.NOTE))
        where = f"{note.field}: " if note.field else ""
        yield Finding(rule, level, note.position, where + note.message)


def not_applied(resources: Resources, nodes: Sequence[str]) -> Iterator[Finding]:
    """felix-configuration-not-applied: it selects no node, or nodes whose labels are unknown."""
    for item in resources.felix_configurations:
        if item.name != "default" and not item.name.startswith("node.") and not item.node_selector:
            message = (
                f"FelixConfiguration {item.name} applies to no node: its name is neither default nor node.NODE, "
                "and it has no nodeSelector"
            )
            yield Finding(RuleId.FELIX, Level.WARNING, item.position, message)
    for node in nodes:
        for item in resources.felix_unknown(node):
            message = (
                f"FelixConfiguration {item.name} is not applied to node {node}: no Node resource gives its labels, "
                f"which the nodeSelector ({item.node_selector}) looks at"
            )
            yield Finding(RuleId.FELIX, Level.WARNING, item.position, message)


def tiers_missing(resources: Resources) -> Iterator[Finding]:
    """tier-missing; Calico creates its own tiers, so they may be absent."""
    known = {*BUILT_IN_TIERS, *(item.name for item in resources.tiers)}
    for policy in resources.policies:
        if policy.tier not in known:
            message = (
                f"gnp/{policy.name}: no Tier resource defines its tier {policy.tier!r}, "
                f"so it is evaluated after the tiers that exist ({', '.join(sorted(known))})"
            )
            yield Finding(RuleId.TIER_MISSING, Level.WARNING, policy.position, message)
