"""What ``enforcer deny`` and ``list`` say of a network holds for its packets, evaluated one by one."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dossim.model.host import Host
from enforcer.emergency.effect import Effect, Match, effects, match_of
from enforcer.model.nets import IPAddress, IPNetwork
from enforcer.model.vocabulary import Action, Direction, Side
from enforcer.policy.conditions import InNets, InSet, Ports, Protocol
from enforcer.policy.evaluate import Flow, _holds
from enforcer.policy.resources import Resources
from enforcer.policy.ruletable import Entry, RuleTable
from tests.support.examples import examples
from tests.support.frames import ME4, ME6
from tests.support.strategies import hosts, resources
from tests.support.witnesses import table_of


def networks(table: RuleTable) -> list[IPNetwork]:
    """Networks of the table's sets, with parts of them and what contains them; and some that no set has."""
    listed = [net for item in table.sets.values() for net in item.nets]
    found = [*listed, ip_network("198.18.0.0/15"), ip_network("2001:2::/48"), ip_network("0.0.0.0/1")]
    found += [net.supernet() for net in listed if net.prefixlen]
    found += [next(net.subnets()) for net in listed if net.prefixlen < net.max_prefixlen]
    return list(dict.fromkeys(found))


def flows(table: RuleTable, entries: tuple[Entry, ...], network: IPNetwork, numbers: list[int]) -> Iterator[Flow]:
    """Packets of some of its addresses, of each entry's own protocols, ports and local addresses."""
    for entry in entries:
        remote_side, local_side = SIDES[entry.direction]
        locals_ = [own_of(network), *_addresses(table, entry, local_side, network.version)]
        protocols = [item.number for item in entry.conditions if isinstance(item, Protocol)] or [6, 17, 1]
        for number in numbers:
            remote = network.network_address + number % network.num_addresses
            ends = {remote_side: remote, local_side: locals_[number % len(locals_)]}
            ports = {side: _port(entry, side, number) for side in Side}
            yield Flow(
                protocols[number % len(protocols)],
                ends[Side.SOURCE],
                ports[Side.SOURCE],
                ends[Side.DESTINATION],
                ports[Side.DESTINATION],
            )


SIDES = {Direction.INGRESS: (Side.SOURCE, Side.DESTINATION), Direction.EGRESS: (Side.DESTINATION, Side.SOURCE)}


def own_of(network: IPNetwork) -> IPAddress:
    return IPv4Address(ME4) if network.version == 4 else IPv6Address(ME6)


def _addresses(table: RuleTable, entry: Entry, side: Side, version: int) -> list[IPAddress]:
    found: list[IPNetwork] = []
    for each in entry.conditions:
        if isinstance(each, InNets) and each.side is side:
            found += each.nets
        elif isinstance(each, InSet) and each.side is side:
            found += table.sets[each.id].nets
    return [net.network_address for net in found if net.version == version]


def _port(entry: Entry, side: Side, number: int) -> int:
    ranges = [
        part for each in entry.conditions if isinstance(each, Ports) and each.side is side for part in each.ranges
    ]
    return ranges[number % len(ranges)].first if ranges and number % 3 else 1024 + number % 60000


def matching(table: RuleTable, entries: tuple[Entry, ...], flow: Flow) -> list[Entry]:
    """The entries that the packet meets and matches, up to the one that decides."""
    met: list[Entry] = []
    skipped = None
    for entry in entries:
        if entry.tier == skipped or entry.action is Action.LOG or flow.version not in entry.families:
            continue
        if all(_holds(each, table, flow) for each in entry.conditions):
            met.append(entry)
            if entry.action is not Action.PASS:
                return met
            skipped = entry.tier
    return met


def assert_holds(found: Effect, met: list[Entry]) -> None:
    """A packet either ends as is said, or by an entry that is said to come first, or by an earlier Deny."""
    names = [entry.name for entry in met]
    if met and met[-1].action is Action.DENY and not found.passed_by:
        return
    if found.denied_by:
        assert set(names) & set(found.partly), (found, names)
    if found.passed_by and found.passed_by not in names:
        assert set(names) & set(found.partly) or met[-1].action is Action.DENY, (found, names)


@settings(max_examples=examples(120, nightly=20_000), suppress_health_check=list(HealthCheck))
@given(resources(), hosts(), st.lists(st.integers(0, 2**128), min_size=6, max_size=6))
def test_an_effect_holds_for_every_packet(policy: Resources, host: Host, numbers: list[int]) -> None:
    table = table_of(policy, host)
    for network in networks(table):
        for found in effects([table], network):
            entries = table.ingress if found.direction is Direction.INGRESS else table.egress
            for flow in flows(table, entries, network, numbers):
                met = matching(table, entries, flow)
                assert_holds(found, met)
                for entry in entries:
                    holds = flow.version in entry.families and all(_holds(it, table, flow) for it in entry.conditions)
                    match = match_of(table, entry, network)
                    assert match is Match.SOME or holds == (match is Match.ALL), (entry, network, flow)
