"""Drills of cut captures, of frames that no device sends, and of every protocol: all are counted, none wrongly."""

from __future__ import annotations

import json
import random
from ipaddress import ip_interface
from itertools import product
from pathlib import Path

import pytest
from click.testing import CliRunner

from dossim.cli import main
from dossim.drill.judged import every
from dossim.drill.results import DrillResult
from dossim.drill.run import drill_capture
from dossim.drill.situation import Situation
from dossim.model.disposition import Fate
from dossim.model.host import Host, Listener
from dossim.packet.capture import Capture
from enforcer.model.choices import ModeChoice
from enforcer.policy.load import load_text
from enforcer.policy.resources import Resources
from tests.support.cut_captures import cut_at, random_cuts
from tests.support.frames import ME4, ME6, ethernet, ipv4, ipv6, segment
from tests.support.odd_frames import frames

pytestmark = pytest.mark.needs_root

MODES = (ModeChoice.NATIVE, ModeChoice.GENERIC, ModeChoice.RAW)
ATTACKER, INNOCENT = "203.0.113.7", "198.51.100.9"
HOST = Host(
    node="jasper",
    addresses=(ip_interface(f"{ME4}/24"), ip_interface(f"{ME6}/64")),
    listen=(Listener(6, 80), Listener(17, 9)),
)
POLICY = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: eth0, labels: {edge: "true"}}
spec: {node: jasper, interfaceName: eth0, expectedIPs: ["10.10.10.10", "fd00::10"]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: edge}
spec:
  selector: "all()"
  doNotTrack: true
  applyOnForward: true
  types: [Ingress]
  ingress: [%s]
"""
DENY_ATTACKER = '{action: Deny, source: {nets: ["203.0.113.0/24"]}}'


def policy(rule: str = DENY_ATTACKER) -> Resources:
    return load_text(POLICY % rule)


def four(payload: bytes, protocol: int, source: str = INNOCENT) -> bytes:
    return ethernet(ipv4(payload, source=source, destination=ME4, protocol=protocol), 0x0800)


def tcp(source: str) -> bytes:
    return four(segment(6, source, ME4, (40000, 80), b"x" * 400), 6, source)


def counts(result: DrillResult) -> dict[str, int]:
    found = result.verification
    names = ("matched", "mismatched", "unobserved", "undetermined", "not_sendable")
    said = {name: getattr(found, name) for name in names}
    assert sum(said.values()) == found.packets
    shown = [f"{item.packet}: {item.predicted}; {item.observed}: {item.evidence}" for item in found.mismatches]
    assert not shown, "\n".join(shown)
    return {name: count for name, count in said.items() if count}


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_what_a_cut_capture_decides_is_drilled_and_the_rest_is_said(mode: ModeChoice) -> None:
    """Cut at 96 bytes: the attacker is denied; whether the other packet's checksum was right is undetermined."""
    whole = [tcp(ATTACKER), tcp(INNOCENT), four(b"x" * 400, 253)]
    capture = cut_at(whole, [96] * 3)
    result = drill_capture(capture, Situation(policy(), HOST, mode))
    assert counts(result) == {"matched": 2, "undetermined": 1}
    assert [result.prediction.disposition(number).fate for number in range(3)] == [
        Fate.DROPPED,
        Fate.UNDETERMINED,
        Fate.DELIVERED,
    ]
    assert result.verification.agrees
    assert any("zeros for the missing bytes" in sentence for sentence in result.about)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_random_cut_frames(mode: ModeChoice) -> None:
    """The prediction for a cut packet holds on the kernel for the frame that is sent in its place."""
    whole = frames(20261128, 600)
    capture = cut_at(whole, random_cuts(whole, random.Random(7)))
    found = counts(drill_capture(capture, Situation(policy(), HOST, mode)))
    assert found["matched"] > 50
    assert found["undetermined"] > 50


def test_frames_that_no_device_sends() -> None:
    """Exactly the frames that the kernel refuses are predicted as not sendable."""
    plain, tagged = ethernet(b"", 0x88B5), ethernet(b"", 0x88B5, tags=((0x8100, 0),))
    sizes = [(plain, size) for size in (0, 13, 14, 65549, 65550, 70000)]
    sizes += [(tagged, size) for size in (65549, 65553, 65554)]
    capture = Capture.from_frames([(head + bytes(size))[:size] for head, size in sizes])
    result = drill_capture(capture, Situation(policy(), HOST, ModeChoice.NATIVE))
    assert counts(result) == {"matched": 4, "not_sendable": 5}
    assert result.verification.agrees


def test_every_protocol() -> None:
    """To the host over both families: without data, with four bytes, with zeros, with random bytes."""
    rng = random.Random(256)
    sent = []
    for protocol in range(256):
        for payload in (b"", rng.randbytes(4), bytes(64), rng.randbytes(64)):
            sent.append(four(payload, protocol))
            packet = ipv6(payload, source="2001:db8::7", destination=ME6, next_header=protocol)
            sent.append(ethernet(packet, 0x86DD))
    assert counts(drill_capture(Capture.from_frames(sent), Situation(Resources(), HOST, ModeChoice.RAW))) == {
        "matched": len(sent)
    }


