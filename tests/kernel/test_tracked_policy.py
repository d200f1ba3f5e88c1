"""Tracked policy as explain evaluates it, and the running kernel with the same chains, written by hand for nf_tables.

Every packet of a conversation from the wire gets as far as explain says, with what conntrack makes of it on the way.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from dossim.model.disposition import Disposition, Fate
from dossim.pipeline.explain import Explainer
from enforcer.model.vocabulary import Action, Backend, Stage
from enforcer.policy.resources import FelixConfiguration, Resources
from tests.kernel.conftest import NetnsPair
from tests.kernel.conntrack_support import HOST, ConntrackHost, Turn, conntrack_host
from tests.support.conversations import Planned, conversations
from tests.support.examples import examples
from tests.support.frames import ethernet, ipv4, segment
from tests.support.unmutated import UNMUTATED
from tests.unit.dossim.pipeline import tracked_support as of
from tests.unit.dossim.pipeline.tracked_support import ICMP, ICMPV6, TCP, UDP, rule

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

_peers = itertools.count(1)
# What has no ports where a rule matches on them: iptables drops it at once.
_WHOLE = "chain whole { @th,24,8 >= 0 return; drop; }"
_FAILSAFES = """
    meta l4proto { tcp, udp } jump whole
    tcp dport { 22, 179, 2379, 2380, 5473, 6443, 6666, 6667 } accept
    udp dport 68 accept
"""
_KNOWN = "ct state established,related accept"
_INVALID = "ct state invalid drop"
_NEIGHBOURS = "ct state untracked icmpv6 type { 130, 131, 132, 133, 134, 135, 136, 143 } accept"
_MARKED = "meta mark 1 accept"
_SEEN = """
table inet seen {
  set at_input { typeof ether saddr; flags dynamic; size 65535; }
  set past_input { typeof ether saddr; flags dynamic; size 65535; }
  chain before { type filter hook input priority -5; policy accept; add @at_input { ether saddr }; }
  chain after { type filter hook input priority 5; policy accept; add @past_input { ether saddr }; }
}
"""


@dataclass(frozen=True)
class Case:
    """The same policy twice: as resources, and as the rules of each chain."""

    policy: Resources
    input: str
    mangle: str = ""
    raw: str = ""

    @property
    def table(self) -> str:
        mangle = f"{_KNOWN}\n{_MARKED}\n{self.mangle}"
        chains = (("raw", "prerouting", -300, self.raw), ("mangle", "prerouting", -149, mangle),
                  ("input", "input", 0, f"{_MARKED}\n{self.input}"))  # fmt: skip
        written = "\n".join(
            f"chain {name} {{ type filter hook {hook} priority {at}; policy accept;\n{rules}\n}}"
            for name, hook, at, rules in chains
        )
        return f"table inet tracked {{\n{_WHOLE}\n{written}\n}}"


ALLOWS = (rule(Action.ALLOW, TCP, 80), rule(Action.DENY, UDP, 9), rule(Action.ALLOW, UDP), rule(Action.ALLOW, ICMP))
ALLOWED = """
    tcp dport 80 accept
    udp dport 9 drop
    meta l4proto udp accept
    meta l4proto icmp accept
