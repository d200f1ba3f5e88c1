"""neighbour-discovery-denied: a Deny that drops IPv6 neighbour discovery. Pure.

Neighbour solicitations and advertisements are ICMPv6 (RFC 4861), and the raw table sees them like any packet: a Deny of
all ICMPv6, or of everything, stops all IPv6 on the link as soon as the neighbour cache entries expire.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from dossim.lint.boxes import EVERYTHING, Box
from dossim.lint.entries import directions
from dossim.lint.finding import Finding, Level, RuleId
from dossim.lint.ranges import Ranges
from dossim.lint.shadow import boxed, takes
from dossim.lint.tables import Governed
from enforcer.model.vocabulary import Action

ICMPV6 = 58
SOLICITATION, ADVERTISEMENT = 135, 136
_LINK_LOCAL = Ranges.of([ip_network("fe80::/10")], 6)
_SOLICITED_NODE = Ranges.of([ip_network("ff02::1:ff00:0/104")], 6)


def _of_type(kind: int, destination: Ranges) -> Box:
    masks = EVERYTHING._replace(protocols=1 << ICMPV6, icmp=((1 << 256) - 1) << kind * 256)
    return Box(6, _LINK_LOCAL, destination, masks)


DISCOVERY = (_of_type(SOLICITATION, _SOLICITED_NODE), _of_type(ADVERTISEMENT, _LINK_LOCAL))


def discovery_denied(governed: Governed) -> Iterator[Finding]:
    """The first entry of each direction that denies what discovery needs and no earlier entry allows."""
    if not governed.felix.ipv6_support:
        return
    for _, entries in directions(governed):
        items = boxed(entries, governed.space)
        for at, item in enumerate(items):
            if item.entry.action is not Action.DENY:
                continue
            denied = [needed for needed in DISCOVERY if any(box.holds(needed) for box in item.boxes)]
            if any(not takes(needed, item, items[:at]) for needed in denied):
                message = (
                    f"{item.entry.name} denies neighbour solicitations or advertisements: this ends neighbour "
                    "discovery, and with it all IPv6 of the link; allow the ICMPv6 types 133 to 136 before it"
                )
                yield Finding(RuleId.NEIGHBOURS, Level.WARNING, item.entry.position, message)
                break
