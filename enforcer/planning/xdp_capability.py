"""Which entries of a table the XDP programs hold: a run from the first one on. Pure.

The run ends at the first entry that the program cannot hold, because a later entry could drop what that entry allows.
A condition that is not handled here is left to raw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from enforcer.model.abi import MAX_BITS, MAX_SKIPS
from enforcer.model.vocabulary import Action, Direction, Mode, Side
from enforcer.policy.conditions import (
    Condition,
    Icmp,
    InNets,
    InSet,
    Ports,
    Protocol,
    families_of,
    name_of,
    protocol_of,
)
from enforcer.policy.resources import Failsafe, PortRange
from enforcer.policy.ruletable import Entry, RuleTable

MAX_PORT_ROWS = 1 << 16  # row numbers have 16 bits
XDP, NETDEV = "XDP", "netdev ingress"  # the names of the early stages in messages
PROTOCOLS_WITH_PORTS = (6, 17, 132)  # the protocols whose ports the programs read

_RAW_ONLY = {
    Action.ALLOW: "lets its packets pass; only raw accepts untracked",
    Action.LOG: "lets its packets pass; only raw logs",
    Action.PASS: "skips the rest of the tier; raw does too",
}


@dataclass(frozen=True, init=False)
class Obstacle:
    """Why an early stage does not hold an entry: ``words`` before and after the stage's name, if they include it."""

    words: tuple[str, ...]

    def __init__(self, *words: str) -> None:
        object.__setattr__(self, "words", words)

    def sentence(self, holder: str = XDP) -> str:
        return holder.join(self.words)


RECEIVED_ONLY = Obstacle("", " sees received packets only")


def obstacles(table: RuleTable, mode: Mode | None = None) -> list[Obstacle | None]:
    """For each ingress entry, why the early stage does not hold it; None if it does. Offload holds less than the other
    modes.
    """
    found: list[Obstacle | None] = []
    stopper: Obstacle | None = None
    room = _Room(failsafe_entries(table))
    for entry in table.ingress:
        own = why_not_offload(entry) if mode is Mode.OFFLOAD else room.why_not(entry)
        found.append(own or stopper)
        if own and not stopper:
            stopper = Obstacle(f"after {entry.name}, which ", " does not hold")
    return found


def run_length(table: RuleTable, reasons: Sequence[Obstacle | None]) -> int:
    """The number of leading ingress entries that XDP holds with these obstacles; 0 if there is no Deny among them."""
    run = next((at for at, reason in enumerate(reasons) if reason), len(reasons))
    return run if any(entry.action is Action.DENY for entry in table.ingress[:run]) else 0


def why_raw(entry: Entry, holder: str = XDP) -> str:
    """Why an entry that ``holder`` holds takes effect only in raw; "" for a Deny."""
    reason = _RAW_ONLY.get(entry.action)
    return f"{holder} {reason}" if reason else ""


def failsafe_entries(table: RuleTable) -> tuple[Entry, ...]:
    """The failsafes as entries without a name that allow: one for all ports of a protocol, side and net."""
    groups: dict[tuple[bool, Failsafe], list[PortRange]] = {}
    for inbound, failsafes in ((True, table.failsafe_inbound), (False, table.failsafe_outbound)):
        for item in failsafes:
            group = groups.setdefault((inbound, Failsafe(item.protocol, 0, item.net)), [])
            group.append(PortRange(item.port, item.port))
    return tuple(_failsafe(inbound, item, tuple(ports)) for (inbound, item), ports in groups.items())


def _failsafe(inbound: bool, item: Failsafe, ports: tuple[PortRange, ...]) -> Entry:
    """Inbound: the host's own port. Outbound replies: the remote port. The net is always the remote side's."""
    conditions: list[Condition] = [Protocol(item.protocol)]
    if item.net is not None:
        conditions.append(InNets(Side.SOURCE, (item.net,)))
    conditions.append(Ports(Side.DESTINATION if inbound else Side.SOURCE, ports))
    return Entry("", Action.ALLOW, "", families=families_of(None, conditions), conditions=tuple(conditions))


