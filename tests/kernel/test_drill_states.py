"""Drills that compare what conntrack says of each packet: floods of TCP SYNs, and packets of a host to itself.

Each packet has one of its predicted states, with tracked policy that depends on them.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network

import pytest

from dossim.drill.results import DrillResult
from dossim.drill.run import drill_capture
from dossim.drill.situation import Situation
from dossim.model.host import Host, Listener
from dossim.packet.capture import Capture
from enforcer.model.choices import ModeChoice, RawChoice, TrackedChoice
from enforcer.model.vocabulary import CtState
from enforcer.policy.load import load_text
from enforcer.policy.resources import Resources
from tests.kernel.drill_support import assert_as_predicted
from tests.support.frames import ME4, ME6, ethernet, ipv4, ipv6, segment

pytestmark = pytest.mark.needs_root

OPEN, CLOSED, REFUSED = 80, 81, 82
EACH = 1500  # SYNs to each port, each from a source of its own
TCP, UDP, ANY = 6, 17, 253
NEW, ESTABLISHED, RELATED, INVALID, UNTRACKED = CtState
HOST = Host(
    "jasper",
    addresses=(ip_interface(f"{ME4}/24"), ip_interface(f"{ME6}/64")),
    listen=(Listener(TCP, OPEN), Listener(UDP, 9)),
)
ROUTER = Host(
    "jasper",
    addresses=HOST.addresses,
    forward=True,
    routes=(ip_network("192.0.2.0/24"), ip_network("2001:db8:5::/64")),
    listen=HOST.listen,
)
# One of two sources is denied untracked; of the rest one port is closed by tracked policy, and the other two are not.
POLICY = """
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h}, spec: {node: jasper, interfaceName: eth0}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: untracked}
spec:
  selector: all()
  doNotTrack: true
  applyOnForward: true
  types: [Ingress]
  ingress:
    - {action: Deny, source: {nets: [198.18.0.0/16]}}
    - {action: Deny, source: {nets: ["2001:db8:a::/48"]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: normal}
spec:
  selector: all()
  types: [Ingress]
  ingress:
    - {action: Deny, protocol: TCP, destination: {ports: [82]}}
    - {action: Allow}
"""


def policy() -> Resources:
    return load_text(POLICY, "policy.yaml")


def sent(version: int, source: str, destination: str, protocol: int, ports: tuple[int, int]) -> bytes:
    body = segment(protocol, source, destination, ports, b"")
    if version == 4:
        return ethernet(ipv4(body, source=source, destination=destination, protocol=protocol), 0x0800)
    return ethernet(ipv6(body, source=source, destination=destination, next_header=protocol), 0x86DD)


def source(version: int, number: int) -> str:
    """Half of them in the net that untracked policy denies."""
    if version == 4:
        return str(IPv4Address("198.18.0.0") + (number % 2 << 16) + number)
    return str(IPv6Address("2001:db8:a::") + (number % 2 << 80) + number)


def flood(version: int) -> Capture:
    me = ME4 if version == 4 else ME6
    frames = [
        sent(version, source(version, number), me, TCP, (10_000 + number, port))
        for number in range(1, EACH + 1)
        for port in (OPEN, CLOSED, REFUSED)
    ]
    return Capture.from_frames(frames)


def drilled(capture: Capture, host: Host, mode: ModeChoice, raw: RawChoice = RawChoice.AUTO) -> DrillResult:
    result = drill_capture(capture, Situation(policy(), host, mode, raw, tracked=TrackedChoice.ENFORCE))
    assert_as_predicted(result)
    found = result.verification
    assert found.matched == found.packets
    assert found.compared_states.differing == 0
    assert found.compared_states.matched == sum(found.states.values())
    return result


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("mode", "raw"), [(ModeChoice.GENERIC, RawChoice.IPTABLES), (ModeChoice.NATIVE, RawChoice.NFTABLES)], ids=str
)
def test_a_flood_of_syns_to_an_open_and_a_closed_port(version: int, mode: ModeChoice, raw: RawChoice) -> None:
    result = drilled(flood(version), HOST, mode, raw)
    assert result.mode == str(mode)
    half = EACH // 2
    early = "driver" if mode is ModeChoice.NATIVE else "generic"
    ends = {word: row.observed for word, row in result.verification.stages.items()}
    assert ends == {early: 3 * half, "filter-input": half, "delivered": 2 * half}
    assert result.verification.states == {NEW: 3 * half}
    assert result.conntrack_entries == half, "a RST leaves nothing of a closed port, a Deny nothing at all"


def test_packets_of_a_host_to_itself() -> None:
    """A LAND attack: both directions have the same tuple, and conntrack finds the reply direction."""
    kinds = [(TCP, OPEN), (TCP, CLOSED), (UDP, 9), (UDP, 10), (ANY, 0)]
    to_itself = [sent(6, ME6, ME6, protocol, (port, port)) for protocol, port in kinds for _ in range(3)]
    through = [sent(6, "2001:db8:5::5", "2001:db8:5::5", protocol, (7, 7)) for protocol in (TCP, UDP) for _ in range(2)]
    through += [sent(4, "192.0.2.5", "192.0.2.5", UDP, (7, 7)) for _ in range(2)]
    martian = [sent(4, ME4, ME4, UDP, (9, 9)) for _ in range(2)]
    result = drilled(Capture.from_frames([*to_itself, *through, *martian]), ROUTER, ModeChoice.RAW)
    states = [result.observations.ct_state(packet) for packet in range(len(result.capture))]
    answered, not_answered = [NEW, ESTABLISHED, ESTABLISHED], [NEW, NEW, NEW]
    syns = [NEW, INVALID, INVALID]  # the SYN+ACK to itself has changed the entry
    assert states[:15] == [*syns, *not_answered, *answered, *answered, *answered]
    assert states[15:] == [NEW, ESTABLISHED] * 3 + [NEW, NEW]
