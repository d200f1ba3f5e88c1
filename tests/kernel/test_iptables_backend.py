"""The raw-table backend against the kernel: what is programmed, what it does to packets, and what it leaves alone."""

from __future__ import annotations

import fcntl
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from enforcer.backends.iptables import IptablesBackend, Settings, installed_chains, probe
from enforcer.backends.iptables import table as raw_module
from enforcer.backends.iptables.blob import SetIndex, encode
from enforcer.backends.iptables.ipset import ipsets
from enforcer.backends.iptables.members import members_of
from enforcer.backends.iptables.render import render
from enforcer.backends.iptables.rules import Rule, Verdict, save_line
from enforcer.errors import HostError
from enforcer.policy.nets import Nets
from enforcer.policy.resources import DEFAULT_FAILSAFE_INBOUND, DEFAULT_FAILSAFE_OUTBOUND, Failsafe, IcmpMatch
from enforcer.policy.ruletable import AddressMatch, Entry, RuleTable
from enforcer.words import Action, Answer, Direction, Stage
from tests.kernel.iptables_support import (
    IPTABLES,
    PEER_MAC,
    SAVE,
    VICTIM_MAC,
    Wire,
    add_counting_rules,
    dport,
    entered,
    entry,
    ip_set,
    namespace,
    nets,
    plan,
    ports,
    run,
    source,
    table,
    wire,
)

pytestmark = pytest.mark.needs_root

ALLOW, DENY, LOG, PASS = Action.ALLOW, Action.DENY, Action.LOG, Action.PASS
BACKEND = IptablesBackend()

DENY_LIST = ip_set("s:deny", ["203.0.113.0/24", "198.51.100.7", "2001:db8:bad::/48"])
FROM_LIST = AddressMatch(ip_set="s:deny")
FAILSAFES = {"inbound": DEFAULT_FAILSAFE_INBOUND, "outbound": DEFAULT_FAILSAFE_OUTBOUND}

# One of everything a rule can hold.
RICH = table(
    entry(0, LOG, tier="security", protocol=17),
    entry(1, PASS, tier="security", source=source("192.0.2.0/24")),
    entry(2, DENY, tier="security", source=FROM_LIST),
    entry(3, DENY, tier="security", protocol=6, destination=dport(80, (8000, 8080))),
    entry(4, DENY, tier="security", protocol=17, destination=AddressMatch(not_ports=ports(*range(1, 60, 2)))),
    entry(5, DENY, tier="security", protocol=132, source=dport(*range(1, 60, 2))),
    entry(0, ALLOW, source=AddressMatch(nets=nets("10.0.0.0/8"), not_nets=nets("10.1.0.0/16"))),
    entry(1, DENY, source=source("10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0")),
    entry(2, DENY, not_protocol=6, destination=AddressMatch(not_nets=nets("10.0.0.0/8"))),
    entry(3, DENY, not_protocol=6, destination=AddressMatch(not_nets=nets("2001:db8::/32"))),
    entry(4, DENY, protocol=253),
    entry(5, DENY, protocol=1, icmp=IcmpMatch(8, 0)),
    entry(6, DENY, protocol=58, not_icmp=IcmpMatch(128)),
    entry(7, DENY, protocol=136, policy="quo'te\"d-" + "x" * 250),
    egress=(entry(0, DENY, direction=Direction.EGRESS, destination=FROM_LIST),),
    sets=[DENY_LIST],
    **FAILSAFES,
)


@pytest.fixture
def inside() -> Iterator[str]:
    """The test runs in a fresh namespace."""
    with namespace() as name, entered(name):
        yield name


@pytest.fixture
def cable() -> Iterator[Wire]:
    with wire() as found:
        yield found


def saved(version: int, *options: str) -> list[str]:
    """What iptables-save says of raw, without its dates."""
    lines = run(SAVE[version], "-t", "raw", *options).splitlines()
    return [line for line in lines if not line.startswith("#")]


def everything() -> list[str]:
    sets = [line for line in run("ipset", "save").splitlines() if line]
    creates = [line.split(" hashsize")[0] for line in sets if line.startswith("create")]
    return [*saved(4), *saved(6), *sorted(creates), *sorted(line for line in sets if line.startswith("add"))]


