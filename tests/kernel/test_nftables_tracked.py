"""Tracked policy in nf_tables: the kernel's connections, and the counters of the entries that decided."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.packet import Packet, Raw

from enforcer.backends.base import BackendDriver
from enforcer.backends.iptables import IptablesBackend
from enforcer.backends.nftables import NftablesBackend, NftablesSettings, installed
from enforcer.backends.nftables.render import render
from enforcer.model.vocabulary import Action, Backend, Stage
from enforcer.planning.plan import InterfacePlan, Plan
from tests.kernel.iptables_plans import entry, table
from tests.kernel.iptables_support import (
    OTHER,
    OTHER6,
    PEER,
    VICTIM,
    Wire,
    cable_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    frames,
    inside_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    namespace,
    run,
    tcp,
    udp,
    v4,
    v6,
    wire,
)
from tests.kernel.raw_support import ruleset
from tests.support.tracked import Document, endpoint, policy, pre_dnat, profile, rule, tracked_plan

pytestmark = pytest.mark.needs_root

REFERENCE = Path(__file__).parent / "reference" / "nftables-tracked.txt"
BACKEND = NftablesBackend()
TIMEOUT_S = 60.0
NO_PROFILE_IN, NO_PROFILE_OUT = "no profile ingress", "no profile egress"
REST = "tier/default ingress default"

Counts = dict[tuple[Stage, str], int]


def plan(*documents: Document, interfaces: tuple[str, ...] = ("eth0",)) -> Plan:
    return tracked_plan(Backend.NFTABLES, *documents, interfaces=interfaces)


def enforce(cable: Wire, *documents: Document) -> None:
    with cable.inside():
        BACKEND.apply(plan(*documents))


def counts(cable: Wire, driver: BackendDriver = BACKEND) -> Counts:
    """What the entries have counted, without those that counted nothing."""
    with cable.inside():
        return {(item.stage, item.entry): item.packets for item in driver.counters() if item.packets}


def probes(*protocols: Any) -> list[tuple[int, list[bytes]]]:
    """A packet of each to the victim, in both families."""
    return [
        (version, frames([packet for protocol in protocols for packet in make(source, protocol)]))
        for version, make, source in ((4, v4, OTHER), (6, v6, OTHER6))
    ]


@contextmanager
def connected(
    cable: Wire, port: int, version: int = 4, *, to: str = "", where: str = "", listens: int = 0
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection from the peer to the victim, or to an address of another namespace; both ends of it.

    ``listens``: the port at the other end, if it is translated.
    """
    with cable.inside(where):
        listener = socket.create_server(
            ("", listens or port), family=socket.AF_INET if version == 4 else socket.AF_INET6
        )
    with listener:
        listener.settimeout(TIMEOUT_S)
        with cable.inside(cable.peer):
            client = socket.create_connection((to or VICTIM[version], port), timeout=TIMEOUT_S)
        with client:
            server, _ = listener.accept()
            with server:
                server.settimeout(TIMEOUT_S)
                yield client, server


def say(one: socket.socket, other: socket.socket) -> None:
    """Something in both directions."""
    for sender, receiver in ((one, other), (other, one)):
        sender.sendall(b"hello")
        assert receiver.recv(5) == b"hello"


# --- as the kernel has it ---------------------------------------------------------------------------------------------

WHOLE = (
    endpoint(profiles=["guests"]),
    pre_dnat("front", rule("Allow", "TCP", 8080), rule("Deny", "UDP", 9)),
    policy("web", applyOnForward=True, ingress=[rule("Log"), rule("Allow", "TCP", 80), rule("Pass", "UDP")]),
    policy("out", egress=[rule("Allow", "UDP")]),
    profile("guests", ingress=[rule("Allow", "UDP")]),
)


