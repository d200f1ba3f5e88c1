"""What conntrack says of each packet, as the observer reads it at priority -199: each state, in both families.

Rules of nf_tables that match on ``ct state`` right after the observer's checkpoint count the same packets: the kernel's
own reading, which knows nothing of the observer. What the host sends to itself (lo) is not counted.
"""

from __future__ import annotations

import json
import socket
from functools import cache
from ipaddress import ip_interface

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from dossim.lab import Lab
from dossim.model.host import Host, Listener
from dossim.observe import Observations, Observer, abi
from dossim.replay import ScapySender, new_tag
from enforcer.kernel.bpf.btf import enum_values
from enforcer.model.vocabulary import CtState
from tests.kernel.iptables_support import IPTABLES, run
from tests.kernel.observe_support import observe
from tests.support.frames import ME4, ethernet, ipv4

pytestmark = pytest.mark.needs_root

ME = {4: "10.10.10.10", 6: "fd00::10"}
PEER = {4: "203.0.113.7", 6: "2001:db8::7"}
HOST = Host(
    node="jasper",
    addresses=(ip_interface(f"{ME[4]}/24"), ip_interface(f"{ME[6]}/64")),
    listen=(Listener(6, 80), Listener(17, 9)),
)
ASKED = {4: 5004, 6: 5006}  # the port that the host sends from, to port 53 of the peer
NOTRACK = {"iptables": 4791, "nftables": 4792}
ETHER = Ether(dst="06:00:00:00:00:01", src="02:00:00:00:00:00")
NEW, ESTABLISHED, RELATED, INVALID, UNTRACKED = CtState


def header(version: int, *, reverse: bool = False, **fields: object) -> Packet:
    source, destination = (ME, PEER) if reverse else (PEER, ME)
    kind = IP if version == 4 else IPv6
    return kind(src=source[version], dst=destination[version], **fields)


def tcp(version: int, flags: str, *, sport: int = 2000, **fields: object) -> Packet:
    return header(version) / TCP(sport=sport, dport=80, flags=flags, **fields)


def udp(version: int, sport: int, dport: int, *, reverse: bool = False, **fields: object) -> Packet:
    return header(version, reverse=reverse) / UDP(sport=sport, dport=dport, **fields) / Raw(b"data")


def ping(version: int, number: int) -> Packet:
    kind = ICMP if version == 4 else ICMPv6EchoRequest
    return header(version) / kind(id=number, seq=1)


def unreachable(version: int, quoted: Packet) -> Packet:
    kind = ICMP(type=3, code=3) if version == 4 else ICMPv6DestUnreach(code=4)
    return header(version) / kind / quoted


def refused(version: int) -> Packet:
    """Of a version that is neither; it meets no hook."""
    packet = udp(version, 1, 2)
    packet.version = 5
    return packet


def rows(version: int) -> list[tuple[str, Packet, CtState | None, bool]]:
    """Sentence, packet, state, and whether it goes in the reply direction; sent in this order."""
    known, unknown = udp(version, 9, 1024, reverse=True), udp(version, 9, 1999, reverse=True)
    answer = udp(version, 53, ASKED[version])
    found: list[tuple[str, Packet, CtState | None, bool]] = [
        ("a SYN", tcp(version, "S"), NEW, False),
        ("a SYN again, after the SYN+ACK", tcp(version, "S"), ESTABLISHED, False),
        ("an ACK of a connection picked up", tcp(version, "A", sport=2001), NEW, False),
        ("a RST without entry", tcp(version, "R", sport=2002), INVALID, False),
        ("a SYN+ACK without entry", tcp(version, "SA", sport=2003), INVALID, False),
        ("TCP with a bad checksum", tcp(version, "S", sport=2004, chksum=1), INVALID, False),
        ("UDP", udp(version, 1024, 9), NEW, False),
        ("UDP again, without answer", udp(version, 1024, 9), NEW, False),
        ("UDP with a bad checksum", udp(version, 1025, 9, chksum=1), INVALID, False),
        ("a ping", ping(version, 7), NEW, False),
        ("a ping again, after the answer", ping(version, 7), ESTABLISHED, False),
        ("an answer to the host", answer, ESTABLISHED, True),
        ("an ICMP error of a known flow", unreachable(version, known), RELATED, False),
        ("an ICMP error of an unknown flow", unreachable(version, unknown), INVALID, False),
        ("another protocol", header(version, **{"proto" if version == 4 else "nh": 253}) / Raw(b"data"), NEW, False),
        ("NOTRACK of iptables", udp(version, 1026, NOTRACK["iptables"]), UNTRACKED, False),
        ("notrack of nf_tables", udp(version, 1026, NOTRACK["nftables"]), UNTRACKED, False),
        ("no port of a NOTRACK", udp(version, 1026, NOTRACK["nftables"] + 1), NEW, False),
        ("what the header checks refuse", refused(version), None, False),
    ]
    if version == 6:
        solicitation = header(6, hlim=255) / ICMPv6ND_NS(tgt=ME[6])
        found.append(("a neighbour solicitation", solicitation, UNTRACKED, False))
    return found


