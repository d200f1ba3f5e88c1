"""Egress entries and failsafes: what the host itself sends is dropped in raw OUTPUT, or goes out."""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import ip_network
from typing import Any

import pytest

from enforcer.model.vocabulary import Action, Direction
from enforcer.policy.resources import DEFAULT_FAILSAFE_OUTBOUND, Failsafe
from enforcer.policy.ruletable import Entry, RuleTable
from tests.kernel.iptables_plans import (
    ALLOW,
    DENY,
    FAILSAFES,
    LOG,
    PASS,
    dport,
    entry,
    ip_set,
    nets,
    port_set,
    table,
)
from tests.kernel.iptables_support import (
    PEER,
    VICTIM,
    Wire,
    all_tables,
    cable_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    entered,
    run,
    saved,
)
from tests.kernel.raw_support import (
    RawDriver,
    raw_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
)
from tests.support.entries import SideMatch

pytestmark = pytest.mark.needs_root

FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
EVERY_PEER = {4: "10.10.10.0/24", 6: "2001:db8:1::/64"}


def out(index: int, action: Action, **match: Any) -> Entry:
    return entry(index, action, direction=Direction.EGRESS, **match)


def leaves(cable: Wire, version: int, port: int, *, sport: int = 0) -> bool:
    """Whether a UDP packet of the host reaches the peer. The sender gets an error for what is dropped in OUTPUT.

    What is sent before the neighbor has answered may be lost on a busy machine: then it is sent again.
    """
    with entered(cable.peer), socket.socket(FAMILY[version], socket.SOCK_DGRAM) as receiver:
        receiver.bind((PEER[version], port))
        receiver.settimeout(2)
        with cable.inside(), socket.socket(FAMILY[version], socket.SOCK_DGRAM) as sender:
            if sport:
                sender.bind((VICTIM[version], sport))
            for _ in range(15):
                try:
                    sender.sendto(b"x", (PEER[version], port))
                except PermissionError:
                    return False
                with suppress(TimeoutError):
                    return receiver.recv(10) == b"x"
    raise AssertionError("neither dropped nor received")


DENY_ALL = out(0, DENY)
ALL_BUT_FAILSAFES = table(egress=(DENY_ALL,), **FAILSAFES)
TIERS = table(
    egress=(
        out(0, LOG, tier="first"),
        out(1, PASS, tier="first", destination=dport(9), protocol=17),
        out(2, DENY, tier="first", protocol=17, destination=dport((10, 19))),
        out(0, DENY, tier="second", policy="next", protocol=17, destination=dport(9)),
        out(1, ALLOW, tier="second", policy="next", protocol=17, destination=dport(20)),
        out(2, DENY, tier="second", policy="next", protocol=17, destination=dport(20, 21)),
    )
)
TO_SET = table(
    egress=(out(0, DENY, destination=SideMatch(ip_set="s:peer")),), sets=[ip_set("s:peer", [*PEER.values()])]
)
TO_NAMED = table(
    egress=(out(0, DENY, destination=SideMatch(named_ports=("n:ntp",))),),
    port_sets=[port_set("ntp", *((address, 123) for address in PEER.values()), protocol=17)],
)

ROWS = [
    ("a denied packet", ALL_BUT_FAILSAFES, {"port": 9}, False),
    ("an outbound failsafe", ALL_BUT_FAILSAFES, {"port": 53}, True),
    ("an outbound failsafe of TCP only", ALL_BUT_FAILSAFES, {"port": 6443}, False),
    ("an answer from an inbound failsafe", ALL_BUT_FAILSAFES, {"port": 9, "sport": 68}, True),
    ("from an outbound failsafe's port", ALL_BUT_FAILSAFES, {"port": 9, "sport": 53}, False),
    ("without failsafes", table(egress=(DENY_ALL,)), {"port": 53}, False),
    ("Deny", TIERS, {"port": 10}, False),
    ("Pass, then Deny in the next tier", TIERS, {"port": 9}, False),
    ("Allow before Deny", TIERS, {"port": 20}, True),
    ("Deny in the next tier", TIERS, {"port": 21}, False),
    ("no entry", TIERS, {"port": 22}, True),
    ("to a set", TO_SET, {"port": 9}, False),
    ("to a named port", TO_NAMED, {"port": 123}, False),
    ("to another port than that named", TO_NAMED, {"port": 124}, True),
    ("by another interface", table(egress=(DENY_ALL,), interface="eth1"), {"port": 9}, True),
    ("an ingress entry", table(entry(0, DENY)), {"port": 9}, True),
]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("wanted", "packet", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_what_the_host_sends(
    raw: RawDriver, cable: Wire, wanted: RuleTable, packet: dict[str, int], expected: bool, version: int
) -> None:
    cable.address()
    with cable.inside():
        raw.backend.apply(raw.plan(wanted))
    assert leaves(cable, version, **packet) == expected


@pytest.mark.parametrize(("version", "other"), [(4, 6), (6, 4)])
def test_the_net_of_a_failsafe_is_that_of_the_peer_and_of_one_family(
    raw: RawDriver, cable: Wire, version: int, other: int
) -> None:
    cable.address()
    outbound = (
        Failsafe(17, 53, ip_network(EVERY_PEER[version])),
        Failsafe(17, 54, ip_network({4: "10.9.0.0/16", 6: "2001:db8:9::/64"}[version])),
    )
    inbound = (Failsafe(17, 68, ip_network(EVERY_PEER[version])),)
    with cable.inside():
        raw.backend.apply(raw.plan(table(egress=(DENY_ALL,), outbound=outbound, inbound=inbound)))
    assert [leaves(cable, version, port) for port in (53, 54)] == [True, False]
    assert leaves(cable, version, 9, sport=68)
    assert not leaves(cable, other, 53)
    assert not leaves(cable, other, 9, sport=68)


def test_a_drop_counts_for_its_entry_and_ingress_is_not_touched(raw: RawDriver, cable: Wire) -> None:
    cable.address()
    deny = out(0, DENY, protocol=17, destination=SideMatch(nets=nets(f"{PEER[4]}/32"), ports=dport(9).ports))
    with cable.inside():
        raw.backend.apply(raw.plan(table(egress=(deny,), outbound=DEFAULT_FAILSAFE_OUTBOUND)))
        assert not [line for line in saved(4) if line.startswith("-A PREROUTING")]
    assert not leaves(cable, 4, 9)
    assert leaves(cable, 4, 10)
    with cable.inside():
        assert [(item.entry, item.packets) for item in raw.backend.counters()] == [(deny.name, 1)]
        assert not any("REJECT" in line for line in all_tables())


def test_egress_entries_see_nothing_of_what_is_received(raw: RawDriver, cable: Wire) -> None:
    """Nor packets that stay on the host: they leave through ``lo``."""
    cable.address()
    with cable.inside():
        raw.backend.apply(raw.plan(ALL_BUT_FAILSAFES))
        run("ip", "link", "set", "lo", "up")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.bind((VICTIM[4], 9))
            receiver.settimeout(30)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as local:
                local.sendto(b"l", (VICTIM[4], 9))
            assert receiver.recv(10) == b"l"
            with entered(cable.peer), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as remote:
                remote.sendto(b"r", (VICTIM[4], 9))
            assert receiver.recv(10) == b"r"