def test_both_tables_as_reviewed(inside: str) -> None:
    """``UPDATE_REFERENCE=1 pytest ...`` writes the file anew; read the difference before committing it."""
    BACKEND.apply(plan(*WHOLE))
    text = run("nft", "-s", "list", "ruleset")
    if os.environ.get("UPDATE_REFERENCE"):
        REFERENCE.write_text(text)
    assert text == REFERENCE.read_text()


def test_read_back_is_what_was_rendered_until_it_is_detached(inside: str) -> None:
    BACKEND.apply(plan(*WHOLE))
    assert BACKEND.apply(plan(*WHOLE)).changes == ()
    for wanted, found in zip(render(plan(*WHOLE), NftablesSettings()), installed(), strict=True):
        assert {name: chain.hook for name, chain in found.chains.items()} == {
            chain.name: chain.hook for chain in wanted.chains
        }
        for chain in wanted.chains:
            assert tuple(item.rule for item in found.rules[chain.name]) == chain.rules
    assert BACKEND.interfaces() == {"eth0": Stage.MANGLE}
    assert BACKEND.detach()
    assert ruleset() == []


HAND_EDITS = {
    "another state": "replace rule ip enforcer enf-in-eth0 handle {} ct state established,related,new accept",
    "the state of the other direction": "replace rule ip enforcer enf-in-eth0 handle {} ct status dnat accept",
    "no state": "delete rule ip enforcer enf-in-eth0 handle {}",
    "unhooked": "flush chain ip enforcer enf-filter-INPUT",
    "a deny that lets go": "flush chain ip enforcer enf-deny",
    "a base chain at another priority": "delete chain ip enforcer enf-filter-FORWARD; "
    "add chain ip enforcer enf-filter-FORWARD { type filter hook forward priority 10; }",
    "a policy": "add chain ip enforcer enf-filter-OUTPUT { policy drop; }",
}


@pytest.mark.parametrize("edit", HAND_EDITS)
def test_a_change_by_hand_is_repaired(inside: str, edit: str) -> None:
    BACKEND.apply(plan(*WHOLE))
    before = ruleset()
    listed = run("nft", "-a", "list", "chain", "ip", "enforcer", "enf-in-eth0").splitlines()
    (handle,) = (line.split("handle ")[1] for line in listed if "established" in line)
    run("nft", "-f", "-", text=HAND_EDITS[edit].replace("{}", handle, 1) + "\n")
    assert ruleset() != before
    assert BACKEND.apply(plan(*WHOLE)).changes
    assert ruleset() == before
    assert BACKEND.apply(plan(*WHOLE)).changes == ()


def test_a_change_by_somebody_else_is_told(inside: str) -> None:
    BACKEND.apply(plan(*WHOLE))
    watch = BACKEND.watch()
    try:
        watch.begin()
        run("nft", "flush", "chain", "ip", "enforcer", "enf-filter-INPUT")
        (loss,) = watch.losses()
    finally:
        watch.close()
    assert "rules of chain enf-filter-INPUT deleted" in loss.what


def test_a_change_of_one_rule_leaves_the_counters_of_the_others(cable: Wire) -> None:
    before = policy("web", ingress=[rule("Deny", "TCP", 80), rule("Deny", "TCP", 81)])
    after = policy("web", ingress=[rule("Deny", "TCP", 80), rule("Deny", "TCP", 82)])
    cable.address()
    enforce(cable, endpoint(), before)
    cable.send(frames(v4(OTHER, tcp(80)) * 2 + v4(OTHER, tcp(81))))
    enforce(cable, endpoint(), after)
    cable.send(frames(v4(OTHER, tcp(81)) * 3 + v4(OTHER, tcp(82)) * 4))
    assert counts(cable) == {
        (Stage.FILTER_INPUT, "gnp/web ingress[0]"): 2,
        (Stage.FILTER_INPUT, "gnp/web ingress[1]"): 4,
        (Stage.FILTER_INPUT, REST): 3,
    }


# --- normal policy ----------------------------------------------------------------------------------------------------


