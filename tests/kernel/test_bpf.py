"""The binding to libbpf: maps, programs, links and pins work as documented, and errors name the cause."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.kernel.bpf import libbpf
from enforcer.kernel.bpf.bpffs import ensure_bpffs, is_bpffs
from enforcer.kernel.bpf.links import Link, attach_netfilter, attach_xdp
from enforcer.kernel.bpf.maps import Map
from enforcer.kernel.bpf.objects import BpfObject
from enforcer.kernel.bpf.pins import open_pinned, pin
from enforcer.kernel.bpf.programs import program_info, program_name
from enforcer.kernel.bpf.toolchain import OBJECT
from enforcer.kernel.bpf.xdp import load_pass_program
from enforcer.kernel.device import can_look
from enforcer.model.errors import HostError, KernelError
from enforcer.model.vocabulary import Mode
from tests.bpf.xdp_frames import OTHER, OWN
from tests.bpf.xdp_program import program_for, table_of
from tests.kernel.conftest import NetnsPair

pytestmark = pytest.mark.needs_root

HASH, ARRAY, PERCPU_ARRAY = 1, 2, 6


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    libbpf.libbpf()  # opens what it keeps open, as the next line does
    can_look()
    before = set(os.listdir("/proc/self/fd"))
    yield
    left = {os.readlink(f"/proc/self/fd/{fd}") for fd in set(os.listdir("/proc/self/fd")) - before if _is_open(fd)}
    assert not {target for target in left if "bpf" in target}


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


@pytest.fixture
def loaded() -> Iterator[BpfObject]:
    with BpfObject(OBJECT) as obj:
        obj.load()
        yield obj


@pytest.fixture
def hash_map() -> Iterator[Map]:
    with Map.create(HASH, "test", key_size=4, value_size=4, max_entries=8) as found:
        yield found


# -- objects -------------------------------------------------------------------------------------------------------


def test_a_missing_object_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="no such BPF object; build it with 'make -C bpf'"):
        BpfObject(tmp_path / "nothing.bpf.o")


def test_a_file_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.bpf.o").write_text("not ELF")
    with pytest.raises(KernelError, match=r"open text\.bpf\.o"):
        BpfObject(tmp_path / "text.bpf.o")


def test_a_refused_program_shows_the_line_that_matters_and_keeps_the_log(tmp_path: Path) -> None:
    source = tmp_path / "bad.bpf.c"
    source.write_text(
        """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int bad(struct xdp_md *ctx) { return *(int *)(long)ctx->data; }