ROWS = {f"IPv{version}: {row[0]}": row for version in (4, 6) for row in rows(version)}
NUMBER = {sentence: number for number, sentence in enumerate(ROWS)}

CHAINS = f"""
table inet test {{
    {chr(10).join(f"counter {state} {{ }}" for state in CtState)}
    chain first {{
        type filter hook prerouting priority -300; policy accept;
        udp dport {NOTRACK["nftables"]} notrack
    }}
    chain after_conntrack {{
        type filter hook prerouting priority -198; policy accept;
        iifname != {HOST.interface} accept
        {" ".join(f"ct state {str(state).lower()} counter name {state};" for state in CtState)}
    }}
}}
"""


def prepare() -> None:
    """The rules, and a question of the host to the peer over each family."""
    run("nft", "-f", "-", text=CHAINS)
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        notrack = ("-p", "udp", "--dport", str(NOTRACK["iptables"]), "-j", "CT", "--notrack")
        run(IPTABLES[version], "-w", "-t", "raw", "-A", "PREROUTING", *notrack)
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.bind((ME[version], ASKED[version]))
            asking.sendto(b"question", (PEER[version], 53))


def counted_by_rules() -> dict[CtState, int]:
    listed = json.loads(run("nft", "-j", "list", "counters"))["nftables"]
    found = {item["counter"]["name"]: item["counter"]["packets"] for item in listed if "counter" in item}
    return {state: found[str(state)] for state in CtState}


@cache
def seen() -> tuple[Observations, dict[CtState, int]]:
    """All rows in one replay, and the rules' counters after it."""
    counts: dict[CtState, int] = {}
    frames = [bytes(ETHER / packet) for _, packet, _, _ in ROWS.values()]
    observations = observe(HOST, frames, prepare=prepare, afterwards=lambda: counts.update(counted_by_rules()))
    return observations, counts


@pytest.mark.parametrize("sentence", ROWS)
def test_the_state_of_a_packet(sentence: str) -> None:
    observations, _ = seen()
    _, _, state, reply = ROWS[sentence]
    evidence = observations.evidence(NUMBER[sentence])
    assert (evidence.state, evidence.is_reply) == (state, reply), evidence


def test_the_kernels_numbers_are_those_of_the_records() -> None:
    kernel = {name: number for name, number in enum_values("ip_conntrack_info").items() if name != "IP_CT_NUMBER"}
    ours = {
        "IP_CT_ESTABLISHED": abi.CTINFO_ESTABLISHED,
        "IP_CT_RELATED": abi.CTINFO_RELATED,
        "IP_CT_NEW": abi.CTINFO_NEW,
        "IP_CT_ESTABLISHED_REPLY": abi.CTINFO_ESTABLISHED_REPLY,
        "IP_CT_RELATED_REPLY": abi.CTINFO_RELATED_REPLY,
        "IP_CT_UNTRACKED": abi.CTINFO_UNTRACKED,
    }
    assert ours == {name: kernel[name] for name in ours}


def test_rules_that_match_on_the_state_count_the_same() -> None:
    observations, counts = seen()
    states = [observations.ct_state(number) for number in range(len(ROWS))]
    assert {state: states.count(state) for state in CtState} == counts
    assert all(counts.values()), "each state is there"


def test_packets_of_another_drill_are_not_recorded() -> None:
    """They have the same numbers, and a tag that differs in one bit."""
    tag = new_tag()
    frames = [ethernet(ipv4(b"", source="203.0.113.7", destination=ME4, protocol=253), 0x0800)] * 3
    with Lab(HOST) as lab, Observer(len(frames), tag=tag) as observer:
        with lab.victim():
            observer.attach()
        with lab.peer():
            ScapySender(tag=tag ^ 1, seen=lambda number: True).send(frames)
            ScapySender(tag=tag, seen=observer.seen).send(frames[:1])
        lab.drain()
        recorded = observer.journeys["checkpoints"] != 0
    assert recorded.tolist() == [True, False, False]
