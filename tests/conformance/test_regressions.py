"""One test for each defect of Calico that users reported or its code shows; references are in docs/conformance.md."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from enforcer.kernel.bpf.links import attach_xdp
from enforcer.kernel.bpf.xdp import load_pass_program
from enforcer.kernel.rtnetlink import interface
from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Mode, Stage
from tests.conformance.documents import (
    DENY_LISTED,
    endpoint,
    failsafe,
    felix,
    namespaced_set,
    network_set,
    policy,
    tier,
)
from tests.conformance.flows import Flow, assert_blocked, assert_reached
from tests.conformance.frames import count_what_passes_raw, dropped_at, odd_frames
from tests.conformance.topology import Host, Network

pytestmark = pytest.mark.needs_root

ENTRY = "gnp/xdpf ingress[0]"


# -- the raw table -----------------------------------------------------------------------------------------------


def test_a_deny_action_of_reject_never_reaches_raw(network: Network, choice: ModeChoice, stage: Stage) -> None:
    """Calico renders REJECT into raw, where it is not valid: the restore fails and the node is not ready (#7914)."""
    server, client = network.server, network.client
    documents = [endpoint(server), policy(DENY_LISTED), network_set(client.address(), client.address(6))]
    server.apply([*documents, felix(iptablesFilterDenyAction="Reject")])
    for family in (4, 6):
        assert_blocked(Flow(client, server, family=family), by=ENTRY, at=stage)
    assert "REJECT" not in server.run("iptables-legacy-save") + server.run("ip6tables-legacy-save")


# -- tiers -------------------------------------------------------------------------------------------------------


def test_a_deny_of_the_second_tier_does_not_beat_an_allow_of_the_first(
    network: Network, choice: ModeChoice, stage: Stage
) -> None:
    """Calico accelerates the first policy of each tier, so XDP drops what the first tier allows."""
    server, client, external = network.server, network.client, network.external
    allow = {"action": "Allow", "source": {"nets": [f"{client.address()}/32"]}}
    server.apply(
        [
            endpoint(server),
            tier("first", 1),
            tier("second", 2),
            policy(allow, name="first.let", tier="first"),
            policy(DENY_LISTED, name="second.deny", tier="second"),
            network_set("10.65.0.0/24"),
        ]
    )
    assert_reached(Flow(client, server, "tcp"), Flow(client, server, "udp"))
    assert_blocked(Flow(external, server), by="gnp/second.deny ingress[0]", at=stage)


def test_two_tiers_of_deny_are_both_enforced(network: Network, choice: ModeChoice, stage: Stage) -> None:
    """Calico's eBPF mode detaches its program as soon as untracked policy is in two tiers, and enforces nothing."""
    server, client, external = network.server, network.client, network.external
    server.apply(
        [
            endpoint(server),
            tier("first", 1),
            tier("second", 2),
            policy({"action": "Deny", "source": {"selector": "in == 'one'"}}, name="first.deny", tier="first"),
            policy({"action": "Deny", "source": {"selector": "in == 'two'"}}, name="second.deny", tier="second"),
            network_set(client.address(), name="one", labels={"in": "one"}),
            network_set(external.address(), name="two", labels={"in": "two"}),
        ]
    )
    assert_blocked(Flow(client, server), by="gnp/first.deny ingress[0]", at=stage)
    assert_blocked(Flow(external, server), by="gnp/second.deny ingress[0]", at=stage)


# -- members -----------------------------------------------------------------------------------------------------


def test_a_set_of_both_families_is_enforced_in_both(network: Network, choice: ModeChoice, stage: Stage) -> None:
    """Calico's XDP supports IPv4 only; a set with an IPv6 member makes it resync everything at each update."""
    server, client, external = network.server, network.client, network.external
    members = [client.address(), client.address(6), "2001:db8::/32", "192.0.2.0/24"]
    documents = [endpoint(server), policy(DENY_LISTED)]
    server.apply([*documents, network_set(*members)])
    for family in (4, 6):
        assert_blocked(Flow(client, server, family=family), by=ENTRY, at=stage)
        assert_reached(Flow(external, server, family=family))
    server.apply([*documents, network_set(*members[:1], *members[2:])])
    assert_blocked(Flow(client, server), by=ENTRY, at=stage)
    assert_reached(Flow(client, server, family=6))


def test_more_members_than_calicos_map_holds(network: Network, choice: ModeChoice, stage: Stage) -> None:
    """Calico's map holds 10,240 CIDRs; one more disables XDP on every interface."""
    server, client = network.server, network.client
    nets = [f"11.{number >> 8}.{number & 255}.0/24" for number in range(12_000)]
    documents = [endpoint(server), policy(DENY_LISTED)]
    server.apply([*documents, network_set(*nets)])
    assert_reached(Flow(client, server))
    server.apply([*documents, network_set(*nets, client.address())])
    assert_blocked(Flow(client, server), by=ENTRY, at=stage)
    with server.inside():
        (status,) = server.enforcers[choice].status()
    assert all(fill.limit is None or fill.used <= fill.limit for fill in status.fills)
    assert max(fill.used for fill in status.fills) == len(nets) + 1


# -- failsafes ---------------------------------------------------------------------------------------------------


def test_a_failsafe_with_a_net_is_open_to_that_net_only(network: Network, choice: ModeChoice, stage: Stage) -> None:
    """Calico's XDP ignores the net, and passes every source on that port on to raw."""
    server, client, external = network.server, network.client, network.external
    documents = [endpoint(server), policy(DENY_LISTED), network_set("10.65.0.0/24")]
    only_client = failsafe("tcp", 1234, net=f"{client.address()}/32")
    server.apply([*documents, felix(failsafeInboundHostPorts=[only_client])])
    assert_reached(Flow(client, server, "tcp", 1234))
    assert_blocked(Flow(external, server, "tcp", 1234), by=ENTRY, at=stage)


def test_a_failsafe_taken_back_is_closed(network: Network, choice: ModeChoice, stage: Stage) -> None:
    """Calico adds to its failsafe map and never removes from it."""
    server, client = network.server, network.client
    documents = [endpoint(server), policy(DENY_LISTED), network_set(client.address())]
    flow = Flow(client, server, "tcp", 1234)
    server.apply([*documents, felix(failsafeInboundHostPorts=[failsafe("tcp", 22), failsafe("tcp", 1234)])])
    assert_reached(flow)
    server.apply([*documents, felix(failsafeInboundHostPorts=[failsafe("tcp", 22)])])
    assert_blocked(flow, by=ENTRY, at=stage)
    assert_reached(Flow(client, server, "tcp", 22))
    server.apply([*documents, felix(failsafeInboundHostPorts=[], failsafeOutboundHostPorts=[])])
    assert_blocked(Flow(client, server, "tcp", 22), flow, by=ENTRY, at=stage)


# -- odd packets -------------------------------------------------------------------------------------------------


def test_odd_packets_are_judged_as_raw_judges_them(network: Network, choice: ModeChoice) -> None:
    """Calico's program drops short frames of any source, and misreads ports after IP options and in later fragments."""
    server, client, source = network.server, network.client, "203.0.113.5"
    server.apply([endpoint(server), policy(DENY_LISTED), network_set("203.0.113.0/24")])
    count_what_passes_raw(server)
    judged = {}
    for name, (frame, _) in odd_frames(server, source).items():
        judged[name] = dropped_at(client, server, frame, ENTRY) is None
    assert judged == {name: passes for name, (_, passes) in odd_frames(server, source).items()}


def test_odd_packets_of_others_pass(network: Network, choice: ModeChoice) -> None:
    server, client, source = network.server, network.client, "198.51.100.5"
    server.apply([endpoint(server), policy(DENY_LISTED), network_set("203.0.113.0/24")])
    count_what_passes_raw(server)
    for frame, _ in odd_frames(server, source).values():
        assert dropped_at(client, server, frame, ENTRY) is None


# -- interfaces and programs that are not ours -------------------------------------------------------------------


@contextmanager
def foreign_program(host: Host, name: str) -> Iterator[int]:
    """Attach a foreign XDP program to an interface; returns its id."""
    with host.inside():
        state = interface(name)
        assert state is not None
        fd = load_pass_program()
        with attach_xdp(fd, state.index, Mode.NATIVE):
            os.close(fd)
            (program,) = host.xdp(name)
            yield program.prog_id


def test_an_interface_that_cannot_does_not_switch_off_the_others(network: Network) -> None:
    """Calico removes XDP from every interface until restart; here that interface alone falls back to raw."""
    server = network.server
    behind = network.add_behind(server, "eth1", "behind")
    documents = [endpoint(server, interface="*"), policy(DENY_LISTED), network_set("10.65.0.2", "10.66.0.2")]
    with foreign_program(server, "eth1"):
        applied = server.apply(documents)
        assert [(item.interface, item.mode) for item in applied.plan.interfaces] == [
            ("eth0", Mode.NATIVE),
            ("eth1", None),
        ]
        assert any(
            "eth1" in line and "a foreign XDP program is attached and stays" in line for line in applied.fallbacks
        )
        assert_blocked(Flow(network.client, server), by=ENTRY, at=Stage.DRIVER)
        assert_blocked(Flow(behind, server), by=ENTRY, at=Stage.RAW)


def test_a_foreign_program_is_never_touched(network: Network) -> None:
    """Calico's resync removes any program it finds, even on interfaces without policy and with XDP disabled (#5250)."""
    server, client = network.server, network.client
    documents = [endpoint(server), policy(DENY_LISTED), network_set(client.address())]
    with foreign_program(server, "eth0") as number:
        for state in (documents, [*documents, felix(xdpEnabled=False)], [], documents):
            server.apply(state)
            assert [item.prog_id for item in server.xdp()] == [number]
        assert_blocked(Flow(client, server), by=ENTRY, at=Stage.RAW)
        server.detach()
        assert [item.prog_id for item in server.xdp()] == [number]


def test_two_interfaces_in_two_modes_by_what_each_can(network: Network) -> None:
    """A bridge has no native XDP and gets generic XDP, while eth0 stays native."""
    server = network.server
    server.run("ip", "link", "add", "br0", "type", "bridge")
    server.run("ip", "link", "set", "br0", "up")
    documents = [endpoint(server, interface="*"), policy(DENY_LISTED), network_set("10.65.0.2")]
    applied = server.apply([*documents, felix(genericXDPEnabled=True)])
    assert {item.interface: item.mode for item in applied.plan.interfaces} == {
        "eth0": Mode.NATIVE,
        "br0": Mode.GENERIC,
    }
    assert_blocked(Flow(network.client, server), by=ENTRY, at=Stage.DRIVER)


# -- sets and selectors ------------------------------------------------------------------------------------------


def test_global_keeps_namespaced_sets_of_the_same_label_out(network: Network, choice: ModeChoice, stage: Stage) -> None:
    """namespaceSelector: global() selects GlobalNetworkSets only; without it, both kinds are selected."""
    server, client, external = network.server, network.client, network.external
    sets = [network_set(client.address()), namespaced_set(external.address())]
    server.apply([endpoint(server), policy(DENY_LISTED), *sets])
    assert_blocked(Flow(client, server), Flow(external, server), by=ENTRY, at=stage)
    source = {**DENY_LISTED["source"], "namespaceSelector": "global()"}
    server.apply([endpoint(server), policy({**DENY_LISTED, "source": source}), *sets])
    assert_blocked(Flow(client, server), by=ENTRY, at=stage)
    assert_reached(Flow(external, server))
