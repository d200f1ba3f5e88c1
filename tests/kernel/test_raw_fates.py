"""How raw treats packets with incomplete headers, drilled through both backends: the kernel is the reference.

Every unusual packet reaches the entries of each policy here, because it has no failsafes: those would drop most of
them.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from ipaddress import ip_interface
from pathlib import Path

import pytest

from dossim.drill.results import DrillResult
from dossim.drill.run import drill_capture, predict_capture
from dossim.drill.situation import Situation
from dossim.model.disposition import Fate
from dossim.model.host import Host, Listener
from dossim.packet.capture import Capture
from dossim.packet.fragments import datagram_keys
from dossim.predict.prediction import Prediction
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.vocabulary import Stage
from enforcer.policy.load import load_text
from enforcer.policy.resources import Resources
from tests.kernel.drill_support import assert_as_predicted
from tests.support.frames import ethernet, ipv4, ipv6
from tests.support.odd_frames import frames

pytestmark = pytest.mark.needs_root

BACKENDS = pytest.mark.parametrize("raw", [RawChoice.IPTABLES, RawChoice.NFTABLES], ids=str)
ME4, ME6 = "10.10.10.10", "fd00::10"
HOST = Host(
    node="jasper",
    addresses=(ip_interface(f"{ME4}/24"), ip_interface(f"{ME6}/64")),
    listen=(Listener(6, 80), Listener(17, 9)),
)

POLICY = """
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {failsafeInboundHostPorts: [], failsafeOutboundHostPorts: []}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: eth0, labels: {edge: "true"}}
spec:
  node: jasper
  interfaceName: eth0
  expectedIPs: ["10.10.10.10", "fd00::10"]
  ports: [{name: web, protocol: TCP, port: 80}, {name: echo, protocol: UDP, port: 9}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: edge}
