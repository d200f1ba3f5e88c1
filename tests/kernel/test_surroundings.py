"""Hosts without a persistent or writable BPF file system, or with a full /run: raw is enforced anyway."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from enforcer.enforcement.apply import Applied, Enforcer
from enforcer.kernel import device, lock
from enforcer.kernel.lock import namespace_lock
from enforcer.model.vocabulary import Mode
from enforcer.policy.load import load_text
from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import ALLOWED, DENIED, NODE, deny_list, documents, endpoint, policy, traffic
from tests.kernel.forked import (
    CAP_BPF,
    CAP_NET_ADMIN,
    CAP_NET_RAW,
    CAP_PERFMON,
    MS_BIND,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SHARED,
    MS_SLAVE,
    enter,
    forked,
    keep_capabilities,
    mount,
    own_mounts,
    unmount,
)

pytestmark = pytest.mark.needs_root

BPFFS = "/sys/fs/bpf"
NOT_KEPT = f"the BPF file system on {BPFFS} is mounted only in this mount namespace"
NEW = "198.51.100.77"


def a_pass(host: NetnsPair, pin_root: Path, prepare: Callable[[], None], text: str = "") -> Applied:
    """The result of a pass in a prepared mount namespace."""

    def act() -> Applied:
        own_mounts()
        enter(host.host_name)
        prepare()
        return Enforcer(NODE, pin_root=pin_root).apply(load_text(text or documents()))

    return forked(act)


def mode_of(done: Applied) -> Mode | None:
    (plan,) = done.plan.interfaces
    return plan.mode


def as_a_service() -> None:
    """Without the privilege to inspect process 1."""
    keep_capabilities(CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON)


def slave() -> None:
    """As under a service manager: mounts of the host propagate to it."""
    mount("none", "/", "", MS_SHARED | MS_REC)
    own_mounts(MS_SLAVE)


def own_bpffs() -> None:
    mount("bpf", BPFFS, "bpf")


def in_turn(*steps: Callable[[], None]) -> Callable[[], None]:
    def act() -> None:
        for step in steps:
            step()

    return act


@pytest.mark.parametrize(
    ("prepare", "warned"),
    [
        pytest.param(own_bpffs, True, id="mounted inside"),
        pytest.param(in_turn(), False, id="the host's"),
        pytest.param(in_turn(slave, own_bpffs, as_a_service), True, id="mounted inside, seen by a service"),
        pytest.param(in_turn(slave, as_a_service), False, id="the host's, seen by a service"),
        pytest.param(as_a_service, False, id="it cannot be told"),
    ],
)
def test_pins_that_will_not_stay_are_warned_of(
    host: NetnsPair, pin_root: Path, prepare: Callable[[], None], warned: bool
) -> None:
    done = a_pass(host, pin_root, prepare)
    assert mode_of(done) is Mode.NATIVE
    assert any(NOT_KEPT in warning for warning in done.warnings) is warned


def test_looking_at_an_interface_needs_no_sys_admin() -> None:
    """Also if the kernel lacks a structure (it may have no VLANs), which libbpf would search for in modules."""

    def act() -> bool:
        as_a_service()
        device._loaded.clear()
        return device.can_look()

    assert forked(act) is device.can_look()


def read_only_bpffs() -> None:
    mount("none", BPFFS, "", MS_REMOUNT | MS_BIND | MS_RDONLY)


def no_bpffs() -> None:
    unmount(BPFFS)
    as_a_service()


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        pytest.param(read_only_bpffs, "EROFS", id="a BPF file system that is read-only"),
        pytest.param(
            no_bpffs,
            f"there is no BPF file system on {BPFFS}, and mounting it needs CAP_SYS_ADMIN",
            id="none, and no privilege to mount one",
        ),
    ],
)
def test_raw_is_in_place_where_nothing_can_be_pinned(
    host: NetnsPair, pin_root: Path, prepare: Callable[[], None], says: str
) -> None:
    done = a_pass(host, pin_root, prepare)
    assert mode_of(done) is None
    assert says in dict(done.plan.interfaces[0].mode_reasons)[Mode.NATIVE]
    with traffic(host) as wire:
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]


def test_a_change_is_enforced_where_pins_cannot_be_changed(host: NetnsPair, pin_root: Path) -> None:
    with host.host():
        Enforcer(NODE, pin_root=pin_root).apply(load_text(documents()))
    parts = (endpoint(), policy(), deny_list("203.0.113.0/24", f"{NEW}/32"))
    a_pass(host, pin_root, read_only_bpffs, documents(*parts))
    with traffic(host) as wire:
        assert wire.arrivals(DENIED, NEW, ALLOWED) == [ALLOWED]


def read_only_run() -> None:
    mount("none", "/run", "tmpfs", MS_RDONLY)


def full_run() -> None:
    mount("none", "/run", "tmpfs", 0, "size=4k,nr_inodes=1")


def run_that_became_read_only() -> None:
    mount("none", "/run", "tmpfs")
    Path("/run/enforcer").mkdir()
    mount("none", "/run", "", MS_REMOUNT | MS_RDONLY)


@pytest.mark.parametrize("prepare", [read_only_run, full_run, run_that_became_read_only])
def test_a_run_without_room_is_no_obstacle(host: NetnsPair, pin_root: Path, prepare: Callable[[], None]) -> None:
    assert mode_of(a_pass(host, pin_root, prepare)) is Mode.NATIVE
    with traffic(host) as wire:
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]


def test_passes_do_not_overlap_without_a_file_either(host: NetnsPair, caplog: pytest.LogCaptureFixture) -> None:
    def act() -> tuple[set[int], int, list[str]]:
        own_mounts()
        read_only_run()
        inside: list[int] = []
        overlaps: list[int] = []

        def work() -> None:
            for _ in range(50):
                with namespace_lock(lock.DIRECTORY):
                    inside.append(1)
                    overlaps.append(len(inside))
                    inside.pop()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        return set(overlaps), len(overlaps), said

    overlaps, count, said = forked(act)
    assert (overlaps, count) == ({1}, 200)
    assert sum("the network namespace is locked instead" in line for line in said) == 1
