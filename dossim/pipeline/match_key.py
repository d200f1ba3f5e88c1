"""What rules of netfilter can match on, of one packet. It belongs to the kernel's part: no policy is evaluated here."""

from __future__ import annotations

from dataclasses import dataclass

from dossim.packet.fields import IP, Transport
from dossim.packet.parse import seen_transport
from enforcer.model.nets import IPAddress
from enforcer.model.vocabulary import Backend


@dataclass(frozen=True)
class MatchKey:
    """The fields rules can match on. ``transport`` None: truncated IPv6 extension headers."""

    version: int
    source: IPAddress
    destination: IPAddress
    transport: Transport | None


def match_key_in_raw(ip: IP, backend: Backend) -> MatchKey:
    """The fields of a packet that rules match on. Only the protocol may differ between the raw backends."""
    transport = seen_transport(ip, skip_authentication=backend is not Backend.NFTABLES)
    return MatchKey(ip.version, ip.source, ip.destination, transport)
