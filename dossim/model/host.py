"""Host: the machine a prediction is for. The lab builds exactly this host, so model and kernel share one description.

The lab's shape, and so the model's: the host has one interface to the outside (``interface``), a default route out of
it for both families, and, when ``routes`` names networks behind it, a second interface ``inside`` that leads to them.
IPv6 duplicate address detection, router solicitation and MLD are off; a connection-tracking rule is present, as on
every Calico host, so defragmentation (-400) and conntrack (-200) run.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

from enforcer.model.nets import IPNetwork

IPInterface = IPv4Interface | IPv6Interface


@dataclass(frozen=True)
class Listener:
    """A port the host listens on: ``protocol`` 6 (TCP) or 17 (UDP), on all addresses of both families."""

    protocol: int
    port: int


@dataclass(frozen=True)
class Host:
    """``addresses`` carry their prefix length (10.10.10.10/32 has no subnet and no broadcast address).

    ``routes`` are networks reached through ``inside``; they matter only when ``forward`` is on.
    ``rp_filter`` is the sysctl's value: 0 off, 1 strict, 2 loose.
    """

    node: str
    interface: str = "eth0"
    addresses: tuple[IPInterface, ...] = ()
    forward: bool = False
    routes: tuple[IPNetwork, ...] = ()
    inside: str = "inside0"
    listen: tuple[Listener, ...] = ()
    rp_filter: int = 0
    mtu: int = 1500