def test_an_endpoint_alone_closes_the_host_both_ways(cable: Wire) -> None:
    cable.address()
    enforce(cable, endpoint())
    for _, sent in probes(tcp(80), udp(9)):
        cable.send(sent)
    assert counts(cable) == {(Stage.FILTER_INPUT, NO_PROFILE_IN): 4}
    for family, version in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
        with cable.inside():
            sender = socket.socket(family, socket.SOCK_DGRAM)
        with sender, pytest.raises(PermissionError):  # what a drop in OUTPUT says to the sender
            sender.sendto(b"x", (PEER[version], 9))
    assert counts(cable) == {(Stage.FILTER_INPUT, NO_PROFILE_IN): 4, (Stage.EGRESS, NO_PROFILE_OUT): 2}


@pytest.mark.parametrize("version", [4, 6])
def test_a_failsafe_is_open_in_a_closed_host(cable: Wire, version: int) -> None:
    cable.address()
    enforce(cable, endpoint())
    with connected(cable, 22, version) as both:
        say(*both)
    assert counts(cable) == {}


@pytest.mark.parametrize("version", [4, 6])
def test_an_allow_is_for_a_whole_connection_and_counts_its_first_packet(cable: Wire, version: int) -> None:
    cable.address()
    enforce(cable, endpoint(), policy("web", ingress=[rule("Allow", "TCP", 80)]))
    with connected(cable, 80, version) as both:
        say(*both)
        cable.send(dict(probes(tcp(81)))[version])
    assert counts(cable) == {(Stage.FILTER_INPUT, "gnp/web ingress[0]"): 1, (Stage.FILTER_INPUT, REST): 1}


def test_a_connection_that_is_open_outlives_a_new_deny(cable: Wire) -> None:
    cable.address()
    enforce(cable, endpoint(), policy("web", ingress=[rule("Allow", "TCP", 80)]))
    with connected(cable, 80) as both:
        enforce(cable, endpoint(), policy("web", ingress=[rule("Deny")]))
        say(*both)
        assert counts(cable) == {}
        cable.send(frames(v4(OTHER, tcp(80))))
    assert counts(cable) == {(Stage.FILTER_INPUT, "gnp/web ingress[0]"): 1}


def test_an_invalid_packet_is_dropped_before_failsafes(cable: Wire) -> None:
    cable.address()
    enforce(cable, endpoint())
    for _, sent in probes(TCP(sport=40000, dport=22, flags="SA")):
        cable.send(sent)
    assert counts(cable) == {(Stage.FILTER_INPUT, "conntrack INVALID ingress"): 2}


def test_a_profile_allows_what_no_policy_decides(cable: Wire) -> None:
    cable.address()
    guests = profile("guests", ingress=[rule("Allow", "UDP")], egress=[rule("Allow", "TCP")])
    enforce(cable, endpoint(profiles=["guests"]), guests)
    cable.send(frames(v4(OTHER, udp(9)) + v4(OTHER, tcp(9)) * 2))
    assert counts(cable) == {
        (Stage.FILTER_INPUT, "profile/guests ingress[0]"): 1,
        (Stage.FILTER_INPUT, NO_PROFILE_IN): 2,
    }


def test_neighbours_are_found_although_all_is_denied(cable: Wire) -> None:
    """Each end asks for the other's address, and the answers come, in a host that allows TCP/80 alone."""
    cable.address()
    for space, device, other in ((cable.victim, "eth0", PEER[6]), (cable.peer, "peer0", VICTIM[6])):
        run("ip", "-n", space, "neigh", "del", other, "dev", device)
    enforce(cable, endpoint(), policy("web", ingress=[rule("Allow", "TCP", 80)]))
    with connected(cable, 80, 6) as both:
        say(*both)
    found = counts(cable)
    assert found.pop((Stage.FILTER_INPUT, "gnp/web ingress[0]")) >= 1
    assert not found
    cable.send(frames(v6(OTHER6, ICMPv6EchoRequest())))
    assert counts(cable)[Stage.FILTER_INPUT, REST] == 1  # other ICMPv6 is denied


