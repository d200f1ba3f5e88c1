"""Which entries of a table the XDP programs hold: a run from the first one on. Pure.

The run ends at the first entry that exceeds the program's capacity or abilities: a later entry could drop what that
entry allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from enforcer.model.abi import MAX_BITS, MAX_SKIPS
from enforcer.model.vocabulary import Action, Direction, Mode
from enforcer.policy.resources import Failsafe, IcmpMatch, PortRange
from enforcer.policy.ruletable import AddressMatch, Entry, RuleTable

MAX_PORT_ROWS = 1 << 16  # a row's number has 16 bits
PROTOCOLS_WITH_PORTS = (6, 17, 132)  # whose ports the programs read

_RAW_ONLY = {
    Action.ALLOW: "lets its packets pass; only raw accepts untracked",
    Action.LOG: "lets its packets pass; only raw logs",
    Action.PASS: "skips the rest of the tier; raw does too",
}


def obstacles(table: RuleTable, mode: Mode | None = None) -> list[str]:
    """For each ingress entry why XDP does not hold it, "" where it does. Offload holds less than the other modes."""
    found: list[str] = []
    stopper = ""
    room = _Room(failsafe_entries(table))
    for entry in table.ingress:
        own = why_not_offload(entry) if mode is Mode.OFFLOAD else room.why_not(entry)
        found.append(own or stopper)
        if own and not stopper:
            stopper = f"after {entry.name}, which XDP does not hold"
    return found


def held(table: RuleTable, mode: Mode | None = None) -> int:
    """:func:`run_length` for the table's obstacles."""
    return run_length(table, obstacles(table, mode))


def run_length(table: RuleTable, reasons: Sequence[str]) -> int:
    """How many ingress entries, from the first, XDP holds with these obstacles; 0 without a Deny among them."""
    run = next((at for at, reason in enumerate(reasons) if reason), len(reasons))
    return run if any(entry.action is Action.DENY for entry in table.ingress[:run]) else 0


def why_raw(entry: Entry, holder: str = "XDP") -> str:
    """Why an entry that ``holder`` holds acts in raw anyway; "" for those that drop."""
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
    nets = () if item.net is None else (item.net,)
    source = AddressMatch(nets=nets) if inbound else AddressMatch(nets=nets, ports=ports)
    destination = AddressMatch(ports=ports) if inbound else AddressMatch()
    return Entry("", Action.ALLOW, "", protocol=item.protocol, source=source, destination=destination)


class _Room:
    """The remaining capacity of the program, entry by entry: bits, tiers with a Pass, port rows."""

    def __init__(self, failsafes: Sequence[Entry]) -> None:
        self._bits = 0
        self._failsafes = len(failsafes)
        self._tiers: set[str] = set()
        # Values where the match of a port or ICMP type may change: at most one row for each, and one before the first.
        self._changes: set[tuple[str, int | IcmpMatch | None]] = {(field, None) for field in ("from", "to", "icmp")}
        for item in failsafes:
            self._take(item)

    def why_not(self, entry: Entry) -> str:
        self._take(entry)
        return next(self._reasons(entry), "")

    def _take(self, entry: Entry) -> None:
        self._bits += 1
        if entry.action is Action.PASS:
            self._tiers.add(entry.tier)
        for field, side in (("from", entry.source), ("to", entry.destination)):
            for item in (*side.ports, *side.not_ports):
                self._changes |= {(field, item.first), (field, item.last + 1)}
        for icmp in (entry.icmp, entry.not_icmp):
            if icmp is not None:
                self._changes |= {("icmp", IcmpMatch(icmp.type)), ("icmp", icmp)}

    def _reasons(self, entry: Entry) -> Iterator[str]:
        if entry.direction is not Direction.INGRESS:
            yield "XDP sees received packets only"
        if self._bits > MAX_BITS:
            yield f"XDP holds {MAX_BITS} entries at most ({self._failsafes} of them failsafes)"
        if entry.action is Action.PASS and len(self._tiers) > MAX_SKIPS:
            yield f"XDP supports Pass in {MAX_SKIPS} tiers at most"
        if len(self._changes) > MAX_PORT_ROWS:
            yield f"XDP distinguishes {MAX_PORT_ROWS:,} port ranges at most"
        asks = entry.source.ports or entry.source.not_ports or entry.destination.ports or entry.destination.not_ports
        if asks and entry.protocol not in PROTOCOLS_WITH_PORTS:
            yield f"XDP does not read the ports of protocol {entry.protocol}"


def why_not_offload(entry: Entry) -> str:
    """Why a device does not hold this entry: it matches only on sources. The first reason; "" if it does."""
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
