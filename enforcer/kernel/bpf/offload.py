"""XDP in the hardware of an interface: whether its device takes our program, and if not, why, with the kernel's word.

A device takes a program when it takes each of its maps and every instruction; only loading tells. The answers differ:
a driver that runs no programs at all refuses even one without maps (kernel/bpf/offload.c: EOPNOTSUPP where it has no
``ndo_bpf``, EINVAL where its device is not registered for offload). What a device says about a map goes to the kernel's
log alone, what it says about an instruction is in the verifier's.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from enforcer.kernel.bpf.objects import BpfObject
from enforcer.kernel.bpf.xdp import error_name, load_pass_program
from enforcer.model.errors import KernelError

OBJECT = Path(__file__).parents[2] / "_bpf" / "xdp_offload.bpf.o"
PROGRAM = "xdp_offload"

_NO_HARDWARE = (errno.EINVAL, errno.EOPNOTSUPP)
NO_PRIVILEGE = (errno.EPERM, errno.EACCES)
_MAP_REFUSED = re.compile(r"map '(\w+)': failed to create")


def why_no_offload(ifindex: int) -> str:
    """Why the device of an interface does not take our program; "" when it does. Attaches nothing.

    Raises KernelError without the privilege to ask.
    """
    try:
        os.close(load_pass_program(ifindex))
    except KernelError as error:
        if error.errno in NO_PRIVILEGE:
            raise
        return refusal(error)
    try:
        with BpfObject(OBJECT) as obj:
            obj.bind_to_device(PROGRAM, ifindex)
            obj.load()
    except KernelError as error:
        # Of all that is done here only this requires it (kernel/bpf/offload.c, bpf_map_offload_map_alloc).
        return "maps of a device need CAP_SYS_ADMIN" if error.errno == errno.EPERM else refusal(error)
    return ""


def refusal(error: KernelError) -> str:
    """A sentence for people about a program that a device did not take. Pure."""
    name = error_name(error.errno)
    if not error.log:  # the program that passes everything: libbpf says nothing about it
        return f"the driver runs no XDP programs in hardware ({name})" if error.errno in _NO_HARDWARE else str(error)
    refused = _MAP_REFUSED.search(error.log)
    if refused:
        return f"the device does not take the map {refused[1]} ({name}); the kernel's log may say why"
    return f"the device does not take the program: {error}"
