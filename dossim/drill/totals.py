"""What is counted of a prediction: values that merge, so that a capture can be counted part by part. Pure.

``merged(a, b)`` counts the packets of both; it is associative, and in the order of the parts what comes first stays
first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from dossim.model.disposition import OPEN_FATES, Disposition, Fate
from dossim.packet.about import Facts
from dossim.predict import Prediction
from dossim.predict.prediction import FATE_CODE
from enforcer.model.vocabulary import Stage

# Where tracked policy drops received packets.
STAGES_OF_TRACKED = (Stage.MANGLE, Stage.FILTER_INPUT, Stage.FILTER_FORWARD)

K = TypeVar("K")


@dataclass(frozen=True)
class Later:
    """What Calico would do with tracked policy that is not enforced. ``drops``: the packets that it would drop; of
    several possible ends the first counts. ``several``: packets that it may drop or not, by what that depends on.
    ``undetermined``: packets that are so because of tracked policy alone.
    """

    drops: Mapping[Disposition, int] = field(default_factory=dict)
    several: Mapping[str, int] = field(default_factory=dict)
    undetermined: int = 0

    def merged(self, other: Later) -> Later:
        """The packets of both."""
        return Later(
            _sum(self.drops, other.drops), _sum(self.several, other.several), self.undetermined + other.undetermined
        )


@dataclass(frozen=True)
class Totals:
    """``ends``: packets by where they end; of several possible ends the first counts. ``several``: determined packets
    with several possible ends, by what that depends on. ``completed``: packets whose checksum was completed, ``zero``:
    those of which it is not known, ``ambiguous``: those with an IPv4 header that hardware may have completed.
    """

    facts: Facts = field(default_factory=Facts)
    ends: Mapping[Disposition, int] = field(default_factory=dict)
    several: Mapping[str, int] = field(default_factory=dict)
    later: Later = field(default_factory=Later)
    completed: int = 0
    zero: int = 0
    ambiguous: int = 0

    def merged(self, other: Totals) -> Totals:
        """The packets of both."""
        return Totals(
            self.facts.merged(other.facts),
            _sum(self.ends, other.ends),
            _sum(self.several, other.several),
            self.later.merged(other.later),
            self.completed + other.completed,
            self.zero + other.zero,
            self.ambiguous + other.ambiguous,
        )

    @property
    def packets(self) -> int:
        return sum(self.ends.values())

    def count(self, fate: Fate) -> int:
        """Packets with this fate."""
        return sum(packets for end, packets in self.ends.items() if end.fate is fate)

    def stages(self) -> dict[str, int]:
        """Packets by the stage that drops them, in pipeline order, then by fate; without those that have no packets."""
        dropped: Counter[Stage | None] = Counter()
        for end, packets in self.ends.items():
            if end.fate is Fate.DROPPED:
                dropped[end.stage] += packets
        found = {str(stage): dropped[stage] for stage in Stage}
        found |= {str(fate): self.count(fate) for fate in (Fate.DELIVERED, Fate.FORWARDED)}
        return {word: packets for word, packets in found.items() if packets}

    def entries(self) -> dict[str, int]:
        """Packets that each entry drops, for entries that drop any."""
        found: Counter[str] = Counter()
        for end, packets in self.ends.items():
            if end.entry is not None:
                found[end.entry] += packets
        return dict(found)

    def open_reasons(self) -> tuple[tuple[str, int], ...]:
        """Why packets have no determined end, most packets first; without numbers of bytes, which differ by packet."""
        found: Counter[str] = Counter()
        for end, packets in self.ends.items():
            if end.fate in OPEN_FATES:
                where = f" from {end.stage} on" if end.stage else ""
                why = without_bytes(end.reason)
                found[f"{'undetermined' if end.stage else 'not sendable'}{where}: {why}"] += packets
        return tuple(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _sum(one: Mapping[K, int], other: Mapping[K, int]) -> dict[K, int]:
    found = dict(one)
    for key, packets in other.items():
        found[key] = found.get(key, 0) + packets
    return found


def without_bytes(reason: str) -> str:
    """A reason without the numbers of bytes that were captured."""
    return re.sub(r" at [\d,]+ of [\d,]+ bytes", "", reason)


def several_of(prediction: Prediction) -> dict[str, int]:
    """Its determined packets with several possible ends, by what that depends on."""
    return dict(Counter(end.depends for end in prediction.several().values()))


def later_of(prediction: Prediction, enforced: Prediction) -> Later:
    """``prediction``: with the tracked policy that is not enforced."""
    is_open = FATE_CODE[Fate.UNDETERMINED]
    return Later(
        drops={
            end: packets
            for end, packets in prediction.ends().items()
            if end.fate is Fate.DROPPED and end.stage in STAGES_OF_TRACKED
        },
        several=dict(
            Counter(
                end.depends
                for end in prediction.several().values()
                if any(stage in STAGES_OF_TRACKED for _, stage in end.ends)
            )
        ),
        undetermined=int(((prediction.fate == is_open) & (enforced.fate != is_open)).sum()),
    )