ZEROS = [(four(bytes(length), 1), length) for length in (4, 7, 8, 9, 64)]


@pytest.mark.parametrize("rule", [DENY_ATTACKER, "{action: Allow, protocol: ICMP}"], ids=["tracked", "untracked"])
def test_icmp_of_zeros_is_good_where_conntrack_has_looked_at_it(rule: str) -> None:
    result = drill_capture(Capture.from_frames([frame for frame, _ in ZEROS]), Situation(policy(rule), HOST))
    tracked = rule == DENY_ATTACKER
    assert counts(result) == {"matched": len(ZEROS)}
    for number, (_, length) in enumerate(ZEROS):
        seen = result.observations.disposition(number)
        assert seen is not None
        assert seen.column == ("delivered" if tracked and length >= 8 else "socket"), length


def test_the_command_counts_each_packet_once(tmp_path: Path) -> None:
    cut_at([tcp(ATTACKER), tcp(INNOCENT)], [96, 96]).write(tmp_path / "cut.pcap")
    (tmp_path / "policy.yaml").write_text(POLICY % DENY_ATTACKER)
    command = ["drill", str(tmp_path / "cut.pcap"), "-p", str(tmp_path / "policy.yaml"), "-o", "json"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert {name: data[name] for name in ("packets", "matched", "undetermined", "not_sendable", "skipped")} == {
        "packets": 2, "matched": 1, "undetermined": 1, "not_sendable": 0, "skipped": {},
    }  # fmt: skip
    assert data["stages"].keys() == {"driver"}
    cut_at([tcp(INNOCENT)], [96]).write(tmp_path / "cut.pcap")
    nothing = CliRunner().invoke(main, command)
    assert nothing.exit_code == 1, "a drill that shows nothing does not pass"


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_incomplete_headers_and_cut_packets_confirm_nothing(mode: ModeChoice, tmp_path: Path) -> None:
    """Headers with a checksum of 0, and packets that conntrack rejects when zeros replace the cut bytes: the fate of
    the frames that were sent must not satisfy an expectation.
    """
    whole = [tcp(INNOCENT), tcp(ATTACKER)] * 5
    headers = Capture.from_frames([frame[:24] + b"\0\0" + frame[26:] for frame in whole])
    result = drill_capture(headers, Situation(policy(), HOST, mode), recorded=every(headers))
    held = 0 if mode is ModeChoice.RAW else 5  # raw comes after the header's checksum
    assert counts(result) == {"matched": held, "undetermined": 10 - held} if held else {"undetermined": 10}
    assert result.verification.agrees is bool(held)
    udp = four(segment(17, INNOCENT, ME4, (40000, 9), b"x" * 400), 17)
    cut_at([udp] * 8 + [tcp(INNOCENT)], [60] * 8 + [2000]).write(tmp_path / "cut.pcap")
    (tmp_path / "policy.yaml").write_text(POLICY % DENY_ATTACKER)
    (tmp_path / "x.scenario.yaml").write_text(
        "{name: x, policy: [policy.yaml], host: {node: jasper, addresses: [10.10.10.10/24]}, modes: ["
        + str(mode)
        + "],"
        "traffic: [{capture: cut.pcap, label: a}], expect: [{conntrack-entries: {at-most: 5}}, {fate: delivered}]}"
    )
    report = tmp_path / "report.json"
    ran = CliRunner().invoke(main, ["run", str(tmp_path), "--json", str(report)])
    assert ran.exit_code == 1, ran.output
    outcomes = json.loads(report.read_text())["items"][0]["outcomes"]
    assert [item["holds"] for item in outcomes] == [True, False, True]
    assert "8 more" in outcomes[1]["found"]


@pytest.mark.parametrize("source", [ATTACKER, INNOCENT])
def test_udp_with_a_bad_checksum_and_no_socket(source: str) -> None:
    """IPv6 drops with NO_SOCKET what it finds malformed only at the socket: untracked, longer than 76 bytes."""
    six = {ATTACKER: "2001:db8::7", INNOCENT: "2001:db8::9"}[source]
    sent = []
    for size, wrong in product((10, 60, 80, 900), (False, True)):
        udp4, udp6 = (segment(17, a, b, (40000, 7), b"x" * size) for a, b in ((source, ME4), (six, ME6)))
        udp4, udp6 = (buf[:6] + b"\x12\x34" + buf[8:] if wrong else buf for buf in (udp4, udp6))
        sent += [four(udp4, 17, source), ethernet(ipv6(udp6, source=six, destination=ME6, next_header=17), 0x86DD)]
    capture = Capture.from_frames(sent)
    nets = ("203.0.113.0/24", "2001:db8::7/128")
    allowed = policy(", ".join(f'{{action: Allow, source: {{nets: ["{net}"]}}}}' for net in nets))
    result = drill_capture(capture, Situation(allowed, HOST, ModeChoice.RAW))
    assert counts(result) == {"matched": 16}
    assert result.verification.stages["socket"].observed == 8
