"""Which entries of a table XDP holds, and the stated reason why it holds no more."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from enforcer.backends.xdp.state.layout import quoted
from enforcer.model.abi import MAX_BITS
from enforcer.model.vocabulary import Action, Direction, Mode
from enforcer.planning.xdp_capability import failsafe_entries
from enforcer.planning.xdp_run import XdpRun
from enforcer.policy.resources import TCP, UDP, Failsafe, IcmpMatch, PortRange
from enforcer.policy.ruletable import Entry, RuleTable
from tests.support.entries import SideMatch, entry_of, obstacle_sentences

NETS = (ip_network("10.0.0.0/8"),)
PORT = (PortRange(53, 53),)
SSH = Failsafe(TCP, 22)


def table(*entries: Entry, failsafes: tuple[Failsafe, ...] = ()) -> RuleTable:
    named = tuple(replace(entry, name=f"entry{at}") for at, entry in enumerate(entries))
    return RuleTable("eth0", "endpoint", named, failsafe_inbound=failsafes)


def deny(**fields: object) -> Entry:
    return entry_of("", Action.DENY, **fields)  # type: ignore[arg-type]  # of several types


ALLOW = entry_of("", Action.ALLOW)


def leave(tier: int) -> Entry:
    return entry_of("", Action.PASS, f"tier{tier}", source=SideMatch(nets=NETS))


# XDP holds entries with any of these conditions; a device (offload) holds those without a reason here.
ENTRIES = [
    (deny(), ""),
    (deny(ip_version=4), ""),
    (deny(source=SideMatch(nets=NETS)), ""),
    (deny(source=SideMatch(ip_set="s:1")), ""),
    (entry_of("", Action.ALLOW), "XDP only drops; the action is Allow"),
    (entry_of("", Action.LOG), "XDP only drops; the action is Log"),
    (entry_of("", Action.PASS), "XDP only drops; the action is Pass"),
    (deny(protocol=UDP), "matches on protocol"),
    (deny(not_protocol=UDP), "matches on protocol"),
    (deny(icmp=IcmpMatch(8)), "matches on ICMP type"),
    (deny(not_icmp=IcmpMatch(8)), "matches on ICMP type"),
    (deny(protocol=UDP, source=SideMatch(ports=PORT)), "matches on protocol"),
    (deny(source=SideMatch(named_ports=("n:dns",))), "matches on a named port"),
    (deny(destination=SideMatch(not_named_ports=("n:dns",))), "matches on a named port"),
    (deny(destination=SideMatch(nets=NETS)), "matches on destination address"),
    (deny(destination=SideMatch(not_nets=NETS)), "matches on destination address"),
    (deny(destination=SideMatch(ip_set="s:1")), "matches on destination address"),
    (deny(destination=SideMatch(not_ip_set="s:1")), "matches on destination address"),
    (deny(source=SideMatch(not_nets=NETS)), "matches on sources outside of nets"),
    (deny(source=SideMatch(not_ip_set="s:1")), "matches on sources outside of a set"),
    (deny(source=SideMatch(nets=NETS, ip_set="s:1")), "matches on sources that are in nets and in a set"),
]


@pytest.mark.parametrize(("entry", "reason"), ENTRIES)
def test_xdp_holds_every_kind_of_entry_and_a_device_only_those_by_source(entry: Entry, reason: str) -> None:
    assert obstacle_sentences(table(entry)) == [""]
    assert obstacle_sentences(table(entry), Mode.OFFLOAD) == [reason]


@pytest.mark.parametrize(
    ("entries", "run", "offload"),
    [
        pytest.param([deny()], 1, 1, id="one that denies"),
        pytest.param([ALLOW, deny(), ALLOW], 3, 0, id="those that do not, as long as one does"),
        pytest.param([ALLOW, leave(1)], 0, 0, id="none, when XDP could not drop for any"),
        pytest.param([deny(), deny(protocol=UDP), deny()], 3, 1, id="a device: as many as it knows"),
        pytest.param([], 0, 0, id="none of none"),
    ],
)
def test_xdp_holds_a_run_from_the_first(entries: list[Entry], run: int, offload: int) -> None:
    assert (XdpRun(table(*entries)).held(), XdpRun(table(*entries)).held(Mode.OFFLOAD)) == (run, offload)


@pytest.mark.parametrize("protocol", [None, 1, 33, 136])
def test_ports_that_the_program_does_not_read_end_the_run(protocol: int | None) -> None:
    on_ports = deny(protocol=protocol, destination=SideMatch(not_ports=PORT))
    reason = f"XDP does not read the ports of protocol {protocol}"
    assert obstacle_sentences(table(deny(), on_ports, deny())) == ["", reason, "after entry1, which XDP does not hold"]
    assert XdpRun(table(deny(), on_ports, deny())).held() == 1


def test_an_egress_entry_is_not_for_xdp() -> None:
    assert obstacle_sentences(table(deny(direction=Direction.EGRESS))) == ["XDP sees received packets only"]


@pytest.mark.parametrize(
    ("failsafes", "taken"),
    [
        pytest.param((), 0, id="none"),
        pytest.param((SSH, Failsafe(TCP, 80)), 1, id="two of one protocol"),
        pytest.param((SSH, Failsafe(UDP, 68), Failsafe(TCP, 80, NETS[0])), 3, id="three of a kind each"),
    ],
)
def test_entries_and_groups_of_failsafes_share_512_bits(failsafes: tuple[Failsafe, ...], taken: int) -> None:
    room = MAX_BITS - taken
    full = table(*[deny()] * room, failsafes=failsafes)
    assert (len(failsafe_entries(full)), XdpRun(full).held()) == (taken, room)
    over = table(*[deny()] * (room + 2), failsafes=failsafes)
    assert XdpRun(over).held() == room
    assert obstacle_sentences(over)[room:] == [f"XDP holds 512 entries at most ({taken} of them failsafes)"] * 2


def test_a_packet_may_leave_16_tiers() -> None:
    sixteen = [leave(tier) for tier in range(16)]
    assert XdpRun(table(*sixteen, leave(3), deny())).held() == 18
    over = table(*sixteen, deny(), leave(16), deny())
    assert obstacle_sentences(over)[16:] == [
        "",
        "XDP supports Pass in 16 tiers at most",
        "after entry17, which XDP does not hold",
    ]
    assert XdpRun(over).held() == 17


@pytest.mark.parametrize(("ranges", "run"), [(16382, 2), (16383, 1)])
def test_the_numbers_of_rows_of_ports_have_16_bits(ranges: int, run: int) -> None:
    """A range needs two rows: 3 at first, 2 for each of the first entry's 16,384, and the same for the second."""
    halves = tuple(PortRange(at, at + 1) for at in range(0, 1 << 16, 4))
    first = deny(protocol=TCP, source=SideMatch(ports=halves))
    second = deny(protocol=TCP, destination=SideMatch(ports=halves[1 : ranges + 1]))
    rules = table(first, second)
    assert XdpRun(rules).held() == run
    assert obstacle_sentences(rules)[1] == ("" if run == 2 else "XDP distinguishes 65,536 port ranges at most")


@pytest.mark.parametrize(("interface", "name"), [("eth0", "eth0"), ("eth0.100", "eth0%2E100"), ("a%b", "a%25b")])
def test_interface_names_become_names_that_bpffs_takes(interface: str, name: str) -> None:
    assert quoted(interface) == name
