"""BPF maps, pins and links as their fake has them: error numbers, what lives how long, who may attach where."""

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
from enforcer.kernel.bpf.links import Link, attach_xdp
from enforcer.kernel.bpf.maps import BPF_F_MMAPABLE, Map
from enforcer.kernel.bpf.objects import BpfObject
from enforcer.kernel.bpf.pins import open_pinned, pin
from enforcer.kernel.bpf.programs import program_info, program_name
from enforcer.kernel.bpf.toolchain import OBJECT
from enforcer.kernel.bpf.xdp import load_pass_program
from enforcer.kernel.rtnetlink import interface
from enforcer.model.errors import KernelError
from enforcer.model.vocabulary import Mode
from tests.contract.conftest import EACH
from tests.kernel.conftest import pin_root  # noqa: F401 - a fixture
from tests.kernel.iptables_support import entered, namespace, run
from tests.kernel.xdp_support import wait_until
from tests.support.fakes.bpf import FakeBpf
from tests.support.fakes.bpf_host import DECLARED, on
from tests.support.fakes.bpf_maps import ARRAY, BPF_EXIST, BPF_NOEXIST, HASH, PERCPU_ARRAY


@dataclass(frozen=True)
class Host:
    """A directory to pin in; an interface, and how to remove it; the modes of the XDP programs that are on it."""

    pins: Path
    ifindex: int
    remove: Callable[[], object]
    attached: Callable[[], list[Mode]]


@pytest.fixture(name="host", params=EACH)
def host_fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    if request.param == "fake":
        fake = FakeBpf(tmp_path)
        fake.pins.mkdir()
        with on(fake):
            yield Host(fake.pins, 2, lambda: fake.remove_device("eth0"), lambda: _modes(fake.interfaces()[0].xdp))
        fake.forget()
        assert fake.alive(held=True) == fake.alive(held=False), "descriptors were left open"
        return
    pins: Path = request.getfixturevalue("pin_root")
    with namespace() as name, entered(name):
        run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
        pins.mkdir()
        state = interface("eth0")
        assert state is not None
        yield Host(pins, state.index, lambda: run("ip", "link", "delete", "eth0"), _of_kernel)
        for path in pins.iterdir():
            path.unlink()
        pins.rmdir()


def _of_kernel() -> list[Mode]:
    state = interface("eth0")
    assert state is not None
    return _modes(state.xdp)


def _modes(states: tuple[object, ...]) -> list[Mode]:
    return [item.mode for item in states]  # type: ignore[attr-defined]


def key(number: int) -> bytes:
    return struct.pack("=I", number)


def keys(*numbers: int) -> bytes:
    return b"".join(map(key, numbers))


def map_of(kind: int, entries: int = 3, value_size: int = 4, flags: int = 0) -> Map:
    return Map.create(kind, "test", key_size=4, value_size=value_size, max_entries=entries, flags=flags)


# --- maps -------------------------------------------------------------------------------------------------------------

