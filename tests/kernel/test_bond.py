"""A HostEndpoint of a bond: the program of the bond runs on its slaves. ``./run kernels`` has kernels with bonding."""

from __future__ import annotations

import platform
import re
import socket
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from enforcer.backends.xdp.backend import XdpBackend
from enforcer.kernel.rtnetlink import interface
from enforcer.model.vocabulary import Mode
from tests.kernel.conftest import NetnsPair
from tests.kernel.xdp_support import counts, plan_of, state_of, udp_from, wait_until

pytestmark = pytest.mark.needs_root

LISTED, OTHER = "203.0.113.1", "192.0.2.1"
# drivers/net/bonding/bond_main.c: bond_xdp()
SINCE = (5, 15)
RUNNING = tuple(int(number) for number in re.findall(r"\d+", platform.release())[:2])


@pytest.fixture
def bonded(netns_pair: NetnsPair) -> NetnsPair:
    """``bond0`` over ``slave0`` and ``slave1``, whose peers are ``port0`` and ``port1``."""
    with netns_pair.host(), IPRoute() as ip:
        try:
            ip.link("add", ifname="bond0", kind="bond", bond_mode=0)
        except NetlinkError as error:
            pytest.skip(f"Linux {platform.release()} has no bonding: {error}")
    for number in (0, 1):
        netns_pair.make_veth(f"slave{number}", f"port{number}")
    with netns_pair.host():
        for number in (0, 1):
            enslave(f"slave{number}")
        with IPRoute() as ip:
            ip.link("set", index=ip.link_lookup(ifname="bond0")[0], state="up")
    return netns_pair


def enslave(name: str) -> None:
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=name)[0]
        ip.link("set", index=index, state="down")
        ip.link("set", index=index, master=ip.link_lookup(ifname="bond0")[0])


def send(pair: NetnsPair, port: str, *frames: bytes) -> None:
    with pair.peer(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
        mouth.bind((port, 0))
        for frame in frames:
            mouth.send(frame)


@pytest.mark.skipif(RUNNING < SINCE, reason=f"bonds take XDP since Linux {'.'.join(map(str, SINCE))}")
def test_what_comes_in_on_any_slave_is_dropped_and_counted_once(bonded: NetnsPair, pin_root: Path) -> None:
    backend = XdpBackend(pin_root)
    with bonded.host():
        assert not backend.apply(plan_of([f"{LISTED}/32"], interface="bond0")).refused
        assert [item.mode for item in state_of("bond0").xdp] == [Mode.NATIVE]
    for number in (0, 1):
        send(bonded, f"port{number}", udp_from(LISTED), udp_from(OTHER), udp_from(LISTED))
    with bonded.host():
        wait_until(lambda: counts(backend) == {"deny0": 4})
        assert backend.apply(plan_of([f"{LISTED}/32"], interface="bond0")).changes == ()
        backend.detach()


@pytest.mark.skipif(RUNNING < SINCE, reason=f"bonds take XDP since Linux {'.'.join(map(str, SINCE))}")
def test_a_slave_that_joins_later_has_the_program_too(bonded: NetnsPair, pin_root: Path) -> None:
    backend = XdpBackend(pin_root)
    with bonded.host():
        backend.apply(plan_of([f"{LISTED}/32"], interface="bond0"))
    bonded.make_veth("slave2", "port2")
    with bonded.host():
        enslave("slave2")
        with IPRoute() as ip:
            ip.link("set", index=ip.link_lookup(ifname="slave2")[0], state="up")
    send(bonded, "port2", udp_from(LISTED))
    with bonded.host():
        wait_until(lambda: counts(backend) == {"deny0": 1})
        backend.detach()


@pytest.mark.skipif(RUNNING >= SINCE, reason="bonds take XDP on this kernel")
def test_an_older_bond_refuses_with_a_reason(bonded: NetnsPair, pin_root: Path) -> None:
    with bonded.host():
        result = XdpBackend(pin_root).apply(plan_of([f"{LISTED}/32"], interface="bond0"))
        assert result.refused == {"bond0": "the driver has no native XDP (EOPNOTSUPP)"}
        assert not state_of("bond0").xdp


def test_a_slave_is_its_bonds(bonded: NetnsPair) -> None:
    with bonded.host():
        slave = interface("slave0")
    assert slave is not None
    assert slave.rx_owner == "bond bond0"
