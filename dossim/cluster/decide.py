"""Packets that depend on others, of all shards, predicted together in the order of their arrival. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dossim.cluster.ends import joined
from dossim.cluster.gather import Dependents, joined_dependents
from dossim.cluster.job import Job
from dossim.drill.streamed import counted
from dossim.drill.totals import Totals
from dossim.engine.sweep import span_of
from dossim.exhaustion.flows import FlowCounter, NewFlows
from dossim.predict import Prediction
from dossim.predict.batches import Batches
from dossim.predict.batches import Decided as Batch

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Patch:
    """Where packets ``rows`` of a shard end; and where with the policy that Calico would enforce, None if that is the
    same.
    """

    rows: I64
    prediction: Prediction
    later: Prediction | None


@dataclass(frozen=True)
class Decided:
    """``patches``: by the number of the shard, if packets are kept. ``flows``: new ones, if they are counted."""

    totals: Totals
    flows: NewFlows
    patches: dict[int, Patch]


def decide(job: Job, numbers: Sequence[int], *parts: Dependents) -> Decided:
    """Parts of shards, in their order; ``numbers`` are those of the shards. Raises MemoryError."""
    found = joined_dependents(parts)
    capture = replace(found.capture, record=np.arange(len(found), dtype=np.int64))
    counter = None if job.table is None else FlowCounter(job.host, job.table)
    begun = None if counter is None else counter.begun
    with Batches(job.plan, job.host, job.enforced, job.other, shows=job.keeps_packets, new_flows=begun) as all_of_them:
        if counter is not None:
            counter.last(span_of(capture.timestamp_ns))
        batches = all_of_them.take(capture, found.doubt, found.why, is_last=True)
        counts = all_of_them.counts()
    flows = NewFlows() if counter is None else counter.of(counts[0].kinds)
    patches = _patches(batches, found.rows, numbers, parts) if batches else {}
    return Decided(counted(counts), flows, patches)


def _patches(
    batches: Sequence[Batch], rows: I64, numbers: Sequence[int], parts: Sequence[Dependents]
) -> dict[int, Patch]:
    order = np.argsort(np.concatenate([batch.packets.record for batch in batches]))
    prediction = joined([batch.prediction for batch in batches]).only(order)
    others = [batch.later for batch in batches if batch.later is not None]
    later = joined(others).only(order) if others else None
    edges = np.cumsum([0, *map(len, parts)]).tolist()
    found = {}
    for number, first, last in zip(numbers, edges, edges[1:], strict=False):
        mine = np.arange(first, last, dtype=np.int64)
        found[number] = Patch(rows[mine], prediction.only(mine), None if later is None else later.only(mine))
    return found


def counts_of(decided: Decided) -> tuple[Totals, NewFlows]:
    return decided.totals, decided.flows


def patch_of(decided: Decided, number: int) -> Patch | None:
    """That of one shard."""
    return decided.patches.get(number)
