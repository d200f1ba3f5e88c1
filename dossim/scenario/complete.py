"""Fills in what a packet expression omits, in the same way on every machine, and reports what matters to policy.

Scapy takes addresses from this machine's routes and resolves MAC addresses on the network; its default ports are
services (UDP from and to 53, TCP from 20). A source port of 53 is that of a DNS server's reply, which Calico's outbound
failsafes let in. An expression without a source port means any client, so an ephemeral port is used here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from scapy.fields import SourceIP6Field, SourceIPField
from scapy.layers import inet, inet6, l2, sctp
from scapy.layers.l2 import DestMACField, SourceMACField
from scapy.packet import Packet

from dossim.model.errors import PacketError
from dossim.scenario.expand import every_layer, layers_of
from dossim.scenario.template import HOST_MAC, OUTSIDE_MAC
from enforcer.model.nets import IPAddress

EPHEMERAL_PORT = 49152  # the first of the dynamic ports, RFC 6335

Destinations = Mapping[int, IPAddress]  # the host's first address, by IP version

_TRANSPORTS = (inet.TCP, inet.UDP, sctp.SCTP)
# Fields that policy matches on and that Scapy fills in by default.
_PORTS = {"sport": "source port", "dport": "destination port"}
_MATCHED = {
    **dict.fromkeys(_TRANSPORTS, _PORTS),
    inet.TCP: {**_PORTS, "flags": "flags"},
    inet.ICMP: {"type": "type", "code": "code"},
}


def completed(packet: Packet, destinations: Destinations, sources: Destinations) -> Packet:
    """The packet with an Ethernet header and with all fields that Scapy would otherwise take from this machine.

    Raises PacketError naming what cannot be filled in.
    """
    packet = packet.copy() if isinstance(packet, l2.Ether) else l2.Ether() / packet
    for layer in every_layer(packet):
        if isinstance(layer, inet.IP):
            _fill(layer, "dst", destinations.get(4))
            _fill(layer, "src", sources.get(4))
        elif isinstance(layer, inet6.IPv6):
            _fill(layer, "dst", destinations.get(6))
            _fill(layer, "src", sources.get(6))
        elif isinstance(layer, l2.ARP):
            _fill(layer, "hwsrc", OUTSIDE_MAC)
            _fill(layer, "pdst", destinations.get(4))
            _fill(layer, "psrc", None)
        _fill_link(layer)
    transport = _transport(packet)
    if transport is not None:
        _fill(transport, "sport", EPHEMERAL_PORT)
    return packet


def assumed(packet: Packet) -> list[str]:
    """The fields that policy matches on and the packet, as written, does not set, with the values it is built with."""
    headers = [layer for layer in layers_of(packet) if type(layer) in _MATCHED]
    first = _transport(packet)
    return [
        f"{layer.name} {word} {EPHEMERAL_PORT if layer is first and name == 'sport' else layer.getfieldval(name)}"
        for layer in headers
        for name, word in _MATCHED[type(layer)].items()
        if layer.fields.get(name) is None
    ]


def _transport(packet: Packet) -> Packet | None:
    """The first transport header, but not one quoted in an ICMP error: the receiver sent that."""
    return next((layer for layer in layers_of(packet) if type(layer) in _TRANSPORTS), None)


def _fill_link(layer: Packet) -> None:
    """Sets the MAC addresses of any layer that Scapy would resolve on the network."""
    for field in _fields(layer):
        if isinstance(field, DestMACField):
            _fill(layer, field.name, HOST_MAC)
        elif isinstance(field, SourceMACField):
            _fill(layer, field.name, OUTSIDE_MAC)
        elif isinstance(field, (SourceIPField, SourceIP6Field)):
            _fill(layer, field.name, None)


def _fields(layer: Packet) -> Iterator[object]:
    for field in layer.fields_desc:
        yield getattr(field, "fld", field)


def _fill(layer: Packet, name: str, value: object) -> None:
    if layer.fields.get(name) is not None:
        return
    if value is None:
        raise PacketError(f"{layer.name}: {name} is missing; without it the packet would depend on this machine")
    layer.setfieldval(name, value if isinstance(value, int) else str(value))
