"""NFLOG: packets that a LOG target or statement handed to nfnetlink_log, as tcpdump reads them from ``-i nflog``."""

from __future__ import annotations

import struct

from dossim.packet.reframe import IPV4_TYPE, IPV6_TYPE, UNICAST, Packet, Part, Result, ethernet

# <linux/netfilter/nfnetlink_log.h>
_PACKET_HDR, _IFINDEX_INDEV, _PAYLOAD, _HWTYPE, _HWHEADER = 1, 4, 9, 15, 16
_OUTPUT, _POSTROUTING = 3, 4  # <linux/netfilter.h>: hooks
_ETHER_HEADER, _ARPHRD_ETHER = 14, 1
_FAMILIES = {2: IPV4_TYPE, 10: IPV6_TYPE}


def nflog(packet: Packet) -> Result:
    """Attributes in the byte order of the machine that captured; the payload begins with the network header."""
    octets = packet.octets
    family, _, _ = struct.unpack_from(">BBH", octets)
    head = struct.Struct(">HH" if packet.big_endian else "<HH").unpack_from
    ethertype = _FAMILIES.get(family, 0)
    hook, received_on, hardware, mac = -1, False, _ARPHRD_ETHER, b""
    at = 4
    while True:
        length, kind = head(octets, at)
        if length < 4:
            return "damaged NFLOG attributes"
        body = at + 4
        if kind == _PAYLOAD:
            break
        if kind == _PACKET_HDR:
            protocol, hook, _ = struct.unpack_from(">HBB", octets, body)
            ethertype = protocol or ethertype
        elif kind == _IFINDEX_INDEV:
            received_on = True
        elif kind == _HWTYPE:
            hardware = packet.u16(body)
        elif kind == _HWHEADER:
            mac = octets[body : at + length]
        at += (length + 3) // 4 * 4
    if hook == _OUTPUT or (hook == _POSTROUTING and not received_on):
        return "sent by the host (NFLOG hook)"
    if ethertype not in (IPV4_TYPE, IPV6_TYPE):
        return "NFLOG, another protocol than IP"
    known = hardware == _ARPHRD_ETHER and len(mac) >= _ETHER_HEADER
    trailer = max(packet.wire - at - length, 0)
    if known:
        return Part(mac[:12] + ethertype.to_bytes(2, "big"), body, trailer)
    return ethernet(ethertype, body, UNICAST, trailer)
