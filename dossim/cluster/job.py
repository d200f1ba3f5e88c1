"""What every shard's task is given besides its shard: values, so that workers need nothing but the captures."""

from __future__ import annotations

from dataclasses import dataclass

from dossim.cluster.storage import Identity
from dossim.exhaustion.table import Table
from dossim.model.host import Host
from dossim.predict.batches import Policy
from enforcer.planning.plan import InterfacePlan


@dataclass(frozen=True)
class Job:
    """``names`` and ``identities``: the captures, in the order in which their packets arrive. ``enforced``:
    policy after conntrack that is; ``other``: what Calico would do with that which is not; None: there is none.
    ``table``: for which new flows are counted, None: they are not. ``keeps_packets``: the end of each packet is wanted,
    and not only how many end alike.
    """

    version: str
    names: tuple[str, ...]
    identities: tuple[Identity, ...]
    plan: InterfacePlan
    host: Host
    enforced: Policy | None
    other: Policy | None
    table: Table | None = None
    skip_unknown: bool = False
    keeps_packets: bool = False

    @property
    def follows(self) -> bool:
        """Whether packets that get to conntrack are seen together: ends may depend on their states, or flows are
        counted.
        """
        if self.table is not None:
            return True
        return any(policy.tables.governs for policy in (self.enforced, self.other) if policy)
