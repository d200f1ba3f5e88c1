"""The watch of XDP on a fake kernel: it detects everything that others remove, and keeps what only lost its pin."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from enforcer.backends.xdp.state import manifest as manifests
from enforcer.backends.xdp.state.layout import MANIFEST, Pins, TablePins
from enforcer.backends.xdp.state.watch import XdpWatch
from enforcer.kernel.netns import current_inode
from enforcer.model.errors import KernelError
from tests.support.fakes.calls import Fault
from tests.support.reconcile import converge
from tests.unit.enforcer.backends.xdp.test_xdp_converge import MEMBERS, NEW, NOTHING, OLD, TWO
from tests.unit.enforcer.backends.xdp.test_xdp_repairs import EDITS
from tests.unit.enforcer.backends.xdp.xdp_world import XdpWorld

DETACHED = "eth0: the XDP program was detached (BPF link"
PINNED_AGAIN = "; pinned again, nothing was detached"


@pytest.fixture(name="world")
def world_fixture() -> XdpWorld:
    world = XdpWorld()
    converge(world, OLD)
    return world


@pytest.fixture(name="watch")
def watch_fixture(world: XdpWorld) -> Iterator[XdpWatch]:
    """A watch that has recorded the current state."""
    with closing(XdpWatch(world.fake, world.fake.pins)) as watch:
        assert watch.remember() == []
        yield watch
    world.apply(NOTHING)
    assert not world.fake.alive(), "descriptors were left open"


def said(watch: XdpWatch) -> list[str]:
    return [loss.what for loss in watch.losses(thorough=True)]


# What others do (as in test_xdp_repairs), how it is reported, and whether the watch itself restores it.
NOTICED = {
    "detached": (DETACHED, False),
    "the link's pin removed": ("eth0: XDP: pins removed: link" + PINNED_AGAIN, True),
    "the program's pin removed": ("eth0: XDP: pins removed: prog" + PINNED_AGAIN, True),
    "a map's pin removed": ("eth0: XDP: pins removed: policy" + PINNED_AGAIN, True),
    "pointed at another program": ("was pointed at another XDP program, id", True),
    "the policy written to": ("eth0: XDP: maps were written to: policy", False),
    "an address table written to": ("XDP address tables: maps were written to: sieve4", False),
    "the interface made anew": (DETACHED, False),
}
# A manifest enforces nothing; the next pass finds the change.
UNNOTICED = {"the manifest of the tables written to"}


def test_each_edit_is_noticed_or_is_none_of_the_watch() -> None:
    assert set(EDITS) == NOTICED.keys() | UNNOTICED


@pytest.mark.parametrize("edit", NOTICED)
def test_it_is_noticed(world: XdpWorld, watch: XdpWatch, edit: str) -> None:
    assert said(watch) == []
    sentence, restored = NOTICED[edit]
    before = world.state()
    EDITS[edit](world)
    edited = world.state()
    assert edited != before
    (found,) = said(watch)
    assert sentence in found
    assert world.state() == (before if restored else edited)
    if restored:
        assert said(watch) == []
    world.apply(OLD)
    watch.remember()
    assert said(watch) == []


@pytest.mark.parametrize("edit", UNNOTICED)
def test_it_is_not(world: XdpWorld, watch: XdpWatch, edit: str) -> None:
    EDITS[edit](world)
    assert said(watch) == []


def test_what_the_program_counts_is_no_loss(world: XdpWorld, watch: XdpWatch) -> None:
    world.count("eth0", 5)
    assert said(watch) == []


def test_all_pins_are_put_back_where_they_were(world: XdpWorld, watch: XdpWatch) -> None:
    """Something is attached at every moment: it is the same link."""
    before, (link,) = world.state(), world.fake.links()
    shutil.rmtree(world.fake.pins)
    interface, tables = said(watch)
    assert interface.startswith("eth0: XDP: pins removed: link, policy, ")
    assert tables.startswith("XDP address tables: pins removed: sieve4, ")
    assert world.state() == before
    assert world.fake.links() == [link]
    assert said(watch) == []


def test_of_two_interfaces_the_one_that_lost_it_is_named(world: XdpWorld, watch: XdpWatch) -> None:
    converge(world, TWO)
    watch.remember()
    with world.fake.open_link(Pins.of(world.fake, world.fake.pins, "eth1").link) as link:
        link.detach()
        number = link.info().id
    assert said(watch) == [f"eth1: the XDP program was detached (BPF link {number})"]
    world.apply(TWO)
    watch.remember()
    Pins.of(world.fake, world.fake.pins, "eth0").link.unlink()
    assert said(watch) == ["eth0: XDP: pins removed: link" + PINNED_AGAIN]


@pytest.mark.parametrize("plan", [MEMBERS, NEW, TWO, NOTHING], ids=["members", "entries", "an interface", "nothing"])
def test_what_a_pass_changed_is_no_loss(world: XdpWorld, watch: XdpWatch, plan: object) -> None:
    world.apply(plan)  # type: ignore[arg-type]  # checked when it runs
    assert watch.remember() == []
    assert said(watch) == []


def test_pins_that_go_during_a_pass_are_put_back_by_the_end_of_it(world: XdpWorld, watch: XdpWatch) -> None:
    before = world.state()
    shutil.rmtree(world.fake.pins)
    interface, tables = (loss.what for loss in watch.remember())
    assert interface.startswith("eth0: XDP: pins removed: link, ")
    assert tables.startswith("XDP address tables: pins removed: ")
    assert world.state() == before
    assert said(watch) == []


def test_what_a_pass_detached_is_not_pinned_again(world: XdpWorld, watch: XdpWatch) -> None:
    world.apply(NOTHING)
    assert watch.remember() == []
    assert not world.fake.pinned()
    assert not world.fake.alive()


def test_what_is_of_another_namespace_is_not_watched(world: XdpWorld, watch: XdpWatch) -> None:
    pins = Pins.of(world.fake, world.fake.pins, "eth0")
    manifest = manifests.read(world.fake, pins.directory / MANIFEST)
    assert manifest is not None
    with world.fake.open_map(pins.directory / MANIFEST) as holder:
        manifests.write(holder, replace(manifest, namespace=current_inode() + 1))
    watch.remember()
    EDITS["detached"](world)
    assert said(watch) == []


def test_without_anything_pinned_a_look_asks_the_kernel_nothing() -> None:
    world = XdpWorld()
    with closing(XdpWatch(world.fake, world.fake.pins)) as watch:
        assert watch.remember() == []
        assert said(watch) == []
    assert world.calls.log == []


def test_an_incomplete_look_around_is_an_error_and_forgets_nothing(world: XdpWorld, watch: XdpWatch) -> None:
    """A process without free descriptors keeps what it has recorded."""
    first = len(world.calls.log)
    watch.remember()
    count = len(world.calls.log) - first
    assert count > 30
    for number in range(count):
        world.calls.fault = Fault(len(world.calls.log) + number, lambda: KernelError("injected", number=errno.EMFILE))
        with pytest.raises(KernelError):
            watch.remember()
    world.calls.fault = None
    EDITS["an address table written to"](world)
    EDITS["detached"](world)
    assert DETACHED in said(watch)[0]


def test_tables_that_no_attached_program_reads_are_not_pinned_again(world: XdpWorld, watch: XdpWatch) -> None:
    table = TablePins.of(world.fake, world.fake.pins, current_inode()).directory / "root4"
    EDITS["detached"](world)
    table.unlink()
    assert [DETACHED in found for found in said(watch)] == [True]
    assert not table.exists()
