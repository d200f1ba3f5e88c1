"""Observer: runs ``bpf/skb_drop.bpf.c`` during a replay and returns its records.

Checkpoints are netfilter links in the namespace the thread is in when :meth:`Observer.attach` is called (the victim's);
the tracing programs see the whole machine and record only packets with this drill's tag. Nothing is pinned: when the
process ends, for any reason, the kernel removes every program.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

import numpy as np

from dossim.observe.journey import JOURNEY, Journeys
from dossim.observe.programs import ObserverPrograms, take_programs


class Observer:
    """A context manager that has the programs loaded; ``journeys`` is the live record of ``packets`` packets.

    ``tag`` is what the replayer writes into the first three bytes of the Ethernet source address.
    """

    def __init__(self, packets: int, *, tag: int) -> None:
        self._packets = packets
        self._tag = tag
        self._stack = ExitStack()
        self._programs: ObserverPrograms | None = None
        self.journeys: Journeys = np.empty(0, JOURNEY)

    def __enter__(self) -> Observer:
        with ExitStack() as stack:
            self._programs = take_programs(self._packets)
            stack.callback(self._programs.give_back)
            self.journeys = self._programs.begin(self._packets, self._tag)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.journeys = np.array(self.journeys)  # a copy, because the next drill overwrites them
        self._stack.close()

    def attach(self) -> None:
        """Attach every program; the checkpoints in the network namespace of the calling thread."""
        assert self._programs, "attach() belongs inside the context"
        self._programs.attach(self._stack)

    def seen(self, packet: int) -> bool:
        """Whether the kernel has reported anything about this packet yet."""
        record = self.journeys[packet]
        return bool(record["checkpoints"] or record["end"])
