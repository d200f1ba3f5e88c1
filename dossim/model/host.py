"""Host: the machine a prediction is for. The lab builds exactly this host, so model and kernel share one description.

The lab's shape, and so the model's: the host has one interface to the outside (``interface``), a default route out of
it for both families, and, when ``routes`` names networks beyond it, a second interface ``inside`` that leads to them.
IPv6 duplicate address detection, router solicitation and MLD are off; a connection-tracking rule is present, as on
every Calico host, so defragmentation (-400) and conntrack (-200) run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

from enforcer.model.nets import IPNetwork
from enforcer.policy.resources import TCP, UDP
from enforcer.policy.values import PORT_MAX

_PROTOCOLS = {"tcp": TCP, "udp": UDP}

IPInterface = IPv4Interface | IPv6Interface


@dataclass(frozen=True)
class Listener:
    """A port the host listens on: ``protocol`` 6 (TCP) or 17 (UDP), on all addresses of both families."""

    protocol: int
    port: int


def listener(text: str) -> Listener:
    """``udp/9`` or ``tcp/80``. Raises ValueError."""
    word, _, number = text.partition("/")
    if word not in _PROTOCOLS or not re.fullmatch("[0-9]{1,5}", number) or not 1 <= int(number) <= PORT_MAX:
        raise ValueError(f"expected udp/PORT or tcp/PORT with a port of 1..{PORT_MAX}, found {text!r}")
    return Listener(_PROTOCOLS[word], int(number))


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
