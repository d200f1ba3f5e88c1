"""A full connection tracking table: what the kernel drops and evicts lies within the predicted intervals.

The limit is one for the whole host, so that each test has it lowered for as long as its packets take and no longer.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Interface
from pathlib import Path

import numpy as np
import pytest

from dossim.drill.run import drill_capture
from dossim.drill.situation import situation_for
from dossim.exhaustion.formulas import Burst, burst
from dossim.lab import Lab
from dossim.lab.conntrack_max import SETTING, lowered, why_not_writable
from dossim.lab.lab import PEER_MAC, VICTIM_MAC, WIRE
from dossim.lab.python_iptables import python_iptables
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.packet.parse import internet_checksum
from dossim.predict.prediction import STAGE_CODE
from dossim.report.json import as_dict
from dossim.report.view import view_of
from enforcer.kernel.conntrack import read_conntrack
from enforcer.model.choices import ModeChoice
from enforcer.model.conntrack import ConntrackStatistics
from enforcer.model.vocabulary import Stage
from enforcer.policy.load import load_text

pytestmark = [pytest.mark.needs_root, pytest.mark.alone, pytest.mark.usefixtures("initial_namespace")]

HOST = Host("jasper", addresses=(IPv4Interface("10.10.10.10/32"),))
POLICY = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: production-host, labels: {host: "yes"}}
spec: {node: jasper, interfaceName: eth0, expectedIPs: [10.10.10.10]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: dos-mitigation}
spec:
  selector: has(host)
  doNotTrack: true
  applyOnForward: true
  types: [Ingress]
  ingress:
    - {action: Deny, protocol: UDP, destination: {ports: [9999]}}
"""
DENIED, CLOSED = 9999, 9
BATCH = 200  # less than netdev_max_backlog, beyond which a veth pair loses packets
SNMP = "/proc/thread-self/net/snmp"
DEADLINE_S = 20
SOURCES = 0xC6336400  # 198.51.100.0


@pytest.fixture(scope="module")
def initial_namespace() -> None:
    """Only there the limit can be written. A lab has loaded conntrack by then."""
    with Lab(HOST):
        assert SETTING.exists()
        if why := why_not_writable():
            pytest.skip(why)


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def flow(number: int, port: int) -> bytes:
    """A UDP packet of its own connection; a checksum of 0 is none."""
    source = SOURCES + (number >> 14)
    udp = struct.pack("!HHHH", 1024 + (number & 0x3FFF), port, 8 + 4, 0) + bytes(4)
    header = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(udp), number & 0xFFFF, 0, 64, 17, 0, source, 0x0A0A0A0A)
    header = header[:10] + internet_checksum(header).to_bytes(2, "big") + header[12:]
    return mac(VICTIM_MAC) + mac(PEER_MAC) + b"\x08\x00" + header + udp


def drop_in_input(port: int) -> None:
    """A tracked Deny: filter INPUT, before the rule for established connections."""
    iptc = python_iptables()
    table = iptc.Table(iptc.Table.FILTER)
    table.refresh()
    rule = iptc.Rule()
    rule.protocol = "udp"
    rule.create_match("udp").dport = str(port)
    rule.target = iptc.Target(rule, "DROP")
    iptc.Chain(table, "INPUT").insert_rule(rule)


def denied_so_far(lab: Lab) -> int:
    """Packets that the tracked Deny has dropped."""
    iptc = python_iptables()
    with lab.victim():
        table = iptc.Table(iptc.Table.FILTER)
        table.refresh()
        packets, _ = iptc.Chain(table, "INPUT").rules[0].get_counters()
    return int(packets)


def counts(lab: Lab) -> tuple[ConntrackStatistics, int]:
    found = lab.conntrack().statistics
    assert found is not None, "this kernel shows the counters"
    return found, lab.conntrack_entries()


def decided(lab: Lab) -> int:
    """UDP packets to a closed port that came through conntrack, and packets that it dropped. Its entries do not tell:
    the garbage collector evicts too, and counts that nowhere.
    """
    with lab.victim():
        names, values = (line.split() for line in Path(SNMP).read_text().splitlines() if line.startswith("Udp:"))
    return int(values[names.index("NoPorts")]) + counts(lab)[0].dropped