# --- what is programmed -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
def test_iptables_save_reads_exactly_what_was_rendered(inside: str, version: int) -> None:
    BACKEND.apply(plan(RICH))
    chains = render(plan(RICH), Settings()).chains[version]
    expected = {save_line(chain.name, rule, version) for chain in chains for rule in chain.rules}
    found = {line for line in saved(version) if line.startswith("-A enf-")}
    assert found == expected
    assert not any("REJECT" in line for line in found)
    assert "-A PREROUTING -j enf-PREROUTING" in saved(version)
    assert "-A OUTPUT -j enf-OUTPUT" in saved(version)


def test_read_back_is_what_was_rendered(inside: str) -> None:
    BACKEND.apply(plan(RICH))
    for version, chains in render(plan(RICH), Settings()).chains.items():
        assert {chain.name: chain for chain in installed_chains(version)} == {chain.name: chain for chain in chains}


def test_applying_again_changes_nothing(inside: str) -> None:
    assert BACKEND.apply(plan(RICH)).changes
    before = everything()
    assert BACKEND.apply(plan(RICH)).changes == ()
    assert everything() == before


def test_a_dry_run_says_what_apply_does_and_does_nothing(inside: str) -> None:
    announced = BACKEND.apply(plan(RICH), dry_run=True)
    assert everything() == ["*raw", ":PREROUTING ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", "COMMIT"] * 2
    assert BACKEND.apply(plan(RICH)) == announced
    other = plan(table(entry(0, DENY, source=FROM_LIST), sets=[ip_set("s:deny", ["10.0.0.0/8"])]))
    before = everything()
    announced = BACKEND.apply(other, dry_run=True)
    assert everything() == before
    assert BACKEND.apply(other) == announced


def test_a_plan_without_entries_makes_no_table(inside: str) -> None:
    assert BACKEND.apply(plan(table(**FAILSAFES))).changes == ()
    assert BACKEND.counters() == ()
    assert BACKEND.detach() == ()
    assert not any(raw_module.exists(version) for version in (4, 6))


@pytest.mark.parametrize("mode", ["insert", "append"])
def test_the_hook_is_where_the_insert_mode_says(inside: str, mode: str) -> None:
    run("iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-p", "tcp")
    backend = IptablesBackend(Settings(insert_mode=mode))
    backend.apply(plan(RICH))
    hooks = [line for line in saved(4) if line.startswith("-A PREROUTING")]
    assert hooks.index("-A PREROUTING -j enf-PREROUTING") == (0 if mode == "insert" else 1)
    assert backend.apply(plan(RICH)).changes == ()


def test_namespaces_of_one_process_are_kept_apart() -> None:
    other = table(entry(0, DENY, protocol=253))
    with namespace() as first, namespace() as second:
        with entered(first):
            BACKEND.apply(plan(RICH))
            alone = everything()
        with entered(second):
            BACKEND.apply(plan(other))
            assert [item.entry for item in BACKEND.counters()] == ["gnp/edge ingress[0]"]
        with entered(first):
            assert everything() == alone
            assert BACKEND.apply(plan(RICH)).changes == ()
            BACKEND.detach()
        with entered(second):
            assert BACKEND.apply(plan(other)).changes == ()


def test_a_thread_acts_in_its_own_namespace(inside: str) -> None:
    with namespace() as other:

        def apply_there() -> None:
            with entered(other):
                BACKEND.apply(plan(RICH))

        thread = threading.Thread(target=apply_there)
        thread.start()
        thread.join()
        assert installed_chains(4) == ()
        with entered(other):
            assert installed_chains(4)


# --- what is left alone -------------------------------------------------------------------------------

FOREIGN = """*raw
:PREROUTING ACCEPT [11:1100]
:OUTPUT ACCEPT [12:1200]
:cali-PREROUTING - [0:0]
:mine - [0:0]
[7:700] -A PREROUTING -j cali-PREROUTING
[8:800] -A PREROUTING -i lo -p tcp -m tcp --dport 22 --tcp-flags SYN,RST SYN -j mine
[9:900] -A OUTPUT -m owner --uid-owner 0 -j RETURN
[1:100] -A cali-PREROUTING -j MARK --set-xmark 0x0/0xffff0000
[2:200] -A mine -m limit --limit 5/min -j ACCEPT
[3:300] -A mine ! -i eth+ -f -j DROP
COMMIT
"""


