"""The XDP backend after interruptions: it repairs every partial state that a killed agent or another program leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from enforcer.backends.xdp.backend import XdpBackend
from enforcer.backends.xdp.state import generation
from enforcer.backends.xdp.state.layout import Pins, TablePins
from enforcer.kernel.bpf.libbpf_conn import LIBBPF, LibbpfConn
from enforcer.kernel.bpf.links import Link
from enforcer.kernel.bpf.maps import Map
from enforcer.kernel.bpf.xdp import load_pass_program
from enforcer.kernel.netns import current_inode
from enforcer.planning.plan import Plan
from tests.kernel.conftest import NetnsPair
from tests.kernel.xdp_support import (
    counts,
    passes,
    plan_of,
    state_of,
    udp_from,
    wait_until,
)

pytestmark = pytest.mark.needs_root


def test_an_element_removed_by_hand_comes_back(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24", "10.0.0.0/8"])
    with netns_pair.host():
        backend.apply(plan)
        with Map.open_pinned(TablePins.of(LIBBPF, pin_root, current_inode()).directory / "root4") as root4:
            words = np.frombuffer(root4.mmap(writable=True), np.uint32)
            words[10 << 8] = 0
            del words
        assert backend.apply(plan).changes == ("eth0: address lists changed in place (1 entry, 2 CIDRs)",)
    assert not passes(netns_pair, udp_from("10.0.0.1"))
    with netns_pair.host():
        backend.detach()


def test_an_interface_made_anew_under_its_old_name_is_attached_again(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24"])
    with netns_pair.host():
        backend.apply(plan)
    netns_pair.remove_link("eth0")
    netns_pair.make_veth("eth0", "wire0")
    with netns_pair.host():
        assert backend.interfaces() == {}
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
        assert backend.apply(Plan("jasper", ())).changes == ()
        assert backend.release(Plan("jasper", ())) == ["eth0: detached (what was left of it)"]
    assert not pin_root.exists()


def test_a_link_detached_by_hand_is_attached_again(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24"])
    with netns_pair.host():
        backend.apply(plan)
        with Link.open_pinned(Pins.of(LIBBPF, pin_root, "eth0").link) as link:
            link.detach()
        assert backend.apply(plan).changes == ("eth0: attached in native mode (1 entry, 1 CIDR)",)
        backend.detach()


def test_a_link_pointed_at_another_program_is_pointed_back(netns_pair: NetnsPair, pin_root: Path) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24"])
    with netns_pair.host():
        backend.apply(plan)
        fd = load_pass_program()
        with Link.open_pinned(Pins.of(LIBBPF, pin_root, "eth0").link) as link:
            link.update(fd)
        os.close(fd)
        assert backend.apply(plan).changes == ("eth0: policy replaced (1 entry, 1 CIDR)",)
    assert not passes(netns_pair, udp_from("203.0.113.1"))
    with netns_pair.host():
        backend.detach()


class Killed(BaseException):
    """Simulates the end of the process: no code of the backend may run after it."""


# Where an agent can be killed while it activates a new generation: after the n-th step that is visible in the kernel.
STEPS = ["wait_for_readers", "_carry_counts", *(f"replace{done}" for done in range(17)), "rmdir0", "rmdir1"]


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
        assert not Pins.of(LIBBPF, pin_root, "eth0").next.exists()
        assert counts(backend) == {"deny0": 1, "deny1": 0}
    assert not passes(netns_pair, udp_from("198.51.100.1"))
    with netns_pair.host():
        backend.detach()


def _die_at(step: str, patch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise Killed

    name = step.rstrip("0123456789")
    if name in ("rmdir", "replace"):
        owner = Path if name == "rmdir" else os
        left, real = int(step.removeprefix(name)), getattr(owner, name)

        def some(*paths: Path) -> None:
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            real(*paths)

        patch.setattr(owner, name, some)
    elif step == "wait_for_readers":
        patch.setattr(LibbpfConn, step, die)
    else:
        patch.setattr(generation, step, die)


@pytest.mark.parametrize("pieces", [["policy"], ["policy", "tiers", "rows", "named", "counters", "manifest"]])
def test_a_generation_that_was_never_completed_is_discarded(
    netns_pair: NetnsPair, pin_root: Path, pieces: list[str]
) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24"])
    pins = Pins.of(LIBBPF, pin_root, "eth0")
    with netns_pair.host():
        backend.apply(plan)
        pins.next.mkdir()
        for piece in pieces:
            with Map.open_pinned(pins.directory / piece) as target:
                target.pin(pins.next / piece)
        assert backend.apply(plan).changes == ()
        assert not pins.next.exists()
        backend.detach()


@pytest.mark.parametrize("lost", ["link", "prog", "manifest", "policy", "rows", "counters"])
def test_a_lost_pin_is_repaired(netns_pair: NetnsPair, pin_root: Path, lost: str) -> None:
    backend, plan = XdpBackend(pin_root), plan_of(["203.0.113.0/24"])
    with netns_pair.host():
        backend.apply(plan)
        (Pins.of(LIBBPF, pin_root, "eth0").directory / lost).unlink()
        if lost == "link":  # the kernel detaches asynchronously, in a worker
            wait_until(lambda: not state_of().xdp)
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
        generation.remove_link(Pins.of(LIBBPF, pin_root, "eth0"))
        assert not state_of().xdp
        assert backend.apply(plan).changes == ("eth0: attached in native mode (1 entry, 1 CIDR)",)
        backend.detach()


def test_a_killed_agent_leaves_its_program_enforcing(netns_pair: NetnsPair, pin_root: Path) -> None:
    agent = """
import os, signal, sys
from pathlib import Path
from enforcer.backends.xdp.backend import XdpBackend
from tests.kernel.xdp_support import plan_of
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
