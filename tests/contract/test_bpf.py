"""BPF maps, pins and links, in the fake and in the kernel: error numbers, lifetimes, where a program can attach."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from enforcer.backends.xdp.state.layout import quoted
from enforcer.kernel.bpf.conn import BpfConn, BpfMap, XdpObject
from enforcer.kernel.bpf.libbpf_conn import LIBBPF
from enforcer.kernel.bpf.maps import BPF_F_MMAPABLE
from enforcer.kernel.bpf.offload import refusal
from enforcer.kernel.bpf.xdp import load_pass_program
from enforcer.kernel.rtnetlink import interface
from enforcer.model.errors import KernelError
from enforcer.model.vocabulary import Mode, Toolchain
from tests.contract.conftest import EACH
from tests.kernel.conftest import pin_root  # noqa: F401 - a fixture
from tests.kernel.iptables_support import entered, namespace, run
from tests.kernel.xdp_support import wait_until
from tests.support.fakes.bpf import FakeBpf
from tests.support.fakes.bpf_maps import ARRAY, BPF_EXIST, BPF_NOEXIST, ENOTSUPP, HASH, PERCPU_ARRAY
from tests.support.fakes.bpf_objects import OFFLOAD_DECLARED, XDP_DECLARED, Declared


@dataclass(frozen=True)
class Host:
    """The kernel, and how to load the smallest program into it. A directory to pin in; an interface, and
    how to remove it.
    """

    bpf: BpfConn
    load: Callable[[], int]
    pins: Path
    ifindex: int
    remove: Callable[[], object]

    def attached(self) -> list[Mode]:
        """The modes of the XDP programs that are on the interface."""
        return [item.mode for state in self.bpf.interfaces() if state.index == self.ifindex for item in state.xdp]


@pytest.fixture(name="host", params=EACH)
def host_fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    if request.param == "fake":
        fake = FakeBpf(tmp_path)
        fake.pins.mkdir()
        yield Host(fake, fake.load_pass_program, fake.pins, fake.devices["eth0"], lambda: fake.remove_device("eth0"))
        fake.forget()
        assert fake.alive(held=True) == fake.alive(held=False), "descriptors were left open"
        return
    pins: Path = request.getfixturevalue("pin_root")
    with namespace() as name, entered(name):
        run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
        pins.mkdir()
        state = interface("eth0")
        assert state is not None
        yield Host(LIBBPF, load_pass_program, pins, state.index, lambda: run("ip", "link", "delete", "eth0"))
        for path in pins.iterdir():
            path.unlink()
        pins.rmdir()


def key(number: int) -> bytes:
    return struct.pack("=I", number)


def keys(*numbers: int) -> bytes:
    return b"".join(map(key, numbers))


def map_of(host: Host, kind: int, entries: int = 3, value_size: int = 4, flags: int = 0) -> BpfMap:
    return host.bpf.create_map(kind, "test", key_size=4, value_size=value_size, max_entries=entries, flags=flags)


# --- maps -------------------------------------------------------------------------------------------------------------

# Calls on a full map with the keys 0, 1 and 2, and the result: an error number, or what is returned.
ANSWERS: dict[str, tuple[int, Callable[[BpfMap], object], object]] = {
    "hash: no such key": (HASH, lambda it: it.lookup(key(9)), None),
    "hash: full": (HASH, lambda it: it.update(key(9), key(9)), errno.E2BIG),
    "hash: full, batch": (HASH, lambda it: it.update_batch(keys(1, 9), keys(1, 9), 2), errno.E2BIG),
    "hash: replaced though full": (HASH, lambda it: it.update(key(1), key(9)), None),
    "hash: only if it is not there": (HASH, lambda it: it.update(key(1), key(9), BPF_NOEXIST), errno.EEXIST),
    "hash: only if it is there": (HASH, lambda it: it.update(key(9), key(9), BPF_EXIST), errno.ENOENT),
    "hash: unknown flag": (HASH, lambda it: it.update(key(1), key(9), 64), errno.EINVAL),
    "hash: deleted": (HASH, lambda it: it.delete(key(1)), True),
    "hash: nothing to delete": (HASH, lambda it: it.delete(key(9)), False),
    "hash: some to delete are gone": (HASH, lambda it: it.delete_batch(keys(9, 1, 2), 3), None),
    "array: beyond the end": (ARRAY, lambda it: it.lookup(key(3)), None),
    "array: written beyond the end": (ARRAY, lambda it: it.update(key(3), key(9)), errno.E2BIG),
    "array: batch beyond the end": (ARRAY, lambda it: it.update_batch(keys(2, 3), keys(8, 9), 2), errno.E2BIG),
    "array: all are there": (ARRAY, lambda it: it.update(key(1), key(9), BPF_NOEXIST), errno.EEXIST),
    "array: nothing to delete": (ARRAY, lambda it: it.delete(key(1)), errno.EINVAL),
    "array: unknown flag": (ARRAY, lambda it: it.update(key(1), key(9), 64), errno.EINVAL),
    "per CPU: beyond the end": (PERCPU_ARRAY, lambda it: it.lookup_percpu(key(3)), []),
    "per CPU: nothing to delete": (PERCPU_ARRAY, lambda it: it.delete(key(1)), errno.EINVAL),
}
AFTERWARDS = {
    "hash: replaced though full": {0: 0, 1: 9, 2: 2},
    "hash: deleted": {0: 0, 2: 2},
    "hash: some to delete are gone": {0: 0},
    "array: batch beyond the end": {0: 0, 1: 1, 2: 8},
}


@pytest.mark.parametrize("row", ANSWERS)
def test_a_map_answers(host: Host, row: str) -> None:
    kind, read, answer = ANSWERS[row]
    with map_of(host, kind) as found:
        if kind != PERCPU_ARRAY:
            found.update_batch(keys(0, 1, 2), keys(0, 1, 2), 3)
        try:
            said = read(found)
        except KernelError as error:
            said = error.errno
        assert said == answer
        if kind != PERCPU_ARRAY:
            now = {struct.unpack("=I", at)[0]: struct.unpack("=I", value)[0] for at, value in found.items()}
            assert now == AFTERWARDS.get(row, {0: 0, 1: 1, 2: 2})


REFUSED = {
    "no elements": (HASH, {"max_entries": 0}),
    "no bytes": (ARRAY, {"value_size": 0}),
    "an array of other keys": (ARRAY, {"key_size": 8}),
    "a hash in memory": (HASH, {"flags": BPF_F_MMAPABLE}),
}


@pytest.mark.parametrize("row", REFUSED)
def test_a_map_that_cannot_be(host: Host, row: str) -> None:
    kind, fields = REFUSED[row]
    with pytest.raises(KernelError) as caught:
        host.bpf.create_map(kind, "test", **{"key_size": 4, "value_size": 4, "max_entries": 3, **fields})
    assert caught.value.errno == errno.EINVAL


def test_an_array_begins_with_zeros_and_is_walked_in_order(host: Host) -> None:
    with map_of(host, ARRAY, value_size=5) as found:
        found.update(key(2), b"two..")
        assert list(found.keys()) == [key(0), key(1), key(2)]
        assert found.values() == bytes(10) + b"two.."
        assert found.image() == keys(0, 1, 2) + found.values()


def test_batches_are_read_to_the_end(host: Host) -> None:
    """At most 4,096 are requested from the kernel at once."""
    with map_of(host, ARRAY, 4096) as one, map_of(host, ARRAY, 10_000) as more, map_of(host, HASH, 10_000) as hashed:
        for found in (one, more, hashed):
            count = found.max_entries
            found.update_batch(keys(*range(count)), keys(*range(count)), count)
            assert sorted(found.items()) == sorted((key(at), key(at)) for at in range(count))
            assert len(set(found.keys())) == count


def test_a_cpu_has_a_value_of_its_own(host: Host) -> None:
    with map_of(host, PERCPU_ARRAY, value_size=12) as found:
        before = found.lookup_percpu(key(1))
        assert before == [bytes(12)] * len(before)
        step = 16
        found.update(key(1), b"".join(bytes([cpu]) * step for cpu in range(len(before))))
        assert found.lookup_percpu(key(1)) == [bytes([cpu]) * 12 for cpu in range(len(before))]
        assert found.lookup_percpu(key(0)) == before
        values = b"".join(bytes([cpu]) * step for cpu in range(len(before)))
        assert list(found.items()) == [(key(0), bytes(len(values))), (key(1), values), (key(2), bytes(len(values)))]


@pytest.mark.parametrize(("kind", "number"), [(ARRAY, errno.EINVAL), (HASH, ENOTSUPP)], ids=["array", "hash"])
def test_what_was_not_made_for_it_cannot_be_mapped(host: Host, kind: int, number: int) -> None:
    with map_of(host, kind) as found, pytest.raises(OSError) as caught:  # noqa: PT011 - the number is compared
        found.mmap()
    assert caught.value.errno == number


def test_an_array_in_memory_is_the_array(host: Host) -> None:
    with map_of(host, ARRAY, value_size=5, flags=BPF_F_MMAPABLE) as found:
        with found.mmap(writable=True) as view:
            view[8:13] = b"one.."
            found.update(key(2), b"two..")
            assert view[16:21] == b"two.."
            assert found.lookup(key(1)) == b"one.."
        with found.mmap() as view, pytest.raises(TypeError):
            view[0:1] = b"1"


# --- pins -------------------------------------------------------------------------------------------------------------


def test_what_is_pinned_outlives_its_descriptors(host: Host) -> None:
    path = host.pins / "map"
    with map_of(host, HASH) as found:
        found.update(key(1), key(7))
        found.pin(path)
        number = found.id
    with host.bpf.open_map(path) as again:
        assert (again.id, again.type, again.max_entries, again.lookup(key(1))) == (number, HASH, 3, key(7))
        path.unlink()
        with pytest.raises(FileNotFoundError):
            host.bpf.open_pinned(path)
        assert again.lookup(key(1)) == key(7)  # it is still open
        again.pin(path)
    with host.bpf.open_map(path) as again:
        assert again.id == number


PINNED: dict[str, tuple[str, int]] = {
    "something is pinned there": ("there", errno.EEXIST),
    "no such directory": ("none/map", errno.ENOENT),
    "a name with a dot": ("eth0.100", errno.EPERM),
}


@pytest.mark.parametrize("row", PINNED)
def test_a_pin_is_refused(host: Host, row: str) -> None:
    name, number = PINNED[row]
    with map_of(host, HASH) as found, map_of(host, ARRAY) as other:
        found.pin(host.pins / "there")
        with pytest.raises(KernelError) as caught:
            other.pin(host.pins / name)
        assert caught.value.errno == number
        assert os.listdir(host.pins) == ["there"]
        with host.bpf.open_map(host.pins / "there") as again:
            assert again.id == found.id


def test_a_pin_is_a_file_to_move(host: Host) -> None:
    """Also onto another pin; a directory's name cannot contain a dot either."""
    with map_of(host, HASH) as one, map_of(host, HASH) as two:
        one.pin(host.pins / "one")
        two.pin(host.pins / "two")
        os.replace(host.pins / "one", host.pins / "two")
        assert os.listdir(host.pins) == ["two"]
        with host.bpf.open_map(host.pins / "two") as again:
            assert again.id == one.id
        one.pin(host.pins / quoted("eth0.100"))


