"""Offload through the backend: a driver without it refuses, with its message; pinned and read back like other modes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enforcer.backends.xdp.backend import XdpBackend
from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.backends.xdp.offload import OFFLOAD_MAPS, load_offload, render_offload
from enforcer.backends.xdp.state import generation
from enforcer.backends.xdp.state.generation import Loaded
from enforcer.backends.xdp.state.layout import Pins
from enforcer.backends.xdp.state.manifest import Manifest
from enforcer.backends.xdp.state.read import read_counts, read_installed
from enforcer.kernel.bpf import programs
from enforcer.kernel.bpf.libbpf_conn import LIBBPF
from enforcer.kernel.bpf.offload import PROGRAM
from enforcer.kernel.bpf.pins import open_pinned
from enforcer.model.vocabulary import Mode
from tests.kernel.conftest import NetnsPair
from tests.kernel.xdp_support import pinned_ids, plan_of, state_of, udp_from

pytestmark = pytest.mark.needs_root

XDP_DROP = 1


def test_a_driver_without_hardware_for_it_refuses_and_nothing_is_left(netns_pair: NetnsPair, pin_root: Path) -> None:
    with netns_pair.host():
        result = XdpBackend(pin_root).apply(plan_of(["203.0.113.0/24"], mode=Mode.OFFLOAD))
        assert result.changes == ()
        assert result.refused == {"eth0": "the device rejects the map settings (EINVAL); the kernel's log may say why"}
        assert not state_of().xdp


def test_so_many_prefix_lengths_are_refused_for_that_interface(netns_pair: NetnsPair, pin_root: Path) -> None:
    lengths = [f"2001:db8::/{length}" for length in range(32, 65)]
    with netns_pair.host():
        result = XdpBackend(pin_root).apply(plan_of(lengths, mode=Mode.OFFLOAD))
        assert "33 different prefix lengths" in result.refused["eth0"]


def test_its_generation_is_pinned_and_its_counters_are_read(pin_root: Path) -> None:
    """On this host, because no device is available."""
    pins = Pins.of(LIBBPF, pin_root, "eth0")
    (plan,) = plan_of(["203.0.113.0/24"], ["198.51.100.0/24"], mode=Mode.OFFLOAD).interfaces
    table = render_offload(plan, receiver=Receiver(bytes(6)))
    manifest = Manifest("eth0", 0, Mode.OFFLOAD, "digest", "policy", 0, "", table.entries)
    generation.build(pins, Loaded(load_offload(LIBBPF, table, None), PROGRAM, OFFLOAD_MAPS), manifest)
    frame = udp_from("198.51.100.1")
    fd = open_pinned(pins.next / "prog")
    try:
        assert programs.program_info(fd).name == "xdp_offload"
        assert [programs.test_run(fd, frame)[0] for _ in range(3)] == [XDP_DROP] * 3
    finally:
        os.close(fd)
    generation.finish(pins)
    assert pinned_ids(pins).keys() == {*OFFLOAD_MAPS, "manifest", "prog"}
    installed = read_installed(pins)
    assert installed is not None
    assert read_counts(pins, installed.manifest) == {"deny0": (0, 0), "deny1": (3, 3 * (len(frame) - 14))}
    generation.remove(pins)
    XdpBackend(pin_root).detach()  # cleans up
