"""XDP in the hardware of an interface, on a fake kernel: held by the device, or refused with the kernel's message."""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import replace

import pytest

from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.backends.xdp.offload import render_offload
from enforcer.backends.xdp.state.layout import Pins, generation
from enforcer.model.errors import KernelError, PrivilegeError
from enforcer.model.vocabulary import Action, Backend, Mode, Stage
from enforcer.planning.plan import Plan
from tests.kernel.iptables_plans import entry, ip_set, table
from tests.support.entries import SideMatch
from tests.support.fakes.bpf_kernel import FakeProgram
from tests.support.fakes.bpf_maps import FakeMap
from tests.support.host_plans import plan_of
from tests.unit.enforcer.backends.xdp.test_xdp_converge import BY_A, BY_B, SETS
from tests.unit.enforcer.backends.xdp.xdp_world import XdpWorld, early

ETH0 = 2
A_LOG = "libbpf: map 'deny6': failed to create: Cannot allocate memory(-12)"
PROGRAM_LOG = "libbpf: -- BEGIN PROG LOAD LOG --\n[nfp] unsupported function id: 1\n-- END PROG LOAD LOG --"


def in_hardware(*entries: object) -> Plan:
    # For mypy: checked when it runs
    return early(plan_of(Backend.IPTABLES, table(*entries, sets=SETS)), Mode.OFFLOAD)  # type: ignore[arg-type]


ONE, BOTH, OTHER = in_hardware(BY_A), in_hardware(BY_A, BY_B), in_hardware(BY_B, BY_A)
NATIVE = early(plan_of(Backend.IPTABLES, table(BY_A, BY_B, sets=SETS)))


@pytest.fixture(name="world")
def world_fixture() -> XdpWorld:
    """The hardware of eth0 accepts programs, that of eth1 does not."""
    world = XdpWorld()
    world.fake.hardware = {ETH0: None}
    return world


def modes(world: XdpWorld) -> dict[str, Mode]:
    return {name: mode for name, (mode, _) in world.state().attached.items()}


def program(world: XdpWorld) -> FakeProgram:
    (link,) = world.fake.links()
    return link.program


def content(found: FakeMap) -> dict[bytes, bytes]:
    return dict(found.items())


def check_holds(world: XdpWorld, plan: Plan) -> None:
    """It is attached in the device with the maps of the plan, and exactly the expected objects are pinned."""
    (item,) = plan.interfaces
    pins = Pins.of(world.fake, world.fake.pins, "eth0")
    assert not world.refused
    assert modes(world) == {"eth0": Mode.OFFLOAD}
    assert program(world).device == ETH0
    assert {path.name for path in pins.directory.iterdir()} == {"link", *generation(Mode.OFFLOAD)}
    (state,) = (state for state in world.fake.interfaces() if state.name == "eth0")
    rendered = render_offload(item, receiver=Receiver.of(state))
    for name, filling in rendered.maps.items():
        key, value = program(world).maps[name].key_size, program(world).maps[name].value_size
        wanted = {
            filling.keys[at * key : (at + 1) * key]: filling.values[at * value : (at + 1) * value]
            for at in range(filling.count)
        }
        assert content(program(world).maps[name]) == wanted
    assert program(world).maps["entry_counters"].max_entries == len(rendered.entries)
    assert world.apply(plan) == []


def test_a_device_holds_the_plan_and_says_so(world: XdpWorld) -> None:
    assert world.apply(BOTH) == ["eth0: attached in offload mode (2 entries, 3 CIDRs)"]
    check_holds(world, BOTH)
    assert world.backend.interfaces() == {"eth0": Stage.NIC_OFFLOAD}
    (holding,) = world.backend.status().values()
    assert (holding.stage, holding.entries) == (Stage.NIC_OFFLOAD, (BY_A.name, BY_B.name))


def test_what_the_device_has_dropped_is_carried_over(world: XdpWorld) -> None:
    """A device has one counter, not one per CPU."""
    world.apply(BOTH)
    program(world).maps["entry_counters"].update(struct.pack("=I", 1), struct.pack("=2Q", 7, 420), 0)
    assert world.counts() == {("eth0", BY_A.name): 0, ("eth0", BY_B.name): 7}
    before = program(world)
    assert world.apply(OTHER) == ["eth0: policy replaced (2 entries, 3 CIDRs)"]
    assert program(world) is not before
    check_holds(world, OTHER)
    assert world.counts() == {("eth0", BY_A.name): 0, ("eth0", BY_B.name): 7}