# What a map with the keys 0, 1 and 2, which is full, answers: an error number, or what is returned.
ANSWERS: dict[str, tuple[int, Callable[[Map], object], object]] = {
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
@pytest.mark.usefixtures("host")
def test_a_map_answers(row: str) -> None:
    kind, read, answer = ANSWERS[row]
    with map_of(kind) as found:
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
@pytest.mark.usefixtures("host")
def test_a_map_that_cannot_be(row: str) -> None:
    kind, fields = REFUSED[row]
    with pytest.raises(KernelError) as caught:
        Map.create(kind, "test", **{"key_size": 4, "value_size": 4, "max_entries": 3, **fields})
    assert caught.value.errno == errno.EINVAL


@pytest.mark.usefixtures("host")
def test_an_array_begins_with_zeros_and_is_walked_in_order() -> None:
    with map_of(ARRAY, value_size=5) as found:
        found.update(key(2), b"two..")
        assert list(found.keys()) == [key(0), key(1), key(2)]
        assert found.values() == bytes(10) + b"two.."
        assert found.image() == keys(0, 1, 2) + found.values()


@pytest.mark.usefixtures("host")
def test_batches_are_read_to_the_end() -> None:
    """At most 4,096 are requested from the kernel at once."""
    with map_of(ARRAY, 4096) as one, map_of(ARRAY, 10_000) as more, map_of(HASH, 10_000) as hashed:
        for found in (one, more, hashed):
            count = found.max_entries
            found.update_batch(keys(*range(count)), keys(*range(count)), count)
            assert sorted(found.items()) == sorted((key(at), key(at)) for at in range(count))
            assert len(set(found.keys())) == count


@pytest.mark.usefixtures("host")
def test_a_cpu_has_a_value_of_its_own() -> None:
    with map_of(PERCPU_ARRAY, value_size=12) as found:
        before = found.lookup_percpu(key(1))
        assert before == [bytes(12)] * len(before)
        step = 16
        found.update(key(1), b"".join(bytes([cpu]) * step for cpu in range(len(before))))
        assert found.lookup_percpu(key(1)) == [bytes([cpu]) * 12 for cpu in range(len(before))]
        assert found.lookup_percpu(key(0)) == before
        assert [at for at, _ in found.items()] == [key(0), key(1), key(2)]


@pytest.mark.usefixtures("host")
def test_an_array_in_memory_is_the_array() -> None:
    with map_of(ARRAY, value_size=5, flags=BPF_F_MMAPABLE) as found:
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
    with map_of(HASH) as found:
        found.update(key(1), key(7))
        found.pin(path)
        number = found.id
    with Map.open_pinned(path) as again:
        assert (again.id, again.type, again.max_entries, again.lookup(key(1))) == (number, HASH, 3, key(7))
        path.unlink()
        with pytest.raises(FileNotFoundError):
            open_pinned(path)
        assert again.lookup(key(1)) == key(7)  # it is held open still
        again.pin(path)
    with Map.open_pinned(path) as again:
        assert again.id == number


PINNED: dict[str, tuple[str, int]] = {
    "something is pinned there": ("there", errno.EEXIST),
    "no such directory": ("none/map", errno.ENOENT),
    "a name with a dot": ("eth0.100", errno.EPERM),
}


@pytest.mark.parametrize("row", PINNED)
def test_a_pin_is_refused(host: Host, row: str) -> None:
    name, number = PINNED[row]
    with map_of(HASH) as found, map_of(ARRAY) as other:
        found.pin(host.pins / "there")
        with pytest.raises(KernelError) as caught:
            other.pin(host.pins / name)
        assert caught.value.errno == number
        assert os.listdir(host.pins) == ["there"]
        with Map.open_pinned(host.pins / "there") as again:
            assert again.id == found.id


def test_a_pin_is_a_file_to_move(host: Host) -> None:
    """Over another pin as well; a directory's name has no dot either."""
    with map_of(HASH) as one, map_of(HASH) as two:
        one.pin(host.pins / "one")
        two.pin(host.pins / "two")
        os.replace(host.pins / "one", host.pins / "two")
        assert os.listdir(host.pins) == ["two"]
        with Map.open_pinned(host.pins / "two") as again:
            assert again.id == one.id
        one.pin(host.pins / quoted("eth0.100"))


def test_a_directory_is_not_a_pin(host: Host) -> None:
    (host.pins / "folder").mkdir()
    try:
        with pytest.raises(KernelError) as caught:
            open_pinned(host.pins / "folder")
        assert caught.value.errno == errno.EACCES
    finally:
        (host.pins / "folder").rmdir()


def test_a_program_is_known_while_something_refers_to_it(host: Host) -> None:
    fd = load_pass_program()
    info = program_info(fd)
    pin(fd, host.pins / "prog")
    os.close(fd)
    assert program_name(info.id) == info.name == "enforcer_probe"
    again = open_pinned(host.pins / "prog")
    assert program_info(again) == info
    os.close(again)


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.fixture(name="programs")
def programs_fixture(host: Host) -> Iterator[tuple[int, int]]:
    with ExitStack() as stack:
        loaded = load_pass_program(), load_pass_program()
        for fd in loaded:
            stack.callback(os.close, fd)
        yield loaded


def test_a_link_holds_its_program_while_it_is_open(host: Host, programs: tuple[int, int]) -> None:
    with attach_xdp(programs[0], host.ifindex, Mode.GENERIC) as link:
        assert host.attached() == [Mode.GENERIC]
        info = link.info()
        assert (info.prog_id, info.ifindex) == (program_info(programs[0]).id, host.ifindex)
    assert host.attached() == []


def test_a_pinned_link_stays_and_detaches_with_its_pin(host: Host, programs: tuple[int, int]) -> None:
    with attach_xdp(programs[0], host.ifindex, Mode.NATIVE) as link:
        link.pin(host.pins / "link")
    assert host.attached() == [Mode.NATIVE]
    (host.pins / "link").unlink()
    wait_until(lambda: host.attached() == [])  # the kernel frees what was pinned in a worker


def test_a_link_is_pointed_at_another_program(host: Host, programs: tuple[int, int]) -> None:
    """At once: it is the same link, of the same interface."""
    with attach_xdp(programs[0], host.ifindex, Mode.GENERIC) as link:
        before = link.info()
        link.update(programs[1])
        now = link.info()
        assert (now.id, now.type, now.ifindex) == (before.id, before.type, before.ifindex)
        assert now.prog_id == program_info(programs[1]).id != before.prog_id
        link.update(programs[1])
        assert link.info() == now
        assert host.attached() == [Mode.GENERIC]


def test_a_link_that_was_detached_holds_nothing(host: Host, programs: tuple[int, int]) -> None:
    with attach_xdp(programs[0], host.ifindex, Mode.GENERIC) as link:
        link.pin(host.pins / "link")
        link.detach()
        assert host.attached() == []
        assert (link.info().ifindex, link.info().prog_id) == (0, program_info(programs[0]).id)
        with pytest.raises(KernelError) as caught:
            link.update(programs[1])
        assert caught.value.errno == errno.ENOLINK
        link.detach()
        with attach_xdp(programs[1], host.ifindex, Mode.GENERIC):
            assert host.attached() == [Mode.GENERIC]


def test_a_link_outlives_its_interface(host: Host, programs: tuple[int, int]) -> None:
    with attach_xdp(programs[0], host.ifindex, Mode.GENERIC) as link:
        link.pin(host.pins / "link")
    host.remove()
    with Link.open_pinned(host.pins / "link") as link:
        assert link.info().ifindex == 0


ATTACHED = {
    "the same mode": (Mode.GENERIC, errno.EBUSY),
    "another mode": (Mode.NATIVE, errno.EEXIST),
}


@pytest.mark.parametrize("row", ATTACHED)
def test_an_interface_has_one_program(host: Host, programs: tuple[int, int], row: str) -> None:
    mode, number = ATTACHED[row]
    with attach_xdp(programs[0], host.ifindex, Mode.GENERIC):
        with pytest.raises(KernelError) as caught:
            attach_xdp(programs[1], host.ifindex, mode)
        assert caught.value.errno == number
        assert host.attached() == [Mode.GENERIC]


def test_there_is_no_such_interface(host: Host, programs: tuple[int, int]) -> None:
    with pytest.raises(KernelError) as caught:
        attach_xdp(programs[0], host.ifindex + 1000, Mode.GENERIC)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.needs_root
def test_the_maps_of_the_program_are_those_of_the_fake() -> None:
    found = {}
    with BpfObject(OBJECT) as obj:
        obj.load()
        for name in DECLARED:
            with obj.map(name) as item:
                found[name] = (item.type, item.key_size, item.value_size, item.max_entries)
    assert found == {name: declared[:4] for name, declared in DECLARED.items()}
