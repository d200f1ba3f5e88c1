"""Who else receives an interface's packets, as the kernel's own structures say (``bpf/device_look.bpf.c``).

A macvlan, ipvlan or VLAN on an interface may be in any network namespace: sysfs and rtnetlink show those of the
caller's namespace alone. The interface itself knows of all of them. Asking runs a program on no packet of anybody's
(BPF_PROG_TEST_RUN) and disturbs nothing. It needs Linux 6.2, BTF and CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON.
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
    """``has_rx_owner``: it has an rx_handler or is the conduit of a switch, so that raw sees no packet as its own;
    ``vlans``: VLAN interfaces are on it. Both in whatever network namespace.
    """

    has_rx_owner: bool
    vlans: bool


def look(indexes: Iterable[int]) -> dict[int, Device]:
    """What interfaces of the calling thread's network namespace say, by index. One that cannot be asked is left out."""
    program = _program()
    if program is None:
        return {}
    found = {}
    for index in indexes:
        try:
            answer, _, _ = test_run(program, _FRAME, ifindex=index)
        except HostError:
            continue  # gone meanwhile, or no privilege any more
        found[index] = Device(bool(answer & LOOK_RX_OWNER), bool(answer & LOOK_VLANS))
    return found


def can_look() -> bool:
    """Whether this kernel lets programs look at the interface a frame came in by."""
    return _program() is not None


_loaded: dict[str, int] = {}


def _program() -> int | None:
    """A descriptor of the program, loaded once; None where it cannot be, which may change and is asked again."""
    if PROGRAM not in _loaded:
        try:
            with BpfObject(OBJECT) as obj:
                obj.load()
                _loaded[PROGRAM] = os.dup(obj.program(PROGRAM).fd)
        except (HostError, OSError):
            return None
    return _loaded[PROGRAM]
