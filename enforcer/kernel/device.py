"""Determines from the kernel's structures which other devices receive an interface's packets.

A macvlan, ipvlan or VLAN on an interface may be in any network namespace; sysfs and rtnetlink show only those of the
caller's namespace. The interface's own structure has all of them. ``bpf/device_look.bpf.c`` reads it, in a test run
(BPF_PROG_TEST_RUN) that affects no packet. It needs Linux 6.2, BTF and CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from enforcer.kernel.bpf.objects import BpfObject
from enforcer.kernel.bpf.programs import test_run
from enforcer.model.abi import LOOK_RX_OWNER, LOOK_VLANS
from enforcer.model.errors import HostError

OBJECT = Path(__file__).parent.parent / "_bpf" / "device_look.bpf.o"
PROGRAM = "device_look"

_FRAME = bytes(14)


@dataclass(frozen=True)
class Device:
    """``has_rx_owner``: it has an rx_handler or is the conduit of a switch, so raw sees no packet as received by it.
    ``vlans``: it has VLAN interfaces. Both in any network namespace.
    """

    has_rx_owner: bool
    vlans: bool


def look(indexes: Iterable[int]) -> dict[int, Device]:
    """The devices of the calling thread's network namespace with these indexes. One that cannot be read is left out."""
    program = _program()
    if program is None:
        return {}
    found = {}
    for index in indexes:
        try:
            answer, _, _ = test_run(program, _FRAME, ifindex=index)
        except HostError:
            continue  # deleted meanwhile, or the privilege was lost
        found[index] = Device(bool(answer & LOOK_RX_OWNER), bool(answer & LOOK_VLANS))
    return found


def can_look() -> bool:
    """Whether this kernel lets XDP programs read the structure of the receiving interface."""
    return _program() is not None


_loaded: dict[str, int] = {}


def _program() -> int | None:
    """A descriptor of the program, loaded once; None if it cannot be loaded, which is then tried again."""
    if PROGRAM not in _loaded:
        try:
            with BpfObject(OBJECT) as obj:
                obj.load()
                _loaded[PROGRAM] = os.dup(obj.program(PROGRAM).fd)
        except (HostError, OSError):
            return None
    return _loaded[PROGRAM]