def test_a_directory_is_not_a_pin(host: Host) -> None:
    (host.pins / "folder").mkdir()
    try:
        with pytest.raises(KernelError) as caught:
            host.bpf.open_pinned(host.pins / "folder")
        assert caught.value.errno == errno.EACCES
    finally:
        (host.pins / "folder").rmdir()


def test_a_program_is_known_while_something_refers_to_it(host: Host) -> None:
    fd = host.load()
    info = host.bpf.program_info(fd)
    host.bpf.pin(fd, host.pins / "prog")
    os.close(fd)
    assert host.bpf.program_name(info.id) == info.name == "enforcer_probe"
    again = host.bpf.open_pinned(host.pins / "prog")
    assert host.bpf.program_info(again) == info
    os.close(again)


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.fixture(name="programs")
def programs_fixture(host: Host) -> Iterator[tuple[int, int]]:
    with ExitStack() as stack:
        loaded = host.load(), host.load()
        for fd in loaded:
            stack.callback(os.close, fd)
        yield loaded


def test_a_link_holds_its_program_while_it_is_open(host: Host, programs: tuple[int, int]) -> None:
    with host.bpf.attach_xdp(programs[0], host.ifindex, Mode.GENERIC) as link:
        assert host.attached() == [Mode.GENERIC]
        info = link.info()
        assert (info.prog_id, info.ifindex) == (host.bpf.program_info(programs[0]).id, host.ifindex)
    assert host.attached() == []