def test_an_interface_moves_into_its_device_and_back(world: XdpWorld) -> None:
    world.apply(NATIVE)
    assert world.apply(BOTH) == ["eth0: moved from native to offload mode (2 entries, 3 CIDRs)"]
    check_holds(world, BOTH)
    assert world.apply(NATIVE) == ["eth0: moved from offload to native mode (2 entries, 3 CIDRs)"]
    assert world.holds(NATIVE)
    assert world.apply(early(plan_of(Backend.IPTABLES))) == ["eth0: detached"]
    assert not world.fake.alive()


# Why the device does not accept the program: the error of loading it, and the stated reason.
REFUSALS: dict[str, tuple[KernelError, str]] = {
    "a map": (
        KernelError("load", number=errno.ENOMEM, log=A_LOG),
        "the device rejects the map deny6 (ENOMEM); the kernel's log may say why",
    ),
    "an instruction": (
        KernelError("load xdp_offload.bpf.o: [nfp] unsupported function id: 1", number=errno.EINVAL, log=PROGRAM_LOG),
        "the device rejects the program: load xdp_offload.bpf.o: [nfp] unsupported function id: 1",
    ),
}


@pytest.mark.parametrize("row", REFUSALS)
def test_a_device_that_refuses_leaves_what_there_was(world: XdpWorld, row: str) -> None:
    error, sentence = REFUSALS[row]
    for before in (early(plan_of(Backend.IPTABLES)), ONE, NATIVE):
        world.fake.hardware[ETH0] = None
        world.apply(before)
        state = world.state()
        world.fake.hardware[ETH0] = error
        assert world.apply(BOTH) == []
        assert world.refused["eth0"].startswith(sentence)
        assert world.state() == state
    world.fake.hardware[ETH0] = None
    world.apply(BOTH)
    check_holds(world, BOTH)


def test_a_driver_without_hardware_refuses_and_the_other_interface_is_served(world: XdpWorld) -> None:
    (item,) = BOTH.interfaces
    two = replace(BOTH, interfaces=(item, replace(item, table=replace(item.table, interface="eth1"))))
    assert world.apply(two) == ["eth0: attached in offload mode (2 entries, 3 CIDRs)"]
    assert world.refused == {"eth1": "the device rejects the map settings (EINVAL); the kernel's log may say why"}
    assert modes(world) == {"eth0": Mode.OFFLOAD}


def test_without_privilege_nothing_is_said_of_the_device(world: XdpWorld) -> None:
    world.fake.hardware[ETH0] = KernelError("load", number=errno.EPERM)
    with pytest.raises(PrivilegeError, match="CAP_BPF"):
        world.apply(BOTH)
    assert not world.fake.pinned()


def test_more_prefix_lengths_than_the_program_looks_up_are_refused(world: XdpWorld) -> None:
    many = ip_set("s:a", [f"2001:db8::/{length}" for length in range(32, 65)])
    by_many = entry(0, Action.DENY, source=SideMatch(ip_set="s:a"))
    assert world.apply(early(plan_of(Backend.IPTABLES, table(by_many, sets=[many])), Mode.OFFLOAD)) == []
    assert "IPv6 sources of 33 different prefix lengths" in world.refused["eth0"]
    assert not world.fake.pinned()


def test_a_program_of_others_in_the_device_stays(world: XdpWorld) -> None:
    fake = world.fake
    with fake.open_offload() as obj:
        obj.bind_to_device("xdp_offload", ETH0)
        obj.load()
        link = fake.attach_xdp(obj.program("xdp_offload").fd, ETH0, Mode.OFFLOAD)
    try:
        before = world.state().attached
        assert world.apply(BOTH) == []
        assert "eth0 has a foreign XDP program" in world.refused["eth0"]
        assert "in offload mode; it stays" in world.refused["eth0"]
        assert world.state().attached == before
        assert not fake.pinned()
    finally:
        os.close(link.fd)
        link.fd = -1
