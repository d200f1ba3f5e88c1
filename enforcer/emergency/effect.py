"""What the compiled policy does with the packets of an address: denies them, lets them pass first, or neither. Pure.

Untracked policy only: it is what drops before conntrack. An ingress entry is asked about the source of packets, an
egress entry about their destination.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import Action, Direction, Side
from enforcer.policy.compile import Compiler
from enforcer.policy.conditions import FAMILIES, Condition, Icmp, InNets, InSet, Ports, Protocol, unhandled
from enforcer.policy.labels import endpoint_labels
from enforcer.policy.resources import FelixConfiguration, HostEndpoint, Resources
from enforcer.policy.ruletable import Entry, IpSet, RuleTable


class Match(IntEnum):
    """Which of the packets of a network an entry matches."""

    NONE = 0
    SOME = 1
    ALL = 2


@dataclass(frozen=True)
class Effect:
    """What a table does with a network in one direction. ``denied_by``: the entry that denies all that is left there,
    "" if none does. ``passed_by``: the entry that lets all of it pass before. ``partly``: entries before that which let
    some of it pass. ``table``: where.
    """

    table: RuleTable
    direction: Direction
    denied_by: str = ""
    passed_by: str = ""
    partly: tuple[str, ...] = ()


def tables_of(resources: Resources, compiler: Compiler | None = None) -> tuple[list[RuleTable], list[str]]:
    """A table for each kind of HostEndpoint: those with the same labels and settings have the same. And why some cannot
    be compiled.
    """
    compiler = compiler or Compiler()
    profiles = {item.name: item for item in resources.profiles}
    felix: dict[str, FelixConfiguration] = {}
    tables: dict[tuple[object, ...], RuleTable] = {}
    problems: dict[str, None] = {}
    for item in resources.host_endpoints:
        felix.setdefault(item.node, resources.felix_for(item.node))
        settings = felix[item.node]
        key = (
            frozenset(endpoint_labels(item, profiles).items()),
            settings.failsafe_inbound,
            settings.failsafe_outbound,
        )
        if key in tables:
            continue
        try:
            table = compiler.compile(resources, node=item.node, interface=_interface(item), addresses=item.expected_ips)
        except UnsupportedRuleError as error:
            problems |= dict.fromkeys(str(error).splitlines())
            continue
        if table.endpoint is not None:
            tables[key] = table
    return list(tables.values()), list(problems)


def _interface(item: HostEndpoint) -> str:
    """A name that the endpoint governs, though this host may not have the interface."""
    return item.interface_name or f"of {item.name}"


def effects(tables: Iterable[RuleTable], network: IPNetwork) -> Iterator[Effect]:
    """For each table and direction."""
    for table in tables:
        yield _effect(table, Direction.INGRESS, table.ingress, network)
        yield _effect(table, Direction.EGRESS, table.egress, network)


def _effect(table: RuleTable, direction: Direction, entries: Iterable[Entry], network: IPNetwork) -> Effect:
    partly: list[str] = []
    passed_tier = None
    for entry in entries:
        if entry.action is Action.LOG or entry.tier == passed_tier:
            continue
        match = match_of(table, entry, network)
        if match is Match.NONE:
            continue
        if entry.action is Action.DENY:
            if match is Match.ALL:
                return Effect(table, direction, denied_by=entry.name, partly=tuple(partly))
        elif match is Match.SOME:
            partly.append(entry.name)
        elif entry.action is Action.ALLOW:
            return Effect(table, direction, passed_by=entry.name, partly=tuple(partly))
        else:
            passed_tier = entry.tier
    return Effect(table, direction, partly=tuple(partly))


def match_of(table: RuleTable, entry: Entry, network: IPNetwork) -> Match:
    """Which packets from the network, or to it for an egress entry, this entry matches."""
    if network.version not in entry.families:
        return Match.NONE
    remote = Side.SOURCE if entry.direction is Direction.INGRESS else Side.DESTINATION
    return Match(min((_match(table, each, network, remote) for each in entry.conditions), default=Match.ALL))


def _match(table: RuleTable, condition: Condition, network: IPNetwork, remote: Side) -> Match:
    match condition:
        case InSet(side, name, negated) if side is remote:
            nets = table.sets[name].nets
            return _negated(_within(nets.covers(network), nets.overlaps(network)), negated)
        case InNets(side, nets, negated) if side is remote:
            same = [net for net in nets if net.version == network.version]
            within = any(_is_within(network, net) for net in same)
            return _negated(_within(within, any(net.overlaps(network) for net in same)), negated)
        case Protocol() | InSet() | InNets() | Ports() | Icmp():
            return Match.SOME
        case _:
            raise unhandled(condition, "the effect of an emergency act")


def _within(all_of_it: bool, some_of_it: bool) -> Match:
    return Match.ALL if all_of_it else Match.SOME if some_of_it else Match.NONE


def _negated(match: Match, negated: bool) -> Match:
    return Match(Match.ALL - match) if negated else match


def _is_within(network: IPNetwork, other: IPNetwork) -> bool:
    return other.prefixlen <= network.prefixlen and int(other.network_address) == int(network.network_address) >> (
        network.max_prefixlen - other.prefixlen
    ) << (network.max_prefixlen - other.prefixlen)


# -- the lists of a policy -------------------------------------------------------------------------------------------


def denying(tables: Iterable[RuleTable]) -> Iterator[tuple[Entry, IpSet]]:
    """The lists of remote addresses that entries deny, each with the entry."""
    for table in tables:
        for entry in (*table.ingress, *table.egress):
            if entry.action is Action.DENY:
                yield from ((entry, table.sets[name]) for name in _lists(entry, negated=False))


def denies_whole_list(entry: Entry) -> bool:
    """Whether it denies all packets that are received from its list, but for exceptions by source."""
    if entry.action is not Action.DENY or entry.direction is not Direction.INGRESS or entry.families != FAMILIES:
        return False
    lists = list(_lists(entry, negated=False))
    others = [each for each in entry.conditions if not (isinstance(each, InSet | InNets) and each.negated)]
    return len(lists) == len(others) == 1 and all(
        isinstance(each, InSet | InNets) and each.side is Side.SOURCE for each in entry.conditions
    )


def exempting(tables: Iterable[RuleTable]) -> Iterator[tuple[Entry, IpSet]]:
    """The lists of remote addresses that are not denied: an earlier entry lets them pass, or a Deny leaves them out."""
    for table in tables:
        for entries in (table.ingress, table.egress):
            last = max((at for at, entry in enumerate(entries) if entry.action is Action.DENY), default=0)
            for entry in entries[: last + 1]:
                passes = entry.action in (Action.ALLOW, Action.PASS)
                if passes or entry.action is Action.DENY:
                    yield from ((entry, table.sets[name]) for name in _lists(entry, negated=not passes))


def _lists(entry: Entry, *, negated: bool) -> Iterator[str]:
    remote = Side.SOURCE if entry.direction is Direction.INGRESS else Side.DESTINATION
    for each in entry.conditions:
        if isinstance(each, InSet) and each.side is remote and each.negated is negated:
            yield each.id
