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
from dossim.predict.flows import CUT, Addresses, Flows
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action, Direction
from enforcer.policy.resources import Failsafe, IcmpMatch, PortRange
from enforcer.policy.ruletable import AddressMatch, Entry, PortSet, RuleTable

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

FAMILY_OF_ICMP = {ICMP: 4, ICMPV6: 6}


@dataclass(frozen=True)
class Decisions:
    """``denied_by`` and ``allowed_by`` are the index of the deciding entry, -1 for none; ``unreadable`` packets were
    too short for a rule. Of those that are ``open`` the capture cut what a failsafe or an entry matches on.
    """

    denied_by: I32
    allowed_by: I32
    unreadable: Bool
    open: Bool


def decide(flows: Flows, table: RuleTable, direction: Direction = Direction.INGRESS) -> Decisions:
    """What one side of the table does with each flow."""
    entries = table.ingress if direction is Direction.INGRESS else table.egress
    denied_by = np.full(len(flows), -1, np.int32)
    allowed_by = np.full(len(flows), -1, np.int32)
    unreadable = np.zeros(len(flows), np.bool_)
    unknown = np.zeros(len(flows), np.bool_)
    if not entries:
        return Decisions(denied_by, allowed_by, unreadable, unknown)
    undecided = np.ones(len(flows), np.bool_)
    for failsafes, port in _failsafes_of(flows, table, direction):
        remote = flows.source if direction is Direction.INGRESS else flows.destination
        _failsafes(flows, failsafes, port, remote, undecided, unreadable, unknown)
    passed: dict[str, Bool] = {}
    for index, entry in enumerate(entries):
        asked = undecided & ~passed.get(entry.tier, np.False_)
        if not asked.any():
            continue
        matched, short, cut = _match(flows, entry, table, asked)
        unreadable |= short
        unknown |= cut
        undecided &= ~(short | cut)
        if entry.action is Action.PASS:
            passed[entry.tier] = passed.get(entry.tier, np.zeros(len(flows), np.bool_)) | matched
        elif entry.action is not Action.LOG:
            undecided &= ~matched
            (denied_by if entry.action is Action.DENY else allowed_by)[matched] = index
    return Decisions(denied_by, allowed_by, unreadable, unknown)


def _failsafes_of(flows: Flows, table: RuleTable, direction: Direction) -> list[tuple[Sequence[Failsafe], I64]]:
    """The failsafes of this direction with the destination port, those of the other with the source port."""
    own, other = table.failsafe_inbound, table.failsafe_outbound
    if direction is Direction.EGRESS:
        own, other = other, own
    return [(own, flows.dport), (other, flows.sport)]


def _failsafes(
    flows: Flows,
    failsafes: Sequence[Failsafe],
    port: I64,
    remote: Addresses,
    undecided: Bool,
    unreadable: Bool,
    unknown: Bool,
) -> None:
    """Take flows that a failsafe lets go on, or of which that cannot be told, out of ``undecided``."""
    for failsafe in failsafes:
        asked = undecided.copy()
        if failsafe.net is not None:
            asked &= remote.within(failsafe.net)
        same = asked & (flows.protocol == failsafe.protocol)
        short = (asked & (flows.protocol == -1)) | (same & _too_short(flows, port))
        cut = (asked & (flows.protocol == CUT)) | (same & (port == CUT))
        unreadable |= short
        unknown |= cut
        undecided &= ~(short | cut | (same & (port == failsafe.port)))


def _too_short(flows: Flows, field: I64) -> Bool:
    return np.asarray((field == -1) & ~flows.later_fragment, np.bool_)


def _match(flows: Flows, entry: Entry, table: RuleTable, asked: Bool) -> tuple[Bool, Bool, Bool]:
    """Which of the asked flows match, which are too short to tell, and of which the capture cut what tells."""
    short, cut = np.zeros(len(flows), np.bool_), np.zeros(len(flows), np.bool_)
    # What can hold for no packet at all is no rule of netfilter's, so nothing is too short for it.
    contradicts = entry.protocol is not None and entry.protocol == entry.not_protocol
    if contradicts or is_of_other_family(entry, flows.version):
        return short, short, short
    sides = ((entry.source, flows.source), (entry.destination, flows.destination))
    matched = asked.copy()
    if entry.protocol is not None or entry.not_protocol is not None:
        gets_there = matched.copy()
        for match, addresses in sides:
            gets_there &= _single_net(match, addresses)
        short |= gets_there & (flows.protocol == -1)
        cut |= gets_there & (flows.protocol == CUT)
        matched &= protocol_matches(flows, entry)
    for match, addresses in sides:
        matched &= address_matches(match, addresses, table)
    types = [(icmp, negated) for icmp, negated in _types(entry) if icmp is not None and icmp.type is not None]
    if types or asks_ports(entry):
        cut |= matched & (flows.protocol == CUT)
    if any(match.ports or match.not_ports for match, _ in sides):  # one side's port is as readable as the other's
        short |= matched & _too_short(flows, flows.sport)
        cut |= matched & (flows.sport == CUT)
        matched &= flows.sport >= 0
    cut |= matched & reads_named_ports(flows, entry, table) & (flows.sport == CUT)
    for (match, addresses), port in zip(sides, (flows.sport, flows.dport), strict=True):
        matched &= port_matches(flows, match, addresses, port, table.port_sets)
    for icmp, negated in types:
        short |= matched & _too_short(flows, flows.icmp_type)
        cut |= matched & (flows.icmp_type == CUT)
        matched &= (icmp_matches(flows, icmp) != negated) & (flows.icmp_type >= 0)
    return matched & ~cut, short & ~cut, cut


