"""denied_by: what a :class:`~enforcer.policy.tracked.TrackedTable` does with the next packet of one flow, NEW to
conntrack. Pure.

For a handful of flows, such as the sockets of a host: every condition is looked at, one by one. The order is that of
:mod:`enforcer.policy.tracked`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from enforcer.model.nets import IPAddress
from enforcer.model.vocabulary import Action, Side
from enforcer.policy.conditions import Condition, Icmp, InNets, InSet, Ports, Protocol, unhandled
from enforcer.policy.resources import Failsafe
from enforcer.policy.ruletable import Entry, NamedSets
from enforcer.policy.tracked import Hook, TrackedChain, TrackedTable


@dataclass(frozen=True)
class Flow:
    """A packet that has ports: protocol, and address and port of each side."""

    protocol: int
    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int

    @property
    def version(self) -> int:
        return int(self.source.version)

    def reversed(self) -> Flow:
        """A packet of the other direction."""
        return Flow(self.protocol, self.destination, self.destination_port, self.source, self.source_port)

    def address(self, side: Side) -> IPAddress:
        return self.source if side is Side.SOURCE else self.destination

    def port(self, side: Side) -> int:
        return self.source_port if side is Side.SOURCE else self.destination_port


class _Fate(Enum):
    ALLOWED = "allowed"
    UNDECIDED = "undecided"


def denied_by(table: TrackedTable, hook: Hook, flow: Flow) -> str:
    """The name of what denies the flow at INPUT or OUTPUT, preDNAT policy included; "" where it passes.

    Passes: an entry or a failsafe accepts it, or the host's own rules decide.
    """
    for at in (Hook.PRE_DNAT, Hook.INPUT) if hook is Hook.INPUT else (hook,):
        chain = table.at(at)
        fate = _in_chain(table, chain, flow) if chain else _Fate.UNDECIDED
        if isinstance(fate, str):
            return fate
        if fate is _Fate.ALLOWED and not (chain and at is Hook.PRE_DNAT and _fails_safe(chain, flow)):
            return ""  # a failsafe ends the mangle table alone; filter asks again
    return ""


def _in_chain(table: TrackedTable, chain: TrackedChain, flow: Flow) -> _Fate | str:
    if _fails_safe(chain, flow):
        return _Fate.ALLOWED
    for tier in (*chain.tiers, *chain.profiles):
        entry = _deciding(table, tier.entries, flow)
        if entry is None and tier.default is Action.DENY:
            return tier.end(chain.hook.direction)
        if entry is not None and entry.action is not Action.PASS:
            return _Fate.ALLOWED if entry.action is Action.ALLOW else entry.name
    return chain.no_profile if chain.end is Action.DENY else _Fate.UNDECIDED


def _deciding(table: NamedSets, entries: Iterable[Entry], flow: Flow) -> Entry | None:
    for entry in entries:
        if entry.action is Action.LOG:
            continue
        if flow.version in entry.families and all(_holds(item, table, flow) for item in entry.conditions):
            return entry
    return None


def _fails_safe(chain: TrackedChain, flow: Flow) -> bool:
    remote = flow.destination if chain.hook is Hook.OUTPUT else flow.source
    return any(_is_failsafe(item, flow, remote) for item in chain.failsafes)


def _is_failsafe(failsafe: Failsafe, flow: Flow, remote: IPAddress) -> bool:
    if (failsafe.protocol, failsafe.port) != (flow.protocol, flow.destination_port):
        return False
    return failsafe.net is None or remote in failsafe.net


def _holds(condition: Condition, table: NamedSets, flow: Flow) -> bool:
    match condition:
        case Protocol(number, negated):
            return (flow.protocol == number) is not negated
        case InNets(side, nets, negated):
            return any(flow.address(side) in net for net in nets) is not negated
        case InSet(side, name, negated):
            return table.sets[name].nets.contains(flow.address(side)) is not negated
        case Ports(side, ranges, names, negated):
            pair = (flow.address(side), flow.port(side))
            found = any(pair[1] in item for item in ranges) or any(
                table.port_sets[name].protocol == flow.protocol and pair in table.port_sets[name].members
                for name in names
            )
            return found is not negated
        case Icmp(_, _, negated):
            return negated
        case _:
            raise unhandled(condition, "the evaluation of a flow")
