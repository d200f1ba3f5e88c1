"""What Calico would drop and the enforcer does not (``tracked: model``), as reports show it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dossim.drill.results import CountedResult
from dossim.model.disposition import Disposition
from dossim.predict.prediction import STAGES
from dossim.report.sources import source_of, sources_of_defaults
from enforcer.model.counted import counted
from enforcer.model.printable import printable

NOT_ENFORCED = "tracked: model: not enforced here, not verified"


@dataclass(frozen=True)
class CalicoRow:
    """``packets`` that Calico would drop at ``stage``, by an entry or a default of ``source`` ("" if no resource sets
    it). ``entry`` "": for ``reason``.
    """

    stage: str
    entry: str
    source: str
    reason: str
    packets: int

    def __str__(self) -> str:
        why = f"by {self.entry}" if self.entry else f"({self.reason})"
        source = f" ({self.source})" if self.source else ""
        return f"{counted(self.packets)} at {self.stage} {why}{source}"


@dataclass(frozen=True)
class CalicoView:
    """``rows`` in packet order. ``several``: packets that would be dropped or not, by what that depends on; they are
    counted by the first. ``undetermined``: those of which tracked policy alone leaves the end open. ``why_not``: why
    nothing is known of it; then the rest is empty.
    """

    rows: tuple[CalicoRow, ...] = ()
    several: Mapping[str, int] = field(default_factory=dict)
    undetermined: int = 0
    why_not: str = ""

    @property
    def packets(self) -> int:
        return sum(row.packets for row in self.rows)

    @property
    def stages(self) -> dict[str, int]:
        """Packets by stage, in packet order."""
        found: Counter[str] = Counter()
        for row in self.rows:
            found[row.stage] += row.packets
        return dict(found)

    @property
    def sentence(self) -> str:
        """What Calico would do, in one line."""
        if self.why_not:
            return f"what Calico would drop after conntrack ({NOT_ENFORCED}) is unknown: {self.why_not}"
        return f"Calico would drop {counted(self.packets)} after conntrack ({NOT_ENFORCED})"

    def lines(self) -> Iterator[str]:
        """The sentence, and one line for each row and each reservation, each fit to print."""
        yield printable(self.sentence)
        for row in self.rows:
            yield printable(f"  {row}")
        for depends, count in self.several.items():
            yield printable(f"  {counted(count)} it may drop or not: it depends on {depends}")
        if self.undetermined:
            yield f"  {counted(self.undetermined)} undetermined with it"

    def as_dict(self) -> dict[str, Any]:
        """For JSON. Nothing verifies it in a drill either."""
        return {
            "why_not": self.why_not or None,
            "verified": False,
            "packets": self.packets,
            "stages": self.stages,
            "entries": [
                {
                    "entry": row.entry or None,
                    "source": row.source,
                    "stage": row.stage,
                    "reason": row.reason,
                    "predicted": row.packets,
                }
                for row in self.rows
            ],
            "several": dict(self.several),
            "undetermined": self.undetermined,
        }


def calico_of(result: CountedResult) -> CalicoView | None:
    """None, if tracked policy is enforced, or no HostEndpoint governs the host's interfaces."""
    found = result.modelled
    if found is None:
        return None
    entries = {entry.name: entry.position for entry in found.tables.entries()}
    sources = entries | dict(sources_of_defaults(result.situation.resources, found.tables))
    place = {name: number for number, name in enumerate(entries)}
    later = result.totals.later

    def in_packet_order(end: Disposition) -> tuple[int, int, str]:
        assert end.stage is not None, "it is dropped"
        return STAGES.index(end.stage), place.get(end.entry or "", -1), end.reason

    rows = tuple(
        CalicoRow(
            str(end.stage),
            end.entry or "",
            source_of(sources[end.entry]) if end.entry else "",
            end.reason,
            later.drops[end],
        )
        for end in sorted(later.drops, key=in_packet_order)
    )
    several = dict(Counter(later.several).most_common())
    return CalicoView(rows, several, later.undetermined, found.why_not)
