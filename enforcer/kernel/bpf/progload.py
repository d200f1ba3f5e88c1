"""BPF_PROG_LOAD for instructions that no object file holds: probes, and what bcc compiled."""

from __future__ import annotations

import ctypes

from enforcer.kernel.bpf.libbpf import libbpf
from enforcer.kernel.bpf.objects import BPF_XDP
from enforcer.model.errors import KernelError

BPF_PROG_TYPE_XDP = 6
INSTRUCTION = 8  # octets of struct bpf_insn

_LOG_OCTETS = 1 << 20


class _ProgLoadOpts(ctypes.Structure):
    """``struct bpf_prog_load_opts`` (libbpf's bpf.h)."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
        ("attach_btf_obj_fd", ctypes.c_uint32),
        ("fd_array", ctypes.c_void_p),
        ("func_info", ctypes.c_void_p),
        ("func_info_cnt", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("line_info", ctypes.c_void_p),
        ("line_info_cnt", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_char_p),
    )


def load_xdp(name: str, code: bytes, *, flags: int = 0, device: int = 0) -> int:
    """A descriptor of a loaded XDP program; with the index of an interface it is for that device's hardware.

    KernelError has the verifier's last word, and the whole log.
    """
    log = ctypes.create_string_buffer(_LOG_OCTETS)
    opts = _ProgLoadOpts(
        sz=ctypes.sizeof(_ProgLoadOpts),
        expected_attach_type=BPF_XDP,
        prog_flags=flags,
        prog_ifindex=device,
        log_size=len(log),  # written to only when the kernel refuses
        log_buf=ctypes.cast(log, ctypes.c_char_p),
    )
    fd = libbpf().bpf_prog_load(
        BPF_PROG_TYPE_XDP, name.encode(), b"GPL", code, len(code) // INSTRUCTION, ctypes.byref(opts)
    )
    if fd < 0:
        said = log.value.decode(errors="replace")
        lines = [line for line in said.splitlines() if line.strip() and not line.startswith("processed ")]
        reason = f": {lines[-1]} ({len(lines) - 1} lines omitted; .log has all)" if lines else ""
        raise KernelError(f"load program {name}{reason}", number=-fd, log=said)
    return int(fd)
