"""The RuleTable on columns: which entry decides each packet in raw.

Conditions are tested in netfilter's order, because a packet too short for one is dropped at once (hotdrop:
``xt_multiport.c``, ``xt_icmp``): literal nets and protocol, then sets, then ports, then ICMP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dossim.packet.columns import Bool
from dossim.predict.flows import CUT, Addresses, Flows
from dossim.predict.phases import Phases
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action, Direction, Side
from enforcer.policy.conditions import Icmp, InNets, InSet, Ports, Protocol
from enforcer.policy.resources import Failsafe
from enforcer.policy.ruletable import Entry, NamedSets, PortSet, RuleTable

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Decisions:
    """``denied_by`` and ``allowed_by`` are the index of the deciding entry, -1 for none; ``hotdropped`` packets were
    too short for a rule; for ``open`` ones the capture cut what a failsafe or an entry matches on.
    """

    denied_by: I32
    allowed_by: I32
    hotdropped: Bool
    open: Bool


def decide(flows: Flows, table: RuleTable, direction: Direction = Direction.INGRESS) -> Decisions:
    """The decision of one direction of the table on each flow."""
    entries = table.ingress if direction is Direction.INGRESS else table.egress
    denied_by = np.full(len(flows), -1, np.int32)
    allowed_by = np.full(len(flows), -1, np.int32)
    hotdropped = np.zeros(len(flows), np.bool_)
    unknown = np.zeros(len(flows), np.bool_)
    if not entries:
        return Decisions(denied_by, allowed_by, hotdropped, unknown)
    undecided = np.ones(len(flows), np.bool_)
    for failsafes, port in _failsafes_of(flows, table, direction):
        remote = flows.source if direction is Direction.INGRESS else flows.destination
        accept_failsafes(flows, failsafes, port, remote, undecided, hotdropped, unknown)
    passed: dict[str, Bool] = {}
    for index, entry in enumerate(entries):
        candidates = undecided & ~passed.get(entry.tier, np.False_)
        if not candidates.any():
            continue
        matched, short, cut = match_entry(flows, entry, table, candidates)
        hotdropped |= short
        unknown |= cut
        undecided &= ~(short | cut)
        if entry.action is Action.PASS:
            passed[entry.tier] = passed.get(entry.tier, np.zeros(len(flows), np.bool_)) | matched
        elif entry.action is not Action.LOG:
            undecided &= ~matched
            (denied_by if entry.action is Action.DENY else allowed_by)[matched] = index
    return Decisions(denied_by, allowed_by, hotdropped, unknown)


def _failsafes_of(flows: Flows, table: RuleTable, direction: Direction) -> list[tuple[Sequence[Failsafe], I64]]:
    """The failsafes of this direction with the destination ports, those of the other with the source ports."""
    own, other = table.failsafe_inbound, table.failsafe_outbound
    if direction is Direction.EGRESS:
        own, other = other, own
    return [(own, flows.dport), (other, flows.sport)]


def accept_failsafes(
    flows: Flows,
    failsafes: Sequence[Failsafe],
    port: I64,
    remote: Addresses,
    undecided: Bool,
    hotdropped: Bool,
    unknown: Bool,
) -> None:
    """Remove flows from ``undecided`` that a failsafe accepts, or for which that is indeterminate."""
    for failsafe in failsafes:
        candidates = undecided.copy()
        if failsafe.net is not None:
            candidates &= remote.within(failsafe.net)
        same = candidates & (flows.protocol == failsafe.protocol)
        short = (candidates & (flows.protocol == -1)) | (same & _too_short(flows, port))
        cut = (candidates & (flows.protocol == CUT)) | (same & (port == CUT))
        hotdropped |= short
        unknown |= cut
        undecided &= ~(short | cut | (same & (port == failsafe.port)))


def _too_short(flows: Flows, field: I64) -> Bool:
    return np.asarray((field == -1) & ~flows.later_fragment, np.bool_)


def match_entry(flows: Flows, entry: Entry, table: NamedSets, candidates: Bool) -> tuple[Bool, Bool, Bool]:
    """Which of the candidate flows match, which are hotdropped, and for which the capture cut the deciding bytes."""
    short, cut = np.zeros(len(flows), np.bool_), np.zeros(len(flows), np.bool_)
    if flows.version not in entry.families:
        return short, short, short
    phases = Phases.of(entry)
    protocols, nets, sets, ports, types = phases
    matched = candidates.copy()
    if protocols:
        reaches = matched.copy()
        for side, net, negated in phases.single_nets(flows.version):
            reaches &= addresses_of(flows, side).within(net) != negated
        short |= reaches & (flows.protocol == -1)
        cut |= reaches & (flows.protocol == CUT)
        matched &= protocol_matches(flows, protocols)
    matched &= address_matches(flows, nets, sets, table)
    if types or ports:
        cut |= matched & (flows.protocol == CUT)
    if phases.numbers:
        short |= matched & _too_short(flows, flows.sport)
        cut |= matched & (flows.sport == CUT)
        matched &= flows.sport >= 0
    cut |= matched & reads_named_ports(flows, ports, table) & (flows.sport == CUT)
    for item in ports:
        matched &= port_matches(flows, item, port_of(flows, item.side), table.port_sets)
    for icmp in types:
        short |= matched & _too_short(flows, flows.icmp_type)
        cut |= matched & (flows.icmp_type == CUT)
        matched &= icmp_matches(flows, icmp) & (flows.icmp_type >= 0)
    return matched & ~cut, short & ~cut, cut


def addresses_of(flows: Flows, side: Side) -> Addresses:
    return flows.source if side is Side.SOURCE else flows.destination


def port_of(flows: Flows, side: Side) -> I64:
    return flows.sport if side is Side.SOURCE else flows.dport


def protocol_matches(flows: Flows, wanted: Iterable[Protocol]) -> Bool:
    held = np.asarray(flows.protocol >= 0, np.bool_)
    for item in wanted:
        held &= (flows.protocol == item.number) != item.negated
    return held


def address_matches(flows: Flows, nets: Iterable[InNets], sets: Iterable[InSet], table: NamedSets) -> Bool:
    """bool[N]: both addresses satisfy all conditions on nets and sets."""
    held = np.ones(len(flows), np.bool_)
    for each in nets:
        held &= addresses_of(flows, each.side).among(Nets.of(each.nets)) != each.negated
    for item in sets:
        held &= addresses_of(flows, item.side).among(table.sets[item.id].nets) != item.negated
    return held


def port_matches(flows: Flows, wanted: Ports, port: I64, port_sets: Mapping[str, PortSet]) -> Bool:
    """bool[N]: the port is (not) one of these, by number or by name."""
    held = np.zeros(len(port), np.bool_)
    for item in wanted.ranges:
        held |= (port >= item.first) & (port <= item.last)
    for name in wanted.names:
        held |= _named(flows, addresses_of(flows, wanted.side), port, port_sets[name])
    return np.asarray(held != wanted.negated, np.bool_)


def reads_named_ports(flows: Flows, ports: Iterable[Ports], table: NamedSets) -> Bool:
    """bool[N]: the address has a port of one of these names, so the port number decides."""
    held = np.zeros(len(flows), np.bool_)
    for item in ports:
        addresses = addresses_of(flows, item.side)
        for name in item.names:
            port_set = table.port_sets[name]
            for address in {address for address, _ in port_set.members if address.version == flows.version}:
                held |= addresses.equal(int(address)) & (flows.protocol == port_set.protocol)
    return np.asarray(held & flows.whole_header, np.bool_)


def _named(flows: Flows, addresses: Addresses, port: I64, port_set: PortSet) -> Bool:
    """bool[N]: address and port are in a named port's set; ipset requires the complete transport header."""
    held = np.zeros(len(port), np.bool_)
    for address, number in port_set.members:
        if address.version == addresses.version:
            held |= addresses.equal(int(address)) & (port == number)
    return np.asarray(held & flows.whole_header & (flows.protocol == port_set.protocol), np.bool_)


def icmp_matches(flows: Flows, icmp: Icmp) -> Bool:
    held = flows.icmp_type == icmp.type
    if icmp.code is not None:
        held = held & (flows.icmp_code == icmp.code)
    return np.asarray(held != icmp.negated, np.bool_)
