"""The XDP backend while policies change: in place or replaced, without a gap, without a leak."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enforcer.backends.xdp.backend import XdpBackend
from enforcer.backends.xdp.state.layout import Pins
from enforcer.kernel.bpf.libbpf_conn import LIBBPF
from enforcer.kernel.bpf.links import Link
from enforcer.model.vocabulary import Mode
from enforcer.planning.plan import Plan
from enforcer.policy.resources import UDP as UDP_NUMBER
from enforcer.policy.resources import Failsafe
from tests.kernel.conftest import NetnsPair
from tests.kernel.xdp_support import (
    counts,
    flood,
    passes,
    pinned_ids,
    plan_of,
    sniffer,
    state_of,
    udp_from,
    wait_until_gone,
)

pytestmark = pytest.mark.needs_root


def test_cidrs_come_and_go_in_place(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        backend.apply(plan_of(["203.0.113.0/24", "2001:db8::/32"]))
        before = state_of().xdp
        result = backend.apply(plan_of(["203.0.113.0/25", "198.51.100.7", "2001:db8::/32", "2001:db8:1::/48"]))
        assert result.changes == ("eth0: address lists changed in place (1 entry, 4 CIDRs)",)
        assert state_of().xdp == before
    assert not passes(netns_pair, udp_from("203.0.113.127"))
    assert passes(netns_pair, udp_from("203.0.113.128"))
    assert not passes(netns_pair, udp_from("198.51.100.7"))
    with netns_pair.host():
        backend.detach()


def test_failsafe_ports_are_part_of_the_policy(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        backend.apply(plan_of(["203.0.113.0/24"]))
    assert not passes(netns_pair, udp_from("203.0.113.1", dport=68))
    with netns_pair.host():
        result = backend.apply(plan_of(["203.0.113.0/24"], failsafe=(Failsafe(UDP_NUMBER, 68),)))
        assert result.changes == ("eth0: policy replaced (1 entry, 1 CIDR)",)
    assert passes(netns_pair, udp_from("203.0.113.1", dport=68))
    with netns_pair.host():
        backend.detach()


def test_other_entries_are_swapped_in_and_the_counts_of_those_that_stay_are_kept(
    netns_pair: NetnsPair, pin_root: Path
) -> None:
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        backend.apply(plan_of(["203.0.113.0/24"]))
        link = Link.open_pinned(Pins.of(LIBBPF, pin_root, "eth0").link).info().id
    assert not passes(netns_pair, udp_from("203.0.113.1"))
    with netns_pair.host():
        result = backend.apply(plan_of(["203.0.113.0/24"], ["198.51.100.0/24"]))
        assert result.changes == ("eth0: policy replaced (2 entries, 2 CIDRs)",)
        assert Link.open_pinned(Pins.of(LIBBPF, pin_root, "eth0").link).info().id == link
        assert counts(backend) == {"deny0": 1, "deny1": 0}
    assert not passes(netns_pair, udp_from("203.0.113.1"))
    assert not passes(netns_pair, udp_from("198.51.100.1"))
    with netns_pair.host():
        assert counts(backend) == {"deny0": 2, "deny1": 1}
        backend.apply(plan_of(["203.0.113.0/24"]))
        assert counts(backend) == {"deny0": 2}
        backend.detach()


def test_lists_that_outgrow_the_tables_are_swapped_in(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend = XdpBackend(pin_root)
    many = [f"{first}.{second}.0.1" for first in range(1, 180) for second in range(256)]
    with netns_pair.host():
        backend.apply(plan_of(["203.0.113.0/24"]))
        result = backend.apply(plan_of(["203.0.113.0/24", *many]))
        assert result.changes == (f"eth0: policy replaced (1 entry, {1 + len(many)} CIDRs)",)
        result = backend.apply(plan_of(["203.0.113.0/24", *many[1:]]))
        assert result.changes == (f"eth0: address lists changed in place (1 entry, {len(many)} CIDRs)",)
    assert passes(netns_pair, udp_from("1.0.0.1"))
    assert not passes(netns_pair, udp_from("179.255.0.1"))
    with netns_pair.host():
        backend.detach()


@pytest.mark.parametrize(("old", "new"), [(Mode.GENERIC, Mode.NATIVE), (Mode.NATIVE, Mode.GENERIC)])
def test_a_mode_change_moves_the_program(netns_pair: NetnsPair, pin_root: Path, old: Mode, new: Mode) -> None:
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        backend.apply(plan_of(["203.0.113.0/24"], mode=old))
    assert not passes(netns_pair, udp_from("203.0.113.1"))
    with netns_pair.host():
        result = backend.apply(plan_of(["203.0.113.0/24"], mode=new))
        assert result.changes == (f"eth0: moved from {old} to {new} mode (1 entry, 1 CIDR)",)
        assert [item.mode for item in state_of().xdp] == [new]
        assert counts(backend) == {"deny0": 1}
        backend.detach()


def test_a_mode_change_that_is_refused_leaves_the_old_mode(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        backend.apply(plan_of(["10.0.0.0/8"], mode=Mode.GENERIC, interface="lo"))
        result = backend.apply(plan_of(["10.0.0.0/8"], mode=Mode.NATIVE, interface="lo"))
        assert result.refused == {"lo": "the driver has no native XDP (EOPNOTSUPP)"}
        assert [item.mode for item in state_of("lo").xdp] == [Mode.GENERIC]
        assert backend.apply(plan_of(["10.0.0.0/8"], mode=Mode.GENERIC, interface="lo")).changes == ()
        backend.detach()


def test_interfaces_without_entries_for_xdp_are_released_on_request(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend = XdpBackend(pin_root)
    for nothing in (Plan("jasper", ()), plan_of(["10.0.0.0/8"], mode=None), plan_of()):
        with netns_pair.host():
            backend.apply(plan_of(["10.0.0.0/8"]))
            assert backend.apply(nothing).changes == ()
            assert state_of().xdp, "raw may not enforce there yet"
            assert backend.release(nothing, dry_run=True) == ["eth0: detached"]
            assert state_of().xdp
            assert backend.release(nothing) == ["eth0: detached"]
            assert not state_of().xdp


def test_updates_leak_neither_programs_nor_maps_nor_descriptors(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend, pins = XdpBackend(pin_root), Pins.of(LIBBPF, pin_root, "eth0")
    with netns_pair.host():
        backend.apply(plan_of(["203.0.113.0/24"]))
        descriptors = len(os.listdir("/proc/self/fd"))
        for number in range(5):
            old = pinned_ids(pins)
            backend.apply(plan_of(["203.0.113.0/24"], *[[f"10.0.0.{number}"]] * (1 + number % 2)))
            backend.counters()
            assert not set(old.values()) & set(pinned_ids(pins).values())
            wait_until_gone(old)
        assert len(os.listdir("/proc/self/fd")) == descriptors
        backend.detach()


def test_what_stays_listed_is_dropped_at_every_moment_of_a_change(netns_pair: NetnsPair, pin_root: Path) -> None:
    """A flood from a source that is in every list, while the lists, the entries and the program change."""
    backend = XdpBackend(pin_root)
    always = "203.0.113.1"
    with netns_pair.host():
        backend.apply(plan_of([always]))
    with sniffer(netns_pair) as ears:
        ears.setblocking(False)
        with flood(netns_pair, [always]) as sent, netns_pair.host():
            for number in range(40):
                wide, narrow = ["203.0.113.0/24", "203.0.0.0/16"], [always, f"10.0.{number}.0/24"]
                backend.apply(plan_of(wide if number % 2 else narrow, *[["198.51.100.0/24"]] * (number % 3)))
        with pytest.raises(BlockingIOError):
            ears.recv(2048)
    with netns_pair.host():
        assert counts(backend)["deny0"] == sent[0] > 0
        backend.detach()
