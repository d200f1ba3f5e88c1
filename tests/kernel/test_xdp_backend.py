"""The XDP backend against the kernel: what is attached, what changes, what survives, what is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from enforcer.backends.xdp import XdpBackend, generation
from enforcer.backends.xdp import manifest as manifests
from enforcer.backends.xdp.layout import Pins
from enforcer.backends.xdp.read import pinned_program
from enforcer.errors import KernelError
from enforcer.kernel.bpf import Link, attach_xdp, open_pinned, program_info
from enforcer.kernel.maps import Map
from enforcer.kernel.netlink import InterfaceState, interface
from enforcer.kernel.xdp import load_pass_program
from enforcer.plan import InterfacePlan, Plan, PlannedEntry
from enforcer.policy.nets import Nets
from enforcer.policy.resources import UDP as UDP_NUMBER
from enforcer.policy.resources import Failsafe
from enforcer.policy.ruletable import AddressMatch, Entry, IpSet, RuleTable
from enforcer.words import STAGE_OF_MODE, Action, Backend, Mode, Stage
from tests.kernel.conftest import NetnsPair

pytestmark = pytest.mark.needs_root

SENTINEL_TYPE = 0x88B5  # IEEE 802 local experimental
BOTH_MODES = pytest.mark.parametrize("mode", [Mode.NATIVE, Mode.GENERIC])


def plan_of(
    *lists: Sequence[str], mode: Mode | None = Mode.NATIVE, interface: str = "eth0", failsafe: tuple[Failsafe, ...] = ()
) -> Plan:
    """A plan with one deny entry for each list of CIDRs, named ``deny0``, ``deny1``."""
    return Plan("jasper", (interface_plan(*lists, mode=mode, interface=interface, failsafe=failsafe),))


def interface_plan(
    *lists: Sequence[str], mode: Mode | None, interface: str, failsafe: tuple[Failsafe, ...] = (), prefix: str = "deny"
) -> InterfacePlan:
    sets = {f"s:{number}": IpSet(f"s:{number}", "", Nets.of(cidrs)) for number, cidrs in enumerate(lists)}
    entries = tuple(
        Entry(f"{prefix}{number}", Action.DENY, source=AddressMatch(ip_set=f"s:{number}"))
        for number in range(len(lists))
    )
    table = RuleTable(interface, "hep", entries, failsafe_inbound=failsafe, sets=sets)
    stage = STAGE_OF_MODE[mode] if mode else Stage.RAW
    return InterfacePlan(table, mode, Backend.IPTABLES, tuple(PlannedEntry(entry, stage) for entry in entries))


def state_of(name: str = "eth0") -> InterfaceState:
    state = interface(name)
    assert state is not None
    return state


def counts(backend: XdpBackend) -> dict[str, int]:
    return {item.entry: item.packets for item in backend.counters()}


def pinned_ids(pins: Pins) -> dict[str, int]:
    """Ids of the program and the maps pinned for an interface: another id is another object."""
    ids = {}
    for path in pins.directory.iterdir():
        if path.name == "prog":
            ids["prog"] = pinned_program(path) or 0
        elif path.name != "link":
            with Map.open_pinned(path) as found:
                ids[path.name] = found.id
    return ids


def exists(kind: str, number: int) -> bool:
    """Whether the machine still has a program ("prog") or map ("map") of that id."""
    return (
        subprocess.run(["bpftool", kind, "show", "id", str(number)], capture_output=True, check=False).returncode == 0
    )


def wait_until_gone(ids: dict[str, int]) -> None:
    """The kernel frees after a grace period, in a worker."""
    deadline = time.monotonic() + 10
    while left := {name for name, number in ids.items() if exists("prog" if name == "prog" else "map", number)}:
        assert time.monotonic() < deadline, f"still there: {left}"


def udp_from(source: str, *, dport: int = 9) -> bytes:
    return bytes(
        Ether(src="02:00:00:00:00:02", dst="ff:ff:ff:ff:ff:ff") / IP(src=source, dst="10.0.0.1") / UDP(dport=dport)
    )


@contextmanager
def sniffer(pair: NetnsPair, name: str = "eth0") -> Iterator[socket.socket]:
    """Sees what XDP lets pass: a tap gets frames after generic XDP as well."""
    with pair.host():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.bind((name, 3))
    with sock:
        sock.settimeout(5)
        yield sock


def passes(pair: NetnsPair, frame: bytes, *, near: str = "eth0", far: str = "wire0") -> bool:
    """Whether a frame gets through; one that nobody decides on is sent behind it and waited for."""
    sentinel = b"\xff" * 6 + b"\x02\0\0\0\0\x02" + SENTINEL_TYPE.to_bytes(2, "big") + bytes(46)
    with sniffer(pair, near) as ears:
        with pair.peer(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
            mouth.bind((far, 0))
            mouth.send(frame)
            mouth.send(sentinel)
        seen = False
        while (heard := ears.recv(4096)) != sentinel:
            seen = seen or heard == frame
        return seen


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
        before = state_of(), pinned_ids(Pins.of(pin_root, "eth0"))
        assert backend.apply(plan).changes == ()
        assert XdpBackend(pin_root).apply(plan).changes == ()  # nor by another process
        assert (state_of(), pinned_ids(Pins.of(pin_root, "eth0"))) == before
        backend.detach()


def test_a_dry_run_says_what_would_change_and_changes_nothing(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24"])
    with netns_pair.host():
        planned = backend.apply(plan, dry_run=True)
        assert not pin_root.exists()
        assert not state_of().xdp
        assert backend.apply(plan) == planned
        for other in (plan_of(["198.51.100.0/24"]), plan_of(["203.0.113.0/24"], mode=None), plan_of([], [])):
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
    """The program takes multi-buffer frames (section xdp.frags, Linux 5.18); veth refuses others above 3,520 or so."""
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
        assert [item.interface for item in backend.status()] == ["eth0.100"]
        assert backend.detach() == ("eth0.100: detached",)


# -- other people's programs ---------------------------------------------------------------------------------------


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
        assert backend.status() == ()
    with netns_pair.host():
        assert backend.apply(plan).changes == ()
        backend.detach()


# -- changes -------------------------------------------------------------------------------------------------------


def test_cidrs_come_and_go_in_place(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        backend.apply(plan_of(["203.0.113.0/24", "2001:db8::/32"]))
        before = state_of().xdp
        result = backend.apply(plan_of(["203.0.113.0/25", "198.51.100.7", "2001:db8::/32", "2001:db8:1::/48"]))
        assert result.changes == ("eth0: IPv4 deny list: 2 added, 1 removed", "eth0: IPv6 deny list: 1 added")
        assert state_of().xdp == before
    assert not passes(netns_pair, udp_from("203.0.113.127"))
    assert passes(netns_pair, udp_from("203.0.113.128"))
    assert not passes(netns_pair, udp_from("198.51.100.7"))
    with netns_pair.host():
        backend.detach()


def test_failsafe_ports_change_in_place(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        backend.apply(plan_of(["203.0.113.0/24"]))
    assert not passes(netns_pair, udp_from("203.0.113.1", dport=68))
    with netns_pair.host():
        result = backend.apply(plan_of(["203.0.113.0/24"], failsafe=(Failsafe(UDP_NUMBER, 68),)))
        assert result.changes == ("eth0: failsafe ports: 3 added",)
    assert passes(netns_pair, udp_from("203.0.113.1", dport=68))
    with netns_pair.host():
        backend.detach()


def test_other_entries_are_swapped_in_and_the_counts_of_those_that_stay_are_kept(
    netns_pair: NetnsPair, pin_root: Path
) -> None:
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        backend.apply(plan_of(["203.0.113.0/24"]))
        link = Link.open_pinned(Pins.of(pin_root, "eth0").link).info().id
    assert not passes(netns_pair, udp_from("203.0.113.1"))
    with netns_pair.host():
        result = backend.apply(plan_of(["203.0.113.0/24"], ["198.51.100.0/24"]))
        assert result.changes == ("eth0: policy replaced (2 entries, 2 CIDRs)",)
        assert Link.open_pinned(Pins.of(pin_root, "eth0").link).info().id == link
        assert counts(backend) == {"deny0": 1, "deny1": 0}
    assert not passes(netns_pair, udp_from("203.0.113.1"))
    assert not passes(netns_pair, udp_from("198.51.100.1"))
    with netns_pair.host():
        assert counts(backend) == {"deny0": 2, "deny1": 1}
        backend.apply(plan_of(["203.0.113.0/24"]))
        assert counts(backend) == {"deny0": 2}
        backend.detach()


def test_a_list_that_outgrows_its_map_is_swapped_in(
    netns_pair: NetnsPair, pin_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "capacity_for", lambda prefixes: max(2, prefixes))
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        backend.apply(plan_of(["203.0.113.0/24"]))
        assert backend.apply(plan_of(["203.0.113.0/24", "10.0.0.1"])).changes == ("eth0: IPv4 deny list: 1 added",)
        result = backend.apply(plan_of(["203.0.113.0/24", "10.0.0.1", "10.0.0.2"]))
        assert result.changes == ("eth0: policy replaced (1 entry, 3 CIDRs)",)
        backend.detach()


def test_a_list_that_is_replaced_where_it_fills_its_map_has_room_for_both(
    netns_pair: NetnsPair, pin_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New CIDRs are added before the old are removed, so an exchange in place needs room for all of them."""
    monkeypatch.setattr(generation, "capacity_for", lambda prefixes: max(2, prefixes))
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        backend.apply(plan_of(["10.0.0.1", "10.0.0.2"]))
        assert not backend.apply(plan_of(["10.0.0.3", "10.0.0.4"])).refused
        assert not backend.apply(plan_of(["10.0.0.3", "10.0.0.4"])).changes
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