spec: {selector: "all()", doNotTrack: true, applyOnForward: true, types: [Ingress], ingress: %s}
"""

TCP_80 = {"protocol": "TCP", "destination": {"ports": [80]}}
RULES = {
    "a protocol": {"protocol": "TCP"},
    "not a protocol": {"notProtocol": "TCP"},
    "a port": TCP_80,
    "not a port": {"protocol": "UDP", "destination": {"notPorts": [53]}},
    "a port, of one source": {**TCP_80, "source": {"nets": ["2001:db8::/32", "2600::/16"]}},
    "an ICMP type": {"protocol": "ICMP", "icmp": {"type": 8}},
    "not an ICMPv6 type": {"protocol": "ICMPv6", "notICMP": {"type": 1}},
    "a name": {"protocol": "TCP", "destination": {"selector": "has(edge)", "ports": ["web"]}},
    "not a name": {"protocol": "UDP", "destination": {"notPorts": ["echo"]}},
    "a name or a number": {"protocol": "TCP", "destination": {"ports": ["web", 22]}},
    "neither name nor number": {"protocol": "TCP", "destination": {"notPorts": ["web", 22]}},
}


def policy(*rules: dict[str, object]) -> Resources:
    return load_text(POLICY % json.dumps([{"action": "Deny", **rule} for rule in rules]))


def six(payload: bytes, following: int, *, source: str = "2001:db8::7") -> bytes:
    return ethernet(ipv6(payload, source=source, destination=ME6, next_header=following), 0x86DD)


def four(payload: bytes, protocol: int, *, fragment: int = 0, options: bytes = b"") -> bytes:
    packet = ipv4(payload, source="203.0.113.7", destination=ME4, protocol=protocol, fragment=fragment, options=options)
    return ethernet(packet, 0x0800)


def tcp(port: int) -> bytes:
    return struct.pack("!HHIIBBHHH", 40000, port, 0, 0, 0x50, 2, 1024, 0, 0)


def udp(port: int) -> bytes:
    return struct.pack("!HHHH", 40000, port, 8, 0)


def behind(kind: int, following: int, payload: bytes, *, length: int = 0) -> bytes:
    """An extension header of eight bytes; an authentication header counts them in fours, less two."""
    return bytes([following, length]) + bytes(6) + payload


AUTHENTICATION, DESTINATION, ROUTING = 51, 60, 43
TRANSPORTS = ((6, tcp(80)), (6, tcp(81)), (17, udp(9)), (17, udp(53)), (136, udp(9)), (1, b"\x08" + bytes(7)))
SHORT = (0, 1, 2, 3, 4, 7, 8, 19, 20)


def odd() -> list[bytes]:
    """Transport headers cut at every relevant length, with and without extension headers; cut extension headers."""
    found: list[bytes] = []
    for protocol, whole in (*TRANSPORTS, (58, b"\x80" + bytes(7)), (58, b"\x01" + bytes(7)), (253, b"abcd")):
        for buf in SHORT:
            cut = whole[:buf]
            found += [four(cut, protocol), four(cut, protocol, options=bytes([1] * 4)), six(cut, protocol)]
            found += [six(behind(DESTINATION, protocol, cut), DESTINATION)]
            found += [six(behind(AUTHENTICATION, protocol, cut), AUTHENTICATION)]
            found += [six(behind(DESTINATION, AUTHENTICATION, behind(51, protocol, cut)), DESTINATION)]
            found += [six(behind(AUTHENTICATION, DESTINATION, behind(60, protocol, cut)), AUTHENTICATION)]
    for kind in (0, ROUTING, 44, AUTHENTICATION, DESTINATION):
        for buf in (0, 1, 2, 3, 4, 7, 8):
            found.append(six((bytes([6, 0]) + bytes(6))[:buf], kind))
            found.append(six(behind(DESTINATION, kind, bytes([17, 0, 0, 0, 0, 0, 0, 0])[:buf]), DESTINATION))
    return found


def without_fragments(packets: list[bytes]) -> list[bytes]:
    """Fragments wait for timeouts, and raw does not see them."""
    fragments = datagram_keys(Capture.from_frames(packets))
    return [frame for number, frame in enumerate(packets) if number not in fragments]


ODD = without_fragments(odd())


def drilled(rules: Resources, packets: list[bytes], raw: RawChoice) -> DrillResult:
    result = drill_capture(Capture.from_frames(packets), Situation(rules, HOST, ModeChoice.RAW, raw))
    assert str(result.plan.raw_backend) == str(raw)
    assert_as_predicted(result)
    return result


def predicted(rules: Resources, raw: RawChoice) -> Prediction:
    return predict_capture(Capture.from_frames(ODD), Situation(rules, HOST, ModeChoice.RAW, raw)).prediction


@BACKENDS
@pytest.mark.parametrize("name", RULES)
def test_packets_that_cannot_be_read(name: str, raw: RawChoice) -> None:
    result = drilled(policy(RULES[name]), ODD, raw)
    assert result.verification.stages[Stage.RAW].observed > 0


@BACKENDS
def test_an_entry_that_contradicts_itself_drops_nothing_for_being_short(raw: RawChoice) -> None:
    contradiction = {"protocol": "TCP", "notProtocol": "TCP", "destination": {"ports": [80]}}
    result = drilled(policy(contradiction), ODD, raw)
    assert Stage.RAW not in result.verification.stages


@BACKENDS
def test_all_entries_at_once(raw: RawChoice) -> None:
    drilled(policy(*RULES.values()), frames(20261124, 3000), raw)


def test_the_backends_differ_after_an_authentication_header_and_nowhere_else() -> None:
    """nftables takes the header itself for the payload protocol; iptables what follows it."""
    differing: Counter[int] = Counter()
    for rule in RULES.values():
        ends = [predicted(policy(rule), raw) for raw in (RawChoice.IPTABLES, RawChoice.NFTABLES)]
        for number in range(len(ODD)):
            one, other = (item.disposition(number) for item in ends)
            if (one.fate, one.stage, one.entry) != (other.fate, other.stage, other.entry):
                differing[number] += 1
                assert AUTHENTICATION in (ODD[number][20], ODD[number][54])
    assert differing


@pytest.mark.slow
@pytest.mark.parametrize("mode", [ModeChoice.RAW, ModeChoice.NATIVE], ids=str)
def test_generated_traffic_through_the_command(mode: ModeChoice, tmp_path: Path) -> None:
    """``dossim drill --raw-backend nftables`` on a flood and legitimate traffic."""
    from click.testing import CliRunner
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether
    from scapy.utils import wrpcap

    from dossim.cli import main

    flood = [Ether(four(udp(9) + bytes(number % 50), 17)) for number in range(500)]
    link = Ether(dst="06:00:00:00:00:01", src="02:00:00:00:00:00")
    legitimate = link / IP(src="203.0.113.7", dst=ME4) / TCP(sport=40000, dport=81)
    wrpcap(str(tmp_path / "flood.pcap"), [*flood, *[legitimate] * 100])
    (tmp_path / "policy.yaml").write_text(POLICY % json.dumps([{"action": "Deny", "protocol": "UDP"}]))
    command = ["drill", str(tmp_path / "flood.pcap"), "-p", str(tmp_path / "policy.yaml"), "--mode", str(mode)]
    result = CliRunner().invoke(main, [*command, "--raw-backend", "nftables", "-o", "json"])
    assert result.exit_code == 0, result.output
    data = json.loads(result.output)
    assert (data["matched"], data["mismatched"], data["unobserved"]) == (600, 0, 0)
    assert data["stages"]["raw" if mode is ModeChoice.RAW else "driver"]["observed"] == 500
    assert str(Fate.DELIVERED) in data["stages"] or "socket" in data["stages"]