def test_a_pinned_link_stays_and_detaches_with_its_pin(host: Host, programs: tuple[int, int]) -> None:
    with host.bpf.attach_xdp(programs[0], host.ifindex, Mode.NATIVE) as link:
        link.pin(host.pins / "link")
    assert host.attached() == [Mode.NATIVE]
    (host.pins / "link").unlink()
    wait_until(lambda: host.attached() == [])  # the kernel frees what was pinned in a worker


def test_a_link_is_pointed_at_another_program(host: Host, programs: tuple[int, int]) -> None:
    """Without a gap: it is the same link, on the same interface."""
    with host.bpf.attach_xdp(programs[0], host.ifindex, Mode.GENERIC) as link:
        before = link.info()
        link.update(programs[1])
        now = link.info()
        assert (now.id, now.type, now.ifindex) == (before.id, before.type, before.ifindex)
        assert now.prog_id == host.bpf.program_info(programs[1]).id != before.prog_id
        link.update(programs[1])
        assert link.info() == now
        assert host.attached() == [Mode.GENERIC]


def test_a_link_that_was_detached_holds_nothing(host: Host, programs: tuple[int, int]) -> None:
    with host.bpf.attach_xdp(programs[0], host.ifindex, Mode.GENERIC) as link:
        link.pin(host.pins / "link")
        link.detach()
        assert host.attached() == []
        assert (link.info().ifindex, link.info().prog_id) == (0, host.bpf.program_info(programs[0]).id)
        with pytest.raises(KernelError) as caught:
            link.update(programs[1])
        assert caught.value.errno == errno.ENOLINK
        link.detach()
        with host.bpf.attach_xdp(programs[1], host.ifindex, Mode.GENERIC):
            assert host.attached() == [Mode.GENERIC]


