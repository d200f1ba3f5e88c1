"""The tables that lint examines: those of every interface that a HostEndpoint governs, without duplicates. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from dossim.lint.boxes import Space
from enforcer.model.facts import HostFacts, InterfaceFacts
from enforcer.policy.compile import Compiler
from enforcer.policy.resources import FelixConfiguration, Resources
from enforcer.policy.ruletable import Entry, RuleTable


@dataclass(frozen=True)
class Governed:
    """A table and all interfaces with an equal one; ``table`` is that of the first."""

    table: RuleTable
    space: Space
    felix: FelixConfiguration
    node: str
    interface: InterfaceFacts
    endpoints: tuple[str, ...]

    @property
    def entries(self) -> tuple[Entry, ...]:
        return self.table.ingress + self.table.egress


def governed_tables(resources: Resources, nodes: Iterable[str], facts: HostFacts | None) -> list[Governed]:
    """The tables of the nodes' interfaces. Raises UnsupportedRuleError as compiling does."""
    found: dict[object, Governed] = {}
    compiler = Compiler()
    for node in nodes:
        felix = resources.felix_for(node)
        for interface in interfaces_of(resources, node, facts):
            table = compiler.compile(resources, node=node, interface=interface.name, addresses=interface.addresses)
            if table.endpoint is None:
                continue
            probed = interface if facts is not None and facts.node == node else None
            same = table.ingress, table.egress, table.failsafe_inbound, table.failsafe_outbound, felix.xdp_enabled
            key = (*same, tuple(policy.name for policy in table.tracked), probed and probed.name)
            before = found.get(key)
            if before is None:
                found[key] = Governed(table, Space(table), felix, node, interface, (table.endpoint,))
            elif table.endpoint not in before.endpoints:
                found[key] = replace(before, endpoints=(*before.endpoints, table.endpoint))
    return list(found.values())


def interfaces_of(resources: Resources, node: str, facts: HostFacts | None) -> Iterator[InterfaceFacts]:
    """The interfaces of the facts if there are any, else one for each name or address in HostEndpoints.

    One address per interface is enough to find every endpoint that can govern one by its addresses: the smallest name
    wins.
    """
    if facts is not None and facts.node == node:
        yield from facts.interfaces
        return
    mine = [item for item in resources.host_endpoints if item.node == node]
    yield from map(InterfaceFacts, dict.fromkeys(item.interface_name for item in mine if item.interface_name))
    for address in dict.fromkeys(one for item in mine if not item.interface_name for one in item.expected_ips):
        # An interface known only by its address gets a name with a space, which no real interface has.
        yield InterfaceFacts(f"that of {address}", addresses=(address,))
