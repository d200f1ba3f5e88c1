"""What an act must not hit unless its author insists: the operator's own way in, and what hosts need. Pure.

The caller gathers the facts. A refusal names each thing that would be hit, so that insisting is a decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network

from enforcer.emergency.act import PROTECTED_LABEL
from enforcer.emergency.effect import exempting
from enforcer.model.nets import IPAddress, IPNetwork, Nets
from enforcer.policy.resources import Resources
from enforcer.policy.ruletable import RuleTable

WIDEST = {4: 8, 6: 19}  # prefix lengths

# Without these a host has no neighbours, no routes or no address: ff02:: and fe80:: carry IPv6's neighbour discovery.
_ALWAYS = {
    "127.0.0.0/8": "loopback",
    "::1/128": "loopback",
    "169.254.0.0/16": "link-local addresses",
    "fe80::/10": "link-local addresses, which IPv6 needs to find neighbours and routers",
    "224.0.0.0/4": "multicast",
    "ff00::/8": "multicast, which IPv6 needs to find neighbours and routers",
    "0.0.0.0/32": "the source of a host that asks for an address (DHCP)",
    "::/128": "the source of a host that checks whether its address is free",
}


@dataclass(frozen=True)
class Facts:
    """What is known of the operator's host. ``addresses``: each with what it is, such as "the gateway of eth0"."""

    addresses: Sequence[tuple[IPAddress, str]] = ()


@dataclass(frozen=True)
class Protected:
    """A network and what it is."""

    network: IPNetwork
    what: str


@dataclass(frozen=True)
class Protection:
    """Everything that is protected. ``sets``: by what they are called."""

    single: tuple[Protected, ...] = ()
    sets: Mapping[str, Nets] = field(default_factory=dict)

    def hits(self, network: IPNetwork) -> Iterator[str]:
        """A sentence for each thing that denying the network would hit."""
        widest = WIDEST[network.version]
        if network.prefixlen < widest:
            yield f"{network} is wider than /{widest}"
        for item in self.single:
            if item.network.version == network.version and item.network.overlaps(network):
                yield _sentence(network, item)
        for what, nets in self.sets.items():
            if nets.overlaps(network):
                yield f"{network} has addresses of {what}"


def never(network: IPNetwork) -> str:
    """Why the network is denied under no circumstances; "" if it may be."""
    return f"{network} is every address: refused, also with --force" if network.prefixlen == 0 else ""


def protection(resources: Resources, tables: Iterable[RuleTable], facts: Facts) -> Protection:
    single = [Protected(ip_network(text), what) for text, what in _ALWAYS.items()]
    single += [Protected(_single(address), what) for address, what in facts.addresses]
    for endpoint in resources.host_endpoints:
        what = f"an address of HostEndpoint {endpoint.name} (expectedIPs)"
        single += [Protected(_single(address), what) for address in endpoint.expected_ips]
    nets = {
        item.net: f"a network of the failsafe port {item.port} (FelixConfiguration {felix.name})"
        for felix in resources.felix_configurations
        for item in (*felix.failsafe_inbound, *felix.failsafe_outbound)
        if item.net is not None and item.net.prefixlen
    }
    single += [Protected(net, what) for net, what in nets.items()]
    sets = {
        f"GlobalNetworkSet {item.name} ({PROTECTED_LABEL})": item.nets
        for item in resources.global_network_sets
        if item.labels.get(PROTECTED_LABEL) == "true"
    }
    sets |= {
        f"NetworkSet {item.namespace}/{item.name} ({PROTECTED_LABEL})": item.nets
        for item in resources.network_sets
        if item.labels.get(PROTECTED_LABEL) == "true"
    }
    sets |= {
        f"{', '.join(item.members)}, the exceptions of {entry.name}": item.nets for entry, item in exempting(tables)
    }
    return Protection(tuple(single), sets)


def _single(address: IPAddress) -> IPNetwork:
    return ip_network(address)


def _sentence(network: IPNetwork, item: Protected) -> str:
    other = item.network.network_address if item.network.num_addresses == 1 else item.network
    if network == item.network:
        return f"{other} is {item.what}"
    if network.prefixlen < item.network.prefixlen:
        return f"{network} contains {other}, {item.what}"
    return f"{network} is in {other}, {item.what}"
