"""Random egress policies: what the host sends, through raw OUTPUT of the running kernel.

Raw sockets inside the lab's victim send the packets. No observer is needed: each rule counts what it decided, and the
test compares the counters with the decisions of both witnesses.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, note, settings

from dossim.engine.rules import Verdict
from dossim.lab import Lab
from dossim.model.host import Host
from dossim.packet.fields import IP
from dossim.packet.parse import parse
from dossim.pipeline.match_key import match_key_in_raw
from dossim.pipeline.policy import Policy
from dossim.pipeline.policy import Verdict as Decided
from dossim.predict.compiled import rules_of
from enforcer.enforcement.apply import Enforcer
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.vocabulary import Action, Backend, Direction
from enforcer.policy.compile import compile_table
from enforcer.policy.resources import Resources
from enforcer.policy.ruletable import RuleTable
from tests.kernel.iptables_support import run
from tests.support.examples import examples
from tests.support.flow_rows import flows_of_key
from tests.support.reach import sent
from tests.support.strategies import hosts, resources
from tests.support.unmutated import UNMUTATED

pytestmark = [pytest.mark.needs_root, pytest.mark.slow, pytest.mark.long]

EXAMPLES = 27
ETHERNET = bytes(12)
ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
NO_REPORTS = """table ip6 quiet { chain output {
    type filter hook output priority -500; ip6 daddr ff02::/16 drop; }; }
"""
DECIDING = (Action.DENY, Action.ALLOW)


def destination(packet: bytes) -> IPv4Address | IPv6Address:
    return ip_address(packet[16:20] if packet[0] >> 4 == 4 else packet[24:40])


def leaves(packet: bytes, host: Host) -> bool:
    """Whether the host sends it through the interface: it has an address of the family, and is not the destination."""
    to = destination(packet)
    special = to.is_multicast or to.is_loopback or to.is_unspecified or to.is_link_local or to.is_reserved
    near = any(to in address.network for address in host.addresses)
    return not special and not near and any(address.version == to.version for address in host.addresses)


def send(packets: Sequence[bytes], host: Host) -> None:
    with ExitStack() as stack:
        sockets = {
            version: stack.enter_context(socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW))
            for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6))
        }
        for raw in sockets.values():
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, host.interface.encode())
        for packet in packets:
            with suppress(PermissionError):  # the sender gets EPERM for what raw OUTPUT drops
                sockets[packet[0] >> 4].sendto(packet, (str(destination(packet)), 0))


def explained(policy: Resources, host: Host, packets: Sequence[bytes], backend: Backend) -> Counter[str]:
    """Packets that each Deny or Allow decides, by ``explain``'s evaluation of the resources."""
    addresses = [address.ip for address in host.addresses]
    rules = Policy.of(policy, node=host.node, interface=host.interface, addresses=addresses, direction=Direction.EGRESS)
    found: Counter[str] = Counter()
    for packet in packets:
        decision = rules.decide(match_key_in_raw(ip_of(packet), backend))
        if decision.verdict in (Decided.DENY, Decided.ALLOW) and decision.decided_by:
            found[decision.decided_by.name] += 1
    return found


def predicted(table: RuleTable, packets: Sequence[bytes], backend: Backend) -> Counter[str]:
    """The same, by the engine's evaluation of the compiled table."""
    keys = [match_key_in_raw(ip_of(packet), backend) for packet in packets]
    verdicts, by = rules_of(table, Direction.EGRESS).decide(np.concatenate([flows_of_key(key) for key in keys]))
    decided = np.isin(verdicts, (Verdict.DENIED, Verdict.ALLOWED))
    return Counter(table.egress[at].name for at in by[decided].tolist())


def ip_of(packet: bytes) -> IP:
    ip = parse(ETHERNET + ETHERTYPE[packet[0] >> 4] + packet).ip
    assert ip is not None
    return ip


def counted(policy: Resources, host: Host, packets: Sequence[bytes], backend: Backend) -> Counter[str]:
    """What the kernel's rules of Deny and Allow count while the packets are sent."""
    with Lab(host) as lab, lab.victim():
        enforcer = Enforcer(
            host.node,
            pin_root=lab.pin_root,
            choice=ModeChoice.RAW,
            interfaces=[host.interface],
            raw=RawChoice(backend.value),
        )
        plan = enforcer.apply(policy).plan.interface(host.interface)
        assert plan is not None
        deciding = {entry.name for entry in plan.table.egress if entry.action in DECIDING}
        # The host sends MLD and IGMP reports at any time: they must not reach the entries.
        run("nft", "-f", "-", text=NO_REPORTS)
        before = {count.entry: count.packets for count in enforcer.counters()}
        send(packets, host)
        after = {count.entry: count.packets for count in enforcer.counters()}
        enforcer.detach()
    return Counter({name: after[name] - before[name] for name in deciding if after.get(name, 0) > before.get(name, 0)})


@pytest.mark.parametrize("backend", [Backend.IPTABLES, Backend.NFTABLES], ids=str)
def test_raw_output_does_what_was_predicted(backend: Backend) -> None:
    decided: Counter[str] = Counter()

    @settings(
        backend=UNMUTATED,
        max_examples=examples(EXAMPLES, nightly=1000),
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(resources(egress=True), hosts())
    def drill(policy: Resources, host: Host) -> None:
        addresses = [address.ip for address in host.addresses]
        table = compile_table(policy, node=host.node, interface=host.interface, addresses=addresses)
        assume(table.egress)
        packets = [packet for packet in sent(table) if leaves(packet, host)]
        assume(packets)
        expected = explained(policy, host, packets, backend)
        note(str([packet.hex() for packet in packets]))
        assert predicted(table, packets, backend) == expected
        assert counted(policy, host, packets, backend) == expected
        decided.update(policies=1, packets=len(packets), decided=sum(expected.values()))

    drill()
    assert decided["policies"] >= EXAMPLES
    assert decided["packets"] > decided["decided"] > decided["packets"] / 10, decided
