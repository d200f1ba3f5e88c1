"""An untracked Allow survives the tables after raw: chains in mangle and filter accept what carries the mark."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from enforcer.backends.iptables import IptablesBackend, IptablesSettings, installed_chains
from enforcer.backends.iptables import table as tables
from enforcer.backends.iptables.rules import TABLES, TableName
from enforcer.model.vocabulary import Direction
from enforcer.policy.ruletable import RuleTable
from tests.kernel.iptables_plans import (
    ALLOW,
    BACKEND,
    DENY,
    DENY_LIST,
    FAILSAFES,
    FROM_LIST,
    LOG,
    PASS,
    dport,
    entry,
    nets,
    plan,
    port_set,
    table,
)
from tests.kernel.iptables_support import (
    IPTABLES,
    PEER,
    VICTIM,
    Wire,
    all_tables,
    cable_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    entered,
    frames,
    inside_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    run,
    saved,
    udp,
)
from tests.support.entries import SideMatch

pytestmark = pytest.mark.needs_root

REFERENCE = Path(__file__).parent / "reference"
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
SO_MARK = 36
MARK = 0x10000

ALLOW_9 = entry(0, ALLOW, protocol=17, destination=dport(9))
ALLOW_9_OUT = entry(0, ALLOW, direction=Direction.EGRESS, protocol=17, destination=dport(9))


def close_firewall(chain: str) -> None:
    """A foreign firewall: it accepts only packets of tracked connections."""
    for version in (4, 6):
        for command in (
            ("-P", chain, "DROP"),
            ("-A", chain, "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"),
            ("-A", chain, "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"),
        ):
            run(IPTABLES[version], "-w", "-t", "filter", *command)


def listener(version: int, port: int) -> socket.socket:
    found = socket.socket(FAMILY[version], socket.SOCK_DGRAM)
    found.bind(("", port))
    found.setblocking(False)
    return found


def arrived(receiver: socket.socket) -> int:
    count = 0
    while True:
        try:
            receiver.recv(100)
        except BlockingIOError:
            return count
        count += 1


def to_victim(version: int, port: int) -> list[Packet]:
    header = IP(src=PEER[4], dst=VICTIM[4]) if version == 4 else IPv6(src=PEER[6], dst=VICTIM[6])
    return [header / udp(port)]


# --- effects ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["insert", "append"])
@pytest.mark.parametrize("version", [4, 6])
def test_what_is_allowed_passes_a_closed_input_and_nothing_else(cable: Wire, version: int, mode: str) -> None:
    cable.address()
    with cable.inside():
        close_firewall("INPUT")
        listeners = [listener(version, port) for port in (9, 10)]
    try:
        packets = frames(to_victim(version, 9) + to_victim(version, 10))
        cable.send(packets)
        assert [arrived(item) for item in listeners] == [0, 0]
        with cable.inside():
            IptablesBackend(IptablesSettings(insert_mode=mode)).apply(plan(table(ALLOW_9, **FAILSAFES)))
        cable.send(packets)
        # After "-j DROP" of everything invalid, an untracked packet still reaches a rule at the end.
        assert [arrived(item) for item in listeners] == [1, 0]
        with cable.inside():
            BACKEND.detach()
        cable.send(packets)
        assert [arrived(item) for item in listeners] == [0, 0]
    finally:
        for item in listeners:
            item.close()


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_allowed_passes_a_closed_output_and_nothing_else(cable: Wire, version: int) -> None:
    cable.address()
    with entered(cable.peer):
        receiver = listener(version, 9)
    with receiver, cable.inside(), socket.socket(FAMILY[version], socket.SOCK_DGRAM) as sender:
        close_firewall("OUTPUT")
        BACKEND.apply(plan(table(egress=(ALLOW_9_OUT,))))
        sender.sendto(b"x", (PEER[version], 9))
        with pytest.raises(PermissionError):
            sender.sendto(b"x", (PEER[version], 10))
        receiver.settimeout(30)
        assert receiver.recv(100) == b"x"
        BACKEND.detach()
        with pytest.raises(PermissionError):
            sender.sendto(b"x", (PEER[version], 9))


def test_a_mark_set_by_others_before_raw_opens_nothing(cable: Wire) -> None:
    """As on an interface without policy, where a packet leaves a tunnel with the mark of the outer packet."""
    cable.address()
    with cable.inside():
        close_firewall("INPUT")
        BACKEND.apply(plan(table(entry(0, ALLOW), interface="eth1")))
        marking = ("-I", "PREROUTING", "-i", "eth0", "-j", "MARK", "--set-xmark", f"{MARK:#x}/{MARK:#x}")
        run(IPTABLES[4], "-w", "-t", "raw", *marking)
        receiver = listener(4, 9)
    with receiver:
        cable.send(frames(to_victim(4, 9)))
        assert arrived(receiver) == 0


def test_a_mark_set_by_a_local_socket_opens_nothing(cable: Wire) -> None:
    cable.address()
    with cable.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        close_firewall("OUTPUT")
        BACKEND.apply(plan(table(egress=(ALLOW_9_OUT,))))
        sender.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
        with pytest.raises(PermissionError):
            sender.sendto(b"x", (PEER[4], 10))


# --- what is programmed -------------------------------------------------------------------------------

WHOLE = table(
    entry(0, LOG, protocol=17, destination=dport(53)),
    entry(1, DENY, source=FROM_LIST),
    entry(2, PASS, tier="security", protocol=1),
    entry(3, DENY, protocol=6, destination=SideMatch(ports=dport(22).ports, named_ports=("n:web",))),
    entry(4, ALLOW, destination=SideMatch(named_ports=("n:web",))),
    egress=(ALLOW_9_OUT, entry(1, DENY, direction=Direction.EGRESS, destination=SideMatch(not_ip_set="s:deny"))),
    sets=[DENY_LIST],
    port_sets=[port_set("web", ("10.10.10.10", 80), ("2001:db8:1::10", 80))],
    **FAILSAFES,
)
INGRESS_ONLY = table(ALLOW_9)
EGRESS_ONLY = table(entry(0, DENY, protocol=253), egress=(ALLOW_9_OUT,))
ONE_FAMILY = table(entry(0, ALLOW, source=SideMatch(nets=nets("10.0.0.0/8"))), entry(1, DENY, protocol=253))
NO_ALLOW = table(entry(0, DENY, protocol=253), egress=(entry(0, DENY, direction=Direction.EGRESS, protocol=253),))


def test_all_tables_as_reviewed(inside: str) -> None:
    """``UPDATE_REFERENCE=1 pytest ...`` rewrites the file; review the diff before committing it."""
    BACKEND.apply(plan(WHOLE))
    text = "\n".join([*map(_without_counters, all_tables()), ""])
    path = REFERENCE / "iptables-tables.txt"
    if os.environ.get("UPDATE_REFERENCE"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def _without_counters(line: str) -> str:
    return line.split(" [")[0] if line.startswith(":") else line


def tables_there() -> set[str]:
    return {str(item) for item in TABLES if tables.exists(item)}


@pytest.mark.parametrize(
    ("wanted", "there", "accepting"),
    [
        (NO_ALLOW, {"raw IPv4", "raw IPv6"}, []),
        (INGRESS_ONLY, {str(item) for item in TABLES}, ["enf-PREROUTING", "enf-INPUT"]),
        (EGRESS_ONLY, {str(item) for item in TABLES if item.name is not TableName.MANGLE}, ["enf-OUTPUT"]),
        (
            ONE_FAMILY,
            {str(item) for item in TABLES if item.version == 4} | {"raw IPv6"},
            ["enf-PREROUTING", "enf-INPUT"],
        ),
    ],
    ids=["no Allow", "ingress", "egress", "of IPv4 only"],
)
def test_tables_are_made_only_for_what_goes_into_them(
    inside: str, wanted: RuleTable, there: set[str], accepting: Sequence[str]
) -> None:
    assert BACKEND.apply(plan(wanted), dry_run=True).changes
    assert tables_there() == set()
    announced = BACKEND.apply(plan(wanted), dry_run=True)
    assert BACKEND.apply(plan(wanted)) == announced
    assert tables_there() == there
    behind = [chain.name for name in (TableName.MANGLE, TableName.FILTER) for chain in installed_chains(4, name)]
    assert behind == accepting
    assert BACKEND.apply(plan(wanted)).changes == ()
    BACKEND.detach()
    assert tables_there() == there
    assert not [line for line in all_tables() if "enf-" in line]


@pytest.mark.parametrize("name", [TableName.MANGLE, TableName.FILTER], ids=str)
def test_a_table_told_to_return_has_no_chain_of_ours(inside: str, name: TableName) -> None:
    both = plan(table(ALLOW_9, egress=(ALLOW_9_OUT,)))
    every = frozenset({TableName.MANGLE, TableName.FILTER})
    IptablesBackend(IptablesSettings()).apply(both)
    assert installed_chains(4, name)
    returning = IptablesBackend(IptablesSettings(accepting=every - {name}))
    assert returning.apply(both).changes
    assert not installed_chains(4, name)
    assert all(installed_chains(4, other) for other in every - {name})
    assert not returning.apply(both).changes


def test_forward_is_left_alone(inside: str) -> None:
    BACKEND.apply(plan(WHOLE))
    assert not [line for line in all_tables() if "FORWARD" in line and line.startswith("-A")]


FOREIGN = """*mangle
:PREROUTING DROP [11:1100]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
[1:100] -A PREROUTING -p tcp -m tcp --tcp-flags SYN,RST SYN -j MARK --set-xmark 0x1/0xffffffff
[2:200] -A POSTROUTING -p udp -m udp --dport 68 -j RETURN
COMMIT
*filter
:INPUT DROP [21:2100]
:FORWARD DROP [22:2200]
:OUTPUT DROP [23:2300]
:mine - [0:0]
[3:300] -A INPUT -m conntrack --ctstate INVALID -j DROP
[4:400] -A INPUT -i lo -j ACCEPT
[5:500] -A FORWARD -m limit --limit 5/min -j LOG
[6:600] -A OUTPUT -m owner --uid-owner 0 -j mine
[7:700] -A mine -j REJECT --reject-with icmp-port-unreachable
COMMIT
"""


@pytest.mark.parametrize("mode", ["insert", "append"])
def test_foreign_rules_and_policies_stay_as_they_are(inside: str, mode: str) -> None:
    run("iptables-legacy-restore", "-c", text=FOREIGN)
    before = {name: saved(4, "-c", table=name) for name in ("mangle", "filter")}
    backend = IptablesBackend(IptablesSettings(insert_mode=mode))
    for wanted in (WHOLE, INGRESS_ONLY, EGRESS_ONLY, NO_ALLOW, WHOLE):
        backend.apply(plan(wanted))
        for name, lines in before.items():
            assert [line for line in saved(4, "-c", table=name) if "enf-" not in line] == lines
    hooks = [line for line in saved(4, table="filter") if line.startswith("-A INPUT")]
    assert hooks.index("-A INPUT -j enf-INPUT") == (0 if mode == "insert" else 2)
    assert backend.apply(plan(WHOLE)).changes == ()
    backend.detach()
    assert {name: saved(4, "-c", table=name) for name in before} == before


# --- order --------------------------------------------------------------------------------------------


def test_what_accepts_the_mark_is_there_before_it_is_set_and_goes_after(
    inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, committed = tables.KernelTable.commit, list[str]()

    def recorded(self: tables.KernelTable) -> None:
        committed.append(str(self.id))
        commit(self)

    monkeypatch.setattr(tables.KernelTable, "commit", recorded)
    raw, behind = ["raw IPv4", "raw IPv6"], ["filter IPv4", "mangle IPv4", "filter IPv6", "mangle IPv6"]
    BACKEND.apply(plan(INGRESS_ONLY))
    assert committed == behind + raw
    committed.clear()
    BACKEND.apply(plan(NO_ALLOW))
    assert committed == raw + behind
    BACKEND.apply(plan(INGRESS_ONLY))
    committed.clear()
    BACKEND.detach()
    assert committed == raw + behind


def test_detach_of_an_interface_leaves_what_the_others_need(inside: str) -> None:
    other = table(ALLOW_9, interface="eth1")
    BACKEND.apply(plan(other))
    alone = all_tables()
    BACKEND.apply(plan(WHOLE, other))
    BACKEND.detach(["eth0"])
    assert all_tables() == alone
    BACKEND.detach(["eth1"])
    assert not [line for line in all_tables() if "enf-" in line]
    BACKEND.apply(plan(table(entry(0, DENY), interface="eth1"), INGRESS_ONLY))
    BACKEND.detach(["eth0"])
    assert [chain.name for name in TableName for chain in installed_chains(4, name)] == [
        "enf-PREROUTING",
        "enf-fh-eth1",
        "enf-pi-eth1/default",
    ]
