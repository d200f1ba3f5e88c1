"""unreachable-entry: why an entry matches no packet at all. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from dossim.lint.boxes import Box, Space, families
from dossim.lint.ranges import Ranges
from enforcer.policy.ruletable import AddressMatch, Entry

SIDES = ("source", "destination")


def why_unreachable(entry: Entry, space: Space) -> str:
    """The contradiction, "" when some packet may match. Sets that are empty are :func:`empty_sets`."""
    boxes = list(space.boxes(entry))
    if not boxes:
        return "its nets, its protocol and its ipVersion are of different families"
    if space.has_dead_named_port(entry):
        return "no HostEndpoint that its selector selects has the port it names"
    if any(boxes) or empty_sets(entry, space):
        return ""
    return next(_contradictions(entry, space, boxes), "its conditions exclude each other")


def empty_sets(entry: Entry, space: Space) -> list[str]:
    """The sets without an address because of which an entry matches nothing."""
    return [
        side.ip_set
        for side in (entry.source, entry.destination)
        if side.ip_set is not None and not len(space.table.sets[side.ip_set].nets)
    ]


def _contradictions(entry: Entry, space: Space, boxes: list[Box]) -> Iterator[str]:
    if not any(box.protocols for box in boxes):
        yield "protocol and notProtocol are the same"
    if not any(box.icmp for box in boxes):
        yield "icmp and notICMP exclude each other"
    for name, side in zip(SIDES, (entry.source, entry.destination), strict=True):
        if not any(getattr(box, f"{name}_ports") for box in boxes):
            yield f"{name}.notPorts hold all of {name}.ports" if side.ports else f"{name}.notPorts hold every port"
        if not any(getattr(box, name) for box in boxes):
            yield from _addresses(entry, name, side, space)


def _addresses(entry: Entry, name: str, side: AddressMatch, space: Space) -> Iterator[str]:
    """Why no address can be on one side."""
    versions = list(families(entry))
    if side.ip_set is not None and not any(space.set(side.ip_set, version) for version in versions):
        yield f"the set of {name}.selector holds no IPv{versions[0]} address, all that the entry is for"
    if side.nets and side.not_nets and all(_within(side, version) for version in versions):
        yield f"{name}.notNets hold all of {name}.nets"
    if side.nets and not any(_in_set(side, version, space) for version in versions):
        yield f"no address of {name}.nets is in the set of {name}.selector"
    if side.nets and side.not_ip_set is not None:
        yield f"the set of {name}.notSelector holds all of {name}.nets that are left"
    if side.ip_set is not None and side.not_nets:
        yield f"{name}.notNets hold every address in the set of {name}.selector"
    if side.not_ip_set is not None:
        yield f"the set of {name}.notSelector holds every address"
    yield f"{name} excludes every address"


def _in_set(side: AddressMatch, version: int, space: Space) -> bool:
    return side.ip_set is None or Ranges.of(side.nets, version).meets(space.set(side.ip_set, version))


def _within(side: AddressMatch, version: int) -> bool:
    return Ranges.of(side.nets, version) <= Ranges.of(side.not_nets, version)
