"""Programs: loading from bare instructions, test runs on a frame, information from the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass

from enforcer.kernel.bpf.libbpf import check, libbpf
from enforcer.model.errors import KernelError

BPF_XDP = 37
BPF_F_XDP_HAS_FRAGS = 1 << 5
BPF_PROG_TYPE_XDP = 6
INSTRUCTION = 8  # bytes of struct bpf_insn

_LOG_BYTES = 1 << 20


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
    """Load an XDP program; returns its descriptor. ``device``: the index of an interface, to load it into its hardware.

    Raises KernelError with the verifier's last line, and the whole log in ``.log``.
    """
    log = ctypes.create_string_buffer(_LOG_BYTES)
    opts = _ProgLoadOpts(
        sz=ctypes.sizeof(_ProgLoadOpts),
        expected_attach_type=BPF_XDP,
        prog_flags=flags,
        prog_ifindex=device,
        log_size=len(log),  # written only if the kernel rejects the program
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


class RunOptions(ctypes.Structure):
    """``struct bpf_test_run_opts`` (libbpf's bpf.h)."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


def test_run(
    program_fd: int,
    frame: bytes,
    repeat: int = 1,  # noqa: PT028 - not a test
    *,
    ifindex: int = 0,  # noqa: PT028 - as above
) -> tuple[int, bytes, int]:
    """Run an XDP program on one frame: ``(return value, frame afterwards, ns per run)``.

    ``ifindex``: the interface that appears to have received the frame in its first queue.
    """
    data_in = ctypes.create_string_buffer(frame, len(frame))
    data_out = ctypes.create_string_buffer(len(frame) + 256)
    opts = RunOptions(
        sz=ctypes.sizeof(RunOptions),
        data_in=ctypes.addressof(data_in),
        data_out=ctypes.addressof(data_out),
        data_size_in=len(frame),
        data_size_out=len(data_out),
        repeat=repeat,
    )
    if ifindex:  # struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        context = struct.pack("=6I", 0, len(frame), 0, ifindex, 0, 0)
        ctx_in = ctypes.create_string_buffer(context, len(context))
        opts.ctx_in, opts.ctx_size_in = ctypes.addressof(ctx_in), len(context)
    check(libbpf().bpf_prog_test_run_opts(program_fd, ctypes.byref(opts)), "test run")
    return opts.retval, data_out.raw[: opts.data_size_out], opts.duration


@dataclass(frozen=True)
class ProgramInfo:
    id: int
    name: str
    map_ids: tuple[int, ...] = ()


def program_info(fd: int) -> ProgramInfo:
    """Id and name of a program (``struct bpf_prog_info``)."""
    raw = info_by_fd(fd, 128)
    (number,) = struct.unpack_from("=I", raw, 4)
    return ProgramInfo(number, raw[64:80].rstrip(b"\0").decode())


def program_name(program_id: int) -> str | None:
    """The name of a loaded program; "" if it no longer exists; None without CAP_SYS_ADMIN, which reading it needs."""
    fd = libbpf().bpf_prog_get_fd_by_id(program_id)
    if fd < 0:
        return None if fd == -errno.EPERM else ""
    try:
        return program_info(fd).name
    finally:
        os.close(fd)


def program_words(program_id: int, name: str | None) -> str:
    """A program's id and its name, as :func:`program_name` returns it, for messages."""
    return f"id {program_id} ({'its name needs CAP_SYS_ADMIN' if name is None else name or 'no name'})"


def info_by_fd(fd: int, size: int) -> bytes:
    """The info structure of a program, map or link; zero where this kernel does not fill it in."""
    buffer = ctypes.create_string_buffer(size)
    length = ctypes.c_uint32(size)
    check(libbpf().bpf_obj_get_info_by_fd(fd, buffer, ctypes.byref(length)), "read info")
    return buffer.raw
