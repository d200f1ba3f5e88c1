"""The observer's programs and the records they write: loaded once, and used by one drill after another.

Loading them (CO-RE relocation and the verifier) costs more than a short drill does otherwise.
"""

from __future__ import annotations

import mmap
import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from dossim.observe.journey import JOURNEY, Journeys
from enforcer.kernel.bpf.links import attach_netfilter
from enforcer.kernel.bpf.objects import BpfObject
from enforcer.model.errors import KernelError, UnsupportedKernelError

OBJECT = Path(__file__).parent.parent / "_bpf" / "skb_drop.bpf.o"

BPF_PROG_TYPE_NETFILTER = 32
BPF_NETFILTER = 45
INT_MIN, INT_MAX = -(1 << 31), (1 << 31) - 1
# Conntrack confirms at INT_MAX (IPv4) and INT_MAX - 1 (IPv6), and no two hooks may share a priority with a BPF link.
LAST = INT_MAX - 2
PREROUTING, LOCAL_IN, FORWARD, POSTROUTING = 0, 1, 2, 4

# Two for each event: while one runs, an interrupt may bring an event that only the other can record
# (bpf/skb_drop.bpf.c).
TRACEPOINTS = ("on_receive", "on_receive_too", "on_kfree", "on_kfree_too", "on_consume", "on_consume_too")

# Program, hook, priority. The kernel reserves the first and the last priority.
CHECKPOINTS = (
    ("pre_defrag", PREROUTING, -401),
    ("post_defrag", PREROUTING, -399),
    ("post_raw", PREROUTING, -299),
    ("post_conntrack", PREROUTING, -199),
    ("post_mangle", PREROUTING, -149),
    ("pre_route", PREROUTING, LAST),
    ("input_first", LOCAL_IN, INT_MIN + 1),
    ("input_last", LOCAL_IN, LAST),
    ("forward_first", FORWARD, INT_MIN + 1),
    ("forward_last", FORWARD, LAST),
    ("postrouting", POSTROUTING, LAST),
)

_LEAST = 1 << 13  # records, so that most drills of a process find room
_KEPT = 1 << 17  # a larger array is not kept


class ObserverPrograms:
    """The loaded programs, with room for ``capacity`` records. Only attached programs run.

    Raises UnsupportedKernelError if the kernel refuses them.
    """

    def __init__(self, capacity: int) -> None:
        with ExitStack() as stack:
            self._object = stack.enter_context(BpfObject(OBJECT))
            self._object.resize_map("journeys", capacity)
            for name, _, _ in CHECKPOINTS:
                self._object.set_program_type(name, BPF_PROG_TYPE_NETFILTER, BPF_NETFILTER)
            _load(self._object)
            with self._object.map("journeys") as journeys:
                self._memory: mmap.mmap = journeys.mmap(writable=True)
            self._stack = stack.pop_all()
        self._records: Journeys = np.frombuffer(self._memory, JOURNEY, count=capacity)

    def begin(self, packets: int, tag: int) -> Journeys:
        """The records of a new drill, all empty. Call it while nothing is attached."""
        records = self._records[:packets]
        records[:] = np.zeros((), JOURNEY)
        with self._object.map("drill_tag") as variable:
            variable.update(bytes(variable.key_size), tag.to_bytes(variable.value_size, sys.byteorder))
        return records

    def attach(self, stack: ExitStack) -> None:
        """Attach every program, the checkpoints in the calling thread's network namespace, until the stack unwinds."""
        for family in (socket.AF_INET, socket.AF_INET6):
            for name, hook, priority in CHECKPOINTS:
                program = self._object.program(name)
                link = attach_netfilter(program.fd, family=int(family), hook=hook, priority=priority)
                stack.callback(link.close)
        for name in TRACEPOINTS:
            stack.callback(self._object.program(name).attach_trace().close)

    def has_room(self, packets: int) -> bool:
        return len(self._records) >= packets

    def give_back(self) -> None:
        """For the next drill of this process. Call it when nothing is attached and the records have been copied."""
        if not _spare and self.has_room(_LEAST) and not self.has_room(_KEPT + 1):
            _spare.append(self)
        else:
            self.close()

    def close(self) -> None:
        self._stack.close()


_spare: list[ObserverPrograms] = []
# A child shares the array with its parent: it loads its own.
os.register_at_fork(after_in_child=_spare.clear)


def take_programs(packets: int) -> ObserverPrograms:
    """Loaded programs with room for so many packets, which nobody else has."""
    while _spare:
        programs = _spare.pop()
        if programs.has_room(packets):
            return programs
        programs.close()
    return ObserverPrograms(max(packets, _LEAST))


def _load(obj: BpfObject) -> None:
    try:
        obj.load()
    except KernelError as error:
        raise UnsupportedKernelError(
            f"the kernel refused the observer's programs (they need BTF, drop reasons of Linux 5.17 "
            f"and netfilter programs of Linux 6.4): {error}"
        ) from error
