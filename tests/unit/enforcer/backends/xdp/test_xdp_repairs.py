"""Changes of XDP's state by others, on a fake kernel: the next pass repairs it, and touches no foreign object."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from enforcer.backends.xdp.state.layout import Pins, TablePins
from enforcer.kernel.netns import current_inode
from enforcer.model.vocabulary import Mode
from tests.support.reconcile import converge
from tests.unit.enforcer.backends.xdp.test_xdp_converge import NEW, NOTHING, OLD
from tests.unit.enforcer.backends.xdp.xdp_world import XdpWorld


def _pins(world: XdpWorld) -> Pins:
    return Pins.of(world.fake, world.fake.pins, "eth0")


def _detach(world: XdpWorld) -> None:
    with world.fake.open_link(_pins(world).link) as link:
        link.detach()


def _point_elsewhere(world: XdpWorld) -> None:
    fd = world.fake.load_pass_program()
    with world.fake.open_link(_pins(world).link) as link:
        link.update(fd)
    os.close(fd)


def _zero(name: str) -> Callable[[XdpWorld], None]:
    def edit(world: XdpWorld) -> None:
        tables = TablePins.of(world.fake, world.fake.pins, current_inode()).directory / name
        path = tables if tables.exists() else _pins(world).directory / name
        with world.fake.open_map(path) as found:
            found.update(bytes(4), bytes(found.value_size))

    return edit


def _unpin(name: str) -> Callable[[XdpWorld], None]:
    return lambda world: (_pins(world).directory / name).unlink()


EDITS: dict[str, Callable[[XdpWorld], None]] = {
    "detached": _detach,
    "the link's pin removed": _unpin("link"),
    "the program's pin removed": _unpin("prog"),
    "a map's pin removed": _unpin("policy"),
    "pointed at another program": _point_elsewhere,
    "the policy written to": _zero("policy"),
    "an address table written to": _zero("sieve4"),
    "the manifest of the tables written to": _zero("manifest"),
    "the interface made anew": lambda world: (
        world.fake.remove_device("eth0"),
        world.fake.devices.update(eth0=9),
    )[-1],
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_pass_repairs_what_another_program_did(edit: str) -> None:
    for wanted in (OLD, NEW, NOTHING):
        world = XdpWorld()
        converge(world, OLD)
        before = world.state()
        EDITS[edit](world)
        assert world.state() != before
        converge(world, wanted)


def test_a_program_of_others_stays() -> None:
    world = XdpWorld()
    fd = world.fake.load_pass_program()
    with world.fake.attach_xdp(fd, world.fake.devices["eth0"], Mode.GENERIC):
        before = world.state().attached
        for plan in (OLD, NOTHING):
            world.apply(plan)
            assert world.state().attached == before
            assert not world.fake.pinned()
            assert bool(world.refused) == (plan is OLD)
    os.close(fd)
    converge(world, OLD)
