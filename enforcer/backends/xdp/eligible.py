"""Which entries the XDP program can decide: deny lists by source address. Pure."""

from __future__ import annotations

from enforcer.policy.ruletable import AddressMatch, Entry
from enforcer.words import Action, Direction


def why_not(entry: Entry) -> str:
    """Why XDP cannot decide this entry, the first reason if there are several; "" when it can."""
    return next((reason for holds, reason in _obstacles(entry) if holds), "")


def _obstacles(entry: Entry) -> tuple[tuple[bool, str], ...]:
    source, destination = entry.source, entry.destination
    return (
        (entry.direction is not Direction.INGRESS, "XDP sees received packets only"),
        (entry.action is not Action.DENY, f"XDP only drops; the action is {entry.action}"),
        (entry.protocol is not None or entry.not_protocol is not None, "matches on protocol"),
        (entry.icmp is not None or entry.not_icmp is not None, "matches on ICMP type"),
        (bool(source.ports or source.not_ports), "matches on source port"),
        (bool(destination.ports or destination.not_ports), "matches on destination port"),
        (any(_named(side) for side in (source, destination)), "matches on a named port"),
        (_has_address(destination), "matches on destination address"),
        (bool(source.not_nets), "matches on sources outside of nets"),
        (source.not_ip_set is not None, "matches on sources outside of a set"),
        (bool(source.nets and source.ip_set), "matches on sources that are in nets and in a set"),
    )


def _has_address(match: AddressMatch) -> bool:
    return bool(match.nets or match.not_nets) or match.ip_set is not None or match.not_ip_set is not None


def _named(match: AddressMatch) -> bool:
    return bool(match.named_ports or match.not_named_ports)