# --- preDNAT, untracked -----------------------------------------------------------------------------------------------


def test_what_pre_dnat_policy_allows_needs_no_normal_policy(cable: Wire) -> None:
    cable.address()
    enforce(cable, endpoint(), pre_dnat("front", rule("Allow", "TCP", 8080), rule("Deny", "TCP", 8081)))
    with connected(cable, 8080) as both:
        say(*both)
    cable.send(frames(v4(OTHER, tcp(8081)) * 2 + v4(OTHER, tcp(8082)) * 3))
    assert counts(cable) == {
        (Stage.MANGLE, "gnp/front ingress[0]"): 1,
        (Stage.MANGLE, "gnp/front ingress[1]"): 2,
        (Stage.FILTER_INPUT, NO_PROFILE_IN): 3,
    }


def test_pre_dnat_policy_sees_the_port_before_it_is_translated(cable: Wire) -> None:
    cable.address()
    redirect = "type nat hook prerouting priority dstnat; tcp dport 32010 redirect to :8080;"
    with cable.inside():
        run("nft", "-f", "-", text=f"table ip somebody {{ chain translate {{ {redirect} }}; }}\n")
    enforce(cable, endpoint(), pre_dnat("front", rule("Allow", "TCP", 32010)))
    with connected(cable, 32010, listens=8080) as both:
        say(*both)
    assert counts(cable) == {(Stage.MANGLE, "gnp/front ingress[0]"): 1}


def test_an_untracked_allow_passes_by_tracked_policy(cable: Wire) -> None:
    cable.address()
    raw = InterfacePlan(table(entry(0, Action.ALLOW, protocol=17)), None, Backend.NFTABLES, ())
    tracked = plan(endpoint(), pre_dnat("front", rule("Deny")))
    with cable.inside():
        BACKEND.apply(Plan("node", (raw,), tracked=tracked.tracked))
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver:
        receiver.bind(("", 9))
        receiver.settimeout(TIMEOUT_S)
        cable.send(frames(v4(PEER[4], udp(9) / Raw(b"hello")) + v4(PEER[4], tcp(9))))
        assert receiver.recv(5) == b"hello"
    assert counts(cable) == {(Stage.RAW, "gnp/edge ingress[0]"): 1, (Stage.MANGLE, "gnp/front ingress[0]"): 1}


# --- applyOnForward ---------------------------------------------------------------------------------------------------

BEYOND, ROUTER = "10.20.20.1", "10.20.20.10"


