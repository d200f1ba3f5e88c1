"""What tracked policy closes, and what it does not stop: host-closed, ssh-closed, loopback-policed,
established-outlives-deny, reject-drops. Pure.

Without ``--tracked enforce`` these are notes, and only about HostEndpoints that a tracked policy selects: a host that
has untracked policy alone is closed by nothing here (Calico itself closes it).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from dossim.lint.boxes import ALL_PORTS, EVERYTHING, READABLE, Box, Space
from dossim.lint.failsafes import Bypass
from dossim.lint.finding import Finding, Level, RuleId, some
from dossim.lint.ranges import Ranges
from dossim.lint.tables import interfaces_of
from enforcer.model.choices import TrackedChoice
from enforcer.model.facts import HostFacts
from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import Action, Direction, Side
from enforcer.policy.compile import Compiler
from enforcer.policy.conditions import InNets, InSet
from enforcer.policy.endpoint import ANY_INTERFACE, LOOPBACK
from enforcer.policy.resources import FelixConfiguration, HostEndpoint, Resources
from enforcer.policy.ruletable import Entry, RuleTable
from enforcer.policy.tracked import Hook, TrackedChain, TrackedTable

_TCP, _UDP, _SSH = 6, 17, 22
_OWN_HOOK = {Direction.INGRESS: Hook.INPUT, Direction.EGRESS: Hook.OUTPUT}
_REMOTE = {Direction.INGRESS: Side.SOURCE, Direction.EGRESS: Side.DESTINATION}
_LOCALHOST: dict[int, IPNetwork] = {4: ip_network("127.0.0.0/8"), 6: ip_network("::1")}
_DENY_ACTIONS = {
    "iptables_filter_deny_action": "iptablesFilterDenyAction",
    "nftables_filter_deny_action": "nftablesFilterDenyAction",
}


@dataclass(frozen=True)
class Policed:
    """The chains of a HostEndpoint, and its untracked entries, which decide before them. ``loopback``: it is a ``*``
    endpoint that governs the loopback too.
    """

    endpoint: HostEndpoint
    table: TrackedTable
    space: Space
    untracked: RuleTable
    felix: FelixConfiguration
    loopback: bool

    @property
    def name(self) -> str:
        return f"hep/{self.endpoint.name}"

    @property
    def selected(self) -> bool:
        """Whether a tracked policy selects it."""
        return bool(self.untracked.tracked)

    def chain(self, direction: Direction) -> TrackedChain:
        """That of the packets that the host itself receives, or sends."""
        found = self.table.at(_OWN_HOOK[direction])
        assert found is not None, "every endpoint has both chains"
        return found

    def allowed_before(self, direction: Direction) -> list[Box]:
        """What is allowed without the chain of this direction: by untracked policy, and by preDNAT."""
        ingress = direction is Direction.INGRESS
        raw = self.untracked.ingress if ingress else self.untracked.egress
        pre_dnat = self.table.at(Hook.PRE_DNAT) if ingress else None
        entries = [(entry, Space(self.untracked)) for entry in raw]
        entries += [(entry, self.space) for entry in pre_dnat.entries()] if pre_dnat else []
        return [box for entry, space in entries if entry.action is Action.ALLOW for box in space.boxes(entry)]


def tracked_findings(
    resources: Resources, nodes: Iterable[str], facts: HostFacts | None, choice: TrackedChoice
) -> Iterator[Finding]:
    """All findings about tracked policy. ``choice``: whether it is enforced."""
    enforced = choice is TrackedChoice.ENFORCE
    if not enforced and all(policy.do_not_track for policy in resources.policies):
        return
    concerned = [item for node in nodes for item in _policed(resources, node, facts) if item.selected or enforced]
    for item in concerned:
        yield from _closed(item, enforced=enforced)
        yield from _ssh(item, enforced=enforced)
        yield from _loopback(item, enforced=enforced)
        yield from _outlived(item)
    if any(item.selected for item in concerned):
        yield from _rejecting(resources, enforced=enforced)


def _policed(resources: Resources, node: str, facts: HostFacts | None) -> Iterator[Policed]:
    """The HostEndpoints that govern an interface of the node. One with a rule that cannot be expressed is omitted: what
    such a rule matches is unknown, and enforcing it is an error.
    """
    compiler, felix = Compiler(), resources.felix_for(node)
    endpoints = {item.name: item for item in resources.host_endpoints}
    local = compiler.compile_tracked(resources, node=node, interface=LOOPBACK)
    found: set[str] = set()
    for interface in interfaces_of(resources, node, facts):
        name, addresses = interface.name, interface.addresses
        table = compiler.compile_tracked(resources, node=node, interface=name, addresses=addresses)
        if table is None or table.endpoint in found:
            continue
        found.add(table.endpoint)
        if not table.unsupported:
            untracked = compiler.compile(resources, node=node, interface=name, addresses=addresses)
            endpoint = endpoints[table.endpoint]
            is_any = endpoint.interface_name == ANY_INTERFACE
            loopback = is_any and local is not None and local.endpoint == endpoint.name
            yield Policed(endpoint, table, Space(table), untracked, felix, loopback)


def _level(level: Level, *, enforced: bool) -> Level:
    return level if enforced else Level.NOTE


def _if_enforced(*, enforced: bool) -> str:
    return "" if enforced else " where tracked policy is enforced"


# -- what is closed ----------------------------------------------------------------------------------------------------


def _is_closed(item: Policed, direction: Direction) -> bool:
    """Whether no entry allows anything."""
    allows = any(entry.action is Action.ALLOW for entry in item.chain(direction).entries())
    return not allows and not item.allowed_before(direction)


def _closed(item: Policed, *, enforced: bool) -> Iterator[Finding]:
    """host-closed."""
    closed = [direction for direction in Direction if _is_closed(item, direction)]
    if not closed:
        return
    passing = [f"{direction} {_failsafes(item, direction)}" for direction in closed]
    message = (
        f"{item.name}: no policy and no profile allows any {' or '.join(closed)} packet:"
        f"{_if_enforced(enforced=enforced)} only established connections and failsafes pass ({'; '.join(passing)})"
    )
    yield Finding(RuleId.CLOSED, _level(Level.WARNING, enforced=enforced), item.endpoint.position, message)


def _failsafes(item: Policed, direction: Direction) -> str:
    named = dict.fromkeys(str(Bypass(one, direction, answers=False)) for one in item.chain(direction).failsafes)
    return ", ".join(named) or "none"


def _ssh(item: Policed, *, enforced: bool) -> Iterator[Finding]:
    """ssh-closed; not if everything is, which is said."""
    chain = item.chain(Direction.INGRESS)
    if _is_closed(item, Direction.INGRESS) or any((one.protocol, one.port) == (_TCP, _SSH) for one in chain.failsafes):
        return
    ssh = [_packets(version, _TCP, port=_SSH) for version in (4, 6)]
    if any(one.meets(box) for one in ssh for box in item.allowed_before(Direction.INGRESS)):
        return
    if all(_allows(one, chain, item.space) is False for one in ssh):
        message = (
            f"{item.name}: tcp/22 is neither a failsafe nor allowed:{_if_enforced(enforced=enforced)} "
            "nobody can log in by SSH once the present connections have ended"
        )
        yield Finding(RuleId.SSH, _level(Level.ERROR, enforced=enforced), item.endpoint.position, message)


def _loopback(item: Policed, *, enforced: bool) -> Iterator[Finding]:
    """loopback-policed: an error if nothing of the loopback's TCP or UDP is allowed, a warning if some may not be."""
    if not item.loopback:
        return
    versions = (4, 6) if item.felix.ipv6_support else (4,)
    answers = {
        _allows(_packets(version, protocol, _LOCALHOST[version]), item.chain(direction), item.space)
        for version in versions
        for protocol in (_TCP, _UDP)
        for direction in Direction
    }
    if answers == {True}:
        return
    amount = "not" if False in answers else "not wholly"
    message = (
        f"{item.name}: a '*' HostEndpoint governs the loopback too, whose packets are {amount} allowed:"
        f"{_if_enforced(enforced=enforced)} connections of the host to itself break; allow "
        f"{' and '.join(str(_LOCALHOST[version]) for version in versions)} in both directions"
    )
    level = Level.ERROR if False in answers else Level.WARNING
    yield Finding(RuleId.LOOPBACK, _level(level, enforced=enforced), item.endpoint.position, message)


