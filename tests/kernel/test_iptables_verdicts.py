"""What the raw table does to packets once the backend has programmed it: verdicts, counters, changes under traffic."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop
from scapy.packet import Packet, Raw

from enforcer.model.vocabulary import Backend, Stage
from enforcer.policy.resources import Failsafe, IcmpMatch
from enforcer.policy.ruletable import Entry
from tests.kernel.iptables_plans import (
    ALLOW,
    DENY,
    DENY_LIST,
    FAILSAFES,
    FROM_LIST,
    LOG,
    PASS,
    dport,
    entry,
    ip_set,
    nets,
    ports,
    source,
    table,
)
from tests.kernel.iptables_support import (
    IPTABLES,
    LISTED,
    LISTED6,
    OTHER,
    OTHER6,
    Wire,
    add_counting_rules,
    cable_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    frames,
    pieces,
    run,
    tcp,
    udp,
    v4,
    v6,
)
from tests.kernel.raw_support import (
    RawDriver,
    raw_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
)
from tests.support.entries import SideMatch

pytestmark = pytest.mark.needs_root


DENY_ALL = entry(0, DENY)
DENIED = {"tail": 0, "mangle": 0, "accepted": 0}  # where a packet that a Deny entry matches is counted
ALLOWED = {"tail": 0, "mangle": 1, "accepted": 1}
FAILSAFE = {"tail": 0, "mangle": 1, "accepted": 0}
FELL_THROUGH = {"tail": 1, "mangle": 1, "accepted": 0}

TIERS = (
    entry(0, PASS, tier="first", source=source(f"{OTHER}/32")),
    entry(1, DENY, tier="first", protocol=17),
    entry(0, DENY, tier="second", policy="next", protocol=17, destination=dport(9)),
    entry(1, ALLOW, tier="second", policy="next", protocol=6),
)
MANY_PORTS = dport(*range(1001, 1081, 2))

VERDICTS = [
    ("a listed source is dropped", [entry(0, DENY, source=FROM_LIST)], v4(LISTED, udp(9)), DENIED),
    ("another source falls through", [entry(0, DENY, source=FROM_LIST)], v4(OTHER, udp(9)), FELL_THROUGH),
    ("a listed IPv6 source is dropped", [entry(0, DENY, source=FROM_LIST)], v6(LISTED6, udp(9)), DENIED),
    ("another IPv6 source falls through", [entry(0, DENY, source=FROM_LIST)], v6(OTHER6, udp(9)), FELL_THROUGH),
    ("Allow marks and does not track", [entry(0, ALLOW)], v4(OTHER, tcp(80)), ALLOWED),
    ("Allow before Deny", [entry(0, ALLOW, protocol=17), entry(1, DENY)], v4(OTHER, udp(9)), ALLOWED),
    ("Deny before Allow", [entry(0, DENY, protocol=17), entry(1, ALLOW)], v4(OTHER, udp(9)), DENIED),
    ("Log goes on", [entry(0, LOG), entry(1, DENY)], v4(OTHER, udp(9)), DENIED),
    ("Pass skips its tier", TIERS, v4(OTHER, udp(10)), FELL_THROUGH),
    ("Pass goes on with the next tier: Deny", TIERS, v4(OTHER, udp(9)), DENIED),
    ("Pass goes on with the next tier: Allow", TIERS, v4(OTHER, tcp(9)), ALLOWED),
    ("no Pass, no next tier", TIERS, v4(LISTED, udp(10)), DENIED),
    ("failsafe port", [DENY_ALL], v4(LISTED, tcp(22)), FAILSAFE),
    ("failsafe port of the other protocol", [DENY_ALL], v4(LISTED, udp(22)), DENIED),
    ("answer to an outbound failsafe", [DENY_ALL], v4(LISTED, udp(40000, sport=53)), FAILSAFE),
    ("answer to no failsafe", [DENY_ALL], v4(LISTED, udp(40000, sport=54)), DENIED),
    ("failsafe port, IPv6", [DENY_ALL], v6(LISTED6, tcp(22)), FAILSAFE),
    ("0.0.0.0/0 is every IPv4 source", [entry(0, DENY, source=source("0.0.0.0/0"))], v4(OTHER, udp(9)), DENIED),
    ("0.0.0.0/0 is no IPv6 source", [entry(0, DENY, source=source("0.0.0.0/0"))], v6(OTHER6, udp(9)), FELL_THROUGH),
    ("/0 among others", [entry(0, DENY, source=source("10.0.0.0/8", "0.0.0.0/0"))], v4("223.1.1.1", udp(9)), DENIED),
    ("::/0 among others", [entry(0, DENY, source=source("fd00::/8", "::/0"))], v6("a001::1", udp(9)), DENIED),
    ("a port of the list", [entry(0, DENY, protocol=6, destination=dport(80, (90, 99)))], v4(OTHER, tcp(99)), DENIED),
    (
        "a port next to the list",
        [entry(0, DENY, protocol=6, destination=dport(80, (90, 99)))],
        v4(OTHER, tcp(100)),
        FELL_THROUGH,
    ),
    ("40 ports: one of them", [entry(0, DENY, protocol=17, destination=MANY_PORTS)], v4(OTHER, udp(1079)), DENIED),
    ("40 ports: none", [entry(0, DENY, protocol=17, destination=MANY_PORTS)], v4(OTHER, udp(1080)), FELL_THROUGH),
    (
        "a negated port",
        [entry(0, DENY, protocol=17, source=SideMatch(not_ports=ports(7)))],
        v4(OTHER, udp(9, sport=7)),
        FELL_THROUGH,
    ),
    (
        "all but a negated port",
        [entry(0, DENY, protocol=17, source=SideMatch(not_ports=ports(7)))],
        v4(OTHER, udp(9, sport=8)),
        DENIED,
    ),
    (
        "a net less a negated net: inside",
        [entry(0, DENY, source=SideMatch(nets=nets("192.0.2.0/24"), not_nets=nets(f"{OTHER}/32")))],
        v4(OTHER, udp(9)),
        FELL_THROUGH,
    ),
    (
        "a net less a negated net: outside",
        [entry(0, DENY, source=SideMatch(nets=nets("192.0.2.0/24"), not_nets=nets(f"{OTHER}/32")))],
        v4("192.0.2.6", udp(9)),
        DENIED,
    ),
    ("protocol 253", [entry(0, DENY, protocol=253)], v4(OTHER, Raw(b"abcd"), proto=253), DENIED),
    ("protocol 254 is not 253", [entry(0, DENY, protocol=253)], v4(OTHER, Raw(b"abcd"), proto=254), FELL_THROUGH),
    ("not TCP: UDP", [entry(0, DENY, not_protocol=6)], v4(OTHER, udp(9)), DENIED),
    ("not TCP: TCP", [entry(0, DENY, not_protocol=6)], v4(OTHER, tcp(9)), FELL_THROUGH),
    ("not TCP: UDP, IPv6", [entry(0, DENY, not_protocol=6)], v6(OTHER6, udp(9)), DENIED),
    ("not TCP: TCP, IPv6", [entry(0, DENY, not_protocol=6)], v6(OTHER6, tcp(9)), FELL_THROUGH),
    (
        "IPv6 extension headers are passed over",
        [entry(0, DENY, protocol=17, destination=dport(9))],
        v6(OTHER6, IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), udp(9)),
        DENIED,
    ),
    ("an ICMP type", [entry(0, DENY, protocol=1, icmp=IcmpMatch(8))], v4(OTHER, ICMP(type=8, code=3)), DENIED),
    ("another ICMP code", [entry(0, DENY, protocol=1, icmp=IcmpMatch(8, 0))], v4(OTHER, ICMP(code=3)), FELL_THROUGH),
    ("an ICMPv6 type", [entry(0, DENY, protocol=58, icmp=IcmpMatch(128, 0))], v6(OTHER6, ICMPv6EchoRequest()), DENIED),
    (
        "a negated ICMPv6 type",
        [entry(0, DENY, protocol=58, not_icmp=IcmpMatch(128))],
        v6(OTHER6, ICMPv6EchoRequest()),
        FELL_THROUGH,
    ),
    (
        "a UDP header too short for ports is dropped by the first rule that matches on them",
        [entry(0, DENY, protocol=6)],
        v4(OTHER, Raw(b"ab"), proto=17),
        DENIED,
    ),
]


@pytest.mark.parametrize(
    ("entries", "packets", "seen"), [row[1:] for row in VERDICTS], ids=[row[0] for row in VERDICTS]
)
def test_verdict(
    raw: RawDriver, cable: Wire, entries: list[Entry], packets: list[Packet], seen: dict[str, int]
) -> None:
    with cable.inside():
        raw.backend.apply(raw.plan(table(*entries, sets=[DENY_LIST], **FAILSAFES)))
        add_counting_rules()
    version = packets[0].version
    cable.send(frames(packets))
    # In nftables, packets that a failsafe accepts and packets that nothing matches leave our chains in the same way.
    places = [where for where in seen if where != "tail" or raw.word is Backend.IPTABLES]
    found = {where: cable.count(version, "raw" if where == "tail" else "mangle", where) for where in places}
    assert found == {where: seen[where] for where in places}


def test_allowed_packets_are_not_tracked_and_others_are(raw: RawDriver, cable: Wire) -> None:
    with cable.inside():
        raw.backend.apply(raw.plan(table(entry(0, ALLOW, protocol=17))))
        add_counting_rules(conntrack=True)
    cable.send(frames(v4(OTHER, udp(9)) + v4(OTHER, tcp(9))))
    assert cable.count(4, "mangle", "mangle") == 2
    assert cable.count(4, "mangle", "untracked") == 1


def test_a_stale_accept_mark_is_cleared(raw: RawDriver, cable: Wire) -> None:
    with cable.inside():
        raw.backend.apply(raw.plan(table(entry(0, DENY, protocol=17))))
        add_counting_rules()
        mark = ("-i", "eth0", "-j", "MARK", "--set-xmark", "0x30000/0x30000")
        run(IPTABLES[4], "-w", "-t", "raw", "-I", "PREROUTING", *mark)
    cable.send(frames(v4(OTHER, tcp(9))))
    assert [cable.count(4, "mangle", where) for where in ("mangle", "accepted")] == [1, 0]


@pytest.mark.parametrize(
    ("conntrack", "match", "dropped"),
    [
        pytest.param(False, {"source": source(OTHER)}, 3, id="whole or not, the source is that of each fragment"),
        pytest.param(False, {"protocol": 17, "destination": dport(9)}, 1, id="only the first fragment has ports"),
        pytest.param(True, {"protocol": 17, "destination": dport(9)}, 1, id="defragmented before raw: one packet"),
        pytest.param(True, {"protocol": 17, "destination": dport(10)}, 0, id="defragmented: another port"),
    ],
)
def test_fragments(raw: RawDriver, cable: Wire, conntrack: bool, match: dict[str, object], dropped: int) -> None:
    with cable.inside():
        raw.backend.apply(raw.plan(table(entry(0, DENY, **match))))
        add_counting_rules(conntrack=conntrack)
    packets = pieces(OTHER, 9)
    assert len(packets) == 3
    cable.send(frames(packets))
    with cable.inside():
        (count,) = raw.backend.counters()
    assert count.packets == dropped
    whole = 1 if conntrack else 3
    assert cable.count(4, "mangle", "mangle") == whole - dropped


def test_other_interfaces_are_not_touched(raw: RawDriver, cable: Wire) -> None:
    with cable.inside():
        raw.backend.apply(raw.plan(table(DENY_ALL, interface="eth1"), table(DENY_ALL, interface="eth")))
        add_counting_rules()
    cable.send(frames(v4(OTHER, udp(9))))
    assert cable.count(4, "mangle", "mangle") == 1


def test_failsafe_nets_are_of_the_other_side_and_of_one_family(raw: RawDriver, cable: Wire) -> None:
    inbound = (Failsafe(6, 22, nets("192.0.2.0/24")[0]),)
    with cable.inside():
        raw.backend.apply(raw.plan(table(DENY_ALL, inbound=inbound)))
        add_counting_rules()
    cable.send(frames(v4(OTHER, tcp(22)) + v4(LISTED, tcp(22))))
    cable.send(frames(v6(OTHER6, tcp(22))))
    assert [cable.count(version, "mangle", "mangle") for version in (4, 6)] == [1, 0]


# --- counters -----------------------------------------------------------------------------------------


def test_counters_are_those_of_entries_both_families_together(raw: RawDriver, cable: Wire) -> None:
    entries = (
        entry(0, LOG, protocol=17),
        entry(1, DENY, source=FROM_LIST),
        entry(2, DENY, protocol=1, icmp=IcmpMatch(8)),
        entry(3, DENY, protocol=58, icmp=IcmpMatch(128)),
        entry(4, ALLOW, protocol=17),
        entry(5, DENY, protocol=17, policy="p" * 253),
    )
    with cable.inside():
        raw.backend.apply(raw.plan(table(*entries, sets=[DENY_LIST])))
    cable.send(frames(v4(LISTED, udp(9)) * 3 + v4(OTHER, udp(9)) + v4(OTHER, ICMP())))
    cable.send(frames(v6(LISTED6, udp(9)) * 2 + v6(OTHER6, ICMPv6EchoRequest())))
    with cable.inside():
        found = raw.backend.counters()
    assert {item.entry: item.packets for item in found} == dict(
        zip([item.name for item in entries], [6, 5, 1, 1, 1, 0], strict=True)
    )
    listed = next(item for item in found if item.entry == entries[1].name)
    assert (listed.interface, listed.stage) == ("eth0", Stage.RAW)
    assert listed.bytes == 3 * 28 + 2 * 48


def test_counters_of_entries_that_stay_survive_changes_around_them(raw: RawDriver, cable: Wire) -> None:
    stays = entry(5, DENY, source=FROM_LIST)
    other_members = ip_set("s:deny", [LISTED, LISTED6, "10.0.0.0/8"])
    with cable.inside():
        raw.backend.apply(
            raw.plan(table(entry(0, DENY, protocol=253), stays, entry(9, DENY, protocol=254), sets=[DENY_LIST]))
        )
    cable.send(frames(v4(LISTED, udp(9)) * 4))
    with cable.inside():
        raw.backend.apply(raw.plan(table(stays, entry(6, DENY, protocol=252), sets=[other_members], **FAILSAFES)))
        before = {item.entry: item.packets for item in raw.backend.counters()}
    cable.send(frames(v4(LISTED, udp(9))))
    with cable.inside():
        after = {item.entry: item.packets for item in raw.backend.counters()}
    assert before == {stays.name: 4, "gnp/edge ingress[6]": 0}
    assert after == {stays.name: 5, "gnp/edge ingress[6]": 0}