@pytest.fixture(name="route")
def route_fixture(cable: Wire) -> Iterator[str]:
    """A namespace behind the victim, which forwards to it by ``eth1``."""
    cable.address()
    with namespace() as beyond:
        run("ip", "-n", beyond, "link", "add", "far0", "type", "veth", "peer", "name", "eth1", "netns", cable.victim)
        for space, device, own in ((beyond, "far0", BEYOND), (cable.victim, "eth1", ROUTER)):
            run("ip", "-n", space, "addr", "add", f"{own}/24", "dev", device)
            run("ip", "-n", space, "link", "set", device, "up")
        run("ip", "-n", beyond, "route", "add", "default", "via", ROUTER)
        run("ip", "-n", cable.peer, "route", "add", "default", "via", VICTIM[4])
        run("ip", "netns", "exec", cable.victim, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        yield beyond


def through(port: int, count: int = 1) -> list[bytes]:
    return frames([IP(src=PEER[4], dst=BEYOND) / udp(port)] * count)


def test_what_is_forwarded_meets_policy_with_apply_on_forward_alone(cable: Wire, route: str) -> None:
    enforce(cable, endpoint(), policy("host", ingress=[rule("Deny")]))
    cable.send(through(9))
    assert counts(cable) == {}
    allow = policy("through", applyOnForward=True, ingress=[rule("Allow", "TCP", 80), rule("Deny", "UDP", 9)])
    enforce(cable, endpoint(), allow)
    with connected(cable, 80, to=BEYOND, where=route) as both:
        say(*both)
    cable.send(through(9, 2) + through(10, 3))
    assert counts(cable) == {
        (Stage.FILTER_FORWARD, "gnp/through ingress[0]"): 1,
        (Stage.FILTER_FORWARD, "gnp/through ingress[1]"): 2,
        (Stage.FILTER_FORWARD, REST): 3,
    }


def test_both_interfaces_of_a_forwarded_packet_have_a_say(cable: Wire, route: str) -> None:
    into = policy("into", selector="has(outer)", applyOnForward=True, ingress=[rule("Allow", "UDP", 9, 10)])
    out = policy("out", selector="has(inner)", applyOnForward=True, egress=[rule("Deny", "UDP", 10), rule("Allow")])
    documents = (endpoint(labels="outer"), endpoint("eth1", labels="inner"), into, out)
    with cable.inside():
        BACKEND.apply(plan(*documents, interfaces=("eth0", "eth1")))
        before = {item.interface for item in BACKEND.counters()}
    cable.send(through(9) + through(10, 2) + through(11, 3))
    assert before == {"eth0", "eth1"}
    assert counts(cable) == {
        (Stage.FILTER_FORWARD, "gnp/into ingress[0]"): 3,
        (Stage.FILTER_FORWARD, REST): 3,
        (Stage.FILTER_FORWARD, "gnp/out egress[0]"): 2,
        (Stage.FILTER_FORWARD, "gnp/out egress[1]"): 1,
    }


# --- both backends ----------------------------------------------------------------------------------------------------

ALIKE = (
    endpoint(profiles=["guests"]),
    pre_dnat("front", rule("Allow", "TCP", 8080), rule("Deny", "UDP", 7)),
    policy(
        "web",
        ingress=[
            rule("Deny", "TCP", 81, source={"nets": ["192.0.2.0/24", "198.51.100.0/24"]}),
            rule("Allow", "TCP", 80),
            rule("Deny", "ICMP", icmp={"type": 8, "code": 0}),
            rule("Pass", "UDP"),
            rule("Pass", 47),
        ],
    ),
    profile("guests", ingress=[rule("Allow", "UDP", 9)]),
)
FLAGS = ("S", "A", "SA", "R", "F", "SF", "PA", "")


def _battery(version: int) -> list[Packet]:
    """Packets of every kind that rules tell apart, whole or too short to be."""
    make, source, echo = (v4, OTHER, ICMP(type=8)) if version == 4 else (v6, OTHER6, ICMPv6EchoRequest())
    header = IP(src=source, dst=VICTIM[4]) if version == 4 else IPv6(src=source, dst=VICTIM[6])
    number = "proto" if version == 4 else "nh"
    found = [
        *(packet for flags in FLAGS for packet in make(source, TCP(sport=4000, dport=80, flags=flags))),
        *(packet for port in (22, 81, 82, 8080) for packet in make(source, tcp(port))),
        *(packet for port in (7, 9, 10, 68) for packet in make(source, udp(port))),
        *make(source, echo),
    ]
    for protocol, content in ((6, b"\x04"), (17, b"\x04\x00"), (47, b""), (253, b"x"), (132, b"abcdefgh")):
        packet = header.copy()
        setattr(packet, number, protocol)
        found.append(packet / Raw(content))
    return found


def _counted(driver: BackendDriver, backend: Backend) -> Counts:
    with wire() as cable:
        cable.address()
        with cable.inside():
            driver.apply(tracked_plan(backend, *ALIKE))
        for version in (4, 6):
            cable.send(frames(_battery(version)))
        found = counts(cable, driver)
        with cable.inside():
            driver.detach()
        return found


def test_both_backends_count_the_same() -> None:
    found = _counted(BACKEND, Backend.NFTABLES)
    assert found == _counted(IptablesBackend(), Backend.IPTABLES)
    assert len(found) > 8
