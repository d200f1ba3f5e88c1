"""Which sources may be denied upstream, and in which order. Pure.

Upstream knows no policy. So a source is exported only where this host's policy denies every packet from it to the
destination, whatever its protocol and ports: what an earlier entry lets pass, even in part, is left out and told.

The kernel counts packets of entries. Nothing counts those of single sources, so entries are ranked, and of the sets of
an entry first those of emergency acts, then the smaller ones: a person, or something precise, has chosen their CIDRs.
A set is exported as a whole or not at all, because any choice among its CIDRs would be a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from enforcer.emergency.act import created_of, is_act, until_of
from enforcer.emergency.effect import effects
from enforcer.model.nets import IPAddress, IPNetwork
from enforcer.model.vocabulary import Action, Direction, Side
from enforcer.policy.compile import Compiler
from enforcer.policy.conditions import Icmp, InNets, InSet, Ports, Protocol, unhandled
from enforcer.policy.resources import GlobalNetworkSet, HostEndpoint, Resources
from enforcer.policy.ruletable import Entry, RuleTable

_GNS = "gns/"


@dataclass(frozen=True)
class Count:
    """What an entry has dropped, at all stages."""

    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, order=True)
class Flow:
    """Packets from a source to one of our addresses; ``destination`` None: to whatever."""

    source: str
    destination: str | None = None


@dataclass(frozen=True)
class Rule:
    """A flow that is denied. ``entry``: by which one here. ``listed``: the set, or rule, that has the source.
    ``count``: of the entry, None if it was not read. ``until_s``: Unix time of the end, None: there is none.
    """

    flow: Flow
    entry: str
    listed: str
    count: Count | None
    until_s: int | None = None


@dataclass(frozen=True)
class Selection:
    """``left_out``: why lists are not exported as a whole. ``notes``: what upstream does not know."""

    rules: Sequence[Rule] = ()
    left_out: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class _Listed:
    """The sources that one set, or one rule, has, and where they are denied."""

    name: str
    entry: Entry
    table: RuleTable
    endpoint: HostEndpoint
    nets: Sequence[IPNetwork]
    item: GlobalNetworkSet | None


@dataclass
class _Chosen:
    """``lengths``: the prefix lengths of the sources in ``rules``, by IP version."""

    rules: dict[Flow, Rule] = field(default_factory=dict)
    left_out: dict[str, None] = field(default_factory=dict)
    lengths: dict[int, set[int]] = field(default_factory=lambda: {4: set(), 6: set()})

    def has(self, net: IPNetwork, destination: str | None) -> bool:
        """Whether a rule denies the flow already."""
        shorter = [net.supernet(new_prefix=length) for length in self.lengths[net.version] if length <= net.prefixlen]
        return any(Flow(str(other), destination) in self.rules for other in shorter)


def select(
    resources: Resources,
    node: str,
    counts: Mapping[str, Count] | None,
    *,
    top: int | None,
    destinations: bool,
    now_s: float,
) -> Selection:
    """``counts``: of entries by name, None: were not read. ``top``: how many rules at most, None: all.
    ``destinations``: one rule for each of the endpoint's own addresses; those without any are left out. Acts that have
    ended are not exported. Raises UnsupportedRuleError.
    """
    found = _Chosen()
    notes: dict[str, None] = {}
    for item in sorted(_all_listed(resources, node, notes), key=lambda item: _rank(item, counts or {})):
        if item.item is not None and (until_s := until_of(item.item)) is not None and until_s <= now_s:
            continue
        count = None if counts is None else counts.get(item.entry.name, Count())
        _add(found, item, count, top=top, destinations=destinations)
    return Selection(list(found.rules.values()), list(found.left_out), list(notes))


def _all_listed(resources: Resources, node: str, notes: dict[str, None]) -> Iterator[_Listed]:
    compiler, sets = Compiler(), {item.name: item for item in resources.global_network_sets}
    for endpoint in resources.host_endpoints:
        if endpoint.node != node:
            continue
        interface = endpoint.interface_name or f"of {endpoint.name}"
        table = compiler.compile(resources, node=node, interface=interface, addresses=endpoint.expected_ips)
        if table.endpoint != endpoint.name:
            continue
        before = len(notes)
        for entry in table.ingress:
            if entry.action is Action.DENY:
                yield from _of_entry(entry, table, endpoint, sets)
        if len(notes) == before:
            notes |= dict.fromkeys(_failsafes(table))


def _failsafes(table: RuleTable) -> Iterator[str]:
    ports = sorted({item.port for item in table.failsafe_inbound if item.net is None or not item.net.prefixlen})
    if ports:
        yield (
            f"HostEndpoint {table.endpoint}: upstream has no failsafe ports: the sources lose ports "
            f"{', '.join(map(str, ports))}, too"
        )


def _of_entry(
    entry: Entry, table: RuleTable, endpoint: HostEndpoint, sets: Mapping[str, GlobalNetworkSet]
) -> Iterator[_Listed]:
    """The lists of sources of an entry. What else it matches on is the business of :func:`_is_denied`."""
    for each in entry.conditions:
        match each:
            case InSet(Side.SOURCE, name, False):
                members = [
                    sets[member.removeprefix(_GNS)] for member in table.sets[name].members if member.startswith(_GNS)
                ]
                for item in members:
                    yield _Listed(f"GlobalNetworkSet {item.name}", entry, table, endpoint, list(item.nets), item)
            case InNets(Side.SOURCE, nets, False):
                yield _Listed(f"the rule at {entry.position}", entry, table, endpoint, nets, None)
            case Protocol() | InSet() | InNets() | Ports() | Icmp():
                pass
            case _:
                raise unhandled(each, f"the export of {entry.name}")


def _rank(item: _Listed, counts: Mapping[str, Count]) -> tuple[int, int, int, int, str]:
    act = item.item is not None and is_act(item.item)
    created_s = (created_of(item.item) or 0) if item.item is not None and act else 0
    return (-counts.get(item.entry.name, Count()).packets, -int(act), -created_s, len(item.nets), item.name)


def _add(found: _Chosen, item: _Listed, count: Count | None, *, top: int | None, destinations: bool) -> None:
    until_s = until_of(item.item) if item.item is not None else None
    rules: dict[Flow, Rule] = {}
    reasons: dict[str, int] = {}
    for net in item.nets:
        if why := _not_denied(item, net):
            reasons[why] = reasons.get(why, 0) + 1
            continue
        for flow in _flows(net, item.endpoint.expected_ips if destinations else None):
            if not found.has(net, flow.destination):
                rules[flow] = Rule(flow, item.entry.name, item.name, count, until_s)
    if destinations and not item.endpoint.expected_ips:
        found.left_out[
            f"{item.name}: HostEndpoint {item.endpoint.name} has no expectedIPs, and a flow without a destination of "
            "ours would be dropped for everybody"
        ] = None
    for why, number in reasons.items():
        found.left_out[f"{item.name}: {number:,} of {len(item.nets):,} CIDRs {why}"] = None
    if top is not None and len(found.rules) + len(rules) > top:
        found.left_out[
            f"{item.name}: {len(rules):,} rules do not fit into the {top - len(found.rules):,} that are left of --top "
            f"{top}; nothing counts which of its CIDRs drop"
        ] = None
        return
    found.rules |= rules
    for net in item.nets:
        found.lengths[net.version].add(net.prefixlen)


def _flows(net: IPNetwork, destinations: Sequence[IPAddress] | None) -> Iterable[Flow]:
    if destinations is None:
        return [Flow(str(net))]
    return [
        Flow(str(net), f"{address}/{address.max_prefixlen}")
        for address in destinations
        if address.version == net.version
    ]


def _not_denied(item: _Listed, net: IPNetwork) -> str:
    """Why upstream must not deny a source, though it is listed; "" if it may."""
    effect = next(each for each in effects([item.table], net) if each.direction is Direction.INGRESS)
    if effect.passed_by:
        return f"are let through by {effect.passed_by}"
    if effect.partly:
        return f"are let through in part by {', '.join(effect.partly)}"
    if not effect.denied_by:
        return f"are denied in part only: {item.entry.name} matches on more than the source"
    safe = [each.net for each in item.table.failsafe_inbound if each.net is not None and each.net.prefixlen]
    if any(each.version == net.version and each.overlaps(net) for each in safe):
        return "have addresses in the networks of failsafe ports"
    return ""
