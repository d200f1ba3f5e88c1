"""The XDP backend and the kernel: what is attached, what is left alone, what is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from enforcer.backends.xdp.backend import XdpBackend
from enforcer.backends.xdp.state import manifest as manifests
from enforcer.backends.xdp.state.layout import Pins
from enforcer.kernel.bpf.libbpf_conn import LIBBPF
from enforcer.kernel.bpf.links import attach_xdp
from enforcer.kernel.bpf.maps import Map
from enforcer.kernel.bpf.pins import open_pinned
from enforcer.kernel.bpf.programs import program_info
from enforcer.kernel.bpf.xdp import load_pass_program
from enforcer.model.errors import KernelError
from enforcer.model.vocabulary import STAGE_OF_MODE, Mode
from enforcer.planning.plan import Plan
from tests.kernel.conftest import NetnsPair
from tests.kernel.xdp_support import (
    interface_plan,
    passes,
    pinned_ids,
    plan_of,
    state_of,
    udp_from,
    wait_until_gone,
)

pytestmark = pytest.mark.needs_root

BOTH_MODES = pytest.mark.parametrize("mode", [Mode.NATIVE, Mode.GENERIC])


# -- attaching ----------------------------------------------------------------------------------------------------


@BOTH_MODES
def test_a_listed_source_is_dropped_and_counted_and_others_pass(
    netns_pair: NetnsPair, pin_root: Path, mode: Mode
) -> None:
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        result = backend.apply(plan_of(["203.0.113.0/24"], mode=mode))
        assert result.changes == (f"eth0: attached in {mode} mode (1 entry, 1 CIDR)",)
        assert not result.refused
        assert [item.mode for item in state_of().xdp] == [mode]
    frame = udp_from("203.0.113.255")
    assert not passes(netns_pair, frame)
    assert passes(netns_pair, udp_from("203.0.114.0"))
    with netns_pair.host():
        (count,) = backend.counters()
        assert (count.interface, count.entry, count.stage) == ("eth0", "deny0", STAGE_OF_MODE[mode])
        assert (count.packets, count.bytes) == (1, len(frame) - 14)
        backend.detach()


@BOTH_MODES
def test_applying_twice_changes_nothing(netns_pair: NetnsPair, pin_root: Path, mode: Mode) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24", "2001:db8::/32"], ["10.0.0.0/8"], mode=mode)
    with netns_pair.host():
        backend.apply(plan)
        before = state_of(), pinned_ids(Pins.of(LIBBPF, pin_root, "eth0"))
        assert backend.apply(plan).changes == ()
        assert XdpBackend(pin_root).apply(plan).changes == ()  # nor in another process
        assert (state_of(), pinned_ids(Pins.of(LIBBPF, pin_root, "eth0"))) == before
        backend.detach()


def test_a_dry_run_says_what_would_change_and_changes_nothing(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24"])
    with netns_pair.host():
        planned = backend.apply(plan, dry_run=True)
        assert not pin_root.exists()
        assert not state_of().xdp
        assert backend.apply(plan) == planned
        for other in (plan_of(["198.51.100.0/24"]), plan_of([], [])):
            planned = backend.apply(other, dry_run=True)
            assert planned.changes
            assert backend.apply(plan).changes == ()
        backend.detach()


def test_an_interface_that_does_not_exist_is_refused_and_the_others_are_enforced(
    netns_pair: NetnsPair, pin_root: Path
) -> None:
    backend = XdpBackend(pin_root)
    gone = interface_plan(["10.0.0.0/8"], mode=Mode.NATIVE, interface="eth7")
    there = interface_plan(["10.0.0.0/8"], mode=Mode.NATIVE, interface="eth0")
    with netns_pair.host():
        result = backend.apply(Plan("jasper", (gone, there)))
        assert result.refused == {"eth7": "there is no interface eth7"}
        assert state_of().xdp
        backend.detach()


def test_a_mode_the_kernel_refuses_is_refused_in_words(netns_pair: NetnsPair, pin_root: Path) -> None:
    with netns_pair.host():
        native = XdpBackend(pin_root).apply(plan_of(["10.0.0.0/8"], interface="lo"))
        assert native.refused == {"lo": "the driver has no native XDP (EOPNOTSUPP)"}
        offload = XdpBackend(pin_root).apply(plan_of(["10.0.0.0/8"], mode=Mode.OFFLOAD))
        assert "EINVAL" in offload.refused["eth0"]
        assert not state_of().xdp
        XdpBackend(pin_root).detach()


def test_an_mtu_beyond_a_page_is_no_obstacle_to_native_mode(netns_pair: NetnsPair, pin_root: Path) -> None:
    """The program takes multi-buffer frames (Linux 5.18); veth refuses others above 3,520 or so."""
    netns_pair.make_veth("big0", "bigwire0", mtu=9000)
    with netns_pair.host():
        assert not XdpBackend(pin_root).apply(plan_of(["10.0.0.0/8"], interface="big0")).refused
        XdpBackend(pin_root).detach()


def test_an_interface_whose_name_has_a_dot_is_no_obstacle_to_bpffs(netns_pair: NetnsPair, pin_root: Path) -> None:
    netns_pair.make_veth("eth0.100", "wire0.100")
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24"], interface="eth0.100")
    with netns_pair.host():
        backend.apply(plan)
        assert backend.apply(plan).changes == ()
        assert list(backend.interfaces()) == ["eth0.100"]
        assert backend.detach() == ("eth0.100: detached",)


# -- foreign programs ---------------------------------------------------------------------------------------------


@BOTH_MODES
def test_a_foreign_program_is_named_and_left_alone(netns_pair: NetnsPair, pin_root: Path, mode: Mode) -> None:
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        fd = load_pass_program()
        number = program_info(fd).id
        with attach_xdp(fd, state_of().index, mode):
            os.close(fd)
            result = backend.apply(plan_of(["10.0.0.0/8"]))
            reason = f"eth0 has a foreign XDP program, id {number} (enforcer_probe), in {mode} mode; it stays"
            assert result.refused == {"eth0": reason}
            backend.detach()
            assert [item.prog_id for item in state_of().xdp] == [number]


def test_a_foreign_program_attached_without_a_link_is_left_alone(netns_pair: NetnsPair, pin_root: Path) -> None:
    with netns_pair.host(), IPRoute() as ip:
        fd = load_pass_program()
        ip.link("set", index=state_of().index, xdp_fd=fd)
        os.close(fd)
        assert "foreign" in XdpBackend(pin_root).apply(plan_of(["10.0.0.0/8"])).refused["eth0"]
        XdpBackend(pin_root).detach()
        assert state_of().xdp


def test_no_tool_can_replace_our_program(netns_pair: NetnsPair, pin_root: Path) -> None:
    with netns_pair.host():
        XdpBackend(pin_root).apply(plan_of(["10.0.0.0/8"]))
        fd = load_pass_program()
        with pytest.raises(KernelError, match="EBUSY"):
            attach_xdp(fd, state_of().index, Mode.NATIVE)
        os.close(fd)
        XdpBackend(pin_root).detach()


def test_pins_of_a_living_interface_in_another_namespace_are_left_alone(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24"])
    with netns_pair.host():
        backend.apply(plan)
    with netns_pair.peer():
        with IPRoute() as ip:
            ip.link("add", ifname="eth0", kind="veth", peer={"ifname": "other0"})
        assert "another network namespace" in backend.apply(plan).refused["eth0"]
        assert backend.detach() == ()
        assert backend.counters() == ()
        assert backend.interfaces() == {}
    with netns_pair.host():
        assert backend.apply(plan).changes == ()
        backend.detach()


# -- detach -------------------------------------------------------------------------------------------------------


def test_detach_leaves_nothing(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        backend.apply(plan_of(["203.0.113.0/24"]))
        ids = pinned_ids(Pins.of(LIBBPF, pin_root, "eth0"))
        assert backend.detach() == ("eth0: detached",)
        assert backend.detach() == ()
        assert not state_of().xdp
    assert not pin_root.exists()
    wait_until_gone(ids)
    assert passes(netns_pair, udp_from("203.0.113.1"))


def test_detach_of_one_interface_leaves_the_other(netns_pair: NetnsPair, pin_root: Path) -> None:
    netns_pair.make_veth("eth1", "wire1")
    backend = XdpBackend(pin_root)
    plans = tuple(interface_plan(["10.0.0.0/8"], mode=Mode.NATIVE, interface=name) for name in ("eth0", "eth1"))
    with netns_pair.host():
        backend.apply(Plan("jasper", plans))
        assert backend.detach(["eth1"]) == ("eth1: detached",)
        assert list(backend.interfaces()) == ["eth0"]
        assert state_of("eth0").xdp
        assert not state_of("eth1").xdp
        backend.detach()


def test_counters_and_detach_of_nothing_are_nothing(pin_root: Path) -> None:
    assert XdpBackend(pin_root).counters() == ()
    assert XdpBackend(pin_root).detach() == ()


def test_a_manifest_that_cannot_be_read_counts_as_none(pin_root: Path) -> None:
    pin_root.mkdir()
    with Map.create(2, "manifest", key_size=4, value_size=8, max_entries=1) as garbage:
        garbage.pin(pin_root / "manifest")
    assert manifests.read(LIBBPF, pin_root / "manifest") is None
    os.unlink(pin_root / "manifest")
    assert manifests.read(LIBBPF, pin_root / "manifest") is None
    pin_root.rmdir()


def test_the_pinned_program_is_the_one_attached(netns_pair: NetnsPair, pin_root: Path) -> None:
    with netns_pair.host():
        XdpBackend(pin_root).apply(plan_of(["10.0.0.0/8"]))
        fd = open_pinned(Pins.of(LIBBPF, pin_root, "eth0").directory / "prog")
        try:
            assert [item.prog_id for item in state_of().xdp] == [program_info(fd).id]
        finally:
            os.close(fd)
        XdpBackend(pin_root).detach()