def test_foreign_rules_keep_their_place_and_their_counters(inside: str) -> None:
    run("iptables-legacy-restore", "-c", text=FOREIGN)
    run("ipset", "create", "mine", "hash:ip")
    before = saved(4, "-c")
    assert before == FOREIGN.splitlines()
    for current in (plan(RICH), plan(table(entry(0, DENY, protocol=253))), plan(RICH)):
        BACKEND.apply(current)
        assert [line for line in saved(4, "-c") if "enf-" not in line] == before
    BACKEND.detach()
    assert saved(4, "-c") == before
    assert run("ipset", "list", "-n").split() == ["mine"]


def test_a_foreign_rule_that_uses_what_is_ours_does_no_harm(inside: str) -> None:
    BACKEND.apply(plan(RICH))
    name = next(item for item in run("ipset", "list", "-n").split() if item.startswith("enf4"))
    run("iptables-legacy", "-t", "raw", "-N", "mine")
    run("iptables-legacy", "-t", "raw", "-A", "mine", "-j", "enf-fh-eth0")
    run("iptables-legacy", "-t", "raw", "-A", "mine", "-m", "set", "--match-set", name, "src", "-j", "RETURN")
    BACKEND.detach()
    assert [line for line in saved(4) if line.startswith("-A")] == [
        "-A mine -j enf-fh-eth0",
        f"-A mine -m set --match-set {name} src -j RETURN",
    ]
    assert run("ipset", "list", "-n").split() == [name]
    assert BACKEND.detach() == ()
    assert BACKEND.apply(plan(RICH)).changes
    assert BACKEND.apply(plan(RICH)).changes == ()


def test_detach_leaves_nothing(inside: str) -> None:
    clean = everything()
    BACKEND.apply(plan(RICH))
    assert BACKEND.detach()
    assert everything() == clean
    assert BACKEND.detach() == ()


def test_detach_of_an_interface_leaves_the_others(inside: str) -> None:
    other_set = ip_set("s:other", ["192.0.2.1"])
    other = table(entry(0, DENY, source=AddressMatch(ip_set="s:other")), interface="eth1", sets=[other_set])
    BACKEND.apply(plan(other))
    alone = everything()
    BACKEND.apply(plan(RICH, other))
    assert everything() != alone
    assert BACKEND.detach(["eth0"])
    assert everything() == alone
    assert BACKEND.detach(["eth0"]) == ()
    assert BACKEND.apply(plan(other)).changes == ()


# --- repair -------------------------------------------------------------------------------------------

SET4, SET6 = (spec.name for spec in render(plan(RICH), Settings()).sets if len(spec.nets) == 3 and not spec.lenient)

HAND_EDITS = {
    "a rule deleted": "iptables-legacy -t raw -D enf-pi-eth0/security 3",
    "a rule added": "iptables-legacy -t raw -I enf-pi-eth0/security 2 -s 10.9.9.9 -j ACCEPT",
    "a rule of an extension we never use": "iptables-legacy -t raw -I enf-fh-eth0 -m ttl --ttl-eq 3 -j ACCEPT",
    "rules out of order": "iptables-legacy -t raw -R enf-fh-eth0 1 -j enf-pi-eth0/security",
    "a chain emptied": "ip6tables-legacy -t raw -F enf-fh-eth0",
    "a chain of ours nobody asked for": "iptables-legacy -t raw -N enf-stray",
    "unhooked": "iptables-legacy -t raw -D PREROUTING -j enf-PREROUTING",
    "hooked twice": "iptables-legacy -t raw -A OUTPUT -j enf-OUTPUT",
    "hooked under a condition": "iptables-legacy -t raw -R PREROUTING 1 -p tcp -j enf-PREROUTING",
    "hooked elsewhere": "iptables-legacy -t raw -A OUTPUT -j enf-fh-eth0",
    "a member removed": f"ipset del {SET4} 203.0.113.0/24",
    "a member added": f"ipset add {SET6} 2001:db8::1",
    "a member excepted": f"ipset add {SET4} 203.0.113.9/32 nomatch",
    "all members removed": f"ipset flush {SET4}",
    "a stray set": "ipset create enf4-stray hash:ip",
    "everything gone": "iptables-legacy -t raw -F",
}


