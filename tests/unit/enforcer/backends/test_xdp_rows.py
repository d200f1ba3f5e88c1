"""An InterfacePlan as bit vectors, a row for each field: what an entry drops, passes, or matches indeterminately.

A Python twin of the program reads the rendered maps. ``tests/property/test_xdp_rows.py`` has random packets.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from enforcer.backends.xdp.compile.contents import contents_of
from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.backends.xdp.compile.rows import address_rows, atoms, render
from enforcer.model.abi import NEXT_IS_PAGE, ROW_BYTES
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action, Backend, Mode
from enforcer.planning.plan import InterfacePlan
from enforcer.planning.xdp_run import XdpRun
from enforcer.policy.conditions import Protocol
from enforcer.policy.resources import Failsafe, IcmpMatch, PortRange
from enforcer.policy.ruletable import Entry, IpSet, PortSet, RuleTable
from tests.support.entries import SideMatch, entry_of
from tests.support.ruletables import Packet
from tests.unit.enforcer.backends.xdp_twin import Twin

TCP, UDP, SCTP, ICMP, ICMPV6, GRE = 6, 17, 132, 1, 58, 47
SETS = {"s:four": IpSet("s:four", "", Nets.of(["10.0.0.0/8"])), "s:none": IpSet("s:none", "", Nets())}
PORT_SETS = {
    "n:http": PortSet("n:http", "http", TCP, ((ip_address("192.0.2.1"), 80), (ip_address("2001:db8::1"), 80))),
    "n:none": PortSet("n:none", "none", TCP, ()),
}


def plan_of(
    *entries: Entry, failsafes: tuple[Failsafe, ...] = (), outbound: tuple[Failsafe, ...] = ()
) -> InterfacePlan:
    named = tuple(replace(entry, name=entry.name or f"entry{at}") for at, entry in enumerate(entries))
    table = RuleTable("eth0", "endpoint", named, (), failsafes, outbound, SETS, PORT_SETS)
    return InterfacePlan(table, Mode.NATIVE, Backend.IPTABLES, (), held=XdpRun(table).held())


def dropped_by(plan: InterfacePlan, packet: Packet, *, ipv6: bool = True) -> str | None:
    """The name of the entry that drops a packet."""
    addresses = (packet.source, packet.destination)
    member_of = [frozenset(name for name, nets in atoms(plan).items() if nets.contains(item)) for item in addresses]
    classes = dict(enumerate(dict.fromkeys([frozenset(), *member_of])))
    rows = render(plan, ipv6=ipv6)
    twin = Twin(contents_of(plan, rows, classes, len(classes), receiver=Receiver(bytes(6)), ipv6=ipv6))
    source, destination = (list(classes.values()).index(members) for members in member_of)
    bit = twin.dropped_by(packet, source, destination)
    return None if bit is None else rows.names[bit]


def packet(
    source: str = "10.1.2.3",
    destination: str = "192.0.2.1",
    protocol: int | None = TCP,
    ports: tuple[int, int] | None = (1024, 80),
    icmp: tuple[int, int] | None = None,
) -> Packet:
    return Packet(ip_address(source), ip_address(destination), protocol, ports, icmp)


def packet6(protocol: int | None = TCP, **fields: object) -> Packet:
    return packet("2001:db8::9", "2001:db8::1", protocol, **fields)  # type: ignore[arg-type]  # of several types


def ping(kind: int, code: int = 0) -> Packet:
    return packet(protocol=ICMP, ports=None, icmp=(kind, code))


def nets(*texts: str) -> SideMatch:
    return SideMatch(nets=tuple(map(ip_network, texts)))


def ports(*ranges: tuple[int, int]) -> tuple[PortRange, ...]:
    return tuple(PortRange(first, last) for first, last in ranges)


def deny(name: str = "", action: Action = Action.DENY, **fields: object) -> Entry:
    return entry_of(name, action, **fields)  # type: ignore[arg-type]  # of several types


UNKNOWN = packet6(None, ports=None)
LATER = packet(ports=None)

# An entry that denies, packets that it drops, and packets that pass it.
ONE_ENTRY = [
    pytest.param(deny(), [packet(), packet6(), UNKNOWN, LATER, ping(8)], [], id="no condition: everything"),
    pytest.param(deny(ip_version=4), [packet()], [packet6(), UNKNOWN], id="one family"),
    pytest.param(deny(ip_version=6), [packet6(), UNKNOWN], [packet()], id="the other family"),
    pytest.param(deny(source=nets("10.0.0.0/8")), [packet()], [packet("11.0.0.0"), packet6()], id="source nets"),
    pytest.param(
        deny(source=nets("10.0.0.0/8", "2001:db8::/32")),
        [packet(), packet6()],
        [packet("11.0.0.0")],
        id="both families",
    ),
    pytest.param(
        deny(source=SideMatch(not_nets=(ip_network("10.0.0.0/8"),))),
        [packet("11.0.0.0"), packet("9.255.255.255")],
        [packet("10.255.255.255"), packet6()],
        id="sources outside of nets: none of the other family",
    ),
    pytest.param(deny(source=SideMatch(ip_set="s:four")), [packet()], [packet("11.0.0.0"), packet6()], id="a set"),
    pytest.param(
        deny(source=SideMatch(not_ip_set="s:four")),
        [packet("11.0.0.0"), packet6(), UNKNOWN],
        [packet()],
        id="sources outside of a set: all of the other family",
    ),
    pytest.param(deny(source=SideMatch(ip_set="s:none")), [], [packet(), packet6()], id="an empty set: none"),
    pytest.param(deny(source=SideMatch(not_ip_set="s:none")), [packet(), packet6()], [], id="outside of it: all"),
    pytest.param(
        deny(source=SideMatch(nets=(ip_network("10.1.0.0/16"),), ip_set="s:four")),
        [packet("10.1.0.0")],
        [packet("10.2.0.0")],
        id="nets and a set",
    ),
    pytest.param(
        deny(destination=nets("192.0.2.1/32")), [packet()], [packet(destination="192.0.2.2")], id="destination nets"
    ),
    pytest.param(
        deny(destination=SideMatch(not_ip_set="s:four")),
        [packet()],
        [packet(destination="10.0.0.1")],
        id="destinations outside of a set",
    ),
    pytest.param(deny(protocol=TCP), [packet(), LATER, packet6()], [packet(protocol=UDP), UNKNOWN], id="protocol"),
    pytest.param(deny(protocol=0), [packet(protocol=0, ports=None)], [packet(), UNKNOWN], id="protocol 0 is a number"),
    pytest.param(deny(protocol=255), [packet(protocol=255, ports=None)], [packet()], id="protocol 255"),
    pytest.param(
        deny(not_protocol=TCP), [packet(protocol=UDP), packet(protocol=0)], [packet(), UNKNOWN], id="not a protocol"
    ),
    pytest.param(
        deny(protocol=TCP, destination=SideMatch(ports=ports((80, 80)))),
        [packet(), packet6()],
        [packet(ports=(80, 79)), packet(ports=(80, 81)), packet(protocol=UDP), LATER, UNKNOWN],
        id="destination port",
    ),
    pytest.param(
        deny(protocol=UDP, source=SideMatch(ports=ports((53, 53)))),
        [packet(protocol=UDP, ports=(53, 1))],
        [packet(protocol=UDP, ports=(1, 53)), packet(protocol=UDP, ports=None)],
        id="source port",
    ),
    pytest.param(
        deny(protocol=SCTP, destination=SideMatch(ports=ports((0, 0), (255, 256), (65535, 65535)))),
        [packet(protocol=SCTP, ports=(1, port)) for port in (0, 255, 256, 65535)],
        [packet(protocol=SCTP, ports=(1, port)) for port in (1, 254, 257, 65534)],
        id="the ends of ranges, of pages and of all numbers",
    ),
    pytest.param(
        deny(protocol=TCP, destination=SideMatch(not_ports=ports((1, 65534)))),
        [packet(ports=(1, 0)), packet(ports=(1, 65535))],
        [packet(ports=(1, 1)), packet(ports=(1, 65534)), LATER],
        id="no port of a range",
    ),
    pytest.param(
        deny(protocol=TCP, destination=SideMatch(ports=ports((1, 100)), not_ports=ports((50, 60)))),
        [packet(ports=(1, 49)), packet(ports=(1, 61))],
        [packet(ports=(1, 50)), packet(ports=(1, 60)), packet(ports=(1, 101))],
        id="a range with a hole",
    ),
    pytest.param(
        deny(
            protocol=TCP,
            source=SideMatch(ports=ports((1, 9))),
            destination=SideMatch(not_ports=ports((80, 80))),
        ),
        [packet(ports=(9, 81))],
        [packet(ports=(9, 80)), packet(ports=(10, 81))],
        id="both sides",
    ),
    pytest.param(
        deny(destination=SideMatch(named_ports=("n:http",))),
        [packet(), packet6()],
        [packet(destination="192.0.2.2"), packet(ports=(1, 81)), packet(protocol=UDP), ping(8), LATER, UNKNOWN],
        id="a named port: address, port and protocol",
    ),
    pytest.param(
        deny(source=SideMatch(named_ports=("n:http",))),
        [packet("192.0.2.1", ports=(80, 1))],
        [packet(), packet("192.0.2.1", ports=(1, 80))],
        id="a named port of the source",
    ),
    pytest.param(
        deny(destination=SideMatch(not_named_ports=("n:http",))),
        [packet(destination="192.0.2.2"), packet(ports=(1, 81)), packet(protocol=UDP), ping(8)],
        [packet(), packet6(), LATER, UNKNOWN],
        id="not a named port: holds for what has no ports",
    ),
    pytest.param(deny(destination=SideMatch(named_ports=("n:none",))), [], [packet()], id="a name for nothing"),
    pytest.param(
        deny(destination=SideMatch(not_named_ports=("n:none",))), [packet(), ping(8)], [LATER], id="not for nothing"
    ),
    pytest.param(
        deny(protocol=TCP, destination=SideMatch(ports=ports((22, 22)), named_ports=("n:http",))),
        [packet(), packet(ports=(1, 22)), packet("10.0.0.1", "192.0.2.2", ports=(1, 22))],
        [packet(destination="192.0.2.2"), packet(ports=(1, 23))],
        id="a number or a name",
    ),
    pytest.param(
        deny(protocol=TCP, destination=SideMatch(not_ports=ports((22, 22)), not_named_ports=("n:http",))),
        [packet(destination="192.0.2.2"), packet(ports=(1, 23))],
        [packet(), packet(ports=(1, 22))],
        id="neither a number nor a name",
    ),
    pytest.param(
        deny(protocol=TCP, destination=SideMatch(not_ports=ports((22, 22)), not_named_ports=("n:none",))),
        [packet()],
        [packet(ports=(1, 22))],
        id="neither a number nor a name for nothing",
    ),
    pytest.param(
        deny(protocol=TCP, destination=SideMatch(ports=ports((1, 100)), not_named_ports=("n:http",))),
        [packet(destination="192.0.2.2"), packet(ports=(1, 81))],
        [packet(), packet(ports=(1, 101))],
        id="a number, and not a name",
    ),
    pytest.param(
        deny(protocol=ICMP),
        [ping(8), packet(protocol=ICMP, ports=None), packet6(ICMP, ports=None)],
        [packet(), UNKNOWN],
        id="protocol 1 by number",
    ),
    pytest.param(
        deny(protocol=ICMPV6),
        [packet6(ICMPV6, ports=None), packet(protocol=ICMPV6, ports=None)],
        [packet(), UNKNOWN],
        id="protocol 58 by number",
    ),
    pytest.param(
        deny(protocol=ICMPV6, ip_version=6),
        [packet6(ICMPV6, ports=None)],
        [packet(protocol=ICMPV6, ports=None), UNKNOWN],
        id="ICMPv6 by name",
    ),
    pytest.param(
        deny(protocol=ICMP, icmp=IcmpMatch(8)),
        [ping(8), ping(8, 255)],
        [ping(0), ping(7), ping(9), packet(protocol=ICMP, ports=None)],
        id="ICMP type, any code",
    ),
    pytest.param(
        deny(protocol=ICMP, icmp=IcmpMatch(0, 0)), [ping(0)], [ping(0, 1), ping(1)], id="ICMP type 0 and code 0"
    ),
    pytest.param(
        deny(protocol=ICMP, icmp=IcmpMatch(254, 255)),
        [ping(254, 255)],
        [ping(254, 254), ping(255, 255)],
        id="ICMP type 254 and code 255",
    ),
    pytest.param(
        deny(protocol=ICMPV6, icmp=IcmpMatch(128)),
        [packet6(ICMPV6, ports=None, icmp=(128, 0))],
        [packet6(ICMPV6, ports=None, icmp=(129, 0)), packet6(ICMPV6, ports=None)],
        id="ICMPv6 type",
    ),
    pytest.param(
        deny(protocol=ICMP, not_icmp=IcmpMatch(8)),
        [ping(0), ping(255, 255)],
        [ping(8), ping(8, 1), packet(protocol=ICMP, ports=None)],
        id="not an ICMP type",
    ),
    pytest.param(deny(protocol=ICMP, not_icmp=IcmpMatch(3, 1)), [ping(3), ping(1, 1)], [ping(3, 1)], id="not a code"),
    pytest.param(
        deny(protocol=ICMP, icmp=IcmpMatch(3), not_icmp=IcmpMatch(3, 4)),
        [ping(3, 1)],
        [ping(3, 4), ping(4, 4)],
        id="a type but for a code",
    ),
    pytest.param(
        deny(protocol=ICMP, icmp=IcmpMatch()), [ping(8), packet(protocol=ICMP, ports=None)], [], id="ICMP of any type"
    ),
]


@pytest.mark.parametrize(("entry", "drops", "leaves"), ONE_ENTRY)
def test_one_entry(entry: Entry, drops: list[Packet], leaves: list[Packet]) -> None:
    plan = plan_of(entry)
    for item in drops:
        assert dropped_by(plan, item) == "entry0", item
    for item in leaves:
        assert dropped_by(plan, item) is None, item


BY_PORT = deny("by port", protocol=TCP, destination=SideMatch(ports=ports((80, 80))))
ELSEWHERE_BY_PORT = deny(
    "by port", protocol=TCP, source=nets("11.0.0.0/8"), destination=SideMatch(ports=ports((80, 80)))
)
ALL = deny("all")
ELSEWHERE = deny("elsewhere", source=nets("10.0.0.0/8"))


@pytest.mark.parametrize(
    ("entries", "sent", "name"),
    [
        pytest.param([BY_PORT, ALL], packet(), "by port", id="the first that matches drops"),
        pytest.param([BY_PORT, ALL], packet(ports=(1, 81)), "all", id="the next where it does not"),
        pytest.param([BY_PORT, ALL], LATER, None, id="none after an indeterminate one"),
        pytest.param([BY_PORT, ALL], packet(protocol=UDP, ports=None), "all", id="a known field contradicts it"),
        pytest.param([ELSEWHERE_BY_PORT, ALL], LATER, "all", id="a source contradicts it"),
        pytest.param(
            [ELSEWHERE, BY_PORT], LATER, "elsewhere", id="an indeterminate match after one that matches does not matter"
        ),
        pytest.param([replace(ALL, action=Action.ALLOW), ALL], packet(), None, id="Allow passes"),
        pytest.param([replace(ALL, action=Action.LOG), ALL], packet(), None, id="Log passes, for raw to log"),
        pytest.param([replace(BY_PORT, action=Action.ALLOW), ALL], packet(ports=(1, 2)), "all", id="Allow of others"),
    ],
)
def test_several_entries(entries: list[Entry], sent: Packet, name: str | None) -> None:
    assert dropped_by(plan_of(*entries), sent) == name


def in_tier(tier: str, action: Action, name: str, **fields: object) -> Entry:
    return deny(name, action, tier=tier, **fields)


LEAVE_A = in_tier("a", Action.PASS, "leave a")
LEAVE_UDP = replace(LEAVE_A, conditions=(Protocol(UDP),))
LEAVE_B = in_tier("b", Action.PASS, "leave b")


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        pytest.param([LEAVE_A, in_tier("a", Action.DENY, "x")], None, id="Pass skips the rest of its tier"),
        pytest.param([LEAVE_A, in_tier("b", Action.DENY, "x")], "x", id="and not the next tier"),
        pytest.param(
            [LEAVE_A, in_tier("a", Action.ALLOW, "y"), LEAVE_B, in_tier("b", Action.DENY, "x"), deny("z")],
            "z",
            id="twice",
        ),
        pytest.param(
            [replace(LEAVE_A, conditions=(Protocol(UDP),)), in_tier("a", Action.DENY, "x")], "x", id="Pass of others"
        ),
    ],
)
def test_tiers(entries: list[Entry], name: str | None) -> None:
    assert dropped_by(plan_of(*entries), packet()) == name


@pytest.mark.parametrize("tiers", [1, 15, 16])
def test_a_packet_may_leave_as_many_tiers_as_a_table_can_have_pass_in(tiers: int) -> None:
    entries = [in_tier(f"t{at}", Action.PASS, f"p{at}") for at in range(tiers)]
    assert dropped_by(plan_of(*entries, ALL), packet()) == "all"


SSH = Failsafe(TCP, 22)


@pytest.mark.parametrize(
    ("failsafes", "outbound", "sent", "dropped"),
    [
        pytest.param((SSH,), (), packet(ports=(1, 22)), False, id="to its port"),
        pytest.param((SSH,), (), packet(ports=(1, 23)), True, id="to another port"),
        pytest.param((SSH,), (), packet(ports=(22, 1)), True, id="from its port"),
        pytest.param((SSH,), (), packet(protocol=UDP, ports=(1, 22)), True, id="of another protocol"),
        pytest.param((SSH,), (), LATER, False, id="ports unknown"),
        pytest.param((SSH,), (), UNKNOWN, False, id="protocol unknown"),
        pytest.param((SSH,), (), packet(protocol=UDP, ports=None), True, id="ports of another protocol unknown"),
        pytest.param((SSH, Failsafe(TCP, 80)), (), packet(), False, id="any of several"),
        pytest.param((), (Failsafe(UDP, 53),), packet(protocol=UDP, ports=(53, 9)), False, id="an answer"),
        pytest.param((), (Failsafe(UDP, 53),), packet(protocol=UDP, ports=(9, 53)), True, id="no answer"),
        pytest.param((replace(SSH, net=ip_network("10.0.0.0/8")),), (), packet(ports=(1, 22)), False, id="its net"),
        pytest.param((replace(SSH, net=ip_network("11.0.0.0/8")),), (), packet(ports=(1, 22)), True, id="another net"),
        pytest.param((replace(SSH, net=ip_network("11.0.0.0/8")),), (), LATER, True, id="the net contradicts it"),
        pytest.param((replace(SSH, net=ip_network("10.0.0.0/8")),), (), packet6(ports=(1, 22)), True, id="its family"),
    ],
)
def test_failsafes(
    failsafes: tuple[Failsafe, ...], outbound: tuple[Failsafe, ...], sent: Packet, dropped: bool
) -> None:
    assert (dropped_by(plan_of(ALL, failsafes=failsafes, outbound=outbound), sent) == "all") == dropped


def test_failsafes_of_a_protocol_side_and_net_share_a_bit_without_a_name() -> None:
    inbound = (SSH, Failsafe(TCP, 80), Failsafe(UDP, 68), Failsafe(TCP, 81, ip_network("10.0.0.0/8")))
    assert render(plan_of(ALL, failsafes=inbound, outbound=(SSH,))).names == ("", "", "", "", "all")


def test_ipv6_can_be_left_alone() -> None:
    assert dropped_by(plan_of(ALL), packet6(), ipv6=False) is None
    assert dropped_by(plan_of(ALL), packet(), ipv6=False) == "all"
    rows = struct.unpack("=32Q", address_rows(plan_of(ALL), {0: frozenset()}, ipv6=False))
    assert [any(rows[at : at + 8]) for at in range(0, 32, 8)] == [True, True, False, False]


@pytest.mark.parametrize(("entries", "words"), [(1, 1), (64, 1), (65, 2), (128, 2), (129, 8), (512, 8)])
def test_rows_are_as_long_as_there_are_entries(entries: int, words: int) -> None:
    idle = [deny(f"e{at}", source=nets("192.0.2.0/24")) for at in range(entries - 1)]
    plan = plan_of(*idle, ALL)
    assert render(plan).words == words
    assert dropped_by(plan, packet()) == "all"


@pytest.mark.parametrize(
    ("entry", "needs"),
    [
        pytest.param(ALL, {"drops_unlisted"}, id="nothing"),
        pytest.param(ELSEWHERE, set(), id="listed sources"),
        pytest.param(deny(source=SideMatch(not_ip_set="s:four")), {"drops_unlisted"}, id="unlisted sources"),
        pytest.param(deny(destination=nets("10.0.0.0/8")), {"drops_unlisted", "matches_destination"}, id="destination"),
        pytest.param(
            deny(destination=SideMatch(named_ports=("n:none",))),
            {"drops_unlisted", "matches_named_ports"},
            id="a name",
        ),
    ],
)
def test_the_program_is_told_what_it_need_not_look_at(entry: Entry, needs: set[str]) -> None:
    rows = render(plan_of(entry))
    flags = ("drops_unlisted", "matches_destination", "matches_named_ports", "may_skip")
    assert {flag for flag in flags if getattr(rows, flag)} == needs
    assert render(plan_of(LEAVE_A, entry)).may_skip


def test_pages_and_rows_of_the_same_content_are_stored_once() -> None:
    many = plan_of(*(deny(protocol=TCP, destination=SideMatch(ports=ports((n, n)))) for n in range(0, 65536, 256)))
    found = render(many).ports
    # One page for each high byte of destination ports; a high byte whose low bytes are all equal needs none.
    assert (found.pages.shape, len(found.rows)) == ((256, 256), 1 + 257)
    assert not (render(plan_of(ALL)).ports.directories & NEXT_IS_PAGE).any()


def test_atoms_are_lists_of_nets_by_content_and_sets_by_id() -> None:
    one, other = nets("10.0.0.0/8", "192.0.2.0/24"), nets("192.0.2.0/24", "10.0.0.0/8")
    remote = Failsafe(TCP, 22, ip_network("11.0.0.0/8"))
    plan = plan_of(
        deny(source=one), deny(destination=other), deny(source=SideMatch(not_ip_set="s:four")), failsafes=(remote,)
    )
    assert set(atoms(plan)) == {"n:10.0.0.0/8,192.0.2.0/24", "s:four", "n:11.0.0.0/8"}
    assert atoms(plan)["s:four"] == SETS["s:four"].nets


def test_what_is_not_held_needs_no_rows() -> None:
    plan = replace(plan_of(ALL, deny(source=nets("10.0.0.0/8"))), held=1)
    assert (atoms(plan), render(plan).names) == ({}, ("all",))


def test_rows_of_classes_come_in_the_order_given() -> None:
    plan = plan_of(ELSEWHERE)
    buf = address_rows(plan, {7: frozenset({"n:10.0.0.0/8", "of another interface"}), 0: frozenset()})
    assert [buf[at] for at in (0, 4 * ROW_BYTES)] == [1, 0]


def test_the_largest_policy_renders() -> None:
    """512 entries of 50 ranges of ports each, and 5,000 classes of addresses."""
    entries = [
        deny(
            protocol=TCP,
            source=SideMatch(ip_set="s:four"),
            destination=SideMatch(ports=tuple(PortRange(at + 512 * n, at + 512 * n) for n in range(50))),
        )
        for at in range(512)
    ]
    plan = plan_of(*entries)
    assert plan.held == 512
    render(plan)
    assert len(address_rows(plan, {number: frozenset({"s:four"}) for number in range(5000)})) >= 5000 * ROW_BYTES