def _packets(version: int, protocol: int, net: IPNetwork | None = None, *, port: int | None = None) -> Box:
    """All packets of a protocol with readable ports, between addresses of the net."""
    addresses = Ranges.full(version) if net is None else Ranges.of([net], version)
    ports = ALL_PORTS if port is None else 1 << port
    masks = EVERYTHING._replace(protocols=1 << protocol, destination_ports=ports, readability=READABLE)
    return Box(version, addresses, addresses, masks)


def _allows(box: Box, chain: TrackedChain, space: Space) -> bool | None:
    """Whether the chain allows new connections of a box: True if all of them, False if none of them, None if that is
    not proved.
    """
    some_allowed = some_not = False  # whether packets of the box may have been decided so
    for tier in (*chain.tiers, *chain.profiles):
        decided = None
        for entry in tier.entries:
            boxes = [one for one in space.boxes(entry) if one.meets(box)]
            if entry.action is Action.LOG or not boxes:
                continue
            if any(one.holds(box) for one in boxes):
                decided = entry.action
                break
            some_allowed |= entry.action is not Action.DENY
            some_not |= entry.action is not Action.ALLOW
        if decided is Action.ALLOW:
            return None if some_not else True
        if decided is Action.DENY or (decided is None and tier.default is Action.DENY):
            break
    return None if some_allowed else False


# -- what is not stopped -----------------------------------------------------------------------------------------------


def _outlived(item: Policed) -> Iterator[Finding]:
    """established-outlives-deny: the first Deny of each policy that lists remote addresses. Not one without: to deny
    what no entry allows is no answer to an attack.
    """
    seen: set[str] = set()
    for chain in item.table.chains:
        for entry in chain.entries():
            if entry.action is Action.DENY and entry.policy and entry.policy not in seen and _lists_remote(entry):
                seen.add(entry.policy)
                message = (
                    f"{entry.name} denies new connections only: those established before its addresses were listed "
                    "go on, because tracked policy accepts them first; doNotTrack: true denies every packet"
                )
                yield Finding(RuleId.OUTLIVES, Level.NOTE, entry.position, message)


def _lists_remote(entry: Entry) -> bool:
    side = _REMOTE[entry.direction]
    found = (one for one in entry.conditions if isinstance(one, (InNets, InSet)))
    return any(one.side is side and not one.negated for one in found)


def _rejecting(resources: Resources, *, enforced: bool) -> Iterator[Finding]:
    """reject-drops."""
    for felix in resources.felix_configurations:
        names = [spelt for field, spelt in _DENY_ACTIONS.items() if getattr(felix, field) == "Reject"]
        if names:
            message = (
                f"FelixConfiguration {felix.name}: {some(names)}: Reject is not carried out: tracked policy drops, "
                "because mangle cannot reject"
            )
            yield Finding(RuleId.REJECT, _level(Level.WARNING, enforced=enforced), felix.position, message)
