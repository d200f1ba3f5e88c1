"""XDP in the hardware of an interface: whether its device accepts our program, and if not, the kernel's reason.

A device accepts a program if it accepts each of its maps and every instruction, which only loading can tell. A driver
without offload refuses even a program without maps (kernel/bpf/offload.c: EOPNOTSUPP if it has no ``ndo_bpf``, EINVAL
if its device is not registered for offload). The reason for refusing a map is only in the kernel's log, that for an
instruction in the verifier's log.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from enforcer.kernel.bpf.objects import BpfObject
from enforcer.kernel.bpf.toolchain import digest
from enforcer.kernel.bpf.xdp import error_name, load_pass_program
from enforcer.model.errors import KernelError

OBJECT = Path(__file__).parents[2] / "_bpf" / "xdp_offload.bpf.o"
PROGRAM = "xdp_offload"

_NO_HARDWARE = (errno.EINVAL, errno.EOPNOTSUPP)
NO_PRIVILEGE = (errno.EPERM, errno.EACCES)
_MAP_REFUSED = re.compile(r"map '(\w+)': failed to create")


def program_digest() -> str:
    """A digest of what the program is built from. If it changes, the program is replaced."""
    return digest(OBJECT)


def why_no_offload(ifindex: int) -> str:
    """Why the device of an interface does not accept our program; "" if it does. Attaches nothing.

    Raises KernelError if privileges are missing.
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
        # Only this step requires CAP_SYS_ADMIN (kernel/bpf/offload.c, bpf_map_offload_map_alloc).
        return "maps of a device need CAP_SYS_ADMIN" if error.errno == errno.EPERM else refusal(error)
    return ""


def refusal(error: KernelError) -> str:
    """A sentence for users on why a device did not accept a program. Pure."""
    name = error_name(error.errno)
    if not error.log:  # the program that passes everything: libbpf says nothing about it
        return f"the driver runs no XDP programs in hardware ({name})" if error.errno in _NO_HARDWARE else str(error)
    refused = _MAP_REFUSED.search(error.log)
    if refused:
        return f"the device rejects the map {refused[1]} ({name}); the kernel's log may say why"
    return f"the device rejects the program: {error}"
