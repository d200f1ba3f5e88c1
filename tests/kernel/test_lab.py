"""The lab: configured as the Host describes, without traffic of its own, and removed completely."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
from pyroute2 import IPRoute, NetlinkError

from dossim.lab import Lab, names
from dossim.lab.lab import VICTIM_MAC
from dossim.model.host import Host, Listener

pytestmark = pytest.mark.needs_root

HOST = Host(
    node="jasper",
    addresses=(ip_interface("10.10.10.10/32"), ip_interface("fd00::10/128")),
    listen=(Listener(6, 80), Listener(17, 9)),
)


def leftovers(pid: int | None = None) -> set[str]:
    """Namespaces and pins of the labs of a process (None: this one); other processes may have labs at the same time."""
    mine = f"dossim-{pid or os.getpid()}-"
    directories = (names.NETNS_DIR, names.PIN_ROOT)
    return {str(item) for path in directories if path.is_dir() for item in path.iterdir() if mine in item.name}


def test_a_lab_has_the_addresses_routes_and_listeners_of_its_host() -> None:
    with Lab(HOST) as lab, lab.victim(), IPRoute() as ip:
        (link,) = ip.get_links(ifname="eth0")
        assert link.get("address") == VICTIM_MAC
        assert {a.get("address") for a in ip.get_addr(index=link["index"])} == {"10.10.10.10", "fd00::10"}
        assert ip.get_default_routes(family=socket.AF_INET)
        assert ip.get_default_routes(family=socket.AF_INET6)
        with socket.socket() as client:
            client.connect(("10.10.10.10", 80))


def test_networks_beyond_the_host_are_reached_through_a_second_interface() -> None:
    host = Host(node="jasper", addresses=HOST.addresses, forward=True, routes=(ip_network("192.0.2.0/24"),))
    with Lab(host) as lab, lab.victim(), IPRoute() as ip:
        (inside,) = ip.link_lookup(ifname="inside0")
        (route,) = ip.get_routes(family=socket.AF_INET, dst="192.0.2.0/24", oif=inside)
        assert route.get("gateway") == "169.254.1.2"


def test_conntracks_statistics_are_those_of_the_victim() -> None:
    """And not of the namespace that the process began in, which /proc/net shows to every thread."""
    with Lab(HOST) as lab, lab.victim():
        for port in range(1, 8):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"", ("203.0.113.7", port))
        assert lab.conntrack_entries() == 7
        assert lab.conntrack().dropped == 0


def test_no_packet_appears_that_was_not_sent() -> None:
    """Nothing reaches the victim that was not sent; what it sends itself (an MLD report) ends in the peer."""
    with Lab(HOST) as lab, lab.victim(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sniffer:
        sniffer.bind((HOST.interface, 0x0003))
        deadline = time.monotonic() + 1.2  # longer than DAD, router solicitation and MLD would wait
        received = []
        while (left := deadline - time.monotonic()) > 0:
            if select.select([sniffer], [], [], left)[0]:
                frame, (_, _, kind, *_) = sniffer.recvfrom(2048)
                received += [frame.hex()] * (kind != socket.PACKET_OUTGOING)
        assert received == []


def test_a_lab_leaves_nothing_behind() -> None:
    before = leftovers()
    with Lab(HOST):
        assert len(leftovers() - before) == 2
    assert leftovers() == before


def test_a_lab_that_fails_while_it_is_built_leaves_nothing_behind() -> None:
    before = leftovers()
    broken = Host(node="jasper", interface="an-interface-name-too-long", addresses=HOST.addresses)
    with pytest.raises(NetlinkError, match="Numerical result out of range"), Lab(broken):
        pass
    assert leftovers() == before


def test_what_a_killed_drill_left_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import signal, time; from tests.kernel.test_lab import HOST; from dossim.lab import Lab\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it for all its children\n"
        "with Lab(HOST): print('up', flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True)
    assert child.stdout
    assert child.stdout.readline() == "up\n"
    assert len(leftovers(child.pid)) == 2
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert len(leftovers(child.pid)) == 2, "a killed process cannot clean up"
    with Lab(HOST):
        pass
    assert leftovers(child.pid) == set()


def test_a_living_lab_is_not_reaped() -> None:
    with Lab(HOST) as first, Lab(HOST), first.victim():
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "0\n"
        assert names.reap() == ()


def test_the_thread_is_back_where_it_was() -> None:
    own = os.readlink("/proc/thread-self/ns/net")
    with Lab(HOST) as lab:
        with lab.victim():
            assert os.readlink("/proc/thread-self/ns/net") != own
        assert os.readlink("/proc/thread-self/ns/net") == own


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_drill_that_is_told_to_end_leaves_nothing_and_ends_as_any_process(number: signal.Signals) -> None:
    code = (
        "import signal, time; from tests.kernel.test_lab import HOST; from dossim.lab import Lab\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it for all its children\n"
        "with Lab(HOST): print('up', flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True)
    assert child.stdout
    assert child.stdout.readline() == "up\n"
    child.send_signal(number)
    assert child.wait(timeout=60) == -number
    child.stdout.close()
    assert leftovers(child.pid) == set()
