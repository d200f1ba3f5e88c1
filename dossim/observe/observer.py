"""Observer: runs ``bpf/skb_drop.bpf.c`` during a replay and returns its records.

Checkpoints are netfilter links in the namespace the thread is in when :meth:`Observer.attach` is called (the victim's);
the tracing programs see the whole machine and record only packets with this drill's tag. Nothing is pinned: when the
process ends, for any reason, the kernel removes every program.
"""

from __future__ import annotations

import mmap
import socket
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

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


class Observer:
    """A context manager that has the programs loaded; ``journeys`` is the live record of ``packets`` packets.

    ``tag`` is what the replayer writes into the first two bytes of the Ethernet source address.
    """

    def __init__(self, packets: int, *, tag: int) -> None:
        self._packets = packets
        self._tag = tag
        self._stack = ExitStack()
        self._object: BpfObject | None = None
        self._memory: mmap.mmap | None = None
        self.journeys: Journeys = np.empty(0, JOURNEY)

    def __enter__(self) -> Observer:
        with ExitStack() as stack:
            obj = stack.enter_context(BpfObject(OBJECT))
            obj.set_const("drill_tag", self._tag)
            obj.resize_map("journeys", max(1, self._packets))
            for name, _, _ in CHECKPOINTS:
                obj.set_program_type(name, BPF_PROG_TYPE_NETFILTER, BPF_NETFILTER)
            _load(obj)
            self._object = obj
            with obj.map("journeys") as journeys:
                self._memory = journeys.mmap()
            self.journeys = np.frombuffer(self._memory, JOURNEY, count=self._packets)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.journeys = np.array(self.journeys)  # a copy that stays valid after the map is unmapped
        self._stack.close()

    def attach(self) -> None:
        """Attach every program; the checkpoints in the network namespace of the calling thread."""
        assert self._object, "attach() belongs inside the context"
        for family in (socket.AF_INET, socket.AF_INET6):
            for name, hook, priority in CHECKPOINTS:
                program = self._object.program(name)
                link = attach_netfilter(program.fd, family=int(family), hook=hook, priority=priority)
                self._stack.callback(link.close)
        for name in TRACEPOINTS:
            self._stack.callback(self._object.program(name).attach_trace().close)

    def seen(self, packet: int) -> bool:
        """Whether the kernel has reported anything about this packet yet."""
        record = self.journeys[packet]
        return bool(record["checkpoints"] or record["end"])


def _load(obj: BpfObject) -> None:
    try:
        obj.load()
    except KernelError as error:
        raise UnsupportedKernelError(
            f"the kernel refused the observer's programs (they need BTF, drop reasons of Linux 5.17 "
            f"and netfilter programs of Linux 6.4): {error}"
        ) from error
