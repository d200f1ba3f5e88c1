"""The XDP programs on columns (``bpf/xdp_untracked.bpf.c``): which entry drops each flow before the network stack. The
chains of netdev ingress decide under the same rules, by what they know about a flow.

An entry *may* match a flow if nothing known contradicts that; its match is *indeterminate* if it matches on something
unknown. The first entry that may match decides: a Deny that is not indeterminate drops, a Pass that is not
indeterminate skips the rest of its tier, and in every other case the flow passes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dossim.packet.columns import Bool
from dossim.packet.fields import ICMP, ICMPV6
from dossim.predict.flows import CUT, HEADER_LENGTHS, Flows
from dossim.predict.phases import Phases
from dossim.predict.rules import (
    address_matches,
    icmp_matches,
    port_matches,
    port_of,
    protocol_matches,
    reads_named_ports,
)
from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import Action, Mode
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.ruletable import Entry, RuleTable

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

_ICMP_OF = {4: ICMP, 6: ICMPV6}


def drops(flows: Flows, plan: InterfacePlan) -> I32:
    """The index (in the table) of the entry that drops each flow in the early stage, -1 if it passes, CUT if the
    capture cut the deciding bytes.
    """
    unknown = _Unknown(flows, by_device=plan.mode is Mode.OFFLOAD)
    dropped_by = np.full(len(flows), -1, np.int32)
    passes, cut = _failsafes(flows, plan, unknown)
    dropped_by[cut] = CUT
    undecided = ~passes & ~cut
    skipped: dict[str, Bool] = {}
    for index, entry in enumerate(plan.early_entries):
        candidates = undecided & ~skipped.get(entry.tier, np.False_)
        if not candidates.any() or flows.version not in entry.families:
            continue
        may, indeterminate, cut = _match(flows, entry, plan.table, candidates, unknown)
        dropped_by[cut] = CUT
        undecided &= ~cut
        sure = may & ~indeterminate
        if entry.action is Action.PASS:
            skipped[entry.tier] = skipped.get(entry.tier, np.zeros(len(flows), np.bool_)) | sure
            undecided &= ~(may & indeterminate)
            continue
        undecided &= ~may
        if entry.action is Action.DENY:
            dropped_by[sure] = index
    return dropped_by


class _Unknown:
    """Which packets have a field that the program cannot know. For a device, protocol 0 stands for any."""

    def __init__(self, flows: Flows, *, by_device: bool) -> None:
        nothing = (flows.protocol == -1) | (by_device & (flows.protocol == 0))
        self.protocol: Bool = np.asarray(nothing, np.bool_)
        has_ports = np.isin(flows.protocol, list(HEADER_LENGTHS))
        self.ports: Bool = np.asarray(has_ports & ~flows.whole_header, np.bool_)
        has_type = flows.protocol == _ICMP_OF[flows.version]
        self.icmp_type: Bool = np.asarray(has_type & (flows.icmp_type == -1), np.bool_)


def _failsafes(flows: Flows, plan: InterfacePlan, unknown: _Unknown) -> tuple[Bool, Bool]:
    """Which flows a failsafe passes or may pass, and for which the capture cut the deciding bytes. A device ignores its
    net.
    """
    passes, cut = np.zeros(len(flows), np.bool_), np.zeros(len(flows), np.bool_)
    for port, (protocol, net), ports in _grouped(flows, plan.table):
        same = flows.protocol == protocol
        if net is not None and plan.mode is not Mode.OFFLOAD:
            same &= flows.source.within(net)
        passes |= same & (unknown.ports | (flows.whole_header & np.isin(port, ports)))
        cut |= (flows.protocol == CUT) | (same & flows.whole_header & (port == CUT))
        if net is None or net.version == flows.version or plan.mode is Mode.OFFLOAD:
            passes |= unknown.protocol
    return passes, cut


def _grouped(flows: Flows, table: RuleTable) -> Iterator[tuple[I64, tuple[int, IPNetwork | None], list[int]]]:
    """For each group of failsafes the column they match on, their protocol and net, and their ports."""
    for column, failsafes in ((flows.dport, table.failsafe_inbound), (flows.sport, table.failsafe_outbound)):
        groups: dict[tuple[int, IPNetwork | None], list[int]] = {}
        for item in failsafes:
            groups.setdefault((item.protocol, item.net), []).append(item.port)
        for about, ports in groups.items():
            yield column, about, ports


def _match(
    flows: Flows, entry: Entry, table: RuleTable, candidates: Bool, unknown: _Unknown
) -> tuple[Bool, Bool, Bool]:
    """Which of the candidate flows an entry of their family may match, for which that is indeterminate, and for which
    the capture cut the deciding bytes.
    """
    phases = Phases.of(entry)
    protocols, nets, sets, ports, types = phases
    may, indeterminate, cut = candidates.copy(), np.zeros(len(flows), np.bool_), np.zeros(len(flows), np.bool_)
    if phases.transport:
        cut |= candidates & (flows.protocol == CUT)
    if protocols:
        may &= protocol_matches(flows, protocols)
    may &= address_matches(flows, nets, sets, table)
    if ports:
        read = (phases.numbers & flows.whole_header) | reads_named_ports(flows, ports, table)
        cut |= may & read & (flows.sport == CUT)
        for item in ports:
            readable = np.where(flows.whole_header, port_of(flows, item.side), -1)
            may &= port_matches(flows, item, readable, table.port_sets) | unknown.ports
        indeterminate |= unknown.ports
    for icmp in types:
        cut |= may & (flows.icmp_type == CUT)
        may &= icmp_matches(flows, icmp) | unknown.icmp_type
        indeterminate |= unknown.icmp_type
    if phases.transport:
        # raw matches on the protocol before sets, and hotdrops there a packet without a readable protocol.
        may |= candidates & unknown.protocol
        indeterminate |= unknown.protocol
    return may & ~cut, indeterminate, cut