def test_interfaces_without_entries_for_xdp_are_let_go(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend = XdpBackend(pin_root)
    for nothing in (Plan("jasper", ()), plan_of(["10.0.0.0/8"], mode=None), plan_of()):
        with netns_pair.host():
            backend.apply(plan_of(["10.0.0.0/8"]))
            assert backend.apply(nothing).changes == ("eth0: detached",)
            assert not state_of().xdp


def test_updates_leak_neither_programs_nor_maps_nor_descriptors(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend, pins = XdpBackend(pin_root), Pins.of(pin_root, "eth0")
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
    """A flood from a source that every list holds, while the lists, the entries and the program change."""
    backend = XdpBackend(pin_root)
    always = "203.0.113.1"
    with netns_pair.host():
        backend.apply(plan_of([always]))
    stop = threading.Event()
    sent = 0

    def flood() -> None:
        nonlocal sent
        with netns_pair.peer(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
            mouth.bind(("wire0", 0))
            frame = udp_from(always)
            while not stop.is_set():
                mouth.send(frame)
                sent += 1

    with sniffer(netns_pair) as ears:
        ears.setblocking(False)
        thread = threading.Thread(target=flood)
        thread.start()
        try:
            with netns_pair.host():
                for number in range(60):
                    wide, narrow = ["203.0.113.0/24", "203.0.0.0/16"], [always, f"10.0.{number}.0/24"]
                    backend.apply(plan_of(wide if number % 2 else narrow, *[["198.51.100.0/24"]] * (number % 3)))
        finally:
            stop.set()
            thread.join()
        with pytest.raises(BlockingIOError):
            ears.recv(2048)
    with netns_pair.host():
        assert counts(backend)["deny0"] == sent
        backend.detach()


# -- repair --------------------------------------------------------------------------------------------------------


def test_an_element_removed_by_hand_comes_back(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24", "10.0.0.0/8"])
    with netns_pair.host():
        backend.apply(plan)
        with Map.open_pinned(Pins.of(pin_root, "eth0").directory / "deny4") as deny4:
            deny4.delete(next(iter(deny4.keys())))
        assert backend.apply(plan).changes == ("eth0: IPv4 deny list: 1 added",)
        backend.detach()


def test_an_interface_made_anew_under_its_old_name_is_attached_again(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24"])
    with netns_pair.host():
        backend.apply(plan)
    netns_pair.remove_link("eth0")
    netns_pair.make_veth("eth0", "wire0")
    with netns_pair.host():
        assert backend.status() == ()
        assert backend.apply(plan).changes == ("eth0: attached in native mode (1 entry, 1 CIDR)",)
        assert backend.apply(plan).changes == ()
    assert not passes(netns_pair, udp_from("203.0.113.1"))
    with netns_pair.host():
        assert backend.detach() == ("eth0: detached",)


def test_the_pins_of_an_interface_that_is_gone_are_removed(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        backend.apply(plan_of(["203.0.113.0/24"]))
    netns_pair.remove_link("eth0")
    with netns_pair.host():
        assert backend.apply(Plan("jasper", ())).changes == ("eth0: detached (what was left of it)",)
    assert not pin_root.exists()


def test_a_link_detached_by_hand_is_attached_again(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24"])
    with netns_pair.host():
        backend.apply(plan)
        with Link.open_pinned(Pins.of(pin_root, "eth0").link) as link:
            link.detach()
        assert backend.apply(plan).changes == ("eth0: attached in native mode (1 entry, 1 CIDR)",)
        backend.detach()


def test_a_link_pointed_at_another_program_is_pointed_back(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24"])
    with netns_pair.host():
        backend.apply(plan)
        fd = load_pass_program()
        with Link.open_pinned(Pins.of(pin_root, "eth0").link) as link:
            link.update(fd)
        os.close(fd)
        assert backend.apply(plan).changes == ("eth0: policy replaced (1 entry, 1 CIDR)",)
    assert not passes(netns_pair, udp_from("203.0.113.1"))
    with netns_pair.host():
        backend.detach()


class Killed(BaseException):
    """Stands for the end of the process: nothing of the backend may run after it."""


# Where an agent can die while it takes a new generation live: after the n-th step that the kernel sees.
STEPS = ["wait_for_readers", "_carry_counts", "replace0", "replace3", "replace5", "rmdir"]


@pytest.mark.parametrize("step", STEPS)
def test_an_agent_killed_while_it_finishes_is_finished_by_the_next(
    netns_pair: NetnsPair, pin_root: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24"], ["198.51.100.0/24"])
    with netns_pair.host():
        backend.apply(plan_of(["203.0.113.0/24"]))
    assert not passes(netns_pair, udp_from("203.0.113.1"))
    with netns_pair.host():
        with monkeypatch.context() as patch:
            _die_at(step, patch)
            with pytest.raises(Killed):
                backend.apply(plan)
        assert backend.apply(plan).changes == ()
        assert not Pins.of(pin_root, "eth0").next.exists()
        assert counts(backend) == {"deny0": 1, "deny1": 0}
    assert not passes(netns_pair, udp_from("198.51.100.1"))
    with netns_pair.host():
        backend.detach()


def _die_at(step: str, patch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise Killed

    if step == "rmdir":
        patch.setattr(Path, "rmdir", die)
    elif step.startswith("replace"):
        left = int(step.removeprefix("replace"))
        replace = os.replace

        def replace_some(source: Path, target: Path) -> None:
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            replace(source, target)

        patch.setattr(os, "replace", replace_some)
    else:
        patch.setattr(generation, step, die)


@pytest.mark.parametrize("pieces", [["deny4"], ["deny4", "deny6", "failsafe", "counters", "manifest"]])
def test_a_generation_that_was_never_completed_is_discarded(
    netns_pair: NetnsPair, pin_root: Path, pieces: list[str]
) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24"])
    pins = Pins.of(pin_root, "eth0")
    with netns_pair.host():
        backend.apply(plan)
        pins.next.mkdir()
        for piece in pieces:
            with Map.open_pinned(pins.directory / piece) as target:
                target.pin(pins.next / piece)
        assert backend.apply(plan).changes == ()
        assert not pins.next.exists()
        backend.detach()


@pytest.mark.parametrize("lost", ["link", "prog", "manifest", "deny4", "counters"])
def test_a_lost_pin_is_repaired(netns_pair: NetnsPair, pin_root: Path, lost: str) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24"])
    with netns_pair.host():
        backend.apply(plan)
        (Pins.of(pin_root, "eth0").directory / lost).unlink()
        backend.counters()
        assert not backend.apply(plan).refused
        assert backend.apply(plan).changes == ()
    assert not passes(netns_pair, udp_from("203.0.113.1"))
    with netns_pair.host():
        backend.detach()


def test_maps_without_a_link_are_replaced(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24"])
    with netns_pair.host():
        backend.apply(plan)
        generation.remove_link(Pins.of(pin_root, "eth0"))
        assert not state_of().xdp
        assert backend.apply(plan).changes == ("eth0: attached in native mode (1 entry, 1 CIDR)",)
        backend.detach()


def test_a_killed_agent_leaves_its_program_enforcing(netns_pair: NetnsPair, pin_root: Path) -> None:
    agent = """
import os, signal, sys
from pathlib import Path
from enforcer.backends.xdp import XdpBackend
from tests.kernel.test_xdp_backend import plan_of
assert not XdpBackend(Path(sys.argv[1])).apply(plan_of(["203.0.113.0/24"])).refused
os.kill(os.getpid(), signal.SIGKILL)
"""
    with netns_pair.host():
        killed = subprocess.run([sys.executable, "-c", agent, pin_root], check=False, cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    assert not passes(netns_pair, udp_from("203.0.113.1"))
    with netns_pair.host():
        assert counts(XdpBackend(pin_root)) == {"deny0": 1}
        assert XdpBackend(pin_root).apply(plan_of(["203.0.113.0/24"])).changes == ()
        XdpBackend(pin_root).detach()


# -- leaving -------------------------------------------------------------------------------------------------------


def test_detach_leaves_nothing(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend = XdpBackend(pin_root)
    with netns_pair.host():
        backend.apply(plan_of(["203.0.113.0/24"]))
        ids = pinned_ids(Pins.of(pin_root, "eth0"))
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
        assert [item.interface for item in backend.status()] == ["eth0"]
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
    assert manifests.read(pin_root / "manifest") is None
    os.unlink(pin_root / "manifest")
    assert manifests.read(pin_root / "manifest") is None
    pin_root.rmdir()


def test_the_pinned_program_is_the_one_attached(netns_pair: NetnsPair, pin_root: Path) -> None:
    with netns_pair.host():
        XdpBackend(pin_root).apply(plan_of(["10.0.0.0/8"]))
        fd = open_pinned(Pins.of(pin_root, "eth0").directory / "prog")
        try:
            assert [item.prog_id for item in state_of().xdp] == [program_info(fd).id]
        finally:
            os.close(fd)
        XdpBackend(pin_root).detach()
