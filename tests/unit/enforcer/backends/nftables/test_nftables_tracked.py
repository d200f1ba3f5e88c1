"""Tracked policy in the tables of nf_tables: what becomes of a packet there, on the fake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

import pytest

from enforcer.backends.base import ApplyResult
from enforcer.backends.nftables import NftablesBackend, NftablesSettings, expr
from enforcer.backends.nftables.blob import decode_rule, encode_rule
from enforcer.backends.nftables.read import read_table
from enforcer.backends.nftables.render import render
from enforcer.backends.nftables.rules import FAMILY_OF, Code, Rule
from enforcer.kernel.netlink import be64, text
from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.vocabulary import Action, Backend, CtState, Direction, Stage
from enforcer.planning.plan import InterfacePlan, Plan
from tests.support.fakes.nft import FakeNfTables, Tables
from tests.support.fakes.nft_packets import Place, Walk
from tests.support.fakes.packets import PACKETS, Packet
from tests.support.reconcile import Met, check_change, check_faults
from tests.support.tracked import Document, endpoint, felix, policy, pre_dnat, profile, rule, tracked_plan
from tests.unit.enforcer.backends.nftables.nft_world import NftWorld
from tests.unit.enforcer.backends.nftables.test_nftables_driver import raw_plan
from tests.unit.enforcer.backends.nftables.test_nftables_render import entry, table

ACCEPT, DROP = NftablesSettings().accept_mark, NftablesSettings().drop_mark
PREROUTING, INPUT, FORWARD, OUTPUT = range(4)
HERE, THERE = {4: "10.0.0.1", 6: "2001:db8::1"}, {4: "192.0.2.1", 6: "fd00::1"}


@dataclass
class Host:
    """A host with the rules of a plan, and what they have done with a packet."""

    fake: FakeNfTables = field(default_factory=FakeNfTables)
    mark: int = 0

    @property
    def driver(self) -> NftablesBackend:
        return NftablesBackend(connect=self.fake.connect)

    def enforce(self, *documents: Document, interfaces: Sequence[str] = ("eth0",)) -> None:
        self.driver.apply(tracked_plan(Backend.NFTABLES, *documents, interfaces=interfaces))

    def drops(self, packet: Packet, *hooks: int, state: CtState = CtState.NEW, mark: int = 0, **place: Any) -> bool:
        """Whether a packet is dropped at one of these hooks, in order; ``self.mark`` is what it has then."""
        self.mark = mark
        for hook in hooks:
            at = Place(FAMILY_OF[packet.version], hook, **{"interface": "eth0", "received": hook != OUTPUT, **place})
            walk = Walk(packet, at, self.fake.tables, self.fake.tables, self.mark, state)
            dropped = walk.dropped()
            self.mark = walk.mark
            if dropped:
                return True
        return False


@pytest.fixture(name="host")
def host_fixture() -> Host:
    return Host()


def to_port(port: int, protocol: int = 6, *, version: int = 4, length: int = 20) -> Packet:
    header = b"\x04\x00" + port.to_bytes(2, "big") + bytes(16)
    return Packet(ip_address(THERE[version]), ip_address(HERE[version]), protocol, header[:length])


def icmpv6(kind: int) -> Packet:
    return Packet(ip_address(THERE[6]), ip_address(HERE[6]), 58, bytes([kind]) + bytes(23))


# --- normal policy ----------------------------------------------------------------------------------------------------

WEB = policy("web", ingress=[rule("Allow", "TCP", 80), rule("Deny", "TCP", 81), rule("Pass", "UDP")])
GUESTS = profile("guests", ingress=[rule("Allow", "UDP", 9)], egress=[rule("Allow", "TCP", 80)])
NORMAL = (endpoint(profiles=["guests"]), WEB, GUESTS)

INGRESS = [
    ("an Allow", to_port(80), CtState.NEW, False),
    ("a Deny", to_port(81), CtState.NEW, True),
    ("no entry: the tier's end", to_port(82), CtState.NEW, True),
    ("a failsafe", to_port(22), CtState.NEW, False),
    ("established", to_port(81), CtState.ESTABLISHED, False),
    ("related", to_port(81), CtState.RELATED, False),
    ("invalid", to_port(80), CtState.INVALID, True),
    ("invalid, to a failsafe", to_port(22), CtState.INVALID, True),
    ("untracked", to_port(80), CtState.UNTRACKED, False),
    ("Pass, and a profile that allows", to_port(9, 17), CtState.NEW, False),
    ("Pass, and no profile that allows", to_port(10, 17), CtState.NEW, True),
    ("IPv6, an Allow", to_port(80, version=6), CtState.NEW, False),
    ("IPv6, a Deny", to_port(81, version=6), CtState.NEW, True),
    ("too short for ports", to_port(80, length=3), CtState.NEW, True),
]


@pytest.mark.parametrize(("packet", "state", "dropped"), [row[1:] for row in INGRESS], ids=[row[0] for row in INGRESS])
def test_what_normal_policy_makes_of_a_received_packet(
    host: Host, packet: Packet, state: CtState, dropped: bool
) -> None:
    host.enforce(*NORMAL)
    assert host.drops(packet, PREROUTING, INPUT, state=state) is dropped
    assert not host.drops(packet, PREROUTING, INPUT, state=state, interface="eth1")
    # What is forwarded meets no such policy, but the check of INVALID.
    assert host.drops(packet, PREROUTING, FORWARD, state=state, leaves="eth1") is (state is CtState.INVALID)


def test_what_normal_policy_makes_of_a_packet_that_is_sent(host: Host) -> None:
    host.enforce(*NORMAL)
    for port, state, dropped in (
        (80, CtState.NEW, False),
        (2379, CtState.NEW, False),  # a failsafe
        (22, CtState.NEW, True),
        (22, CtState.ESTABLISHED, False),
        (80, CtState.INVALID, True),
    ):
        assert host.drops(to_port(port), OUTPUT, state=state) is dropped
        assert not host.drops(to_port(port), OUTPUT, state=state, interface="eth1")


def test_a_deny_sets_the_drop_mark_and_nothing_else_of_ours(host: Host) -> None:
    host.enforce(*NORMAL)
    for packet, state in ((to_port(81), CtState.NEW), (to_port(82), CtState.NEW), (to_port(80), CtState.INVALID)):
        assert host.drops(packet, PREROUTING, INPUT, state=state, mark=0x5)
        assert host.mark == DROP | 0x5
    assert not host.drops(to_port(80), PREROUTING, INPUT, mark=0x5)
    assert host.mark == 0x5


def test_an_invalid_packet_is_evaluated_like_another_where_the_configuration_says_so(host: Host) -> None:
    host.enforce(*NORMAL, felix(disableConntrackInvalidCheck=True))
    assert not host.drops(to_port(80), INPUT, state=CtState.INVALID)
    assert host.drops(to_port(81), INPUT, state=CtState.INVALID)


def test_neighbour_discovery_passes_and_other_icmpv6_does_not(host: Host) -> None:
    host.enforce(endpoint())
    for kind, passes in ((130, True), (136, True), (143, True), (128, False), (137, False)):
        assert host.drops(icmpv6(kind), INPUT, state=CtState.UNTRACKED) is not passes
        assert host.drops(icmpv6(kind), OUTPUT, state=CtState.UNTRACKED) is not passes
        assert host.drops(icmpv6(kind), INPUT, state=CtState.INVALID)  # a wrong checksum, to conntrack


def test_a_negated_name_leaves_no_mark_behind(host: Host) -> None:
    named = {"action": "Deny", "protocol": "TCP", "destination": {"notPorts": ["web"]}}
    web = endpoint()
    web["spec"] |= {"expectedIPs": list(HERE.values()), "ports": [{"name": "web", "protocol": "TCP", "port": 80}]}
    host.enforce(web, policy("edge", ingress=[named, rule("Allow")]))
    assert host.drops(to_port(81), PREROUTING, INPUT)
    assert not host.drops(to_port(80), PREROUTING, INPUT)
    assert host.mark == 0


# --- preDNAT, untracked -----------------------------------------------------------------------------------------------


def test_what_pre_dnat_policy_allows_meets_no_normal_policy(host: Host) -> None:
    host.enforce(endpoint(), pre_dnat("front", rule("Allow", "TCP", 80), rule("Deny", "TCP", 81)))
    assert not host.drops(to_port(80), PREROUTING, INPUT)
    assert host.drops(to_port(81), PREROUTING)
    assert not host.drops(to_port(82), PREROUTING)  # no match: normal policy decides
    assert host.drops(to_port(82), PREROUTING, INPUT)
    assert not host.drops(to_port(81), PREROUTING, INPUT, state=CtState.ESTABLISHED)


@pytest.mark.parametrize("documents", [(), (pre_dnat("front", rule("Allow", "TCP", 80)),)], ids=["none", "preDNAT"])
def test_a_mark_that_somebody_else_has_set_opens_nothing(host: Host, documents: Sequence[Document]) -> None:
    forward = policy("through", applyOnForward=True, ingress=[rule("Deny")])
    host.enforce(endpoint(), forward, *documents)
    assert host.drops(to_port(82), PREROUTING, INPUT, mark=ACCEPT)
    assert host.drops(to_port(82), PREROUTING, FORWARD, mark=ACCEPT, leaves="eth1")
    assert host.drops(to_port(82), OUTPUT, mark=ACCEPT)


def _with_raw(plan: Plan, **more: Any) -> Plan:
    """The plan, with an untracked Allow of TCP/80 as well."""
    allow = entry(0, Action.ALLOW, protocol=6)
    out = replace(allow, name="out", direction=Direction.EGRESS)
    item = InterfacePlan(table(allow, egress=(out,), **more), None, Backend.NFTABLES, ())
    return replace(plan, interfaces=(item,))


def test_what_an_untracked_allow_marked_meets_no_tracked_policy(host: Host) -> None:
    plan = tracked_plan(Backend.NFTABLES, endpoint(), pre_dnat("front", rule("Deny")))
    host.driver.apply(_with_raw(plan))
    assert not host.drops(to_port(80), PREROUTING, INPUT, state=CtState.UNTRACKED)
    assert not host.drops(to_port(80), OUTPUT, state=CtState.UNTRACKED)
    assert host.drops(to_port(80, 17), PREROUTING)
    assert host.drops(to_port(80, 17), OUTPUT)


def test_where_untracked_policy_goes_the_mark_is_still_cleared(host: Host) -> None:
    plan = tracked_plan(Backend.NFTABLES, endpoint())
    host.driver.apply(_with_raw(plan, interface="eth1"))
    assert host.driver.detach(["eth1"])
    assert host.driver.interfaces() == {"eth0": Stage.FILTER_INPUT}
    assert host.drops(to_port(80), PREROUTING, INPUT, mark=ACCEPT)
    assert host.drops(to_port(80), OUTPUT, mark=ACCEPT)


# --- applyOnForward ---------------------------------------------------------------------------------------------------


def test_what_becomes_of_a_forwarded_packet(host: Host) -> None:
    into = policy("into", selector="has(outer)", applyOnForward=True, ingress=[rule("Allow", "TCP", 80, 22, 81)])
    out = policy("out", selector="has(inner)", applyOnForward=True, egress=[rule("Allow", "TCP", 80, 22)])
    host.enforce(endpoint(labels="outer"), endpoint("eth1", labels="inner"), into, out, interfaces=("eth0", "eth1"))
    through, back = {"leaves": "eth1"}, {"interface": "eth1", "leaves": "eth0"}
    assert not host.drops(to_port(80), PREROUTING, FORWARD, **through)
    assert host.drops(to_port(81), FORWARD, **through)  # allowed in, but not out
    assert host.drops(to_port(9), FORWARD, **through)
    assert not host.drops(to_port(9), FORWARD, leaves="eth1", interface="eth2", state=CtState.ESTABLISHED)
    assert host.drops(to_port(9), FORWARD, leaves="eth1", interface="eth2")
    assert not host.drops(to_port(9), FORWARD, **back)  # no policy this way
    assert host.drops(to_port(80), FORWARD, **through, state=CtState.INVALID)
    assert not host.drops(to_port(9), FORWARD, **back, state=CtState.RELATED)


def test_a_failsafe_is_none_for_what_is_forwarded(host: Host) -> None:
    host.enforce(endpoint(), policy("through", applyOnForward=True, ingress=[rule("Allow", "TCP", 80)]))
    assert not host.drops(to_port(22), PREROUTING, INPUT)
    assert host.drops(to_port(22), PREROUTING, FORWARD, leaves="eth1")


def test_what_pre_dnat_policy_allowed_still_meets_that_of_the_way_out(host: Host) -> None:
    """A5: the accept mark passes by applyOnForward ingress policy only."""
    documents = (
        endpoint(),
        pre_dnat("front", rule("Allow")),
        policy("into", applyOnForward=True, ingress=[rule("Deny")]),
    )
    out = policy("out", selector="has(inner)", applyOnForward=True, egress=[rule("Deny", "TCP", 81)], order=0)
    host.enforce(*documents, endpoint("eth1", labels="inner"), out, interfaces=("eth0", "eth1"))
    assert not host.drops(to_port(80), PREROUTING, FORWARD, leaves="eth2")
    assert host.drops(to_port(81), PREROUTING, FORWARD, leaves="eth1")


# --- the driver -------------------------------------------------------------------------------------------------------

ALL = (*NORMAL, pre_dnat("front", rule("Allow", "TCP", 8080)), policy("through", applyOnForward=True, egress=[]))


def test_what_is_applied_is_told_until_it_is_detached(host: Host) -> None:
    plan = tracked_plan(Backend.NFTABLES, *ALL, endpoint("eth1"), interfaces=("eth0", "eth1"))
    driver = host.driver
    assert driver.serves(plan)
    assert driver.apply(plan).changes
    assert driver.apply(plan) == ApplyResult()
    assert driver.interfaces() == {"eth0": Stage.MANGLE, "eth1": Stage.MANGLE}
    status = driver.status()["eth0"]
    assert (status.stage, status.tracked) == (
        Stage.MANGLE,
        (Stage.MANGLE, Stage.FILTER_INPUT, Stage.EGRESS, Stage.FILTER_FORWARD),
    )
    (of_plan,) = [item.table for item in plan.tracked if item.interface == "eth0"]
    expected = [(name, chain.hook.stage) for chain in of_plan.chains for name in chain.names()]
    assert [(item.entry, item.stage) for item in driver.counters() if item.interface == "eth0"] == expected
    assert set(status.entries) == {name for name, _ in expected}
    assert {fill.stage for fill in status.fills} <= set(status.stages)
    assert driver.detach(["eth0"])
    assert list(driver.interfaces()) == ["eth1"]
    assert driver.detach()
    assert host.fake.tables == {}


def test_the_rules_of_one_entry_differ_where_it_does(host: Host) -> None:
    host.enforce(*ALL)
    other = policy("web", ingress=[rule("Allow", "TCP", 80), rule("Deny", "TCP", 82), rule("Pass", "UDP")])
    changes = host.driver.apply(tracked_plan(Backend.NFTABLES, *ALL[:1], other, *ALL[2:])).changes
    assert changes == tuple(
        f"nftables {family}: chain enf-int-eth0/default: 1 rules added, 1 removed" for family in FAMILY_OF.values()
    )


def test_a_plan_that_only_knows_tracked_policy_enforces_nothing(host: Host) -> None:
    plan = tracked_plan(Backend.NFTABLES, *ALL)
    known = replace(plan, tracked=tuple(replace(item, enforced=False) for item in plan.tracked))
    others = tracked_plan(Backend.IPTABLES, *ALL)
    for one in (known, others):
        assert not host.driver.serves(one)
        assert host.driver.apply(one) == ApplyResult()


def test_raw_alone_has_no_base_chain_after_conntrack(host: Host) -> None:
    host.driver.apply(raw_plan(table(entry(0, Action.ALLOW))))
    bases = {chain.name for chain in read_table(host.fake, FAMILY_OF[4]).chains.values() if chain.hook}
    assert bases == {"enf-PREROUTING"}
    assert host.driver.status()["eth0"].tracked == ()


@pytest.mark.parametrize("mask", [0, 0x10000])
def test_without_two_bits_of_the_mark_it_is_refused(mask: int) -> None:
    with pytest.raises(UnsupportedRuleError, match=f"needs two bits of the mark mask, which is {mask:#x}"):
        render(tracked_plan(Backend.NFTABLES, *ALL), NftablesSettings(mark_mask=mask))


# --- from one plan to another -----------------------------------------------------------------------------------------


PATHS = ((PREROUTING, INPUT), (PREROUTING, FORWARD))
SOME = [packet for packet in PACKETS if packet.protocol in (17, 47) and not packet.later_fragment]


@dataclass
class TrackedWorld(NftWorld):
    """Packets are met on their way through the host, each new to conntrack."""

    def dropped(self, rules: Tables, sets: Tables, among: Met | None = None) -> Met:
        asked = among if among is not None else [(packet, path) for packet in SOME for path in PATHS]
        return {(packet, path) for packet, path in asked if self._drops(packet, path, rules, sets)}

    def _drops(self, packet: Packet, path: Sequence[int], rules: Tables, sets: Tables) -> bool:
        mark = 0
        for hook in path:
            walk = Walk(packet, Place(FAMILY_OF[packet.version], hook, "eth0", leaves="eth1"), rules, sets, mark)
            if walk.dropped():
                return True
            mark = walk.mark
        return False


def _nets(*nets: str) -> Document:
    found = profile("listed")
    return found | {
        "kind": "GlobalNetworkSet",
        "metadata": {"name": "listed", "labels": {"listed": "true"}},
        "spec": {"nets": nets},
    }


FROM_LISTED = {"source": {"selector": "has(listed)"}}
ALLOWS = policy("edge", applyOnForward=True, ingress=[rule("Allow", **FROM_LISTED)])
DENIES = policy("edge", applyOnForward=True, ingress=[rule("Deny", **FROM_LISTED), rule("Allow")])
CHANGES = {
    "members of an Allow": ((ALLOWS, _nets("10.0.0.0/24")), (ALLOWS, _nets("10.1.0.0/16"))),
    "members of a Deny": ((DENIES, _nets("10.0.0.0/24")), (DENIES, _nets("10.0.0.0/8"))),
    "an Allow becomes a Deny": ((ALLOWS, _nets("10.0.0.0/24")), (DENIES, _nets("10.1.0.0/16", "192.0.2.0/24"))),
    "normal becomes preDNAT": (
        (DENIES, _nets("192.0.2.0/24")),
        (pre_dnat("edge", rule("Deny", **FROM_LISTED)), _nets("192.0.2.1/32")),
    ),
    "the endpoint alone": ((DENIES, _nets("10.0.0.0/24")), ()),
}


@pytest.mark.parametrize("row", CHANGES)
def test_what_both_plans_drop_is_dropped_at_every_moment(row: str) -> None:
    old, new = (tracked_plan(Backend.NFTABLES, endpoint(), *documents) for documents in CHANGES[row])
    check_change(TrackedWorld, old, new)
    check_change(TrackedWorld, new, old)


@pytest.mark.slow
@pytest.mark.parametrize("row", CHANGES)
def test_wherever_it_fails_there_is_no_hole_and_the_next_pass_mends_it(row: str) -> None:
    old, new = (tracked_plan(Backend.NFTABLES, endpoint(), *documents) for documents in CHANGES[row])
    assert check_faults(TrackedWorld, old, new) > 3


# --- the kernel's bytes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", CtState)
def test_a_state_is_read_as_it_was_written(state: CtState) -> None:
    asked = Rule((*expr.ct_state({state, CtState.NEW}), expr.verdict(Code.DROP)))
    assert decode_rule(text(2, "c") + be64(3, 7) + encode_rule(asked)).rule == asked


def test_every_rule_is_read_as_it_was_written() -> None:
    for found in render(tracked_plan(Backend.NFTABLES, *ALL), NftablesSettings()):
        for chain in found.chains:
            for wanted in chain.rules:
                assert decode_rule(text(2, chain.name) + be64(3, 7) + encode_rule(wanted)).rule == wanted
