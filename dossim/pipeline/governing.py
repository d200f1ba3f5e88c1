"""Which HostEndpoint governs an interface (``felix/dataplane/linux/endpoint_mgr.go``, ``resolveHostEndpoints``).

A second, independent implementation: the compiler has its own, and the two must not share a mistake.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from enforcer.model.nets import IPAddress
from enforcer.policy.regexp import found_in
from enforcer.policy.resources import FelixConfiguration, HostEndpoint

EVERY_INTERFACE = "*"
LOOPBACK = "lo"


def governing_endpoint(
    endpoints: Iterable[HostEndpoint],
    felix: FelixConfiguration,
    node: str,
    interface: str,
    addresses: Sequence[IPAddress],
    *,
    loopback: bool = False,
) -> HostEndpoint | None:
    """The endpoint with the smallest name among those of the node that name the interface or, naming none, expect one
    of its addresses. A ``*`` endpoint governs all other interfaces. The loopback is one of them for
    tracked policy only (``loopback``; ``felix/rules/dispatch.go``). None for workload interfaces.
    """
    if _is_no_host_interface(interface, felix):
        return None
    of_node = sorted((item for item in endpoints if item.node == node), key=lambda item: item.name)
    for item in of_node:
        if item.interface_name == interface:
            return item
        if not item.interface_name and not set(addresses).isdisjoint(item.expected_ips):
            return item
    if interface == LOOPBACK and not loopback:
        return None
    return next((item for item in of_node if item.interface_name == EVERY_INTERFACE), None)


def _is_no_host_interface(interface: str, felix: FelixConfiguration) -> bool:
    """Workload interfaces (interfacePrefix) and excluded ones: a name, or a regular expression between slashes."""
    if any(prefix and interface.startswith(prefix) for prefix in felix.interface_prefix):
        return True
    for pattern in felix.interface_exclude:
        if len(pattern) > 1 and pattern[0] == pattern[-1] == "/":
            if found_in(pattern[1:-1], interface):
                return True
        elif pattern == interface:
            return True
    return False
