"""Lint's findings about entries hold for packets: an entry that it calls shadowed, unreachable or bypassed decides
none.

``explain`` is the reference: it evaluates the resources, and uses neither the compiled table nor lint's boxes. Policies
of any kind are tested with captures of any kind. Policies whose rules hardly differ, where a wrong comparison would
show, are tested with every packet that their rules can distinguish.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import product

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from dossim.lint import Finding, Level, RuleId, lint
from dossim.model.disposition import Fate
from dossim.model.host import Host
from dossim.packet.fields import Transport
from dossim.pipeline.explain import Explainer
from dossim.pipeline.match_key import MatchKey
from dossim.pipeline.policy import Policy
from enforcer.model.choices import ModeChoice, TrackedChoice
from enforcer.model.facts import HostFacts, InterfaceFacts
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action
from enforcer.policy.resources import (
    EndpointPort,
    EntityRule,
    Failsafe,
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    IcmpMatch,
    NamedPort,
    PortRange,
    Resources,
    Rule,
    Tier,
)
from tests.support.examples import draw_until, examples
from tests.support.frames import ME4, ME6, SOURCES4, SOURCES6, captures, ethernet, ipv4, ipv6, segment
from tests.support.strategies import INTERFACE, NODE, hosts, resources
from tests.support.tracked_strategies import tracked_resources

DEAD = (RuleId.SHADOWED, RuleId.UNREACHABLE)
MODES = (ModeChoice.RAW, ModeChoice.NATIVE)


def dead_entries(found: list[Finding]) -> set[str]:
    """The names of the entries that lint reports as never deciding."""
    wholly_bypassed = [item for item in found if item.rule is RuleId.FAILSAFE and item.level is Level.ERROR]
    without_effect = [item for item in found if item.message.endswith("so the entry matches nothing")]
    said = [item for item in found if item.rule in DEAD] + wholly_bypassed + without_effect
    return {" ".join(item.message.split()[:2]).rstrip(":") for item in said}


# --- any policy, any capture ------------------------------------------------------------------------------------------


def facts_of(host: Host) -> HostFacts:
    addresses = tuple(address.ip for address in host.addresses)
    return HostFacts(host.node, interfaces=(InterfaceFacts(host.interface, addresses=addresses),))


@settings(max_examples=examples(60, nightly=100_000), suppress_health_check=list(HealthCheck))
@given(resources(), hosts(), st.booleans(), st.sampled_from(MODES), captures())
def test_dead_entries_decide_no_packet(
    policy: Resources, host: Host, is_probed: bool, choice: ModeChoice, frames: list[bytes]
) -> None:
    dead = dead_entries(lint(policy, node=host.node, facts=facts_of(host) if is_probed else None))
    note(f"dead: {sorted(dead)}")
    for trace in Explainer(policy, host, mode=choice.mode).explain_capture(frames):
        decided = {hop.entry for hop in trace.hops} | {trace.disposition.entry}
        assert not decided & dead


# --- rules that hardly differ, and every packet they can distinguish --------------------------------------------------

WEB = NamedPort("web")
NETS = [(), (ip_network("10.0.0.0/31"),), (ip_network("10.0.0.0/32"), ip_network("10.0.0.1/32"))]
PORTS = [(), (PortRange(1, 2),), (PortRange(1, 1),), (PortRange(0, 65535),), (WEB,), (WEB, PortRange(1, 1))]
ICMP = [None, IcmpMatch(), IcmpMatch(3), IcmpMatch(3, 1)]


def few(*usual: object, odd: object) -> st.SearchStrategy[object]:
    """One of ``odd`` one time out of five."""
    assert isinstance(odd, list)
    return st.integers(0, 4).flatmap(lambda n: st.sampled_from(odd) if n == 4 else st.sampled_from(usual))


@st.composite
def sides(draw: st.DrawFn, *, has_ports: bool) -> EntityRule:
    nets, not_nets = draw(few((), odd=NETS)), draw(few((), odd=NETS[:2]))
    selector, not_selector = draw(few("", odd=["has(a)", "a == 'no'"])), draw(few("", odd=["has(a)"]))
    ports = (draw(few((), odd=PORTS)), draw(few((), odd=PORTS))) if has_ports else ((), ())
    # For mypy: ports of either kind
    return EntityRule(nets, not_nets, selector, not_selector, ports=ports[0], not_ports=ports[1])  # type: ignore[arg-type]


@st.composite
def close_rules(draw: st.DrawFn) -> Rule:
    protocol = draw(st.sampled_from((None, 6, 6, 1)))
    has_ports = protocol == 6
    return Rule(
        draw(st.sampled_from((Action.DENY, Action.DENY, Action.ALLOW, Action.PASS, Action.LOG))),
        ip_version=draw(st.sampled_from((None, None, None, 4))),
        protocol=protocol,
        not_protocol=draw(st.sampled_from((None, None, None, 6, 17))),
        icmp=draw(st.sampled_from(ICMP)) if protocol == 1 else None,
        not_icmp=draw(st.sampled_from(ICMP)) if protocol == 1 else None,
        source=draw(sides(has_ports=has_ports)),
        destination=draw(sides(has_ports=has_ports)),
    )


@st.composite
def close_resources(draw: st.DrawFn) -> Resources:
    policies = tuple(
        GlobalNetworkPolicy(
            f"p{number}",
            tier=draw(st.sampled_from(("default", "security"))),
            do_not_track=True,
            apply_on_forward=True,
            ingress=tuple(draw(st.lists(close_rules(), min_size=1, max_size=4))),
        )
        for number in range(draw(st.integers(1, 3)))
    )
    net = draw(st.sampled_from((None, ip_network("10.0.0.0/32"))))
    failsafes = draw(st.sampled_from(((), (), (Failsafe(6, 1, net),))))
    ports = (EndpointPort("web", 6, 2),)
    return Resources(
        host_endpoints=(HostEndpoint("h", {"a": "h"}, node=NODE, interface_name=INTERFACE, ports=ports,
                                     expected_ips=(ip_address("10.0.0.0"),)),),
        global_network_sets=(GlobalNetworkSet("s", {"a": "s"}, nets=Nets.of(["10.0.0.1", "fd00::1"])),),
        policies=policies,
        tiers=(Tier("security", order=1.0),),
        felix_configurations=(FelixConfiguration("default", failsafe_inbound=failsafes, failsafe_outbound=()),),
    )  # fmt: skip


def _transports() -> list[Transport]:
    """TCP with ports, too short, and a later fragment; likewise ICMP; and another protocol."""
    ports = [bytes([0, source, 0, destination, *bytes(16)]) for source, destination in product((1, 2, 3), repeat=2)]
    kinds = [bytes([kind, code, *bytes(6)]) for kind, code in ((3, 1), (3, 0), (8, 0))]
    whole = [Transport(6, 20, buf) for buf in ports] + [Transport(1, 20, buf) for buf in kinds]
    later = [Transport(protocol, 20, bytes(8), fragment_offset=8) for protocol in (6, 1)]
    short = [Transport(6, 20, ports[0][:12]), Transport(6, 20, bytes(2)), Transport(1, 20, bytes(2))]
    return [*whole, *later, *short, Transport(17, 20, bytes(8))]


ADDRESSES = [tuple(map(ip_address, texts)) for texts in (("10.0.0.0", "10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2"))]
PACKETS = [
    MatchKey(source.version, source, destination, transport)
    for addresses in ADDRESSES
    for source, destination, transport in product(addresses, addresses, _transports())
]


@settings(max_examples=examples(45, nightly=100_000), suppress_health_check=list(HealthCheck), deadline=None)
@given(close_resources())
def test_dead_entries_decide_none_of_all_packets_there_are(policy: Resources) -> None:
    dead = dead_entries(lint(policy))
    if not dead:
        return
    note(f"dead: {sorted(dead)}")
    judge = Policy.of(policy, node=NODE, interface=INTERFACE, addresses=[ip_address(ME4)])
    for seen in PACKETS:
        decision = judge.decide(seen)
        assert decision.decided_by is None or decision.decided_by.name not in dead, seen
        assert not set(decision.logged) & dead, seen


# --- coverage of the strategies ---------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.slow
def test_random_policies_have_dead_entries() -> None:
    """The strategies generate every kind of dead entry, and entries that decide."""
    seen: Counter[object] = Counter()
    wanted = {*DEAD, RuleId.SELECTS_NOTHING, RuleId.ALLOWED_EARLIER, RuleId.PASS, "decided"}

    def has_all(drawn: tuple[Resources, Host, list[bytes]]) -> bool:
        policy, host, frames = drawn
        found = lint(policy, node=host.node, facts=facts_of(host))
        seen.update(item.rule for item in found)
        if not seen["decided"]:
            traces = Explainer(policy, host, mode=None).explain_capture(frames)
            seen["decided"] += any(hop.entry for trace in traces for hop in trace.hops)
        return all(seen[kind] for kind in wanted)

    # Some kinds are rare: it can happen that none of 200 policies has an entry that another allows earlier.
    draw_until(has_all, st.tuples(resources(), hosts(), captures()), most=600)
    assert not [kind for kind in wanted if not seen[kind]], dict(seen)


# --- tracked policy ---------------------------------------------------------------------------------------------------

SSH = 22


def attempts(port: int) -> list[bytes]:
    """A SYN to a port from each of the usual sources."""
    ports = (49152, port)
    four = [
        ipv4(segment(6, source, ME4, ports, b""), source=source, destination=ME4, protocol=6) for source in SOURCES4
    ]
    six = [
        ipv6(segment(6, source, ME6, ports, b""), source=source, destination=ME6, next_header=6) for source in SOURCES6
    ]
    return [ethernet(packet, 0x0800) for packet in four] + [ethernet(packet, 0x86DD) for packet in six]


LOGINS = attempts(SSH)
NO_FAILSAFES = FelixConfiguration(
    "default",
    failsafe_inbound=(),
    failsafe_outbound=(),
    written=frozenset({"failsafe_inbound", "failsafe_outbound"}),
)
LOGIN_NETS = [(ip_network(f"{SOURCES4[0]}/32"),), (ip_network("192.0.2.0/24"),), (ip_network(f"{SOURCES6[0]}/128"),)]
LOGIN_PORTS = [(), (PortRange(SSH, SSH),), (PortRange(1, 1024),), (PortRange(80, 80),)]


@st.composite
def rules_of_logins(draw: st.DrawFn) -> Rule:
    """Many match all logins, some of them, or none."""
    return Rule(
        draw(st.sampled_from((Action.ALLOW, Action.ALLOW, Action.DENY, Action.PASS, Action.LOG))),
        protocol=6,
        source=EntityRule(nets=draw(st.sampled_from(((), *LOGIN_NETS)))),
        destination=EntityRule(ports=draw(st.sampled_from(LOGIN_PORTS))),
    )


def with_rules(policies: tuple[GlobalNetworkPolicy, ...], rules: Sequence[Rule]) -> tuple[GlobalNetworkPolicy, ...]:
    """The policies, of which the first tracked one for received packets has these rules, and selects every endpoint."""
    at = next(
        (n for n, one in enumerate(policies) if not one.do_not_track and not one.pre_dnat and "Ingress" in one.types),
        None,
    )
    if at is None:
        return policies
    mine = replace(policies[at], selector="all()", service_account_selector="", ingress=tuple(rules))
    return (*policies[:at], mine, *policies[at + 1 :])


def delivered(policy: Resources, host: Host, frames: list[bytes]) -> list[bytes]:
    """Those that get in where tracked policy is enforced; each comes alone."""
    explainer = Explainer(policy, host, mode=None, tracked=True)
    return [frame for frame in frames if explainer.explain(frame).disposition.fate is Fate.DELIVERED]


def closing(policy: Resources, host: Host) -> list[Finding]:
    """Findings about the endpoint that governs the host's interface."""
    found = lint(policy, node=host.node, facts=facts_of(host), tracked=TrackedChoice.ENFORCE)
    closed = [item for item in found if item.rule is RuleId.CLOSED and "ingress" in item.message.split(":")[1]]
    return closed + [item for item in found if item.rule is RuleId.SSH]


@settings(max_examples=examples(60, nightly=100_000), suppress_health_check=list(HealthCheck))
@given(tracked_resources(), hosts(), st.lists(rules_of_logins(), min_size=1, max_size=4))
def test_nobody_gets_in_where_it_is_closed(policy: Resources, host: Host, ours: list[Rule]) -> None:
    """Without failsafes. The first tracked policy has rules that match some of the logins."""
    policy = replace(policy, felix_configurations=(NO_FAILSAFES,), policies=with_rules(policy.policies, ours))
    found = closing(policy, host)
    note(str(found))
    assert not found or not delivered(policy, host, LOGINS)


def test_random_policies_close_hosts_and_let_logins_in() -> None:
    """The strategies generate both findings, and policies in which a login gets in."""
    seen: Counter[object] = Counter()
    wanted = (RuleId.CLOSED, RuleId.SSH, "in")

    def has_all(drawn: tuple[Resources, Host]) -> bool:
        seen.update(item.rule for item in closing(*drawn))
        seen["in"] += bool(delivered(*drawn, LOGINS))
        return all(seen[kind] for kind in wanted)

    draw_until(has_all, st.tuples(tracked_resources(), hosts()), most=400)
    assert not [kind for kind in wanted if not seen[kind]], dict(seen)
