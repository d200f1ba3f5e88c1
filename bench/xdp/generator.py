"""Live frames of BPF_PROG_TEST_RUN, sent with a pool of sources; and plain test runs of a program on one frame.

A slice runs with real-time priority on one CPU: sending, receiving and dropping happen there one after the other (veth's
NAPI runs as the sender's batch ends), so the time of a slice is the time of a frame's whole way, times the frames.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.xdp.objects import PROGRAMS, compiled
from bench.xdp.wire import Pair
from enforcer.errors import KernelError
from enforcer.kernel.bpf import BpfObject
from enforcer.kernel.libbpf import libbpf
from enforcer.kernel.netns import entered

BATCH = 64
_LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES (linux/bpf.h)
_CONTEXT = struct.Struct("=IIIIII")  # struct xdp_md
_POSITION = struct.Struct("=IIII")  # struct position of generator.bpf.c

MACS = bytes.fromhex("020000000001020000000002")
UDP, PORT = 17, 7777  # the port is no failsafe's
FLOW = np.dtype([("source", ">u4"), ("sport", ">u2"), ("dport", ">u2"), ("protocol", "u1"), ("pad", "u1", 3)])


class TestRunOpts(ctypes.Structure):
    """``struct bpf_test_run_opts`` (libbpf's bpf.h)."""

    __test__ = False  # not a test case
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


class Lost(Exception):
    """Frames that were sent did not arrive: the time of the slice says nothing."""


def frame4(source: int = 0) -> bytes:
    """60 octets of UDP over IPv4; the generator sets source and checksum. TCP flags, should it be TCP, say SYN."""
    header = struct.pack("!BBHHHBBHII", 0x45, 0, 46, 0, 0, 64, UDP, 0, source, 0xC6120001)
    payload = struct.pack("!HHHH", 4242, PORT, 26, 0) + bytes(4) + b"\x50\x02" + bytes(12)
    return MACS + b"\x08\x00" + header + payload


def frame6(high: int = 0, low: int = 0) -> bytes:
    """62 octets of UDP over IPv6."""
    header = struct.pack("!IHBBQQQQ", 6 << 28, 8, UDP, 64, high, low, 0x20010DB8FFFF0000, 1)
    return MACS + b"\x86\xdd" + header + struct.pack("!HHHH", 4242, PORT, 8, 0)


class Generator:
    """The loaded generators and their pool. A context manager."""

    def __init__(self, directory: Path) -> None:
        self._object = BpfObject(compiled(PROGRAMS / "generator.bpf.c", directory))
        self._object.load()
        self._pool = self._object.map("pool")
        self._position = self._object.map("position")
        self._view = self._pool.mmap(writable=True)
        self._program, self._frame = "generate4", frame4()

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self._view.close()
        self._object.close()

    @property
    def pool_octets(self) -> int:
        return self._octets

    def send_from4(self, sources: npt.NDArray[np.uint32]) -> None:
        self._fill("generate4", frame4(), sources.astype(">u4").tobytes(), len(sources))

    def send_from6(self, sources: npt.NDArray[np.uint64]) -> None:
        self._fill("generate6", frame6(), sources.astype(">u8").tobytes(), len(sources))

    def send_flows(self, flows: npt.NDArray[np.void]) -> None:
        """IPv4 packets of several protocols and ports (dtype FLOW)."""
        self._fill("generate_flows", frame4(), flows.tobytes(), len(flows))

    def slice_ns(self, pair: Pair, frames: int, *, warm: int = 0) -> float:
        """Nanoseconds a frame, sent, received and done with. Raises Lost when not all arrived."""
        before = pair.received()
        with entered(pair.sender), undisturbed():
            if warm:
                self._run(pair.near, warm)
            started = time.perf_counter_ns()
            self._run(pair.near, frames)
            spent = time.perf_counter_ns() - started
        arrived = pair.received() - before
        if arrived < warm + frames:
            raise Lost(f"{warm + frames - arrived:,} of {warm + frames:,} frames were lost on the way")
        return spent / frames

    def _fill(self, program: str, frame: bytes, pool: bytes, count: int) -> None:
        assert count & (count - 1) == 0, "the pool is a power of two"
        words = struct.unpack("<10H", frame[14:34])
        flows = program == "generate_flows" or program == "generate4"
        rest = sum(words) - (frame[23] << 8 if flows else 0)
        self._view[: len(pool)] = pool
        self._position.update(struct.pack("=I", 0), _POSITION.pack(0, count - 1, rest, 0))
        self._program, self._frame, self._octets = program, frame, len(pool)

    def _run(self, ifindex: int, frames: int) -> None:
        data = ctypes.create_string_buffer(self._frame, len(self._frame))
        context = ctypes.create_string_buffer(_CONTEXT.pack(0, len(self._frame), 0, ifindex, 0, 0))
        opts = TestRunOpts(
            sz=ctypes.sizeof(TestRunOpts),
            data_in=ctypes.addressof(data),
            data_size_in=len(self._frame),
            ctx_in=ctypes.addressof(context),
            ctx_size_in=_CONTEXT.size,
            repeat=frames,
            flags=_LIVE_FRAMES,
            batch_size=BATCH,
        )
        result = libbpf().bpf_prog_test_run_opts(self._object.program(self._program).fd, ctypes.byref(opts))
        if result < 0:
            raise KernelError("send live frames", number=-result)


def plain_run(program_fd: int, frame: bytes, repeat: int = 1) -> tuple[int, float]:
    """A program on one frame again and again, without any driver: ``(verdict, ns a run)``."""
    data = ctypes.create_string_buffer(frame, len(frame))
    opts = TestRunOpts(
        sz=ctypes.sizeof(TestRunOpts), data_in=ctypes.addressof(data), data_size_in=len(frame), repeat=repeat
    )
    with undisturbed():
        started = time.perf_counter_ns()
        result = libbpf().bpf_prog_test_run_opts(program_fd, ctypes.byref(opts))
        spent = time.perf_counter_ns() - started
    if result < 0:
        raise KernelError("test run", number=-result)
    return opts.retval, spent / repeat


@contextmanager
def pinned_to_one_cpu() -> Iterator[int]:
    """This process on the last CPU it may use: the number of it."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield max(allowed)
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def undisturbed() -> Iterator[None]:
    """With real-time priority: what else runs on this machine waits for the slice to end."""
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameter)
