"""A program that bcc compiles on this host: settings compiled in, our maps used, errors that name the cause."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from enforcer.kernel.bpf import programs
from enforcer.kernel.bpf.bcc_compile import require_bcc
from enforcer.kernel.bpf.bcc_object import BccObject
from enforcer.kernel.bpf.maps import BPF_F_MMAPABLE, Map
from enforcer.kernel.bpf.toolchain import SOURCE
from enforcer.model.errors import HostError, KernelError

pytestmark = pytest.mark.needs_root

HASH, ARRAY = 1, 2
FRAME = bytes(range(64))

PROGRAM = """
#include "toolchain.h"
SETTING(__u32, verdict);
struct large { __u8 byte[1 << 18]; };
MMAPABLE_ARRAY_MAP(table, struct large, 1);
HASH_MAP(seen, __u32, __u64, 4);
int picks(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 *count = seen.lookup(&zero);
	struct large *found = table.lookup(&zero);

	if (count)
		++*count;
	return found && found->byte[(1 << 18) - 4] ? found->byte[(1 << 18) - 4] : verdict;
}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    try:
        require_bcc()
    except HostError as error:
        pytest.skip(str(error))
    (tmp_path / "include").symlink_to(SOURCE.parent / "include")
    path = tmp_path / "picks.bpf.c"
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize("verdict", [1, 2])
def test_settings_are_compiled_in(source: Path, verdict: int) -> None:
    with BccObject(source, "picks") as obj:
        obj.set_const("verdict", verdict)
        obj.load()
        assert programs.test_run(obj.program("picks").fd, FRAME)[:2] == (verdict, FRAME)
        assert programs.program_info(obj.program("picks").fd).name == "picks"


def test_maps_are_made_as_declared_but_for_their_size(source: Path) -> None:
    with BccObject(source, "picks") as obj:
        obj.set_const("verdict", 2)
        obj.resize_map("seen", 1000)
        obj.load()
        with obj.map("seen") as seen, obj.map("table") as table:
            assert (seen.type, seen.key_size, seen.value_size, seen.max_entries) == (HASH, 4, 8, 1000)
            assert (table.type, table.key_size, table.value_size, table.max_entries) == (ARRAY, 4, 1 << 18, 1)
            with table.mmap(writable=True) as memory:  # BPF_F_MMAPABLE is kept
                memory[-4:] = struct.pack("=I", 1)
            assert programs.test_run(obj.program("picks").fd, FRAME)[0] == 1


def test_a_map_that_is_given_is_the_one_it_reads_and_outlives_it(source: Path) -> None:
    size = 1 << 18
    with Map.create(ARRAY, "ours", key_size=4, value_size=size, max_entries=1, flags=BPF_F_MMAPABLE) as ours:
        with BccObject(source, "picks") as obj:
            obj.set_const("verdict", 2)
            obj.reuse_map("table", ours.fd)
            obj.load()
            with obj.map("table") as table, obj.map("seen") as seen:
                assert table.id == ours.id
                seen.update(bytes(4), bytes(8))
                ours.update(bytes(4), bytes(size - 4) + struct.pack("=I", 1))
                assert programs.test_run(obj.program("picks").fd, FRAME, repeat=3)[0] == 1
                assert seen.lookup(bytes(4)) == struct.pack("=Q", 3)
        assert ours.lookup(bytes(4)) == bytes(size - 4) + struct.pack("=I", 1)


def test_nothing_stays_open(source: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with BccObject(source, "picks") as obj:
        obj.set_const("verdict", 2)
        obj.load()
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_the_compiler_refuses_is_said_in_its_words(source: Path) -> None:
    source.write_text(PROGRAM.replace("++*count", "nonsense"))
    with BccObject(source, "picks") as obj:
        obj.set_const("verdict", 2)
        with pytest.raises(HostError, match=r"bcc does not compile picks.bpf.c: .* use of undeclared identifier"):
            obj.load()


def test_what_the_verifier_refuses_is_said_in_its_words(source: Path) -> None:
    source.write_text(PROGRAM.replace("if (count)", ""))
    with BccObject(source, "picks") as obj:
        obj.set_const("verdict", 2)
        with pytest.raises(KernelError, match=r"load program picks: .*map_value_or_null.*: EACCES") as refused:
            obj.load()
    assert "R0" in refused.value.log


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"none\.c: no such BPF source"):
        BccObject(tmp_path / "none.c", "picks")