@pytest.mark.parametrize("edit", HAND_EDITS)
def test_a_change_by_hand_is_repaired(inside: str, edit: str) -> None:
    BACKEND.apply(plan(RICH))
    before = everything()
    run(*HAND_EDITS[edit].split())
    assert everything() != before
    assert BACKEND.apply(plan(RICH)).changes
    assert everything() == before
    assert BACKEND.apply(plan(RICH)).changes == ()


def test_a_hook_that_is_no_longer_first_is_moved_back(inside: str) -> None:
    BACKEND.apply(plan(RICH))
    run("iptables-legacy", "-t", "raw", "-I", "PREROUTING", "-j", "ACCEPT")
    assert BACKEND.apply(plan(RICH)).changes == ("raw IPv4: chain PREROUTING: hooked to enf-PREROUTING",)
    hooks = [line for line in saved(4) if line.startswith("-A PREROUTING")]
    assert hooks == ["-A PREROUTING -j enf-PREROUTING", "-A PREROUTING -j ACCEPT"]


@pytest.mark.parametrize(
    "options", ["timeout 1000", "counters", "comment", "maxelem 2"], ids=lambda options: f"made with {options}"
)
def test_a_set_with_other_options_is_rebuilt_under_the_rules_that_use_it(inside: str, options: str) -> None:
    run("ipset", "create", SET4, "hash:net", "family", "inet", *options.split())
    BACKEND.apply(plan(RICH))
    assert f"create {SET4} hash:net family inet" in everything()
    assert BACKEND.apply(plan(RICH)).changes == ()


def test_a_set_of_another_type_is_refused_by_name(inside: str) -> None:
    run("ipset", "create", SET4, "hash:ip")
    with pytest.raises(HostError, match=rf"{SET4} is of type hash:ip.*enforcer detach"):
        BACKEND.apply(plan(RICH))
    BACKEND.detach()
    assert BACKEND.apply(plan(RICH)).changes


def test_a_pass_cut_short_is_finished_by_the_next(inside: str) -> None:
    scratch = f"{SET4[:5]}~{SET4[5:]}"
    run("ipset", "create", scratch, "hash:net")
    run("ipset", "create", SET4, "hash:net", "maxelem", "2")
    BACKEND.apply(plan(RICH))
    assert scratch not in run("ipset", "list", "-n").split()


# --- what happens to packets --------------------------------------------------------------------------

LISTED, OTHER, LISTED6, OTHER6 = "203.0.113.5", "192.0.2.5", "2001:db8:bad::5", "2001:db8::5"


def v4(src: str, *layers: Packet, **fields: object) -> list[Packet]:
    return [_stack(IP(src=src, dst="10.10.10.10", **fields), layers)]


def v6(src: str, *layers: Packet) -> list[Packet]:
    return [_stack(IPv6(src=src, dst="2001:db8:1::10"), layers)]


def _stack(packet: Packet, layers: tuple[Packet, ...]) -> Packet:
    for layer in layers:
        packet = packet / layer
    return packet


def tcp(port: int, sport: int = 40000) -> TCP:
    return TCP(sport=sport, dport=port)


def udp(port: int, sport: int = 40000) -> UDP:
    return UDP(sport=sport, dport=port)


def pieces(src: str, port: int) -> list[Packet]:
    return list(fragment(IP(src=src, dst="10.10.10.10", id=7) / udp(port) / Raw(b"x" * 2000), fragsize=1000))


def frames(packets: list[Packet]) -> list[bytes]:
    return [bytes(Ether(src=PEER_MAC, dst=VICTIM_MAC) / packet) for packet in packets]


DENY_ALL = entry(0, DENY)
DENIED = {"tail": 0, "mangle": 0, "accepted": 0}  # where a packet that a Deny entry matches is seen
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
        "a port beside the list",
        [entry(0, DENY, protocol=6, destination=dport(80, (90, 99)))],
        v4(OTHER, tcp(100)),
        FELL_THROUGH,
    ),
    ("40 ports: one of them", [entry(0, DENY, protocol=17, destination=MANY_PORTS)], v4(OTHER, udp(1079)), DENIED),
    ("40 ports: none", [entry(0, DENY, protocol=17, destination=MANY_PORTS)], v4(OTHER, udp(1080)), FELL_THROUGH),
    (
        "a negated port",
        [entry(0, DENY, protocol=17, source=AddressMatch(not_ports=ports(7)))],
        v4(OTHER, udp(9, sport=7)),
        FELL_THROUGH,
    ),
    (
        "all but a negated port",
        [entry(0, DENY, protocol=17, source=AddressMatch(not_ports=ports(7)))],
        v4(OTHER, udp(9, sport=8)),
        DENIED,
    ),
    (
        "a net less a negated net: inside",
        [entry(0, DENY, source=AddressMatch(nets=nets("192.0.2.0/24"), not_nets=nets(f"{OTHER}/32")))],
        v4(OTHER, udp(9)),
        FELL_THROUGH,
    ),
    (
        "a net less a negated net: outside",
        [entry(0, DENY, source=AddressMatch(nets=nets("192.0.2.0/24"), not_nets=nets(f"{OTHER}/32")))],
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
        "a UDP header too short for ports is dropped by the first rule that asks for them",
        [entry(0, DENY, protocol=6)],
        v4(OTHER, Raw(b"ab"), proto=17),
        DENIED,
    ),
]


