"""Whether the sources of an attack are forged: drawn at random, so that no list of them helps against the next packet.

Real sources are as uneven as the Internet: of the reflectors or bots of one attack most are in a few dozen /8 networks.
Random ones fill all of them alike, those included from which no packet can come.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dossim.suggest.tally import Tally, distinct
from enforcer.model.counted import counted

_LEAST_SOURCES = 1000  # fewer fill too few of 256 networks to tell
_EVEN = 170  # of 256 /8 networks; random sources reach 209 to 256, reflectors of the whole Internet some 120
_IMPOSSIBLE_SHARE = 0.02  # random sources reach 0.13
_REPEATED = 3  # packets of one source; a list helps against sources that come back
_NETWORK = np.uint64(56)


@dataclass(frozen=True)
class Spread:
    """Of the IPv4 sources of an attack. ``networks``: to how many equally frequent /8 networks their spread amounts
    (the exponential of its entropy). ``impossible``: the share of packets from sources that no host can have (0/8,
    127/8, 224/3).
    """

    packets: int
    sources: int
    networks: float
    impossible: float

    @property
    def is_forged(self) -> bool:
        """Whether the sources look random and do not come back."""
        if self.sources < _LEAST_SOURCES or self.packets >= _REPEATED * self.sources:
            return False
        return self.networks >= _EVEN or self.impossible >= _IMPOSSIBLE_SHARE

    def __str__(self) -> str:
        share = f", {100 * self.impossible:.1f} % of them from addresses that no host has" if self.impossible else ""
        return (
            f"{counted(self.packets)} from {counted(self.sources, 'source')}{share}, spread over the Internet as "
            f"evenly as over {self.networks:.0f} of its /8 networks"
        )


def spread(attack: Tally) -> Spread:
    four = attack.where(~attack.is_six)
    if not len(four.key):
        return Spread(0, 0, 0.0, 0.0)
    keys = distinct(four.key)
    per_network = np.bincount((keys >> _NETWORK).astype(np.int64), minlength=256)
    share = per_network[per_network > 0] / len(keys)
    first = four.key >> _NETWORK
    impossible = four.count((first == 0) | (first == 127) | (first >= 224))
    return Spread(four.total, len(keys), float(np.exp(-(share * np.log(share)).sum())), impossible / four.total)
