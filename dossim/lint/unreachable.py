"""unreachable-entry: why an entry matches no packet at all. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dossim.lint.boxes import Box, Space
from dossim.lint.ranges import Ranges
from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import Side
from enforcer.policy.conditions import InNets, InSet, Ports, Protocol
from enforcer.policy.ruletable import Entry

WORD = {Side.SOURCE: "source", Side.DESTINATION: "destination"}


def why_unreachable(entry: Entry, space: Space) -> str:
    """The contradiction, "" if some packet may match. For empty sets see :func:`empty_sets`."""
    boxes = list(space.boxes(entry))
    if not boxes:
        families = "its nets, its protocol and its ipVersion are of different families"
        return next(_of_no_family(entry), families)
    if space.has_dead_named_port(entry):
        return "no HostEndpoint that its selector selects has the port it names"
    if any(boxes) or empty_sets(entry, space):
        return ""
    return next(_contradictions(entry, space, boxes), "its conditions exclude each other")


def empty_sets(entry: Entry, space: Space) -> list[str]:
    """The empty sets that keep an entry from matching."""
    wanted = [item.id for item in entry.conditions if isinstance(item, InSet) and not item.negated]
    return [name for name in wanted if not len(space.table.sets[name].nets)]


def _of_no_family(entry: Entry) -> Iterator[str]:
    """Why an entry has no family, apart from the families of its conditions."""
    for item in entry.conditions:
        if isinstance(item, Protocol) and item.negated and Protocol(item.number) in entry.conditions:
            yield "protocol and notProtocol are the same"
        if isinstance(item, InNets) and item.negated and any(not net.prefixlen for net in item.nets):
            nets = _Lists.of(entry, item.side).nets
            yield (
                f"{WORD[item.side]}.notNets hold all of {WORD[item.side]}.nets"
                if nets
                else (f"{WORD[item.side]} excludes every address")
            )


def _contradictions(entry: Entry, space: Space, boxes: list[Box]) -> Iterator[str]:
    if not any(box.masks.icmp for box in boxes):
        yield "icmp and notICMP exclude each other"
    for side, name in WORD.items():
        ports = any(isinstance(item, Ports) and item.side is side and not item.negated for item in entry.conditions)
        if not any(box.masks.ports(side) for box in boxes):
            yield f"{name}.notPorts hold all of {name}.ports" if ports else f"{name}.notPorts hold every port"
        if not any(box.addresses(side) for box in boxes):
            yield from _excluded(entry, name, _Lists.of(entry, side), space)


@dataclass
class _Lists:
    """The address conditions of one side."""

    nets: tuple[IPNetwork, ...] = ()
    not_nets: tuple[IPNetwork, ...] = ()
    ip_set: str | None = None
    not_ip_set: str | None = None

    @classmethod
    def of(cls, entry: Entry, side: Side) -> _Lists:
        found = cls()
        for item in entry.conditions:
            if isinstance(item, InNets) and item.side is side:
                setattr(found, "not_nets" if item.negated else "nets", item.nets)
            if isinstance(item, InSet) and item.side is side:
                setattr(found, "not_ip_set" if item.negated else "ip_set", item.id)
        return found

    def meet(self, version: int, space: Space) -> bool:
        """Whether an address of the nets is in the set."""
        return self.ip_set is None or Ranges.of(self.nets, version).meets(space.set(self.ip_set, version))


def _excluded(entry: Entry, name: str, side: _Lists, space: Space) -> Iterator[str]:
    """Why no address can match one side."""
    if side.ip_set is not None and not any(space.set(side.ip_set, version) for version in entry.families):
        yield f"the set of {name}.selector holds no IPv{entry.families[0]} address, all that the entry is for"
    if side.nets and all(Ranges.of(side.nets, it) <= Ranges.of(side.not_nets, it) for it in entry.families):
        yield f"{name}.notNets hold all of {name}.nets"
    if side.nets and not any(side.meet(version, space) for version in entry.families):
        yield f"no address of {name}.nets is in the set of {name}.selector"
    if side.nets and side.not_ip_set is not None:
        yield f"the set of {name}.notSelector holds all of {name}.nets that are left"
    if side.ip_set is not None and side.not_nets:
        yield f"{name}.notNets hold every address in the set of {name}.selector"
    if side.not_ip_set is not None:
        yield f"the set of {name}.notSelector holds every address"
    yield f"{name} excludes every address"