@pytest.mark.parametrize(
    ("entries", "packets", "seen"), [row[1:] for row in VERDICTS], ids=[row[0] for row in VERDICTS]
)
def test_verdict(cable: Wire, entries: list[Entry], packets: list[Packet], seen: dict[str, int]) -> None:
    with cable.inside():
        BACKEND.apply(plan(table(*entries, sets=[DENY_LIST], **FAILSAFES)))
        add_counting_rules()
    version = packets[0].version
    cable.send(version, frames(packets))
    assert {where: cable.count(version, "raw" if where == "tail" else "mangle", where) for where in seen} == seen


def test_allowed_packets_are_not_tracked_and_others_are(cable: Wire) -> None:
    with cable.inside():
        BACKEND.apply(plan(table(entry(0, ALLOW, protocol=17))))
        add_counting_rules(conntrack=True)
    cable.send(4, frames(v4(OTHER, udp(9)) + v4(OTHER, tcp(9))))
    assert cable.count(4, "mangle", "mangle") == 2
    assert cable.count(4, "mangle", "untracked") == 1


def test_a_stale_accept_mark_is_cleared(cable: Wire) -> None:
    with cable.inside():
        BACKEND.apply(plan(table(entry(0, DENY, protocol=17))))
        add_counting_rules()
        mark = ("-i", "eth0", "-j", "MARK", "--set-xmark", "0x30000/0x30000")
        run(IPTABLES[4], "-w", "-t", "raw", "-I", "PREROUTING", *mark)
    cable.send(4, frames(v4(OTHER, tcp(9))))
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
def test_fragments(cable: Wire, conntrack: bool, match: dict[str, object], dropped: int) -> None:
    with cable.inside():
        BACKEND.apply(plan(table(entry(0, DENY, **match))))
        add_counting_rules(conntrack=conntrack)
    packets = pieces(OTHER, 9)
    assert len(packets) == 3
    cable.send(4, frames(packets))
    with cable.inside():
        (count,) = BACKEND.counters()
    assert count.packets == dropped
    whole = 1 if conntrack else 3
    assert cable.count(4, "raw", "tail") == whole - dropped


def test_other_interfaces_are_not_touched(cable: Wire) -> None:
    with cable.inside():
        BACKEND.apply(plan(table(DENY_ALL, interface="eth1"), table(DENY_ALL, interface="eth")))
        add_counting_rules()
    cable.send(4, frames(v4(OTHER, udp(9))))
    assert cable.count(4, "raw", "tail") == 1


def test_egress_is_enforced_in_output(cable: Wire) -> None:
    deny = entry(0, DENY, direction=Direction.EGRESS, protocol=17, destination=dport(9))
    with cable.inside():
        run("ip", "addr", "add", "10.10.10.10/24", "dev", "eth0")
        run("ip", "neigh", "add", "10.10.10.1", "lladdr", PEER_MAC, "dev", "eth0", "nud", "permanent")
        BACKEND.apply(plan(table(egress=(deny,), **FAILSAFES)))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            with pytest.raises(PermissionError):  # what a local sender is told of a packet dropped in OUTPUT
                sender.sendto(b"x", ("10.10.10.1", 9))
            for port in (10, 53):
                sender.sendto(b"x", ("10.10.10.1", port))
        (count,) = BACKEND.counters()
        assert (count.entry, count.packets) == (deny.name, 1)
        assert not any(line.startswith("-A PREROUTING") for line in saved(4))