def _types(entry: Entry) -> tuple[tuple[IcmpMatch | None, bool], ...]:
    """What is asked of the ICMP type, and whether it is negated."""
    return (entry.icmp, False), (entry.not_icmp, True)


def asks_ports(entry: Entry) -> bool:
    """Whether an entry matches on a port, by number or by name."""
    return any(
        side.ports or side.not_ports or side.named_ports or side.not_named_ports
        for side in (entry.source, entry.destination)
    )


def _single_net(match: AddressMatch, addresses: Addresses) -> Bool:
    """What netfilter looks at before the protocol: one net, or one negated net, of this family."""
    nets = [net for net in match.nets if net.version == addresses.version]
    not_nets = [net for net in match.not_nets if net.version == addresses.version]
    if len(nets) == 1:
        return addresses.within(nets[0])
    return ~addresses.within(not_nets[0]) if len(not_nets) == 1 else np.ones(len(addresses.low), np.bool_)


def is_of_other_family(entry: Entry, version: int) -> bool:
    """Whether an entry is not for this IP version: written so, or its ICMP types or all of one of its lists of nets are
    of the other.
    """
    if entry.ip_version not in (None, version):
        return True
    types = any(icmp is not None and icmp.type is not None for icmp in (entry.icmp, entry.not_icmp))
    if types and FAMILY_OF_ICMP.get(entry.protocol or 0) != version:
        return True
    lists = (nets for side in (entry.source, entry.destination) for nets in (side.nets, side.not_nets) if nets)
    return any(all(net.version != version for net in nets) for nets in lists)


def protocol_matches(flows: Flows, entry: Entry) -> Bool:
    held = np.asarray(flows.protocol >= 0, np.bool_)
    if entry.protocol is not None:
        held &= flows.protocol == entry.protocol
    if entry.not_protocol is not None:
        held &= flows.protocol != entry.not_protocol
    return held


def address_matches(match: AddressMatch, addresses: Addresses, table: RuleTable) -> Bool:
    held = np.ones(len(addresses.low), np.bool_)
    if match.nets:
        held &= addresses.among(Nets.of(match.nets))
    if match.not_nets:
        held &= ~addresses.among(Nets.of(match.not_nets))
    if match.ip_set is not None:
        held &= addresses.among(table.sets[match.ip_set].nets)
    if match.not_ip_set is not None:
        held &= ~addresses.among(table.sets[match.not_ip_set].nets)
    return held


def port_matches(
    flows: Flows, match: AddressMatch, addresses: Addresses, port: I64, port_sets: Mapping[str, PortSet]
) -> Bool:
    """Which have a port that is wanted, by number or by name, and not one that is unwanted."""

    def among(ranges: Sequence[PortRange], names: Sequence[str]) -> Bool:
        held = np.zeros(len(port), np.bool_)
        for item in ranges:
            held |= (port >= item.first) & (port <= item.last)
        for name in names:
            held |= _named(flows, addresses, port, port_sets[name])
        return held

    unwanted = among(match.not_ports, match.not_named_ports)
    if not match.ports and not match.named_ports:
        return ~unwanted
    return np.asarray(among(match.ports, match.named_ports) & ~unwanted, np.bool_)


def reads_named_ports(flows: Flows, entry: Entry, table: RuleTable) -> Bool:
    """Which have an address that has a port of one of the entry's names, so that their port decides."""
    held = np.zeros(len(flows), np.bool_)
    for match, addresses in ((entry.source, flows.source), (entry.destination, flows.destination)):
        for name in (*match.named_ports, *match.not_named_ports):
            port_set = table.port_sets[name]
            for address in {address for address, _ in port_set.members if address.version == flows.version}:
                held |= addresses.equal(int(address)) & (flows.protocol == port_set.protocol)
    return np.asarray(held & flows.whole_header, np.bool_)


def _named(flows: Flows, addresses: Addresses, port: I64, port_set: PortSet) -> Bool:
    """Which have their address and port in a named port's set; ipset wants to see the whole transport header."""
    held = np.zeros(len(port), np.bool_)
    for address, number in port_set.members:
        if address.version == addresses.version:
            held |= addresses.equal(int(address)) & (port == number)
    return np.asarray(held & flows.whole_header & (flows.protocol == port_set.protocol), np.bool_)


def icmp_matches(flows: Flows, icmp: IcmpMatch) -> Bool:
    held = flows.icmp_type == icmp.type
    return np.asarray(held if icmp.code is None else held & (flows.icmp_code == icmp.code), np.bool_)
