"""The XDP program's maps, read as the program reads them, give the same result as evaluating the entries one by one.

The evaluation here follows the definition of an entry; unknown fields make an entry indeterminate, and XDP passes what
it cannot determine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from enforcer.backends.xdp.compile.contents import contents_of
from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.backends.xdp.compile.rows import atoms, render
from enforcer.model.nets import IPAddress, IPNetwork, Nets
from enforcer.model.vocabulary import Action, Backend, Mode
from enforcer.planning.plan import InterfacePlan
from enforcer.planning.xdp_run import XdpRun
from enforcer.policy.conditions import Icmp
from enforcer.policy.resources import Failsafe, PortRange
from enforcer.policy.ruletable import Entry, PortSet, RuleTable
from tests.support.entries import SideMatch, entry_of, names_of, said_by
from tests.support.examples import examples
from tests.support.ruletables import ADDRESSES, Packet, packets, rule_tables
from tests.unit.enforcer.backends.xdp_twin import Twin

NO, INDETERMINATE, YES = "no", "indeterminate", "yes"

# The number counts, although the name next to it selects nothing.
NAMED_FOR_NOTHING = RuleTable(
    "eth0",
    "endpoint",
    (
        entry_of(
            "entry0",
            Action.DENY,
            protocol=6,
            destination=SideMatch(not_ports=(PortRange(22, 22),), not_named_ports=("n:none",)),
        ),
    ),
    port_sets={"n:none": PortSet("n:none", "none", 6, ())},
)


@st.composite
def rule_tables_and_packets(draw: st.DrawFn) -> tuple[RuleTable, list[Packet]]:
    table = draw(rule_tables())
    return table, draw(st.lists(packets(table.ingress[-8:]), min_size=1, max_size=20))


@pytest.mark.long
@settings(max_examples=examples(150, nightly=25_000), suppress_health_check=list(HealthCheck))
@given(rule_tables_and_packets(), st.booleans())
@example((NAMED_FOR_NOTHING, [Packet(ADDRESSES[4][0], ADDRESSES[4][1], 6, (1, 22))]), True)
def test_the_maps_answer_what_walking_the_entries_does(drawn: tuple[RuleTable, list[Packet]], ipv6: bool) -> None:
    table, sent = drawn
    plan = InterfacePlan(table, Mode.NATIVE, Backend.IPTABLES, (), held=XdpRun(table).held())
    if not plan.held:
        return
    asked = atoms(plan)
    addresses = {address for packet in sent for address in (packet.source, packet.destination)}
    member_of = {
        address: frozenset(name for name, nets in asked.items() if nets.contains(address)) for address in addresses
    }
    numbers = {members: at for at, members in enumerate(dict.fromkeys([frozenset(), *member_of.values()]))}
    rows = render(plan, ipv6=ipv6)
    classes = {number: members for members, number in numbers.items()}
    twin = Twin(contents_of(plan, rows, classes, len(classes) + 1, receiver=Receiver(bytes(6)), ipv6=ipv6))
    for packet in sent:
        source, destination = (numbers[member_of[address]] for address in (packet.source, packet.destination))
        bit = twin.dropped_by(packet, source, destination)
        walked = None if packet.family == 6 and not ipv6 else walk(table, plan.held, packet)
        assert (None if bit is None else rows.names[bit]) == walked, packet


def walk(table: RuleTable, held: int, packet: Packet) -> str | None:
    """The entry that drops a packet in XDP, which holds the first ``held`` ingress entries."""
    if any(answer != NO for answer in failsafes(table, packet)):
        return None
    skipped: set[str] = set()
    for entry in table.ingress[:held]:
        answer = NO if entry.tier in skipped else match_of(entry, packet, table)
        if answer == YES and entry.action is Action.PASS:
            skipped.add(entry.tier)
        elif answer != NO:
            return entry.name if answer == YES and entry.action is Action.DENY else None
    return None


def failsafes(table: RuleTable, packet: Packet) -> Iterator[str]:
    for side, items in ((1, table.failsafe_inbound), (0, table.failsafe_outbound)):
        for item in items:
            yield failsafe(item, side, packet)


def failsafe(item: Failsafe, side: int, packet: Packet) -> str:
    if packet.protocol is None and (item.net is None or item.net.version == packet.family):
        return INDETERMINATE  # as below
    if item.net is not None and not among(packet.source, [item.net]):
        return NO
    if packet.protocol not in (None, item.protocol):
        return NO
    if packet.protocol is None or packet.ports is None:
        return INDETERMINATE
    return YES if packet.ports[side] == item.port else NO


def match_of(entry: Entry, packet: Packet, table: RuleTable) -> str:
    """Whether an entry matches: no, if anything known contradicts it; indeterminate, if it needs an unknown field."""
    said = said_by(entry)
    sides = ((said.source, packet.source), (said.destination, packet.destination))
    if packet.family not in entry.families:
        return NO
    on_ports = any(side.ports or side.not_ports or names_of(side) for side in said.sides)
    on_protocol = said.protocol is not None or said.not_protocol is not None
    if packet.protocol is None and (on_protocol or on_ports or said.types):
        return INDETERMINATE  # for any addresses: raw matches on the protocol before sets
    if not all(address_holds(*side, table) for side in sides):
        return NO
    if packet.protocol is None:
        return YES
    if packet.protocol == said.not_protocol or said.protocol not in (None, packet.protocol):
        return NO
    if packet.protocol in (6, 17, 132):
        if packet.ports is None:
            return INDETERMINATE if on_ports else YES
        ends = zip(said.sides, (packet.source, packet.destination), packet.ports, strict=True)
        return YES if all(port_holds(*end, packet.protocol, table) for end in ends) else NO
    if any(side.ports or side.named_ports for side in said.sides):
        return NO
    if said.types and packet.icmp is None:
        return INDETERMINATE
    return YES if all(icmp_holds(item, packet.icmp) != item.negated for item in said.types) else NO


def address_holds(match: SideMatch, address: IPAddress, table: RuleTable) -> bool:
    return (
        (not match.nets or among(address, match.nets))
        and not among(address, match.not_nets)
        and (match.ip_set is None or among(address, table.sets[match.ip_set].nets))
        and (match.not_ip_set is None or not among(address, table.sets[match.not_ip_set].nets))
    )


def among(address: IPAddress, nets: Iterable[IPNetwork] | Nets) -> bool:
    return any(address in net for net in nets)


def port_holds(match: SideMatch, address: IPAddress, port: int, protocol: int, table: RuleTable) -> bool:
    def listed(ranges: tuple[PortRange, ...], names: tuple[str, ...]) -> bool:
        sets = (table.port_sets[name] for name in names)
        return any(port in item for item in ranges) or any(
            item.protocol == protocol and (address, port) in item.members for item in sets
        )

    wanted = listed(match.ports, match.named_ports) or not (match.ports or match.named_ports)
    return wanted and not listed(match.not_ports, match.not_named_ports)


def icmp_holds(item: Icmp, found: tuple[int, int] | None) -> bool:
    assert found is not None
    return item.type == found[0] and item.code in (None, found[1])
