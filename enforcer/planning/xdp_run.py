"""The run of entries that the XDP programs hold of one table, computed once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from enforcer.model.vocabulary import Mode
from enforcer.planning.xdp_capability import Obstacle, obstacles, run_length
from enforcer.policy.ruletable import RuleTable


@dataclass(frozen=True)
class XdpRun:
    """The run of one table. A device (offload) holds less than the other modes."""

    table: RuleTable
    _found: dict[bool, Sequence[Obstacle | None]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def obstacles(self, mode: Mode | None = None) -> Sequence[Obstacle | None]:
        """For each ingress entry, why XDP does not hold it; None if it does."""
        on_device = mode is Mode.OFFLOAD
        if on_device not in self._found:
            self._found[on_device] = tuple(obstacles(self.table, mode))
        return self._found[on_device]

    def held(self, mode: Mode | None = None) -> int:
        """The number of leading ingress entries that XDP holds; 0 if it could not drop for any of them."""
        return run_length(self.table, self.obstacles(mode))


def runs_of(tables: Iterable[RuleTable]) -> Mapping[str, XdpRun]:
    """The runs of several tables, by interface."""
    return {table.interface: XdpRun(table) for table in tables}
