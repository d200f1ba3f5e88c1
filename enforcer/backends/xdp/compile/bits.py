"""The conditions that the XDP program tests for each bit: those of the held entries and of the failsafes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import Action, Side
from enforcer.planning.plan import InterfacePlan
from enforcer.planning.xdp_capability import failsafe_entries
from enforcer.policy.conditions import Icmp, InNets, InSet, Ports, Protocol, unhandled
from enforcer.policy.resources import PortRange
from enforcer.policy.ruletable import Entry


@dataclass
class Lists:
    """The address and port lists that one side must match, or must not match."""

    nets: tuple[IPNetwork, ...] = ()
    ip_set: str | None = None
    ranges: tuple[PortRange, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def addresses(self) -> bool:
        """Whether there is any address list."""
        return bool(self.nets) or self.ip_set is not None

    @property
    def ports(self) -> bool:
        """Whether there is any port list."""
        return bool(self.ranges or self.names)


@dataclass
class Bit:
    """One bit of a row: an entry, split into what the maps contain. A failsafe has no name and its own tier. ``wanted``
    and ``unwanted``: the lists of both sides that must and must not match.
    """

    entry: Entry
    protocol: int | None = None
    not_protocol: int | None = None
    wanted: dict[Side, Lists] = field(default_factory=lambda: {side: Lists() for side in Side})
    unwanted: dict[Side, Lists] = field(default_factory=lambda: {side: Lists() for side in Side})
    icmp: Icmp | None = None
    not_icmp: Icmp | None = None

    @property
    def action(self) -> Action:
        return self.entry.action

    @property
    def tier(self) -> str:
        return self.entry.tier

    def of(self, side: Side, *, negated: bool) -> Lists:
        """The lists that one side must match, or must not match (``negated``)."""
        return (self.unwanted if negated else self.wanted)[side]

    @property
    def lists(self) -> tuple[Lists, ...]:
        """The lists of both sides, positive and negated."""
        return (*self.wanted.values(), *self.unwanted.values())

    @property
    def reads_ports(self) -> bool:
        return any(item.ports for item in self.lists)

    @property
    def reads_icmp(self) -> bool:
        return self.icmp is not None or self.not_icmp is not None

    def is_of(self, version: int) -> bool:
        return version in self.entry.families


def bits_of(plan: InterfacePlan) -> tuple[Bit, ...]:
    """All bits in evaluation order, failsafes first."""
    return tuple(bit_of(entry) for entry in (*failsafe_entries(plan.table), *plan.xdp_entries))


def bit_of(entry: Entry) -> Bit:
    """The bit of an entry. The planner leaves to raw the entries with conditions that the program cannot match on."""
    bit = Bit(entry)
    for condition in entry.conditions:
        match condition:
            case Protocol(number, negated):
                if negated:
                    bit.not_protocol = number
                else:
                    bit.protocol = number
            case InNets(side, nets, negated):
                bit.of(side, negated=negated).nets = nets
            case InSet(side, name, negated):
                bit.of(side, negated=negated).ip_set = name
            case Ports(side, ranges, names, negated):
                lists = bit.of(side, negated=negated)
                lists.ranges, lists.names = ranges, names
            case Icmp(negated=negated):
                if negated:
                    bit.not_icmp = condition
                else:
                    bit.icmp = condition
            case _:
                raise unhandled(condition, f"XDP cannot enforce {entry.name}: it")
    return bit
