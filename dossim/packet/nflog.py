"""NFLOG: packets that an NFLOG target or log statement passed to nfnetlink_log, as tcpdump reads them from ``-i
nflog``.

The kernel copies at most a configured number of bytes (``--nflog-size``, the snapshot length: NFULNL_CFG_MODE), and
neither it nor libpcap records the original length: a cut record looks complete. But the IP header shows it, because a
hook gets no packet that is shorter than its IP header says (``ip_rcv_core``, ``ip6_rcv_core``).
"""

from __future__ import annotations

import struct

from dossim.packet.reframe import IPV4_TYPE, IPV6_TYPE, UNICAST, Packet, Part, Result, ethernet

# <linux/netfilter/nfnetlink_log.h>
_PACKET_HDR, _IFINDEX_INDEV, _PAYLOAD, _HWTYPE, _HWHEADER = 1, 4, 9, 15, 16
_IPV4_HEADER, _IPV6_HEADER = 20, 40
_OUTPUT, _POSTROUTING = 3, 4  # <linux/netfilter.h>: hooks
_ETHER_HEADER, _ARPHRD_ETHER = 14, 1
_FAMILIES = {2: IPV4_TYPE, 10: IPV6_TYPE}


def nflog(packet: Packet) -> Result:
    """Attributes in the byte order of the machine that captured; the payload begins with the network header."""
    buf = packet.buf
    family, _, _ = struct.unpack_from(">BBH", buf)
    head = struct.Struct(">HH" if packet.big_endian else "<HH").unpack_from
    ethertype = _FAMILIES.get(family, 0)
    hook, received_on, hardware, mac = -1, False, _ARPHRD_ETHER, b""
    at = 4
    while True:
        length, kind = head(buf, at)
        if length < 4:
            return "damaged NFLOG attributes"
        body = at + 4
        if kind == _PAYLOAD:
            break
        if kind == _PACKET_HDR:
            protocol, hook, _ = struct.unpack_from(">HBB", buf, body)
            ethertype = protocol or ethertype
        elif kind == _IFINDEX_INDEV:
            received_on = True
        elif kind == _HWTYPE:
            hardware = packet.u16(body)
        elif kind == _HWHEADER:
            mac = buf[body : at + length]
        at += (length + 3) // 4 * 4
    if hook == _OUTPUT or (hook == _POSTROUTING and not received_on):
        return "sent by the host (NFLOG hook)"
    if ethertype not in (IPV4_TYPE, IPV6_TYPE):
        return "NFLOG, another protocol than IP"
    declared = buf[body : at + length]
    missing = max(_ip_length(ethertype, declared) - (length - 4), 0)
    known = hardware == _ARPHRD_ETHER and len(mac) >= _ETHER_HEADER
    trailer = max(packet.wire - at - length, 0)
    if known:
        return Part(mac[:12] + ethertype.to_bytes(2, "big"), body, trailer, missing)
    return ethernet(ethertype, body, UNICAST, trailer)._replace(missing=missing)


def _ip_length(ethertype: int, buf: bytes) -> int:
    """The least length that an IP packet beginning like this had."""
    if ethertype == IPV4_TYPE:
        return max(int.from_bytes(buf[2:4], "big") if len(buf) >= 4 else 0, _IPV4_HEADER)
    return _IPV6_HEADER + (int.from_bytes(buf[4:6], "big") if len(buf) >= 6 else 0)
