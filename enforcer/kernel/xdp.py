"""XDP attachment in words: why the kernel refuses one, and the smallest program to ask it with."""

from __future__ import annotations

import ctypes
import errno
import os

from enforcer.errors import KernelError
from enforcer.kernel.bpf import BPF_F_XDP_HAS_FRAGS, BPF_XDP
from enforcer.kernel.libbpf import libbpf
from enforcer.words import Mode

_BPF_PROG_TYPE_XDP = 6
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


class _ProgLoadOpts(ctypes.Structure):
    """The beginning of ``struct bpf_prog_load_opts`` (libbpf's bpf.h)."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
    )


def load_pass_program() -> int:
    """A descriptor of a program that passes everything; multi-buffer frames too where the kernel has them (5.18)."""
    try:
        return _load_pass(BPF_F_XDP_HAS_FRAGS)
    except KernelError as error:
        if error.errno != errno.EINVAL:
            raise
        return _load_pass(0)


def why_refused(mode: Mode, error: KernelError, *, mtu: int) -> str:
    """A sentence for people about an attachment that failed, with the kernel's own word behind it."""
    name = _NAMES.get(error.errno) or errno.errorcode.get(error.errno, str(error.errno))
    if error.errno == errno.EINVAL and not kernel_at_least(5, 9):
        return f"XDP needs BPF link (Linux 5.9); this host runs {os.uname().release}"
    reason = _REASONS.get(error.errno, f"the kernel refused {mode} XDP")
    return f"{reason.format(mode=mode, mtu=mtu)} ({name})"


def kernel_at_least(major: int, minor: int) -> bool:
    """Whether the running kernel calls itself at least that version."""
    found = os.uname().release.split("-")[0].split(".")
    return (int(found[0]), int(found[1])) >= (major, minor)


def _load_pass(flags: int) -> int:
    opts = _ProgLoadOpts(sz=ctypes.sizeof(_ProgLoadOpts), expected_attach_type=BPF_XDP, prog_flags=flags)
    fd = libbpf().bpf_prog_load(
        _BPF_PROG_TYPE_XDP, b"enforcer_probe", b"GPL", _PASS, len(_PASS) // 8, ctypes.byref(opts)
    )
    if fd < 0:
        raise KernelError("load a probe program", number=-fd)
    return int(fd)
