"""A flow: everything that has one tuple or its inverse, in each world that is possible.

What the host's initial sequence number (ISN) decides is not known beforehand: with a listening port a flow has several
worlds, one for each of a few ISNs that divide the circle of 2^32 evenly. Every other flow has one. An outcome that
needs a particular ISN (a blind guess within 66,000 of 2^32) is in none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dossim.pipeline.conntrack.embryo import Embryo
from dossim.pipeline.conntrack.entry import Entry
from dossim.pipeline.conntrack.tuples import FlowTuple

# Of any acknowledgment number, four of them are before and four after. The odd offset keeps clear of round numbers.
_ISNS = tuple((0x0ACE_5EED + (part << 29)) % (1 << 32) for part in range(8))


@dataclass
class World:
    """``isn`` is that of a connection which began at time 0; None while nothing has depended on it.

    ``embryo``: the half-open connection of the host's listening socket.
    """

    entry: Entry | None = None
    embryo: Embryo | None = None
    isn: int | None = None

    def live_entry(self, time_ns: int) -> Entry | None:
        """The entry, unless it has expired, which removes it."""
        if self.entry is not None and self.entry.is_expired(time_ns):
            self.entry = None
        return self.entry

    @property
    def is_empty(self) -> bool:
        return self.entry is None and self.embryo is None


@dataclass
class Flow:
    """``is_open``: the capture cut one of its packets, so that nobody knows what its entry is."""

    key: FlowTuple
    worlds: list[World] = field(default_factory=lambda: [World()])
    is_open: bool = False

    def depend_on_isn(self) -> None:
        """From now on the host's ISN counts: a world for each."""
        if len(self.worlds) == 1 and self.worlds[0].isn is None:
            world = self.worlds[0]
            self.worlds = [
                World(None if world.entry is None else world.entry.copy(), world.embryo, isn) for isn in _ISNS
            ]

    @property
    def is_empty(self) -> bool:
        return not self.is_open and all(world.is_empty for world in self.worlds)


def flow_key(packet: FlowTuple) -> FlowTuple | None:
    """The same for both directions; None for a packet that has only one."""
    inverse = packet.inverted()
    return None if inverse is None else min(packet, inverse)
