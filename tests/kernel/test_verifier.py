"""Every object passes the verifier of the running kernel, whatever its settings, with most of its budget left."""

from __future__ import annotations

import itertools
import platform
import re
import struct

import pytest

from dossim.observe.observer import BPF_NETFILTER, BPF_PROG_TYPE_NETFILTER, CHECKPOINTS, TRACEPOINTS
from dossim.observe.observer import OBJECT as OBSERVER
from enforcer.kernel.bpf import BPF_F_XDP_HAS_FRAGS, BpfObject, info_by_fd
from enforcer.kernel.offload import OBJECT as OFFLOAD
from enforcer.kernel.offload import PROGRAM as OFFLOAD_PROGRAM
from enforcer.kernel.toolchain import OBJECT, PROGRAM

pytestmark = pytest.mark.needs_root

OBJECTS = sorted(path.resolve() for folder in (OBJECT.parent, OBSERVER.parent) for path in folder.glob("*.bpf.o"))
SWITCHES = ("ask_destination", "ask_named", "may_skip", "drop_unlisted", "pass_tagged", "multi_buffer")
ROW_WORDS = (1, 2, 8)
RUNNING = tuple(int(number) for number in re.findall(r"\d+", platform.release())[:2])
# kernel/bpf/verifier.c: BPF_COMPLEXITY_LIMIT_INSNS of kernels before 5.2; it is 1,000,000 since.
LIMIT = 131_072
_VERIFIED_INSNS = 216  # struct bpf_prog_info, Linux 5.16


def is_within_limit(fd: int) -> bool:
    """Whether the verifier walked through few instructions; older kernels do not say through how many."""
    walked = struct.unpack_from("=I", info_by_fd(fd, _VERIFIED_INSNS + 8), _VERIFIED_INSNS)[0]
    return 0 < walked < LIMIT or RUNNING < (5, 16)


def test_these_are_all_objects_there_are() -> None:
    """An object without a test of its own below would be a gap."""
    assert sorted(path.resolve() for path in (OBJECT, OFFLOAD, OBSERVER)) == OBJECTS


@pytest.mark.parametrize("row_words", ROW_WORDS)
def test_the_program_of_the_host_with_all_settings(row_words: int) -> None:
    for switches in itertools.product((0, 1), repeat=len(SWITCHES)):
        settings = dict(zip(SWITCHES, switches, strict=True)) | {"row_words": row_words}
        if settings["multi_buffer"] and RUNNING < (5, 18):
            continue
        with BpfObject(OBJECT) as obj:
            for name, value in settings.items():
                obj.set_const(name, value)
            if settings["multi_buffer"]:
                obj.set_program_flags(PROGRAM, BPF_F_XDP_HAS_FRAGS)
            obj.load()
            assert is_within_limit(obj.program(PROGRAM).fd), settings


def test_the_program_of_devices() -> None:
    """Loaded for this host: a device has the same verifier, and its driver's own checks after it."""
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
