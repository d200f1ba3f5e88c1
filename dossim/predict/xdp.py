"""The XDP program on columns (``bpf/xdp_untracked.bpf.c``): failsafes pass, then the first entry with the source
drops.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dossim.packet.columns import Bool
from dossim.predict.flows import Flows
from enforcer.policy.nets import Nets
from enforcer.policy.resources import Failsafe
from enforcer.policy.ruletable import Entry, RuleTable

I32 = npt.NDArray[np.int32]


def drops(flows: Flows, table: RuleTable, entries: Sequence[Entry]) -> I32:
    """The index (in the table) of the entry that drops each flow in XDP, -1 where it passes."""
    dropped_by = np.full(len(flows), -1, np.int32)
    undecided = ~_failsafe(flows, table)
    index_of = {entry.name: index for index, entry in enumerate(table.ingress)}
    for entry in entries:
        if entry.ip_version not in (None, flows.version):
            continue
        matched = undecided & _source(flows, entry, table)
        dropped_by[matched] = index_of[entry.name]
        undecided &= ~matched
    return dropped_by


def _source(flows: Flows, entry: Entry, table: RuleTable) -> Bool:
    if entry.source.nets:
        return flows.source.among(Nets.of(entry.source.nets))
    if entry.source.ip_set is not None:
        return flows.source.among(table.sets[entry.source.ip_set].nets)
    return np.ones(len(flows), np.bool_)


def _failsafe(flows: Flows, table: RuleTable) -> Bool:
    """What a failsafe may apply to: its net is raw's to look at, and without ports any failsafe of the protocol may."""
    passes = np.zeros(len(flows), np.bool_)
    for port, failsafes in ((flows.dport, table.failsafe_inbound), (flows.sport, table.failsafe_outbound)):
        for protocol, wanted in _ports_by_protocol(failsafes).items():
            passes |= flows.protocol <= 0  # 0 stands for an unknown protocol in the program's failsafe map
            passes |= (flows.protocol == protocol) & (~flows.whole_header | np.isin(port, wanted))
    return passes


def _ports_by_protocol(failsafes: Sequence[Failsafe]) -> dict[int, list[int]]:
    ports: dict[int, list[int]] = {}
    for failsafe in failsafes:
        ports.setdefault(failsafe.protocol, []).append(failsafe.port)
    return ports