char LICENSE[] SEC("license") = "GPL";
"""
    )
    machine = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True, check=True).stdout.strip()
    command = ["clang", "-target", "bpf", "-O2", "-g", f"-I/usr/include/{machine}", "-c", source]
    subprocess.run([*command, "-o", source.with_suffix(".o")], check=True)
    with BpfObject(source.with_suffix(".o")) as obj, pytest.raises(KernelError) as caught:
        obj.load()
    assert caught.value.errno == errno.EACCES
    assert "invalid access to packet" in caught.value.log
    message = str(caught.value)
    assert message.startswith("load bad.bpf.o: ")
    assert "R1 offset is outside of the packet" in message or "invalid access to packet" in message
    assert "lines omitted; .log has all)" in message
    assert "\n" not in message


def test_libbpf_says_nothing_by_itself(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "text.bpf.o").write_text("not ELF")
    with pytest.raises(KernelError):
        BpfObject(tmp_path / "text.bpf.o")
    assert capfd.readouterr() == ("", "")


def test_without_libbpf_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> object:
        raise OSError

    monkeypatch.setattr("ctypes.CDLL", missing)
    with pytest.raises(HostError, match="install the package libbpf1"):
        libbpf.libbpf.__wrapped__()


def test_a_constant_that_is_set_decides() -> None:
    frame = OWN + bytes(6) + bytes([8, 0, 0x45, 0, 0, 20, *bytes(16)]) + bytes(30)
    verdicts = []
    for address in (OWN, OTHER):
        table = table_of(["0.0.0.0/0"], inbound=(), outbound=())
        with program_for(table, receiver=Receiver(address)) as program:
            verdicts.append(program.run_as_it_is(frame))
    assert verdicts == [1, 2]


def test_a_map_can_be_resized_before_loading_and_reused() -> None:
    with BpfObject(OBJECT) as first:
        first.resize_map("named", 7)
        first.load()
        with first.map("named") as original, BpfObject(OBJECT) as second:
            assert original.max_entries == 7
            second.reuse_map("named", original.fd)
            second.load()
            with second.map("named") as reused:
                assert reused.id == original.id


# -- maps ----------------------------------------------------------------------------------------------------------


def test_elements_are_set_found_and_removed(hash_map: Map) -> None:
    assert hash_map.lookup(b"key1") is None
    hash_map.update(b"key1", b"one.")
    assert hash_map.lookup(b"key1") == b"one."
    assert hash_map.delete(b"key1")
    assert not hash_map.delete(b"key1")


def test_batches_do_what_single_elements_do(hash_map: Map) -> None:
    hash_map.update_batch(b"key1key2key3", b"one.two.tri.", 3)
    assert dict(hash_map.items()) == {b"key1": b"one.", b"key2": b"two.", b"key3": b"tri."}
    assert sorted(hash_map.keys()) == [b"key1", b"key2", b"key3"]
    hash_map.delete_batch(b"key1nonekey3", 3)
    assert dict(hash_map.items()) == {b"key2": b"two."}
    hash_map.update_batch(b"", b"", 0)
    hash_map.delete_batch(b"", 0)


def test_batches_work_on_maps_of_any_size() -> None:
    with Map.create(HASH, "test", key_size=4, value_size=4, max_entries=10_000) as large:
        keys = [struct.pack("=I", number) for number in range(10_000)]
        large.update_batch(b"".join(keys), bytes(4 * len(keys)), len(keys))
        assert {key for key, _ in large.items()} == set(keys)
        large.delete_batch(b"".join(keys), len(keys))
        assert list(large.items()) == []


def test_a_full_map_says_so(hash_map: Map) -> None:
    with pytest.raises(KernelError, match="update 9 elements: E2BIG"):
        hash_map.update_batch(b"".join(struct.pack("=I", number) for number in range(9)), bytes(36), 9)


def test_per_cpu_values_are_read_cpu_by_cpu() -> None:
    with Map.create(PERCPU_ARRAY, "test", key_size=4, value_size=4, max_entries=1) as counters:
        values = counters.lookup_percpu(bytes(4))
        assert values == [bytes(4)] * libbpf.libbpf().libbpf_num_possible_cpus()


def test_a_map_that_is_not_mappable_says_so(hash_map: Map) -> None:
    with pytest.raises(OSError, match=r"\[Errno"):
        hash_map.mmap()


def test_a_dropped_map_closes_its_descriptor() -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    Map.create(ARRAY, "test", key_size=4, value_size=4, max_entries=1)
    assert len(os.listdir("/proc/self/fd")) == descriptors


# -- pins ----------------------------------------------------------------------------------------------------------


def test_pins_outlive_descriptors(pin_root: Path, hash_map: Map) -> None:
    pin_root.mkdir()
    hash_map.update(b"key1", b"one.")
    hash_map.pin(pin_root / "map")
    with Map.open_pinned(pin_root / "map") as again:
        assert (again.id, again.lookup(b"key1")) == (hash_map.id, b"one.")
    with pytest.raises(KernelError, match="EEXIST"):
        hash_map.pin(pin_root / "map")
    (pin_root / "map").unlink()
    with pytest.raises(FileNotFoundError):
        Map.open_pinned(pin_root / "map")
    pin_root.rmdir()


def test_programs_are_pinned_and_known_by_id(pin_root: Path) -> None:
    pin_root.mkdir()
    fd = load_pass_program()
    info = program_info(fd)
    assert info.name == "enforcer_probe"
    pin(fd, pin_root / "prog")
    os.close(fd)
    again = open_pinned(pin_root / "prog")
    assert program_info(again) == info
    os.close(again)
    assert program_name(info.id) == "enforcer_probe"
    (pin_root / "prog").unlink()
    pin_root.rmdir()


def test_the_bpf_file_system_is_mounted_once() -> None:
    """In a new mount namespace, where it is not mounted."""
    script = """
from pathlib import Path
from enforcer.kernel.bpf.bpffs import MOUNT_POINT, ensure_bpffs, is_bpffs
import subprocess
subprocess.run(["umount", MOUNT_POINT], check=False, capture_output=True)
assert not is_bpffs(MOUNT_POINT)
assert ensure_bpffs()
assert is_bpffs(MOUNT_POINT)
assert not ensure_bpffs()
"""
    command = ["unshare", "--mount", sys.executable, "-c", script]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])


def test_only_a_bpf_file_system_is_one(tmp_path: Path) -> None:
    ensure_bpffs()
    assert is_bpffs(Path("/sys/fs/bpf"))
    assert not is_bpffs(tmp_path)
    assert not is_bpffs(tmp_path / "nothing")


# -- links ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [Mode.NATIVE, Mode.GENERIC])
def test_a_link_holds_a_program_to_an_interface(netns_pair: NetnsPair, loaded: BpfObject, mode: Mode) -> None:
    fd = loaded.program("xdp_untracked").fd
    with netns_pair.host(), attach_xdp(fd, socket.if_nametoindex("eth0"), mode) as link:
        info = link.info()
        assert info.ifindex == socket.if_nametoindex("eth0")
        assert info.prog_id == program_info(fd).id
        other = load_pass_program()
        link.update(other)
        assert link.info().prog_id == program_info(other).id
        os.close(other)
        link.detach()
        assert link.info().ifindex == 0


def test_a_pinned_link_outlives_its_descriptor(netns_pair: NetnsPair, loaded: BpfObject, pin_root: Path) -> None:
    pin_root.mkdir()
    with netns_pair.host():
        with attach_xdp(loaded.program("xdp_untracked").fd, socket.if_nametoindex("eth0"), Mode.NATIVE) as link:
            link.pin(pin_root / "link")
            before = link.info()
        with Link.open_pinned(pin_root / "link") as link:
            assert link.info() == before
            link.detach()
    (pin_root / "link").unlink()
    pin_root.rmdir()


def test_a_netfilter_program_needs_one(netns_pair: NetnsPair, loaded: BpfObject) -> None:
    with netns_pair.host(), pytest.raises(KernelError, match="netfilter link at hook 0, priority -300: EINVAL"):
        attach_netfilter(loaded.program("xdp_untracked").fd, family=2, hook=0, priority=-300)
