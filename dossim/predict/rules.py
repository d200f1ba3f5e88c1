"""The RuleTable on columns: which entry decides each packet in raw.

Conditions are asked in the order netfilter asks them, because a packet too short for a question is dropped there and
then ("hotdrop": ``xt_multiport.c``, ``xt_icmp``): literal nets and protocol, then sets, then ports, then ICMP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dossim.packet.columns import Bool
from dossim.packet.fields import ICMP, ICMPV6
from dossim.predict.flows import Addresses, Flows
from enforcer.policy.nets import Nets
from enforcer.policy.resources import Failsafe, IcmpMatch, PortRange
from enforcer.policy.ruletable import AddressMatch, Entry, IpSet, RuleTable
from enforcer.words import Action

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

FAMILY_OF_ICMP = {ICMP: 4, ICMPV6: 6}


@dataclass(frozen=True)
class Decisions:
    """``denied_by`` is the index of the denying entry, -1 for none; ``unreadable`` packets were too short for a
    rule.
    """

    denied_by: I32
    unreadable: Bool


def decide(flows: Flows, table: RuleTable) -> Decisions:
    """What the table's ingress side does with each flow."""
    denied_by = np.full(len(flows), -1, np.int32)
    unreadable = np.zeros(len(flows), np.bool_)
    if not table.ingress:
        return Decisions(denied_by, unreadable)
    undecided = np.ones(len(flows), np.bool_)
    _failsafes(flows, table.failsafe_inbound, flows.dport, undecided, unreadable)
    _failsafes(flows, table.failsafe_outbound, flows.sport, undecided, unreadable)
    passed: dict[str, Bool] = {}
    for index, entry in enumerate(table.ingress):
        asked = undecided & ~passed.get(entry.tier, np.False_)
        if not asked.any():
            continue
        matched, short = _match(flows, entry, table.sets, asked)
        unreadable |= short
        undecided &= ~short
        if entry.action is Action.PASS:
            passed[entry.tier] = passed.get(entry.tier, np.zeros(len(flows), np.bool_)) | matched
        elif entry.action is not Action.LOG:
            undecided &= ~matched
            if entry.action is Action.DENY:
                denied_by[matched] = index
    return Decisions(denied_by, unreadable)


def _failsafes(flows: Flows, failsafes: Sequence[Failsafe], port: I64, undecided: Bool, unreadable: Bool) -> None:
    """Take flows that a failsafe lets go on, or that are too short to tell, out of ``undecided``."""
    for failsafe in failsafes:
        asked = undecided.copy()
        if failsafe.net is not None:
            asked &= flows.source.within(failsafe.net)
        same = asked & (flows.protocol == failsafe.protocol)
        short = (asked & (flows.protocol < 0)) | (same & _too_short(flows, port))
        unreadable |= short
        undecided &= ~(short | (same & (port == failsafe.port)))


def _too_short(flows: Flows, field: I64) -> Bool:
    return np.asarray((field < 0) & ~flows.later_fragment, np.bool_)


def _match(flows: Flows, entry: Entry, sets: Mapping[str, IpSet], asked: Bool) -> tuple[Bool, Bool]:
    """Which of the asked flows match, and which are too short to tell."""
    short = np.zeros(len(flows), np.bool_)
    if _other_family(entry, flows.version):
        return short, short
    sides = ((entry.source, flows.source), (entry.destination, flows.destination))
    matched = asked.copy()
    if entry.protocol is not None or entry.not_protocol is not None:
        broken = matched & (flows.protocol < 0)
        for match, addresses in sides:
            broken &= _single_net(match, addresses)
        short |= broken
        matched &= _protocol(flows, entry)
    for match, addresses in sides:
        matched &= _address(match, addresses, sets)
    for match, port in ((entry.source, flows.sport), (entry.destination, flows.dport)):
        if match.ports or match.not_ports:
            short |= matched & _too_short(flows, port)
            matched &= _in_ranges(port, match.ports, default=True) & ~_in_ranges(port, match.not_ports, default=False)
            matched &= port >= 0
    for icmp, negated in ((entry.icmp, False), (entry.not_icmp, True)):
        if icmp is not None and icmp.type is not None:
            short |= matched & _too_short(flows, flows.icmp_type)
            matched &= (_icmp(flows, icmp) != negated) & (flows.icmp_type >= 0)
    return matched, short


def _single_net(match: AddressMatch, addresses: Addresses) -> Bool:
    """What netfilter looks at before the protocol: one net, or one negated net, of this family."""
    nets = [net for net in match.nets if net.version == addresses.version]
    not_nets = [net for net in match.not_nets if net.version == addresses.version]
    if len(nets) == 1:
        return addresses.within(nets[0])
    return ~addresses.within(not_nets[0]) if len(not_nets) == 1 else np.ones(len(addresses.low), np.bool_)


def _other_family(entry: Entry, version: int) -> bool:
    """Whether an entry is not for this IP version: written so, or all of one of its lists of nets is of the other."""
    if entry.ip_version not in (None, version):
        return True
    if FAMILY_OF_ICMP.get(entry.protocol or 0, version) != version:
        return True
    lists = (nets for side in (entry.source, entry.destination) for nets in (side.nets, side.not_nets) if nets)
    return any(all(net.version != version for net in nets) for nets in lists)


def _protocol(flows: Flows, entry: Entry) -> Bool:
    held = np.asarray(flows.protocol >= 0, np.bool_)
    if entry.protocol is not None:
        held &= flows.protocol == entry.protocol
    if entry.not_protocol is not None:
        held &= flows.protocol != entry.not_protocol
    return held


def _address(match: AddressMatch, addresses: Addresses, sets: Mapping[str, IpSet]) -> Bool:
    held = np.ones(len(addresses.low), np.bool_)
    if match.nets:
        held &= addresses.among(Nets.of(match.nets))
    if match.not_nets:
        held &= ~addresses.among(Nets.of(match.not_nets))
    if match.ip_set is not None:
        held &= addresses.among(sets[match.ip_set].nets)
    if match.not_ip_set is not None:
        held &= ~addresses.among(sets[match.not_ip_set].nets)
    return held


def _in_ranges(port: I64, ranges: Sequence[PortRange], *, default: bool) -> Bool:
    if not ranges:
        return np.full(len(port), default, np.bool_)
    held = np.zeros(len(port), np.bool_)
    for item in ranges:
        held |= (port >= item.first) & (port <= item.last)
    return held


def _icmp(flows: Flows, icmp: IcmpMatch) -> Bool:
    held = flows.icmp_type == icmp.type
    return np.asarray(held if icmp.code is None else held & (flows.icmp_code == icmp.code), np.bool_)
