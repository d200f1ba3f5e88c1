"""Named ports in raw: which packets match a set of addresses and ports, and that a packet counts once."""

from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from enforcer.model.vocabulary import Action, Backend
from enforcer.planning.plan import Plan
from enforcer.policy.ruletable import Entry
from tests.kernel.iptables_plans import (
    ALLOW,
    DENY,
    LOG,
    PASS,
    entry,
    port_set,
    ports,
    source,
    table,
)
from tests.kernel.iptables_support import (
    OTHER,
    OTHER6,
    Wire,
    add_counting_rules,
    cable_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    frames,
    inside_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
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

VICTIM, VICTIM6 = "10.10.10.10", "2001:db8:1::10"
PORT_SETS = (
    port_set("web", (VICTIM, 80), (VICTIM6, 80)),
    port_set("admin", (VICTIM, 8443)),
    port_set("elsewhere", ("10.10.10.11", 80), ("2001:db8:1::11", 80)),
    port_set("dns", (VICTIM, 53), protocol=17),
    port_set("sigtran", (VICTIM, 2905), protocol=132),
    port_set("client", (OTHER, 40000), (OTHER6, 40000)),
    port_set("nobody"),
)


def named(*names: str) -> SideMatch:
    return SideMatch(named_ports=tuple(f"n:{name}" for name in names))


def not_named(*names: str) -> SideMatch:
    return SideMatch(not_named_ports=tuple(f"n:{name}" for name in names))


def begin_of(header: Packet, length: int, protocol: int) -> list[Packet]:
    """An IPv4 packet that ends inside its transport header."""
    return v4(OTHER, Raw(bytes(header)[:length]), proto=protocol)


def sctp(port: int, length: int = 12) -> list[Packet]:
    return v4(OTHER, Raw(struct.pack("!HHII", 40000, port, 0, 0)[:length]), proto=132)


WEB = entry(0, DENY, destination=named("web"))
WEB_FROM_TEN = entry(0, DENY, source=source("10.0.0.0/8"), destination=named("web"))
NOT_WEB = entry(0, DENY, destination=not_named("web"))
WEB_OR_22 = entry(0, DENY, protocol=6, destination=SideMatch(ports=ports(22), named_ports=("n:web",)))
NEITHER = entry(0, DENY, protocol=6, destination=SideMatch(not_ports=ports(22), not_named_ports=("n:web",)))
DNS_OR_9 = entry(0, DENY, protocol=17, destination=SideMatch(ports=ports(9), named_ports=("n:dns",)))
CLIENT_TO_22 = entry(0, DENY, protocol=6, source=named("client"), destination=SideMatch(ports=ports(22)))
LATER = v4(OTHER, Raw(b"x" * 16), proto=6, frag=10)
LATER6 = v6(OTHER6, IPv6ExtHdrFragment(offset=5, nh=6), Raw(b"x" * 16))

# (matched by the entry, passed on to the rules after ours); neither: dropped by multiport, by no entry
MATCHED, NOT_MATCHED, HOTDROPPED = (1, 0), (0, 1), (0, 0)

ROWS = [
    ("its address, protocol and port", WEB, v4(OTHER, tcp(80)), MATCHED),
    ("another port", WEB, v4(OTHER, tcp(81)), NOT_MATCHED),
    ("the port of another protocol", WEB, v4(OTHER, udp(80)), NOT_MATCHED),
    ("the port at another address", entry(0, DENY, destination=named("elsewhere")), v4(OTHER, tcp(80)), NOT_MATCHED),
    ("IPv6", WEB, v6(OTHER6, tcp(80)), MATCHED),
    ("IPv6, another port", WEB, v6(OTHER6, tcp(81)), NOT_MATCHED),
    ("IPv6, after extension headers", WEB, v6(OTHER6, IPv6ExtHdrDestOpt(), tcp(80)), MATCHED),
    ("IPv6, the set has IPv4 members only", entry(0, DENY, destination=named("admin")), v6(OTHER6, tcp(8443)), (0, 1)),
    ("UDP", entry(0, DENY, destination=named("dns")), v4(OTHER, udp(53)), MATCHED),
    ("SCTP", entry(0, DENY, destination=named("sigtran")), sctp(2905), MATCHED),
    ("a source", entry(0, DENY, source=named("client")), v4(OTHER, tcp(7)), MATCHED),
    ("a source, not the destination", entry(0, DENY, source=named("web")), v4(OTHER, tcp(80)), NOT_MATCHED),
    ("both sides", entry(0, DENY, source=named("client"), destination=named("web")), v4(OTHER, tcp(80)), MATCHED),
    ("both sides, one not", entry(0, DENY, source=named("web"), destination=named("web")), v4(OTHER, tcp(80)), (0, 1)),
    ("one of several", entry(0, DENY, destination=named("web", "admin")), v4(OTHER, tcp(8443)), MATCHED),
    ("none of several", entry(0, DENY, destination=named("web", "admin")), v4(OTHER, tcp(443)), NOT_MATCHED),
    ("a name that stands for nothing", entry(0, DENY, destination=named("nobody")), v4(OTHER, tcp(80)), NOT_MATCHED),
    ("not that which stands for nothing", entry(0, DENY, destination=not_named("nobody")), v4(OTHER, ICMP()), MATCHED),
    ("another source", WEB_FROM_TEN, v4(OTHER, tcp(80)), NOT_MATCHED),
    ("negated: it", NOT_WEB, v4(OTHER, tcp(80)), NOT_MATCHED),
    ("negated: another port", NOT_WEB, v4(OTHER, tcp(81)), MATCHED),
    ("negated: a protocol without ports", NOT_WEB, v4(OTHER, ICMP()), MATCHED),
    ("by number", WEB_OR_22, v4(OTHER, tcp(22)), MATCHED),
    ("by name", WEB_OR_22, v4(OTHER, tcp(80)), MATCHED),
    ("by neither", WEB_OR_22, v4(OTHER, tcp(81)), NOT_MATCHED),
    ("IPv6: by name", WEB_OR_22, v6(OTHER6, tcp(80)), MATCHED),
    ("neither: the number", NEITHER, v4(OTHER, tcp(22)), NOT_MATCHED),
    ("neither: the name", NEITHER, v4(OTHER, tcp(80)), NOT_MATCHED),
    ("neither: another", NEITHER, v4(OTHER, tcp(81)), MATCHED),
    # Short packets. With names only: no port, so in no set.
    ("TCP of 19 bytes is in no set", WEB, begin_of(tcp(80), 19, 6), NOT_MATCHED),
    ("TCP of 20 bytes is", WEB, begin_of(tcp(80), 20, 6), MATCHED),
    ("TCP of 3 bytes is in no set", WEB, begin_of(tcp(80), 3, 6), NOT_MATCHED),
    ("TCP of 19 bytes, negated", NOT_WEB, begin_of(tcp(80), 19, 6), MATCHED),
    ("TCP of 3 bytes, negated", NOT_WEB, begin_of(tcp(80), 3, 6), MATCHED),
    ("UDP of 7 bytes is in no set", entry(0, DENY, destination=named("dns")), begin_of(udp(53), 7, 17), NOT_MATCHED),
    ("UDP of 8 bytes is", entry(0, DENY, destination=named("dns")), begin_of(udp(53), 8, 17), MATCHED),
    ("SCTP of 11 bytes is in no set", entry(0, DENY, destination=named("sigtran")), sctp(2905, 11), NOT_MATCHED),
    ("a later fragment is in no set", WEB, LATER, NOT_MATCHED),
    ("a later fragment, negated", NOT_WEB, LATER, MATCHED),
    ("a later IPv6 fragment is in no set", WEB, LATER6, NOT_MATCHED),
    ("a later IPv6 fragment, negated", NOT_WEB, LATER6, MATCHED),
    # With a number anywhere in the entry, multiport is evaluated first.
    ("number or name: TCP of 3 bytes", WEB_OR_22, begin_of(tcp(80), 3, 6), HOTDROPPED),
    ("number or name: TCP of 4 bytes, the number", WEB_OR_22, begin_of(tcp(22), 4, 6), MATCHED),
    ("number or name: TCP of 4 bytes, the name", WEB_OR_22, begin_of(tcp(80), 4, 6), NOT_MATCHED),
    ("number or name: TCP of 19 bytes, the name", WEB_OR_22, begin_of(tcp(80), 19, 6), NOT_MATCHED),
    ("number or name: UDP of 3 bytes", DNS_OR_9, begin_of(udp(53), 3, 17), HOTDROPPED),
    ("number or name: UDP of 7 bytes, the name", DNS_OR_9, begin_of(udp(53), 7, 17), NOT_MATCHED),
    ("number or name: UDP of 7 bytes, the number", DNS_OR_9, begin_of(udp(9), 7, 17), MATCHED),
    ("number or name: another protocol of 3 bytes", WEB_OR_22, begin_of(udp(80), 3, 17), NOT_MATCHED),
    ("number or name: a later fragment", WEB_OR_22, LATER, NOT_MATCHED),
    ("neither: TCP of 3 bytes", NEITHER, begin_of(tcp(80), 3, 6), HOTDROPPED),
    ("neither: TCP of 4 bytes, the number", NEITHER, begin_of(tcp(22), 4, 6), NOT_MATCHED),
    ("neither: TCP of 4 bytes, the name", NEITHER, begin_of(tcp(80), 4, 6), MATCHED),
    ("neither: a later fragment", NEITHER, LATER, NOT_MATCHED),
    ("neither: a later IPv6 fragment", NEITHER, LATER6, NOT_MATCHED),
    ("a number at the other side: TCP of 3 bytes", CLIENT_TO_22, begin_of(tcp(22), 3, 6), HOTDROPPED),
    ("a number at the other side: TCP of 19 bytes", CLIENT_TO_22, begin_of(tcp(22), 19, 6), NOT_MATCHED),
]  # fmt: skip


@pytest.mark.parametrize(("item", "packets", "seen"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_named_port(raw: RawDriver, cable: Wire, item: Entry, packets: list[Packet], seen: tuple[int, int]) -> None:
    with cable.inside():
        raw.backend.apply(raw.plan(table(item, port_sets=PORT_SETS)))
        add_counting_rules()
    version = packets[0].version
    cable.send(frames(packets))
    with cable.inside():
        (count,) = raw.backend.counters()
    assert (count.packets, cable.count(version, "mangle", "mangle")) == seen


BOTH_WAYS = {
    "protocol": 6,
    "source": SideMatch(ports=ports((1, 100)), named_ports=("n:client",)),
    "destination": SideMatch(ports=ports(22, 80), named_ports=("n:web", "n:admin")),
}


@pytest.mark.parametrize("action", [LOG, PASS, ALLOW, DENY])
def test_a_packet_counts_once_whichever_of_number_and_name_it_matches(
    raw: RawDriver, cable: Wire, action: Action
) -> None:
    with cable.inside():
        raw.backend.apply(raw.plan(table(entry(0, action, **BOTH_WAYS), port_sets=PORT_SETS)))
    matching = [(22, 7), (22, 40000), (80, 7), (80, 40000), (8443, 7), (8443, 40000)]  # 80 is both number and name
    others = [(22, 101), (81, 7), (8444, 40000)]
    cable.send(frames([packet for dst, src in matching + others for packet in v4(OTHER, tcp(dst, sport=src))]))
    with cable.inside():
        assert [(item.entry, item.packets) for item in raw.backend.counters()] == [
            ("gnp/edge ingress[0]", len(matching))
        ]


# --- members ------------------------------------------------------------------------------------------


def web_at(raw: RawDriver, *members: tuple[str, int]) -> Plan:
    return raw.plan(table(WEB, entry(1, ALLOW, destination=named("web")), port_sets=[port_set("web", *members)]))


def test_other_members_are_another_set_of_members_under_the_same_rules(raw: RawDriver, inside: str) -> None:
    before, after = [(VICTIM, 80), (VICTIM6, 80)], [(VICTIM, 80), (VICTIM, 81)]
    raw.backend.apply(web_at(raw, *before))
    announced = raw.backend.apply(web_at(raw, *after), dry_run=True).changes
    assert raw.backend.apply(web_at(raw, *after)).changes == announced
    # One member more and one less, in the set of Deny and in that of Allow.
    assert len(announced) == 4
    assert all("set enf" in change for change in announced)
    assert raw.backend.apply(web_at(raw, *after)).changes == ()
    member = {Backend.IPTABLES: "10.10.10.10,tcp:81", Backend.NFTABLES: '["10.10.10.10", "tcp", 81]'}[raw.word]
    assert " ".join(raw.everything()).count(member) == 2
    assert raw.backend.detach()
    assert not any("enf" in line for line in raw.everything())


def test_a_thousand_pairs_of_each_protocol_and_family(raw: RawDriver, inside: str) -> None:
    members = [
        (f"{net}{host}", port) for net in ("10.0.0.", "2001:db8::") for host in range(100) for port in range(1, 11)
    ]
    wanted = raw.plan(table(WEB, port_sets=[port_set("web", *members)]))
    changes = raw.backend.apply(wanted).changes
    assert sum("created with 1000 members" in change for change in changes) == 2
    assert raw.backend.apply(wanted).changes == ()


HAND_EDITS = {
    "a member removed": ("ipset del {} 10.10.10.10,tcp:80", "delete element ip enforcer {} { 10.10.10.10 . tcp . 80 }"),
    "a member added": ("ipset add {} 10.10.10.10,udp:80", "add element ip enforcer {} { 10.10.10.10 . udp . 80 }"),
    "all members removed": ("ipset flush {}", "flush set ip enforcer {}"),
}


@pytest.mark.parametrize("edit", HAND_EDITS)
def test_a_change_by_hand_is_repaired(raw: RawDriver, inside: str, edit: str) -> None:
    wanted = raw.plan(table(WEB, port_sets=PORT_SETS))
    raw.backend.apply(wanted)
    before = raw.everything()
    words = (word.rstrip(":") for line in before for word in line.split())
    name = next(word for word in words if word.startswith("enf4"))
    ipset, nft = (command.replace("{}", name, 1) for command in HAND_EDITS[edit])
    run(*ipset.split()) if raw.word is Backend.IPTABLES else run("nft", "-f", "-", text=nft)
    assert raw.everything() != before
    assert raw.backend.apply(wanted).changes
    assert raw.everything() == before