def test_failsafe_nets_are_of_the_other_side_and_of_one_family(cable: Wire) -> None:
    inbound = (Failsafe(6, 22, nets("192.0.2.0/24")[0]),)
    with cable.inside():
        BACKEND.apply(plan(table(DENY_ALL, inbound=inbound)))
        add_counting_rules()
    cable.send(4, frames(v4(OTHER, tcp(22)) + v4(LISTED, tcp(22))))
    cable.send(6, frames(v6(OTHER6, tcp(22))))
    assert [cable.count(version, "mangle", "mangle") for version in (4, 6)] == [1, 0]


# --- counters -----------------------------------------------------------------------------------------


def test_counters_are_those_of_entries_both_families_together(cable: Wire) -> None:
    entries = (
        entry(0, LOG, protocol=17),
        entry(1, DENY, source=FROM_LIST),
        entry(2, DENY, protocol=1, icmp=IcmpMatch(8)),
        entry(3, DENY, protocol=58, icmp=IcmpMatch(128)),
        entry(4, ALLOW, protocol=17),
        entry(5, DENY, protocol=17, policy="p" * 253),
    )
    with cable.inside():
        BACKEND.apply(plan(table(*entries, sets=[DENY_LIST])))
    cable.send(4, frames(v4(LISTED, udp(9)) * 3 + v4(OTHER, udp(9)) + v4(OTHER, ICMP())))
    cable.send(6, frames(v6(LISTED6, udp(9)) * 2 + v6(OTHER6, ICMPv6EchoRequest())))
    with cable.inside():
        found = BACKEND.counters()
    assert {item.entry: item.packets for item in found} == dict(
        zip([item.name for item in entries], [6, 5, 1, 1, 1, 0], strict=True)
    )
    listed = next(item for item in found if item.entry == entries[1].name)
    assert (listed.interface, listed.stage) == ("eth0", Stage.RAW)
    assert listed.bytes == 3 * 28 + 2 * 48


def test_counters_of_entries_that_stay_survive_changes_around_them(cable: Wire) -> None:
    stays = entry(5, DENY, source=FROM_LIST)
    other_members = ip_set("s:deny", [LISTED, LISTED6, "10.0.0.0/8"])
    with cable.inside():
        BACKEND.apply(plan(table(entry(0, DENY, protocol=253), stays, entry(9, DENY, protocol=254), sets=[DENY_LIST])))
    cable.send(4, frames(v4(LISTED, udp(9)) * 4))
    with cable.inside():
        BACKEND.apply(plan(table(stays, entry(6, DENY, protocol=252), sets=[other_members], **FAILSAFES)))
        before = {item.entry: item.packets for item in BACKEND.counters()}
    cable.send(4, frames(v4(LISTED, udp(9))))
    with cable.inside():
        after = {item.entry: item.packets for item in BACKEND.counters()}
    assert before == {stays.name: 4, "gnp/edge ingress[6]": 0}
    assert after == {stays.name: 5, "gnp/edge ingress[6]": 0}


# --- big sets, and changes under fire -----------------------------------------------------------------


def big_nets(count: int) -> Nets:
    """``count`` prefixes of 24 bits, none in 192.0.0.0/8."""
    return Nets(
        (np.arange(count, dtype=np.uint32) << np.uint32(8)) + np.uint32(0x01000000), np.full(count, 24, np.uint8)
    )


def test_a_hundred_thousand_prefixes(cable: Wire) -> None:
    many = ip_set("s:deny", big_nets(100_000))
    wanted = plan(table(entry(0, DENY, source=FROM_LIST), sets=[many]))
    with cable.inside():
        started = time.monotonic()
        BACKEND.apply(wanted)
        applied = time.monotonic()
        assert BACKEND.apply(wanted).changes == ()
        resynced = time.monotonic()
        name = next(spec.name for spec in render(wanted, Settings()).sets if spec.version == 4)
        with ipsets() as sets:
            assert np.array_equal(sets.members(name, 4), members_of(many.nets, 4))
        assert run("ipset", "list", "-t", name).count("Number of entries: 100000") == 1
    cable.send(4, frames(v4("1.0.1.9", udp(9)) + v4(OTHER, udp(9))))
    with cable.inside():
        assert BACKEND.counters()[0].packets == 1
    assert applied - started < 5  # seconds; measured 0.1
    assert resynced - applied < 5


