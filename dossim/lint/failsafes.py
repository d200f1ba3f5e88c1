"""Failsafes as boxes: packets that no untracked entry of a table ever evaluates. Pure.

A failsafe of the packet's direction matches on the destination port. One of the other direction matches on the source
port, so that replies pass. Its net is that of the remote side in both cases (``felix/rules/static.go``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dossim.lint.boxes import ALL_PORTS, ALL_PROTOCOLS, EVERYTHING, READABLE, Box
from dossim.lint.ranges import Ranges
from enforcer.model.vocabulary import Direction, Side
from enforcer.policy.conditions import Ports, protocol_of
from enforcer.policy.resources import Failsafe
from enforcer.policy.ruletable import Entry, RuleTable

_NAMES = {6: "tcp", 17: "udp", 132: "sctp"}


@dataclass(frozen=True)
class Bypass:
    """A failsafe of one direction; ``answers`` if it matches replies."""

    failsafe: Failsafe
    direction: Direction
    answers: bool

    def __str__(self) -> str:
        name = _NAMES.get(self.failsafe.protocol, str(self.failsafe.protocol))
        net = f" {'from' if self.direction is Direction.INGRESS else 'to'} {self.failsafe.net}"
        return f"{name}/{self.failsafe.port}{net if self.failsafe.net else ''}"

    @property
    def setting(self) -> str:
        inbound = (self.direction is Direction.INGRESS) is not self.answers
        return "failsafeInboundHostPorts" if inbound else "failsafeOutboundHostPorts"

    def box(self, version: int) -> Box:
        port = 1 << self.failsafe.port
        net = self.failsafe.net
        remote = Ranges.full(version) if net is None else Ranges.of([net], version)
        own = Ranges.full(version)
        ingress = self.direction is Direction.INGRESS
        masks = EVERYTHING._replace(
            protocols=1 << self.failsafe.protocol,
            source_ports=port if self.answers else ALL_PORTS,
            destination_ports=ALL_PORTS if self.answers else port,
            readability=READABLE,
        )
        return Box(version, remote if ingress else own, own if ingress else remote, masks)


def bypasses(table: RuleTable, direction: Direction) -> list[Bypass]:
    """The failsafes whose packets entries of a direction never see."""
    own, other = table.failsafe_inbound, table.failsafe_outbound
    if direction is Direction.EGRESS:
        own, other = other, own
    return [Bypass(item, direction, False) for item in own] + [Bypass(item, direction, True) for item in other]


def bypassing(entry: Entry, boxes: Sequence[Box], all_of_them: Sequence[Bypass]) -> tuple[list[Bypass], bool]:
    """The failsafes whose ports an entry names, and whether they take all of its packets."""
    named = [item for item in all_of_them if _names_port(entry, item)]
    found = [item for item in named if any(item.box(box.version).meets(box) for box in boxes)]
    return found, bool(found) and all(_is_covered(box, found) for box in boxes)


def _names_port(entry: Entry, item: Bypass) -> bool:
    side = Side.SOURCE if item.answers else Side.DESTINATION
    wanted = [each for each in entry.conditions if isinstance(each, Ports) and not each.negated and each.side is side]
    ranges = [ports for each in wanted for ports in each.ranges]
    return protocol_of(entry.conditions) == item.failsafe.protocol and any(item.failsafe.port in it for it in ranges)


def _is_covered(box: Box, found: Sequence[Bypass]) -> bool:
    """Whether failsafes cover a box: all of its ports, each for all of its addresses."""
    if not box.reads_ports or box.masks.protocols == ALL_PROTOCOLS or not box.exact:
        return False
    covers = [item for item in found if _wide_enough(item.box(box.version), box)]
    by_destination = sum({1 << item.failsafe.port for item in covers if not item.answers})
    by_source = sum({1 << item.failsafe.port for item in covers if item.answers})
    return not box.masks.destination_ports & ~by_destination or not box.masks.source_ports & ~by_source


def _wide_enough(own: Box, box: Box) -> bool:
    """Whether a failsafe covers a box, ignoring ports."""
    source_ports, destination_ports = own.masks.source_ports, own.masks.destination_ports
    masks = box.masks._replace(source_ports=source_ports, destination_ports=destination_ports)
    return own.holds(box._replace(masks=masks))
