"""A replay that fills the connection tracking table: which packets are dropped is random, how many is an interval.

Each new flow beyond the limit is dropped, or evicts entries of others, depending on a hash with a random key. So these
packets are undetermined from conntrack on, and the kernel's own counters are compared with the interval instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dossim.exhaustion.flows import TIMEOUT_OF, FlowClass, NewFlows, new_flows, reaches_conntrack
from dossim.exhaustion.formulas import Interval, burst
from dossim.exhaustion.table import Table, table_of
from dossim.model.disposition import Fate
from dossim.model.host import Host
from dossim.observe import Observations
from dossim.packet.capture import Capture
from dossim.packet.columns import Bool
from dossim.predict.prediction import FATE_CODE, STAGE_CODE, Prediction
from enforcer.model.conntrack import ConntrackFacts
from enforcer.model.vocabulary import Stage


@dataclass(frozen=True)
class FullTable:
    """Predicted and counted: packets that conntrack dropped for lack of room, entries that it evicted.

    ``limit`` entries was the most that the lab could have.
    """

    limit: int
    dropped: Interval
    evicted: Interval
    counted_dropped: int
    counted_evicted: int

    @property
    def agrees(self) -> bool:
        return self.dropped.holds(self.counted_dropped) and self.evicted.holds(self.counted_evicted)

    def __str__(self) -> str:
        return (
            f"the connection tracking table was full ({self.limit:,} entries): "
            f"predicted {self.dropped.low:,.0f} to {self.dropped.high:,.0f} packets dropped and "
            f"{self.evicted.low:,.0f} to {self.evicted.high:,.0f} entries evicted, "
            f"counted {self.counted_dropped:,} and {self.counted_evicted:,}"
        )


@dataclass(frozen=True)
class Compared:
    """The predictions and the full table, if there was one; ``sent`` ends as observed where a drop was possible."""

    prediction: Prediction
    sent: Prediction
    full: FullTable | None = None


def with_full_table(
    capture: Capture,
    prediction: Prediction,
    sent: Prediction,
    observations: Observations,
    *,
    host: Host,
    facts: ConntrackFacts,
    replay_s: float,
) -> Compared:
    """``facts`` of the lab after the replay, whose table was empty before it."""
    table = table_of(facts)
    if facts.statistics is None or not isinstance(table, Table):
        return Compared(prediction, sent)
    table = replace(table, count=0)
    flows = new_flows(capture, sent, host, table)
    most = flows.beginning + flows.perhaps
    if most <= table.limit:
        return Compared(prediction, sent)
    reaches = reaches_conntrack(sent, table)
    concerned = reaches & (np.cumsum(reaches) > table.limit)
    dropped, evicted = _expected(flows, table, replay_s)
    full = FullTable(table.limit, dropped, evicted, facts.statistics.dropped, facts.statistics.early_drop)
    return Compared(
        prediction.left_open(concerned, Stage.CONNTRACK, "the connection tracking table is full: dropped by chance"),
        _as_observed(sent, observations, concerned),
        full,
    )


def _expected(flows: NewFlows, table: Table, replay_s: float) -> tuple[Interval, Interval]:
    """From the flows that surely keep an entry to all packets that may need one, with one pass of ``gc_worker()``.
    The lower end is 0 if entries expired meanwhile, or if some free what they took: an entry that a reset ends leaves
    room for others.
    """
    timeouts = [TIMEOUT_OF[item] for item in flows.flows]
    expired = any(timeout is not None and table.timeouts[timeout] <= replay_s for timeout in timeouts)
    is_transient = bool(flows.perhaps) or FlowClass.CLOSED_PORT in flows.flows
    surely = 0 if expired or is_transient else flows.leaving
    fewest = burst(surely, limit=table.limit, buckets=table.buckets, gc_runs=1)
    most = burst(flows.beginning + flows.perhaps, limit=table.limit, buckets=table.buckets)
    # Packets that repeat a flow whose entry was evicted need another: more of them may be dropped rather than evict.
    evicted = fewest.evicted.low if flows.leaving == flows.beginning else 0
    return Interval(fewest.dropped.low, most.dropped.high), Interval(evicted, most.evicted.high)


def _as_observed(sent: Prediction, observations: Observations, concerned: Bool) -> Prediction:
    here = (observations.fate == FATE_CODE[Fate.DROPPED]) & (observations.stage == STAGE_CODE[Stage.CONNTRACK])
    rows = np.flatnonzero(concerned & here)
    sent = sent.without_states(concerned)
    fate, stage = sent.fate.copy(), sent.stage.copy()
    fate[rows], stage[rows] = FATE_CODE[Fate.DROPPED], STAGE_CODE[Stage.CONNTRACK]
    return replace(sent, fate=fate, stage=stage)