class _Room:
    """The remaining capacity of the program, entry by entry: bits, tiers with a Pass, port rows."""

    def __init__(self, failsafes: Sequence[Entry]) -> None:
        self._bits = 0
        self._failsafes = len(failsafes)
        self._tiers: set[str] = set()
        # Values where the match of a port or ICMP type may change: at most one row for each, and one before the first.
        self._changes: set[tuple[Side | None, int | None, int | None]] = {(None, None, None)}
        self._changes |= {(side, None, None) for side in Side}
        for item in failsafes:
            self.why_not(item)

    def why_not(self, entry: Entry) -> Obstacle | None:
        """The first reason why an entry is not held; None if it is. Capacity is used in both cases, because no entry
        after it is held.
        """
        self._bits += 1
        if entry.action is Action.PASS:
            self._tiers.add(entry.tier)
        unknown = [self._take(condition, entry) for condition in entry.conditions]
        return next(filter(None, [*self._full(entry), *unknown]), None)

    def _take(self, condition: Condition, entry: Entry) -> Obstacle | None:
        """Counts the rows that a condition needs. Returns why the program cannot match on it; None if it can."""
        match condition:
            case Protocol() | InNets() | InSet():
                return None
            case Icmp(kind, code):
                self._changes |= {(None, kind, None), (None, kind, code)}
                return None
            case Ports(side, ranges):
                self._changes |= {(side, at, None) for item in ranges for at in (item.first, item.last + 1)}
                protocol = protocol_of(entry.conditions)
                readable = not ranges or protocol in PROTOCOLS_WITH_PORTS
                return None if readable else Obstacle("", f" does not read the ports of protocol {protocol}")
            case _:
                return _left_to_raw(condition)

    def _full(self, entry: Entry) -> Iterator[Obstacle]:
        if entry.direction is not Direction.INGRESS:
            yield RECEIVED_ONLY
        if self._bits > MAX_BITS:
            yield Obstacle("", f" holds {MAX_BITS} entries at most ({self._failsafes} of them failsafes)")
        if entry.action is Action.PASS and len(self._tiers) > MAX_SKIPS:
            yield Obstacle("", f" supports Pass in {MAX_SKIPS} tiers at most")
        if len(self._changes) > MAX_PORT_ROWS:
            yield Obstacle("", f" distinguishes {MAX_PORT_ROWS:,} port ranges at most")


def why_not_offload(entry: Entry) -> Obstacle | None:
    """Why a device does not hold this entry: it matches only on sources. The first reason; None if it does."""
    if entry.direction is not Direction.INGRESS:
        return RECEIVED_ONLY
    if entry.action is not Action.DENY:
        return Obstacle("", f" only drops; the action is {entry.action}")
    reasons = [_why_not_on_device(condition) for condition in entry.conditions]
    return next(filter(None, reasons), _two_lists(entry))


def _why_not_on_device(condition: Condition) -> Obstacle | None:
    match condition:
        case Protocol():
            return Obstacle("matches on protocol")
        case Icmp():
            return Obstacle("matches on ICMP type")
        case Ports(side, ranges):
            return Obstacle(f"matches on {_WORD[side]} port" if ranges else "matches on a named port")
        case InNets(Side.DESTINATION) | InSet(Side.DESTINATION):
            return Obstacle("matches on destination address")
        case InNets(_, _, negated):
            return Obstacle("matches on sources outside of nets") if negated else None
        case InSet(_, _, negated):
            return Obstacle("matches on sources outside of a set") if negated else None
        case _:
            return _left_to_raw(condition)


def _two_lists(entry: Entry) -> Obstacle | None:
    both = len(entry.conditions) > 1
    return Obstacle("matches on sources that are in nets and in a set") if both else None


def _left_to_raw(condition: NoReturn) -> Obstacle:
    """For a condition that no early stage handles: raw matches on it or refuses it. Ignoring it would match more."""
    return Obstacle(f"matches on {name_of(condition)}, which is left to raw")


_WORD = {Side.SOURCE: "source", Side.DESTINATION: "destination"}
