"""Live frames through veth pairs, one pair and one receiving namespace per contender, so that no contender sees the
traffic or rules of another.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from pyroute2 import IPRoute

from dossim.lab import names
from enforcer.kernel.bpf import programs
from enforcer.kernel.bpf.libbpf import libbpf
from enforcer.kernel.bpf.links import Link, attach_xdp
from enforcer.kernel.bpf.objects import BpfObject
from enforcer.kernel.netns import entered
from enforcer.model.vocabulary import Mode
from enforcer.system.signals import held, unwinding

PROGRAMS = Path(__file__).parent / "programs"
BPF = Path(__file__).parents[1] / "bpf"
NETNS = Path("/run/netns")
BATCH = 64
_LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES

OWN_ADDRESS = bytes.fromhex("020000000001")
_ETHERNET = OWN_ADDRESS + bytes.fromhex("020000000002")
_UDP = struct.pack("!HHHH", 1234, 9999, 8 + 18, 0) + bytes(18)


def frame4() -> bytes:
    """UDP to a port without a failsafe; 60 bytes. Source and checksum of the header come from the generator."""
    header = bytearray(struct.pack("!BBHHHBBHII", 0x45, 0, 46, 0, 0, 64, 17, 0, 0, 0x0A0A0A0A))
    return _ETHERNET + b"\x08\x00" + bytes(header) + _UDP


def frame6() -> bytes:
    """The same over IPv6."""
    header = struct.pack("!IHBB", 0x60000000, len(_UDP), 17, 64) + bytes(16) + bytes(15) + b"\x0a"
    return _ETHERNET + b"\x86\xdd" + header + _UDP


def compiled(source: Path, target: Path, *defines: str, misses: bool = False) -> Path:
    """The object of a program, compiled as in bpf/Makefile; with ``misses`` it drops what it would pass."""
    machine = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout.strip()
    include = ["-I", str(BPF / "include"), "-I", f"/usr/include/{machine}-linux-gnu"]
    before = ["-include", str(PROGRAMS / "misses.h")] if misses else []
    words = ["clang", "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-std=gnu11", *defines, *include, *before, "-c"]
    subprocess.run([*words, str(source), "-o", str(target)], check=True)
    return target


@dataclass
class Pair:
    """A veth pair: the generator's end, and the contender's in its own namespace."""

    namespace: str
    near: int
    far: int
    _links: list[Link] = field(default_factory=list)

    def attach(self, program_fd: int) -> Link:
        """A program at the receiving end, in native mode."""
        with entered(NETNS / self.namespace):
            link = attach_xdp(program_fd, self.far, Mode.NATIVE)
        self._links.append(link)
        return link


class Traffic:
    """The sending side. A context manager: it removes what it created."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._pairs = 0

    def __enter__(self) -> Traffic:
        names.reap()
        with ExitStack() as stack:
            stack.enter_context(unwinding())
            self._stack = stack
            self._build()
            self._stack = stack.pop_all()
        return self

    def _build(self) -> None:
        with held():
            self.directory = names.scratch(names.new_name())
            self._stack.callback(shutil.rmtree, self.directory)
        allowed = os.sched_getaffinity(0)
        self._stack.callback(os.sched_setaffinity, 0, allowed)
        os.sched_setaffinity(0, {max(allowed)})
        self.sender = self._namespace()
        self.objects = {}
        for misses in (False, True):
            path = compiled(PROGRAMS / "traffic.bpf.c", self.directory / f"traffic{misses}.bpf.o", misses=misses)
            self.objects[misses] = self._stack.enter_context(BpfObject(path))
            self.objects[misses].load()
        generator = self.objects[False]
        self._pool4 = np.frombuffer(generator.map("pool4").mmap(writable=True), np.uint32)
        self._pool6 = np.frombuffer(generator.map("pool6").mmap(writable=True), np.uint64)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _namespace(self) -> str:
        """A namespace name that the next run recognises and removes if this run is killed."""
        name = names.new_name()
        names.make_namespace(name, self._stack)
        return name

    def pin_root(self) -> Path:
        """A directory to pin in, named likewise."""
        name = names.new_name()
        self._stack.callback(names.remove_pins, name)
        return names.pin_root(name)

    def pair(self) -> Pair:
        """A new pair, with a program at the sending end: without one, veth takes no XDP frames."""
        self._pairs += 1
        far = self._namespace()
        name = f"wire{self._pairs}"
        with entered(NETNS / self.sender), held(), IPRoute() as ip:
            ip.link("add", ifname=name, kind="veth", peer={"ifname": "eth0", "net_ns_fd": far})
            near = ip.link_lookup(ifname=name)[0]
            ip.link("set", index=near, state="up")
            self._stack.enter_context(attach_xdp(self.program("pass"), near, Mode.NATIVE))
        with entered(NETNS / far), held(), IPRoute() as ip:
            for file in ("all", "default"):
                Path(f"/proc/sys/net/ipv6/conf/{file}/disable_ipv6").write_text("1")
            index = ip.link_lookup(ifname="eth0")[0]
            ip.link("set", index=index, address=OWN_ADDRESS.hex(":"))  # otherwise IP ignores the frames
            ip.link("set", index=index, state="up")
        return Pair(far, near, index)

    def program(self, name: str, *, misses: bool = False) -> int:
        return self.objects[misses].program(name).fd

    def sources4(self, sources: npt.NDArray[np.uint32]) -> None:
        """Set the sources that the generator uses from now on."""
        self._pool4[: len(sources)] = sources.astype(">u4").view(np.uint32)

    def sources6(self, sources: npt.NDArray[np.uint64]) -> None:
        self._pool6[: 2 * len(sources)] = sources.astype(">u8").view(np.uint64).reshape(-1)

    def send(self, pair: Pair, frames: int, *, version: int) -> float:
        """Send so many frames; nanoseconds per frame, from sending until it is handled at the receiving end."""
        frame = frame4() if version == 4 else frame6()
        data = ctypes.create_string_buffer(frame, len(frame))
        context = ctypes.create_string_buffer(struct.pack("=IIIIII", 0, len(frame), 0, pair.near, 0, 0), 24)
        opts = programs.RunOptions(
            sz=ctypes.sizeof(programs.RunOptions),
            data_in=ctypes.addressof(data),
            data_size_in=len(frame),
            ctx_in=ctypes.addressof(context),
            ctx_size_in=24,
            repeat=frames,
            flags=_LIVE_FRAMES,
            batch_size=BATCH,
        )
        with entered(NETNS / self.sender):
            return self._timed(f"generate{version}", opts, frames)

    def run(self, program_fd: int, frames: int, *, version: int) -> float:
        """Run a program over so many frames, without an interface; ns per frame, including writing its source."""
        with self.objects[False].map("contender") as contender:
            contender.update(bytes(4), program_fd.to_bytes(4, sys.byteorder))
        frame = frame4() if version == 4 else frame6()
        data = ctypes.create_string_buffer(frame, len(frame))
        opts = programs.RunOptions(
            sz=ctypes.sizeof(programs.RunOptions),
            data_in=ctypes.addressof(data),
            data_size_in=len(frame),
            repeat=frames,
        )
        return self._timed(f"mixed{version}", opts, frames)

    def _timed(self, program: str, opts: programs.RunOptions, frames: int) -> float:
        """Wall-clock time, because the kernel's own figure is in whole nanoseconds."""
        fd = self.program(program)
        started = time.perf_counter()
        result = libbpf().bpf_prog_test_run_opts(fd, ctypes.byref(opts))
        elapsed = time.perf_counter() - started
        if result < 0:
            raise OSError(-result, f"run {program}")
        return elapsed / frames * 1e9


@contextmanager
def traffic() -> Iterator[Traffic]:
    with Traffic() as found:
        yield found
