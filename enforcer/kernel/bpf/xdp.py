"""Explains why the kernel refuses an XDP attachment, and has the smallest program for probing."""

from __future__ import annotations

import errno
import os

from enforcer.kernel.bpf.programs import BPF_F_XDP_HAS_FRAGS, load_xdp
from enforcer.model.errors import KernelError
from enforcer.model.vocabulary import Mode

_PROBE = "enforcer_probe"
# r0 = XDP_PASS; exit (struct bpf_insn: code, registers, offset, immediate)
_PASS = bytes.fromhex("b7000000 02000000 95000000 00000000")

_REASONS = {
    errno.EOPNOTSUPP: "the driver has no {mode} XDP",
    errno.ERANGE: "the interface's MTU of {mtu} is too large for {mode} XDP",
    errno.ENOSPC: "the interface has too few queues for {mode} XDP",
    errno.EBUSY: "another XDP program is attached to it or to an interface above it",
    errno.EEXIST: "an XDP program is attached in another mode",
    errno.ENODEV: "the interface is gone",
    errno.ENOMEM: "the kernel has no memory for it",
}


_NAMES = {errno.EOPNOTSUPP: "EOPNOTSUPP"}  # Python calls the same number ENOTSUP; the kernel does not


def load_pass_program(device: int = 0) -> int:
    """Load a program that passes everything, with multi-buffer support from Linux 5.18 on; returns its descriptor.

    ``device``: the index of an interface, to load it into its hardware (without multi-buffer support).
    """
    if device:
        return load_xdp(_PROBE, _PASS, device=device)
    try:
        return load_xdp(_PROBE, _PASS, flags=BPF_F_XDP_HAS_FRAGS)
    except KernelError as error:
        if error.errno != errno.EINVAL:
            raise
        return load_xdp(_PROBE, _PASS)


def why_refused(mode: Mode, error: KernelError, *, mtu: int) -> str:
    """A sentence for users on why an attachment failed, with the kernel's error."""
    if error.errno == errno.EINVAL and not kernel_at_least(5, 9):
        return f"XDP needs BPF link (Linux 5.9); this host runs {os.uname().release}"
    reason = _REASONS.get(error.errno, f"the kernel refused {mode} XDP")
    return f"{reason.format(mode=mode, mtu=mtu)} ({error_name(error.errno)})"


def error_name(number: int) -> str:
    """The name of an error number in the kernel's source."""
    return _NAMES.get(number) or errno.errorcode.get(number, str(number))


def kernel_at_least(major: int, minor: int) -> bool:
    """Whether the running kernel's release is at least this version."""
    found = os.uname().release.split("-")[0].split(".")
    return (int(found[0]), int(found[1])) >= (major, minor)
