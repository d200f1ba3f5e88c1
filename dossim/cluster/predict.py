"""predict_on: captures that are predicted by a cluster, as :mod:`dossim.drill.run` predicts one in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dossim.cluster.job import Job
from dossim.cluster.run import Sharded
from dossim.cluster.split import LEAST, shards_of
from dossim.cluster.version import VERSION
from dossim.drill.results import CountedResult, Stopwatch
from dossim.drill.run import about
from dossim.drill.situation import Situation, enforced_after, lab_facts, plan_for
from dossim.drill.streamed import left_to_calico, policy_of
from dossim.exhaustion.table import Table
from dossim.packet.source import Limit
from enforcer.model.facts import HostFacts

if TYPE_CHECKING:
    from dossim.cluster.dask import Cluster


_ANY = Limit(None, "")


@dataclass(frozen=True)
class Asked:
    """``least``: bytes of a shard. ``table``: for which new flows are counted, None: they are not. ``keeps_packets``:
    the end of each packet is wanted. ``skip_unknown``: packets of unsupported link types are left out.
    ``most``: how large each capture may be.
    """

    least: int = LEAST
    table: Table | None = None
    keeps_packets: bool = False
    skip_unknown: bool = False
    most: Limit = _ANY


def predict_on(
    cluster: Cluster, names: Sequence[str], situation: Situation, asked: Asked, facts: HostFacts | None = None
) -> tuple[CountedResult, Sharded]:
    """The result, and its packets, if they are kept. ``names``: paths that the workers can read, or URLs; their packets
    arrive in this order. Raises CaptureError, HostError for what is wrong with the cluster, and UnsupportedRuleError
    for a rule that cannot be enforced.
    """
    watch = Stopwatch()
    with watch.phase("plan"):
        plan = plan_for(situation, facts or lab_facts(situation.host))
        after = enforced_after(situation)
        modelled, later = left_to_calico(situation)
    with watch.phase("workers"):
        cluster.require_ready()
        identities = cluster.identities(names)
        for each, identity in zip(names, identities, strict=True):
            asked.most.require(each, identity.size, "", identity.size)
    with watch.phase("predict"):
        job = Job(
            VERSION,
            tuple(names),
            tuple(identities),
            plan,
            situation.host,
            policy_of(after),
            policy_of(later),
            asked.table,
            skip_unknown=asked.skip_unknown,
            keeps_packets=asked.keeps_packets,
        )
        found = Sharded(cluster, job, shards_of([identity.size for identity in identities], asked.least))
        found.run()
    name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"
    totals = found.totals
    result = CountedResult(
        name, "", situation, plan, totals, watch.seconds, about(totals), tables=after.tables, modelled=modelled
    )
    return result, found
