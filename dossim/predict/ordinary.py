"""Ordinary packets, all at once: complete IPv4 and IPv6 packets to an own or an unknown address.

Which packets are ordinary is decided before anything else (:func:`is_ordinary4`, :func:`is_ordinary6`); all others go
one by one through :mod:`dossim.predict.odd` and the kernel model that ``explain`` walks. The order of checks is the
kernel's: docs/packet-fates.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dossim.model.host import Host
from dossim.packet.columns import Bool, ByteReader, checksum_valid
from dossim.packet.fields import ICMP, ICMP_HEADER, ICMPV6, TCP, TCP_HEADER, UDP, UDP_HEADER, UDPLITE
from dossim.pipeline.cut import checksum_unknown
from dossim.predict import xdp
from dossim.predict.after import AfterConntrack
from dossim.predict.flows import Addresses, Flows
from dossim.predict.prediction import Draft
from dossim.predict.rules import decide
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Stage
from enforcer.planning.plan import InterfacePlan

I64 = npt.NDArray[np.int64]

_LOOPBACK = Nets.of(["127.0.0.0/8"])
_GROUPS = Nets.of(["224.0.0.0/4"])
_ALL_HOSTS, _LIMITED_BROADCAST = 0xE0000001, 0xFFFFFFFF
# ip6_rcv_core() refuses these: the loopback address and multicast sources. Multicast destinations are not ordinary.
_NO_SOURCE6 = Nets.of(["::1/128", "ff00::/8"])


def is_ordinary4(flows: Flows, host: Host) -> Bool:
    """To an own address or, if the host does not forward, to one that is neither own, nor broadcast, nor a joined
    group.
    """
    own = _own(flows.destination, host)
    ordinary = own if host.forward else own | ~_special_destination(flows, host)
    ordinary &= flows.protocol != UDPLITE
    if host.rp_filter:
        ordinary &= ~_filtered_source(flows.source, host)
    return ordinary


def is_ordinary6(flows: Flows, host: Host) -> Bool:
    """To an own address."""
    return np.asarray(_own(flows.destination, host) & (flows.protocol != UDPLITE), np.bool_)


@dataclass(frozen=True)
class Passed:
    """The flows that got to conntrack, and the numbers of those that are for this host."""

    arrived: Flows
    to_host: I64


def predict_ordinary(flows: Flows, plan: InterfacePlan, host: Host, draft: Draft) -> Passed:
    """Decide these flows in the draft, stage by stage; each stage sees what the previous one passed. Policy after
    conntrack takes no part.
    """
    flows = _early(flows, plan, draft)
    flows = _ip_input(flows, draft)
    arrived = _raw(flows, plan, draft)
    to_host = _route(arrived, host, draft)
    _socket(to_host, host, draft)
    return Passed(arrived, to_host.number)


def filter_ordinary(passed: Passed, draft: Draft, after: AfterConntrack) -> None:
    """Apply policy after conntrack, for flows that all have one state, to a draft in which it took no part."""
    kept = after.mangle(passed.arrived, draft)
    after.input(kept.take(np.isin(kept.number, passed.to_host, assume_unique=True)), draft)


def _early(flows: Flows, plan: InterfacePlan, draft: Draft) -> Flows:
    if plan.early is None or not plan.early_entries:
        return flows
    dropped_by = xdp.drops(flows, plan)  # no field that it reads is cut: ordinary packets have their headers
    dropped = dropped_by >= 0
    if plan.early is Stage.NETDEV_INGRESS:
        dropped &= flows.present >= flows.length  # nf_tables matches no packet that is longer than its frame
    draft.drop(flows.number[dropped], plan.early, "", dropped_by[dropped])
    return flows.take(~dropped)


def _ip_input(flows: Flows, draft: Draft) -> Flows:
    longer = flows.present < flows.length
    draft.drop(flows.number[longer], Stage.IP_INPUT, "the packet is longer than the frame")
    bad = ~longer & (_bad_source6(flows) if flows.version == 6 else ~_header_checksum_valid(flows))
    reason = "loopback or multicast source" if flows.version == 6 else "bad IP header checksum"
    draft.drop(flows.number[bad], Stage.IP_INPUT, reason)
    return flows.take(~longer & ~bad)


def _bad_source6(flows: Flows) -> Bool:
    return flows.source.among(_NO_SOURCE6)


def _header_checksum_valid(flows: Flows) -> Bool:
    """Whether the ten words of the header sum to all ones (``ip_fast_csum``); ordinary headers have no options."""
    total = np.zeros(len(flows), np.int64)
    for word in range(-20, 0, 2):
        total += flows.buf.u16(flows.at + word)
    total = (total & 0xFFFF) + (total >> 16)
    return np.asarray((total & 0xFFFF) + (total >> 16) == 0xFFFF, np.bool_)


def _raw(flows: Flows, plan: InterfacePlan, draft: Draft) -> Flows:
    decisions = decide(flows, plan.table)
    denied = decisions.denied_by >= 0
    draft.drop(flows.number[denied], Stage.RAW, "", decisions.denied_by[denied])
    draft.drop(flows.number[decisions.hotdropped], Stage.RAW, "too short for a rule that matches on ports or ICMP type")
    allowed = decisions.allowed_by >= 0
    draft.untracked[flows.number[allowed]] = True
    return replace(flows, untracked=allowed, marked=allowed).take(~denied & ~decisions.hotdropped)


def _route(flows: Flows, host: Host, draft: Draft) -> Flows:
    if flows.version == 6:
        return flows  # ordinary IPv6 is to an own address, whatever its source
    martian = (
        flows.source.among(_GROUPS)
        | flows.source.among(_LOOPBACK)
        | flows.source.equal(0)
        | flows.source.equal(_LIMITED_BROADCAST)
    )
    own = _own(flows.destination, host)
    martian |= own & _own(flows.source, host)
    draft.drop(flows.number[martian], Stage.ROUTE, "martian source")
    elsewhere = ~martian & ~own
    draft.drop(flows.number[elsewhere], Stage.ROUTE, "not an address of this host, and forwarding is off")
    return flows.take(~martian & ~elsewhere)


def _socket(flows: Flows, host: Host, draft: Draft) -> None:
    """Delivered, unless the transport drops it."""
    tcp = flows.protocol == TCP
    udp = flows.protocol == UDP
    icmp = flows.protocol == (ICMP if flows.version == 4 else ICMPV6)
    draft.drop(flows.number[tcp & flows.group], Stage.SOCKET, "TCP in a broadcast or multicast frame")
    _tcp(flows.take(tcp & ~flows.group), draft)
    _udp(flows.take(udp), host, draft)
    _icmp(flows.take(icmp), draft)


def _icmp(flows: Flows, draft: Draft) -> None:
    flows = _covered(flows, flows.length, draft)
    if flows.version == 6:
        bad = ~_checksum_valid(flows, flows.length, with_addresses=True)
    else:  # conntrack includes the IP header in the sum, so zeros alone are a good sum (nf_ip_checksum)
        summed_up = ~flows.untracked & (flows.length >= ICMP_HEADER)
        bad = ~checksum_valid(flows.buf.data, flows.at, flows.length, np.where(summed_up, 0xFFFF, 0))
    draft.drop(flows.number[bad], Stage.SOCKET, "bad ICMP checksum")


def _covered(flows: Flows, length: I64, draft: Draft) -> Flows:
    """The flows of which everything that the checksum covers was captured; the others become undetermined."""
    cut = flows.captured < length
    if not cut.any():
        return flows
    for protocol in np.unique(flows.protocol[cut]).tolist():
        rows = flows.number[cut & (flows.protocol == protocol)]
        draft.leave_cut(rows, Stage.SOCKET, checksum_unknown(int(protocol)))
    return flows.take(~cut)


def _tcp(flows: Flows, draft: Draft) -> None:
    data_offset = (flows.buf.u8(flows.at + 12) >> 4) * 4
    malformed = (flows.length < TCP_HEADER) | (data_offset < TCP_HEADER) | (data_offset > flows.length)
    draft.drop(flows.number[malformed], Stage.SOCKET, "TCP header cut short or of impossible length")
    flows = flows.take(~malformed)
    flows = _covered(flows, flows.length, draft)
    bad = ~_checksum_valid(flows, flows.length, with_addresses=True)
    draft.drop(flows.number[bad], Stage.SOCKET, "bad TCP checksum")


def _udp(flows: Flows, host: Host, draft: Draft) -> None:
    length = flows.buf.u16(flows.at + 4)
    if flows.version == 6:
        length = np.where(length == 0, flows.length, length)
    malformed = (flows.length < UDP_HEADER) | (length < UDP_HEADER) | (length > flows.length)
    draft.drop(flows.number[malformed], Stage.SOCKET, "UDP header cut short or of impossible length")
    flows, length = flows.take(~malformed), length[~malformed]
    without = flows.buf.u16(flows.at + 6) == 0
    if flows.version == 6:  # a socket rejects it; without a socket the kernel reports that first
        refused = without & np.isin(flows.dport, [item.port for item in host.listen if item.protocol == UDP])
        draft.drop(flows.number[refused], Stage.SOCKET, "UDP over IPv6 without checksum")
    flows, length = flows.take(~without), length[~without]
    covered = flows.captured >= length
    flows, length = _covered(flows, length, draft), length[covered]
    bad = ~_checksum_valid(flows, length, with_addresses=True)
    draft.drop(flows.number[bad], Stage.SOCKET, "bad UDP checksum")


def _checksum_valid(flows: Flows, length: I64, *, with_addresses: bool) -> Bool:
    initial = np.zeros(len(flows), np.int64)
    if with_addresses:
        initial = pseudo_header(flows.buf, flows) + length + flows.protocol
    return checksum_valid(flows.buf.data, flows.at, length, initial)


def pseudo_header(buf: ByteReader, flows: Flows) -> I64:
    """The sum of the words of both addresses, which directly precede the transport."""
    total = np.zeros(len(flows), np.int64)
    for word in range(-8 if flows.version == 4 else -32, 0, 2):
        total += buf.u16(flows.at + word)
    return total


def _own(addresses: Addresses, host: Host) -> Bool:
    held = np.zeros(len(addresses.low), np.bool_)
    for address in host.addresses:
        if address.version == addresses.version:
            held |= addresses.equal(int(address.ip))
    return held


def _subnet_broadcasts(addresses: Addresses, host: Host) -> Bool:
    held = np.zeros(len(addresses.low), np.bool_)
    for address in host.addresses:
        if address.version == 4 and address.network.prefixlen < 31:
            held |= addresses.equal(int(address.network.broadcast_address))
    return held


def _special_destination(flows: Flows, host: Host) -> Bool:
    """Broadcasts, the joined group, and 0.0.0.0, which is a broadcast if the source is 0.0.0.0."""
    destination = flows.destination
    special = destination.equal(_LIMITED_BROADCAST) | destination.equal(_ALL_HOSTS) | destination.equal(0)
    return special | _subnet_broadcasts(destination, host)


def _filtered_source(source: Addresses, host: Host) -> Bool:
    """Sources that source validation may drop: broadcasts, and those whose reverse route is through the inside
    interface.
    """
    held = _subnet_broadcasts(source, host)
    for network in host.routes:
        held |= source.within(network)
    return held
