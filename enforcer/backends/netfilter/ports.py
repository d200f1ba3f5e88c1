"""Port ranges, and the protocols that have ports. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from enforcer.policy.resources import PortRange

PORT_PROTOCOLS = (6, 17, 33, 132, 136)  # those xt_multiport accepts: TCP, UDP, DCCP, SCTP, UDP-Lite
LAST_PORT = 0xFFFF


def merged_ports(ports: Sequence[PortRange]) -> list[PortRange]:
    """The same ports as the fewest possible ranges, ascending."""
    merged: list[PortRange] = []
    for item in sorted(ports, key=lambda item: item.first):
        if merged and item.first <= merged[-1].last + 1:
            merged[-1] = PortRange(merged[-1].first, max(merged[-1].last, item.last))
        else:
            merged.append(item)
    return merged