def test_a_link_outlives_its_interface(host: Host, programs: tuple[int, int]) -> None:
    with host.bpf.attach_xdp(programs[0], host.ifindex, Mode.GENERIC) as link:
        link.pin(host.pins / "link")
    host.remove()
    with host.bpf.open_link(host.pins / "link") as link:
        assert link.info().ifindex == 0


ATTACHED = {
    "the same mode": (Mode.GENERIC, errno.EBUSY),
    "another mode": (Mode.NATIVE, errno.EEXIST),
}


def test_a_program_of_the_host_is_not_for_hardware(host: Host, programs: tuple[int, int]) -> None:
    with pytest.raises(KernelError) as caught:
        host.bpf.attach_xdp(programs[0], host.ifindex, Mode.OFFLOAD)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("row", ATTACHED)
def test_an_interface_has_one_program(host: Host, programs: tuple[int, int], row: str) -> None:
    mode, number = ATTACHED[row]
    with host.bpf.attach_xdp(programs[0], host.ifindex, Mode.GENERIC):
        with pytest.raises(KernelError) as caught:
            host.bpf.attach_xdp(programs[1], host.ifindex, mode)
        assert caught.value.errno == number
        assert host.attached() == [Mode.GENERIC]


def test_there_is_no_such_interface(host: Host, programs: tuple[int, int]) -> None:
    with pytest.raises(KernelError) as caught:
        host.bpf.attach_xdp(programs[0], host.ifindex + 1000, Mode.GENERIC)
    assert caught.value.errno == errno.EINVAL


# --- the compiled programs --------------------------------------------------------------------------------------------

OPEN: dict[str, tuple[Callable[[BpfConn], XdpObject], Declared]] = {
    "xdp_untracked": (lambda bpf: bpf.open_xdp(Toolchain.LIBBPF), XDP_DECLARED),
    "xdp_offload": (lambda bpf: bpf.open_offload(), OFFLOAD_DECLARED),
}


@pytest.mark.parametrize("name", OPEN)
def test_a_program_has_the_maps_that_it_declares(host: Host, name: str) -> None:
    opened, declared = OPEN[name]
    with opened(host.bpf) as obj:
        obj.load()
        found = {}
        for each in declared:
            with obj.map(each) as item:
                found[each] = (item.type, item.key_size, item.value_size, item.max_entries)
        assert found == {each: facts[:4] for each, facts in declared.items()}
        assert host.bpf.program_info(obj.program(name).fd).name == name


def test_a_program_is_adjusted_before_it_is_loaded(host: Host) -> None:
    _, key_size, value_size, *_ = XDP_DECLARED["named"]
    sizes = {"key_size": key_size, "value_size": value_size, "max_entries": 7}
    with host.bpf.create_map(HASH, "named", **sizes) as shared, host.bpf.open_xdp(Toolchain.LIBBPF) as obj:
        obj.reuse_map("named", shared.fd)
        obj.resize_map("entry_counters", 5)
        obj.load()
        with obj.map("named") as named, obj.map("entry_counters") as counters:
            assert (named.id, counters.max_entries) == (shared.id, 5)
        host.bpf.pin(obj.program("xdp_untracked").fd, host.pins / "prog")
    fd = host.bpf.open_pinned(host.pins / "prog")  # which outlives the object
    assert host.bpf.program_info(fd).name == "xdp_untracked"
    os.close(fd)


def test_a_device_without_hardware_takes_no_program(host: Host) -> None:
    obj = host.bpf.open_offload()
    with obj:
        obj.bind_to_device("xdp_offload", host.ifindex)
        with pytest.raises(KernelError) as caught:
            obj.load()
    assert refusal(caught.value) == "the device rejects the map settings (EINVAL); the kernel's log may say why"


def test_pins_are_below_a_bpf_file_system(host: Host) -> None:
    assert host.bpf.is_bpffs(host.pins)
    assert not host.bpf.is_bpffs(Path("/proc"))


def test_readers_are_waited_for(host: Host) -> None:
    host.bpf.wait_for_readers()


@pytest.mark.parametrize("digest", [lambda bpf: bpf.xdp_digest(Toolchain.LIBBPF), lambda bpf: bpf.offload_digest()])
def test_a_program_has_a_digest(host: Host, digest: Callable[[BpfConn], str]) -> None:
    assert digest(host.bpf) == digest(host.bpf) != ""
