"""The conditions of an entry in the order in which netfilter's rules evaluate them. Pure."""

from __future__ import annotations

from typing import NamedTuple

from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import Side
from enforcer.policy.conditions import Icmp, InNets, InSet, Ports, Protocol, unhandled
from enforcer.policy.ruletable import Entry


class Phases(NamedTuple):
    """Protocols, nets and sets, ports, ICMP types: each is evaluated if all before it match.

    Consumers unpack the tuple, so that mypy reports them if a phase is added.
    """

    protocols: list[Protocol]
    nets: list[InNets]
    sets: list[InSet]
    ports: list[Ports]
    types: list[Icmp]

    @classmethod
    def of(cls, entry: Entry) -> Phases:
        found = cls([], [], [], [], [])
        for condition in entry.conditions:
            match condition:
                case Protocol():
                    found.protocols.append(condition)
                case InNets():
                    found.nets.append(condition)
                case InSet():
                    found.sets.append(condition)
                case Ports():
                    found.ports.append(condition)
                case Icmp():
                    found.types.append(condition)
                case _:
                    raise unhandled(condition, f"no prediction for {entry.name}: it")
        return found

    @property
    def numbers(self) -> bool:
        """Whether port numbers are matched on; both sides' are readable or neither's."""
        return any(item.ranges for item in self.ports)

    @property
    def transport(self) -> bool:
        """Whether anything but addresses is matched on, so that the transport protocol must be known."""
        return bool(self.protocols or self.ports or self.types)

    def single_nets(self, version: int) -> list[tuple[Side, IPNetwork, bool]]:
        """What netfilter evaluates before the protocol: for each side one net of the family, or one negated net."""
        found: dict[Side, tuple[Side, IPNetwork, bool]] = {}
        for item in self.nets:
            own = [net for net in item.nets if net.version == version]
            if len(own) == 1:
                found.setdefault(item.side, (item.side, own[0], item.negated))
        return list(found.values())