def send(lab: Lab, frames: Sequence[bytes], done: Callable[[Lab], int] = decided) -> None:
    """Sends them, and waits after each batch until ``done`` counts every flow."""
    before = done(lab)
    with lab.peer():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sender.bind((WIRE, 0))
    with sender:
        for start in range(0, len(frames), BATCH):
            for frame in frames[start : start + BATCH]:
                sender.send(frame)
            wanted, until = before + min(start + BATCH, len(frames)), time.monotonic() + DEADLINE_S
            while (now := done(lab)) != wanted:
                assert time.monotonic() < until, f"{now} of {wanted} flows"


def predicted(limit: int, flows: int) -> Burst:
    facts = read_conntrack()
    assert facts.buckets is not None
    return burst(flows, limit=limit, buckets=facts.buckets, gc_runs=1)


@pytest.mark.parametrize(("limit", "flows"), [(2_048, 12_000), (8_192, 30_000)])
def test_a_full_table_drops_and_evicts_as_many_as_predicted(limit: int, flows: int) -> None:
    frames = [flow(number, CLOSED) for number in range(flows)]
    with Lab(HOST) as lab, lowered(limit):
        send(lab, frames)
        found, entries = counts(lab)
    expected = predicted(limit, flows)
    print(f"max {limit}, {flows} flows: {expected}; {found}, {entries} entries")
    assert expected.over == flows - limit
    assert expected.dropped.low > 0
    assert expected.dropped.high < expected.over
    assert expected.dropped.holds(found.dropped)
    assert expected.evicted.holds(found.early_drop)
    assert expected.entries.holds(entries)


def test_a_drill_at_a_full_table_agrees_within_the_interval_and_untracked_deny_keeps_out_of_it() -> None:
    """Of 12,000 flows the untracked Deny drops every second one before conntrack; 6,000 meet a table of 2,048."""
    limit = 2_048
    frames = [flow(number, (CLOSED, DENIED)[number % 2]) for number in range(12_000)]
    capture = Capture.from_frames(frames)
    situation = situation_for(load_text(POLICY, "policy.yaml"), capture=capture, choice=ModeChoice.RAW)
    with lowered(limit):
        result = drill_capture(capture, situation)
    print(result.full)
    assert result.full is not None
    assert result.full.agrees, result.full
    assert result.full.dropped.low > 0
    assert result.verification.agrees, result.verification.mismatches[:3]
    assert result.verification.stages["raw"].matched == 6_000
    assert result.verification.matched == 6_000 + limit, "until the table is full, every end is determined"
    assert result.verification.undetermined == 6_000 - limit
    assert result.conntrack is not None
    at_conntrack = np.count_nonzero(result.observations.stage == STAGE_CODE[Stage.CONNTRACK])
    assert at_conntrack == result.conntrack.dropped, "each drop was seen where it happened"
    assert f"counted {result.conntrack.dropped:,}" in as_dict(view_of(result))["conntrack_full"]


def test_the_same_flood_in_a_table_with_room_drops_nothing() -> None:
    frames = [flow(number, CLOSED) for number in range(4_000)]
    with Lab(HOST) as lab, lowered(8_192):
        send(lab, frames)
        found, entries = counts(lab)
    assert (found.dropped, found.early_drop, entries) == (0, 0, 4_000)


def test_a_tracked_deny_keeps_its_flows_out_of_a_full_table() -> None:
    """The entry of a denied packet is freed before the next one comes, so that the flood evicts next to nothing."""
    limit = 2_048
    filling = [flow(number, CLOSED) for number in range(limit)]
    denied = [flow(number, DENIED) for number in range(4_000)]
    with Lab(HOST) as lab:
        with lab.victim():
            drop_in_input(DENIED)
        with lowered(limit):
            send(lab, filling)
            full, entries = counts(lab)
            assert (full.dropped, full.early_drop, entries) == (0, 0, limit)
            send(lab, denied, lambda lab: denied_so_far(lab) + counts(lab)[0].dropped)
            after, entries = counts(lab)
    print(f"tracked Deny of {len(denied)} at a full table: {after}, {entries} entries")
    # Until a search finds something to evict, conntrack drops them: with probability exp(-16 max / buckets) each.
    assert after.early_drop <= 16
    assert entries >= limit - 16
    assert after.dropped < 200, "one eviction makes the room that all following flows use in turn"
