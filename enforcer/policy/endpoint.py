"""Which HostEndpoint governs an interface (``felix/dataplane/linux/endpoint_mgr.go``).

A HostEndpoint of the node matches an interface if its interfaceName is the interface, or if it has no interfaceName and
one of its expectedIPs is on the interface. The matching one with the smallest name governs, whichever way it matched.
Other interfaces are governed by the ``*`` endpoint with the smallest name. Calico refuses untracked policy for ``*``
outside its eBPF data plane; here ``*`` means every host interface except the loopback. For policy after conntrack ``*``
includes the loopback (``felix/rules/dispatch.go``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from enforcer.model.nets import IPAddress
from enforcer.policy.regexp import found_in
from enforcer.policy.resources import FelixConfiguration, HostEndpoint, Resources

ANY_INTERFACE = "*"
LOOPBACK = "lo"


def governing_endpoint(
    resources: Resources,
    *,
    node: str,
    interface: str,
    addresses: Sequence[IPAddress] = (),
    felix: FelixConfiguration | None = None,
    loopback: bool = False,
) -> HostEndpoint | None:
    """The HostEndpoint that governs an interface of a node; None if there is none.

    ``loopback``: ``*`` includes the loopback interface, as for policy after conntrack.
    """
    felix = felix or resources.felix_for(node)
    if not is_host_interface(interface, felix):
        return None
    mine = [item for item in resources.host_endpoints if item.node == node]
    specific = [item for item in mine if _matches(item, interface, addresses)]
    if loopback or interface != LOOPBACK:
        specific = specific or [item for item in mine if item.interface_name == ANY_INTERFACE]
    return min(specific, key=lambda item: item.name, default=None)


def with_kernel_names(resources: Resources, names: Mapping[str, str]) -> Resources:
    """The resources with each interfaceName that is an alternative name (``ip link property add altname``) replaced by
    the interface's kernel name, ``names[alternative]``. The same object if there is none.
    """
    if not any(item.interface_name in names for item in resources.host_endpoints):
        return resources
    endpoints = (
        replace(item, interface_name=names.get(item.interface_name, item.interface_name))
        for item in resources.host_endpoints
    )
    return replace(resources, host_endpoints=tuple(endpoints))


def is_host_interface(interface: str, felix: FelixConfiguration) -> bool:
    """Whether HostEndpoints may govern it: not a workload interface (interfacePrefix), not in interfaceExclude."""
    if interface.startswith(tuple(prefix for prefix in felix.interface_prefix if prefix)):
        return False
    return not any(_excludes(pattern, interface) for pattern in felix.interface_exclude)


def _excludes(pattern: str, interface: str) -> bool:
    if len(pattern) > 1 and pattern.startswith("/") and pattern.endswith("/"):
        return found_in(pattern[1:-1], interface)
    return pattern == interface


def _matches(endpoint: HostEndpoint, interface: str, addresses: Sequence[IPAddress]) -> bool:
    if endpoint.interface_name:
        return endpoint.interface_name == interface
    return any(address in endpoint.expected_ips for address in addresses)
