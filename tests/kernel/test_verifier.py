"""Every object passes the verifier of the running kernel, whatever its settings, with most of its budget left."""

from __future__ import annotations

import itertools
import platform
import re
import struct
from pathlib import Path

import pytest

from dossim.observe.programs import BPF_NETFILTER, BPF_PROG_TYPE_NETFILTER, CHECKPOINTS, TRACEPOINTS
from dossim.observe.programs import OBJECT as OBSERVER
from enforcer.kernel.bpf.objects import BpfObject
from enforcer.kernel.bpf.offload import OBJECT as OFFLOAD
from enforcer.kernel.bpf.offload import PROGRAM as OFFLOAD_PROGRAM
from enforcer.kernel.bpf.programs import BPF_F_XDP_HAS_FRAGS, info_by_fd
from enforcer.kernel.bpf.toolchain import OBJECT, PROGRAM, WATCHING
from enforcer.kernel.device import OBJECT as LOOK
from enforcer.kernel.device import PROGRAM as LOOK_PROGRAM
from enforcer.kernel.device import can_look

pytestmark = pytest.mark.needs_root

OBJECTS = sorted(path.resolve() for folder in (OBJECT.parent, OBSERVER.parent) for path in folder.glob("*.bpf.o"))
SWITCHES = ("match_destination", "match_named_ports", "may_skip", "drop_unlisted", "tags_in_frame", "multi_buffer")
ROW_WORDS = (1, 2, 8)
RUNNING = tuple(int(number) for number in re.findall(r"\d+", platform.release())[:2])
# kernel/bpf/verifier.c: BPF_COMPLEXITY_LIMIT_INSNS of kernels before 5.2; it is 1,000,000 since.
LIMIT = 131_072
LOOKS_SINCE = (6, 2)  # bpf_cast_to_kern_ctx()
# Every combination for the largest program; for the others those that are one switch at most from none or from all.
LARGEST = (WATCHING if RUNNING >= LOOKS_SINCE else OBJECT, max(ROW_WORDS))
COMBINATIONS = tuple(itertools.product((0, 1), repeat=len(SWITCHES)))
OUTER = tuple(switches for switches in COMBINATIONS if not 1 < sum(switches) < len(SWITCHES) - 1)
_VERIFIED_INSNS = 216  # struct bpf_prog_info, Linux 5.16


def is_within_limit(fd: int) -> bool:
    """Whether the verifier processed few instructions; older kernels do not report how many."""
    walked = struct.unpack_from("=I", info_by_fd(fd, _VERIFIED_INSNS + 8), _VERIFIED_INSNS)[0]
    return 0 < walked < LIMIT or RUNNING < (5, 16)


def test_these_are_all_objects_there_are() -> None:
    """Every object must have a test below."""
    tested = (OBJECT, WATCHING, LOOK, OFFLOAD, OBSERVER)
    assert sorted(path.resolve() for path in tested) == OBJECTS


@pytest.mark.parametrize("row_words", ROW_WORDS)
@pytest.mark.parametrize("path", [OBJECT, WATCHING], ids=["plain", "watching"])
def test_the_program_of_the_host_with_all_settings(path: Path, row_words: int) -> None:
    if path == WATCHING and RUNNING < LOOKS_SINCE:
        pytest.skip("programs look at interfaces since Linux 6.2")
    for switches in COMBINATIONS if (path, row_words) == LARGEST else OUTER:
        settings = dict(zip(SWITCHES, switches, strict=True)) | {"row_words": row_words, "own_device": 1}
        if settings["multi_buffer"] and RUNNING < (5, 18):
            continue
        with BpfObject(path) as obj:
            for name, value in settings.items():
                obj.set_const(name, value)
            if settings["multi_buffer"]:
                obj.set_program_flags(PROGRAM, BPF_F_XDP_HAS_FRAGS)
            obj.load()
            assert is_within_limit(obj.program(PROGRAM).fd), settings


def test_the_program_that_looks_at_an_interface() -> None:
    """If the kernel refuses the program, ``can_look`` is false; since Linux 6.2 that is a failure."""
    assert can_look() == (RUNNING >= LOOKS_SINCE)
    if can_look():
        with BpfObject(LOOK) as obj:
            obj.load()
            assert is_within_limit(obj.program(LOOK_PROGRAM).fd)


def test_the_program_of_devices() -> None:
    """Loaded for this host: for a device, the same verifier runs, followed by the driver's own checks."""
    with BpfObject(OFFLOAD) as obj:
        obj.load()
        assert is_within_limit(obj.program(OFFLOAD_PROGRAM).fd)


@pytest.mark.skipif(RUNNING < (6, 4), reason="netfilter programs are of Linux 6.4")
def test_the_programs_of_the_observer() -> None:
    with BpfObject(OBSERVER) as obj:
        for name, _, _ in CHECKPOINTS:
            obj.set_program_type(name, BPF_PROG_TYPE_NETFILTER, BPF_NETFILTER)
        obj.load()
        for name in (*TRACEPOINTS, *(name for name, _, _ in CHECKPOINTS)):
            assert is_within_limit(obj.program(name).fd)