@pytest.mark.parametrize("small", [False, True], ids=["in place", "through a swap"])
def test_what_both_plans_drop_is_dropped_at_every_moment(cable: Wire, small: bool) -> None:
    """The source moves between deny lists and an allow list that comes first, while packets keep coming."""
    kept = [f"10.{high}.{low}.0/24" for high in range(8) for low in range(256)]

    def state(denied_by: str) -> RuleTable:
        rest = {"s:a", "s:b"} - {denied_by}
        sets = [ip_set(denied_by, [LISTED, *kept]), *(ip_set(item, kept) for item in rest)]
        deny = [entry(index, DENY, source=AddressMatch(ip_set=item)) for index, item in enumerate(("s:a", "s:b"))]
        allowed = [LISTED] if denied_by == "s:a" else []
        allow = entry(7, ALLOW, policy="allow", source=AddressMatch(ip_set="s:allow"))
        rules = [deny[0], allow, deny[1]]  # s:a is asked before the allow list, s:b after it
        return table(*rules, sets=[*sets, ip_set("s:allow", allowed)])

    states = [plan(state("s:a")), plan(state("s:b"))]
    with cable.inside():
        BACKEND.apply(states[0])
        add_counting_rules()
    stop = threading.Event()

    def flood() -> None:
        packet = frames(v4(LISTED, udp(9)))
        while not stop.is_set():
            cable._send(packet * 200)

    sender = threading.Thread(target=flood)
    sender.start()
    try:
        with cable.inside():
            for turn in range(1, 21):
                if small:
                    shrink_sets()
                assert BACKEND.apply(states[turn % 2]).changes
    finally:
        stop.set()
        sender.join()
    cable.send(4, [])
    with cable.inside():
        assert sum(item.packets for item in BACKEND.counters()) > 1000
    assert cable.count(4, "mangle", "mangle") == 0


def shrink_sets() -> None:
    """Every set as it is, but with room for no more than its members."""
    for name in run("ipset", "list", "-n").split():
        if not name.startswith("enf4-"):
            continue
        lines = run("ipset", "save", name).replace(f" {name} ", " small ").splitlines()
        size = max(len(lines) - 1, 1)
        create = f"create small hash:net family inet maxelem {size}"
        run("ipset", "restore", text="\n".join([create, *lines[1:], ""]))
        run("ipset", "swap", "small", name)
        run("ipset", "destroy", "small")


# --- the host -----------------------------------------------------------------------------------------


def test_apply_waits_for_the_lock_of_iptables(inside: str) -> None:
    with open("/run/xtables.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=lambda: in_namespace(inside, lambda: BACKEND.apply(plan(RICH))))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert installed_chains(4) == ()
    waiting.join()
    assert installed_chains(4)


def in_namespace(name: str, action: Callable[[], object]) -> None:
    with entered(name):
        action()


def test_a_table_changed_behind_our_back_is_read_again(inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, calls = raw_module.RawTable.commit, list[int]()

    def late_commit(self: raw_module.RawTable) -> None:
        calls.append(self.version)
        if len(calls) == 1:  # a program that does not take the lock comes first
            with raw_module.raw_table(4) as foreign:
                foreign.insert("PREROUTING", 0, encode(Rule(Verdict.RETURN, protocol=6), 4, SetIndex({})))
                commit(foreign)
        commit(self)

    monkeypatch.setattr(raw_module.RawTable, "commit", late_commit)
    BACKEND.apply(plan(RICH))
    assert calls == [4, 4, 6]
    assert "-A PREROUTING -p tcp -j RETURN" in saved(4)
    assert BACKEND.apply(plan(RICH)).changes == ()


def test_probe_says_yes_here(inside: str) -> None:
    assert probe().answer is Answer.YES


UNPRIVILEGED = """
from enforcer.backends.iptables import IptablesBackend, probe
from enforcer.errors import PrivilegeError
print(probe())
try:
    IptablesBackend().detach()
except PrivilegeError as error:
    print(error, error.exit_code)
"""


def test_without_privilege_the_probe_cannot_tell_and_the_error_says_what_is_needed() -> None:
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", UNPRIVILEGED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert "cannot tell" in done.stdout, done.stderr
    assert "CAP_NET_ADMIN" in done.stdout
    assert done.stdout.rstrip().endswith(" 3")
