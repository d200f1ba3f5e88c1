"""bpf/xdp_untracked.bpf.c compiled for the host: a witness without a kernel and without root, at millions of frames a
second.

It shares nothing with the engine of ``dossim.predict``: the program and its tables are the enforcer's. What the kernel
adds (the verifier, the driver, a frame in several buffers) it does not show.
"""

from __future__ import annotations

import ctypes
import fcntl
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dossim.packet.capture import Capture
from enforcer.backends.xdp.compile.contents import contents_of
from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.backends.xdp.compile.rows import atoms, render
from enforcer.backends.xdp.state.layout import MAPS
from enforcer.backends.xdp.tables.classes import classify
from enforcer.backends.xdp.tables.image4 import build4
from enforcer.backends.xdp.tables.image6 import build6
from enforcer.model.abi import ENTRY_COUNT_BYTES
from enforcer.planning.plan import InterfacePlan

HERE = Path(__file__).parent
BPF = HERE.parents[2] / "bpf"
OWN = bytes.fromhex("020000000a0a")
PASSED = -1
_FLAGS = ("-std=gnu11", "-O2", "-g", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter")

I32 = npt.NDArray[np.int32]


class HostXdp:
    """The program with the tables of a plan. One at a time: its maps are variables of the library."""

    def __init__(self, plan: InterfacePlan) -> None:
        rows = render(plan)
        classified = classify(atoms(plan))
        capacity = max(classified.members) + 1
        contents = contents_of(plan, rows, classified.members, capacity, receiver=Receiver(OWN), ipv6=True)
        image4, image6 = build4(classified.segments4), build6(classified.segments6)
        entry_of = {entry.name: number for number, entry in enumerate(plan.table.ingress)}
        self._entries = np.array([entry_of.get(name, PASSED) for name in rows.names], np.int32)
        self._kept: list[object] = []  # memory that the library reads
        for name, value in {**contents.settings, "multi_buffer": 1}.items():
            assert library().host_set(name.encode(), value), name
        tables: dict[str, npt.NDArray[np.generic]] = {
            "sieve4": image4.sieve, "root4": image4.root, "lists4": image4.lists, "root6": image6.root,
            "nodes6": image6.nodes, "buckets6": image6.buckets, "lists6": image6.lists,
        }  # fmt: skip
        for name, words in tables.items():
            self._fill(name, np.ascontiguousarray(words).tobytes())
        for pinned, elements in contents.arrays.items():
            self._fill(MAPS[pinned], elements.data, elements.size)
        for pinned, (keys, values) in contents.hashes.items():
            self._fill(MAPS[pinned], values.data, values.size, keys.data)
        self._fill("entry_counters", bytes(ENTRY_COUNT_BYTES * contents.entries))

    def _fill(self, name: str, values: bytes, size: int = 0, keys: bytes | None = None) -> None:
        """``size``: of an element as rendered."""
        declared = library().host_fill(name.encode(), None, None, 0) if name not in _VARIABLES else 0
        declared = declared or size or len(values)
        assert size in (0, declared), name
        whole = values + bytes(-len(values) % declared)  # the last page of a table is not full
        kept = [ctypes.create_string_buffer(part, max(len(part), 1)) for part in (whole, keys or b"")]
        self._kept += kept
        entries = len(whole) // declared
        assert library().host_fill(name.encode(), kept[1] if keys is not None else None, kept[0], entries), name

    def entries(self, capture: Capture) -> I32:
        """int32[N]: the index of the entry in the plan's table that drops the frame, or PASSED."""
        bits = np.zeros(len(capture), np.int32)
        offset, length = np.ascontiguousarray(capture.offset), np.ascontiguousarray(capture.length)
        columns = (array.ctypes.data for array in (capture.data, offset, length))
        assert library().host_run(*columns, len(capture), OWN, bits.ctypes.data)
        dropped = bits != PASSED
        bits[dropped] = self._entries[bits[dropped]]
        return bits


_VARIABLES = ("sieve4", "root4", "root6", "policy")


_BUILT = tempfile.TemporaryDirectory(prefix="host-xdp-")  # made before the test processes are forked: of all of them


@cache
def library() -> ctypes.CDLL:
    """Compiled by the first test process that needs it: a second of clang."""
    path = Path(_BUILT.name) / "host_xdp.so"
    with open(path.with_name("lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            include = (f"-I{HERE / 'include'}", f"-I{BPF}", f"-I{BPF / 'include'}")
            made = path.with_name("made")
            subprocess.run(["clang", *_FLAGS, *include, str(HERE / "host.c"), "-o", str(made)], check=True)
            made.rename(path)
    loaded = ctypes.CDLL(str(path))
    loaded.host_fill.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32]
    loaded.host_fill.restype = ctypes.c_uint32
    loaded.host_set.argtypes = [ctypes.c_char_p, ctypes.c_uint32]
    void = ctypes.c_void_p
    loaded.host_run.argtypes = [void, void, void, ctypes.c_uint32, ctypes.c_char_p, void]
    return loaded