"""
LENIENT = FelixConfiguration("default", disable_conntrack_invalid_check=True)
CASES = {
    "an endpoint alone": Case(of.given(), f"{_NEIGHBOURS}\n{_KNOWN}\n{_INVALID}\n{_FAILSAFES}\ndrop"),
    "normal policy": Case(
        of.given(of.ingress("i", *ALLOWS)), f"{_NEIGHBOURS}\n{_KNOWN}\n{_INVALID}\n{_FAILSAFES}\n{ALLOWED}\ndrop"
    ),
    "without the INVALID rule": Case(
        of.given(of.ingress("i", *ALLOWS), felix_configurations=(LENIENT,)),
        f"{_NEIGHBOURS}\n{_KNOWN}\n{_FAILSAFES}\n{ALLOWED}\ndrop",
    ),
    "preDNAT policy before a profile that allows all": Case(
        of.given(
            of.pre_dnat("d", rule(Action.ALLOW, TCP, 80), rule(Action.DENY, TCP), rule(Action.DENY, ICMPV6)),
            of.ingress("i", rule(Action.DENY, UDP, 9), tier="security"),
            of=of.endpoint("allow-all"),
            profiles=(of.ALLOW_ALL,),
            tiers=(of.Tier("security", order=1, default_action=Action.PASS),),
        ),
        f"{_NEIGHBOURS}\n{_KNOWN}\n{_INVALID}\n{_FAILSAFES}\nudp dport 9 drop",
        mangle=f"{_INVALID}\n{_FAILSAFES}\ntcp dport 80 meta mark set 1 accept\nmeta l4proto tcp drop\n"
        "meta l4proto icmpv6 drop",
    ),
    "untracked Allow before a default deny": Case(
        of.given(of.untracked("u", rule(Action.ALLOW, UDP), rule(Action.ALLOW, ICMP))),
        f"{_NEIGHBOURS}\n{_KNOWN}\n{_INVALID}\n{_FAILSAFES}\ndrop",
        raw="""
            meta l4proto { tcp, udp } jump whole
            udp dport 68 accept
            udp sport { 53, 67 } accept
            meta l4proto { udp, icmp } meta mark set 1 notrack
        """,
    ),
}


@pytest.fixture(params=[pytest.param(case, id=name) for name, case in CASES.items()])
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def host(netns_pair: NetnsPair, case: Case) -> Iterator[ConntrackHost]:
    with conntrack_host(netns_pair) as ready:
        ready.nft("-f", "-", given=case.table + _SEEN)
        yield ready


def disagreements(host: ConntrackHost, case: Case, planned: list[Planned]) -> list[str]:
    number = next(_peers)
    peer = {4: f"203.{number >> 16 & 0xFF}.{number >> 8 & 0xFF}.{number & 0xFF}", 6: f"2001:db8:7::{number:x}"}
    packets = [each.packet(peer) for each in planned]
    host.forget()
    for name in ("at_input", "past_input"):
        host.nft("flush", "set", "inet", "seen", name)
    first = host.sent
    host.send([*map(Turn, packets), Turn(_last(number))])
    host.wait_for([host.sent - 1])  # then all that was before it has arrived
    at_input, past_input = _numbers(host, "at_input"), _numbers(host, "past_input")
    explainer = Explainer(case.policy, HOST, mode=None, raw_backend=Backend.NFTABLES, tracked=True)
    traces = explainer.explain_capture(
        [ethernet(packet, 0x0800 if packet[0] >> 4 == 4 else 0x86DD) for packet in packets]
    )
    wrong = []
    for at, (packet, trace) in enumerate(zip(packets, traces, strict=True)):
        seen = (first + at in at_input, first + at in past_input)
        if seen not in {_reaches(end) for end in (trace.disposition, *trace.disposition.others)}:
            hops = "; ".join(f"{hop.stage} {hop.result}" for hop in trace.hops[-6:])
            wrong.append(f"{at}: {packet.hex()}: kernel {seen}, explain {hops}")
    return wrong


def _reaches(end: Disposition) -> tuple[bool, bool]:
    """Whether a packet that ends so gets to INPUT, and past filter INPUT."""
    past = end.fate is Fate.DELIVERED or end.stage is Stage.SOCKET
    return past or end.stage is Stage.FILTER_INPUT, past


def _last(number: int) -> bytes:
    source = f"198.18.{number >> 8 & 0xFF}.{number & 0xFF}"
    return ipv4(
        segment(UDP, source, "10.10.10.10", (5, 5), b""), source=source, destination="10.10.10.10", protocol=UDP
    )


def _numbers(host: ConntrackHost, name: str) -> set[int]:
    listed: Any = json.loads(host.nft("-j", "list", "set", "inet", "seen", name))
    elements = next(item["set"] for item in listed["nftables"] if "set" in item).get("elem", [])
    return {int(element.removeprefix("02:00:").replace(":", ""), 16) for element in elements if element[:6] == "02:00:"}


def test_every_packet_gets_as_far_as_explain_says(host: ConntrackHost, case: Case) -> None:
    @settings(
        backend=UNMUTATED,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate),
        max_examples=examples(18, nightly=2_000),
    )
    @given(conversations(peer_only=True, ports=(22, 80, 81)))
    def agree(planned: list[Planned]) -> None:
        assert not (wrong := disagreements(host, case, planned)), "\n".join(wrong)

    agree()
