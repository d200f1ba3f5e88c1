"""What the XDP program does with a frame (``bpf/xdp_untracked.bpf.c``), from the resources.

It may drop only what raw would drop, so it holds only rules whose answer depends on nothing but the source, and
passes a frame in doubt. The longest run of such rules, from the first, is held: were one left out, a packet it allows
could be dropped by one behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile

from dossim.disposition import Fate
from dossim.packet.fields import (
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    EXTENSION_HEADERS,
    FRAGMENT,
    FRAGMENT_HEADER,
    HOP_BY_HOP,
    IP,
    IPV4_HEADER,
    IPV6_HEADER,
    NO_NEXT,
    SCTP,
    TCP,
    TCP_HEADER,
    UDP,
    UDP_HEADER,
    Ethernet,
    IPv4,
    IPv6,
    Transport,
)
from dossim.packet.parse import extension_length, number, parse_ipv4, parse_ipv6
from dossim.pipeline.matching import Answer, Seen, rule_matches
from dossim.pipeline.policy import NamedRule, Policy
from dossim.pipeline.selection import has_selector
from dossim.pipeline.stages import Flight, Node, Step, World
from enforcer.policy.resources import Failsafe, Rule
from enforcer.words import STAGE_OF_MODE, Action, Stage

MAX_TAGS = 2
MAX_EXTENSION_HEADERS = 8
# Without the whole header the ports count as unknown; other protocols' never are known.
HEADER_LENGTHS = {TCP: TCP_HEADER, UDP: UDP_HEADER, SCTP: 12}
UNKNOWN_PROTOCOL = 0  # IPPROTO_HOPOPTS stands for it in the failsafe map, so a packet that says 0 says nothing


def xdp_check(stage: Stage, following: Stage) -> Callable[[Flight, World], Step]:
    """The check of one of the three stages an XDP program can run at."""

    def check(flight: Flight, world: World) -> Step:
        return _check(stage, following, flight, world)

    return check


def held_rules(policy: Policy) -> tuple[NamedRule, ...]:
    """The rules the XDP program holds."""
    return tuple(takewhile(lambda item: not why_not(item.rule), policy.rules))


def why_not(rule: Rule) -> str:
    """Why XDP cannot decide a rule; "" when it can."""
    asked = {
        f"its action is {rule.action}": rule.action is not Action.DENY,
        "it matches a protocol": rule.protocol is not None or rule.not_protocol is not None,
        "it matches ICMP": rule.icmp is not None or rule.not_icmp is not None,
        "it matches ports": any(side.ports or side.not_ports for side in (rule.source, rule.destination)),
        "it matches the destination": bool(rule.destination.nets or rule.destination.not_nets)
        or has_selector(rule.destination),
        "it excludes sources": bool(rule.source.not_nets)
        or bool(rule.source.not_selector and not rule.source.selector and not rule.source.namespace_selector),
        "it matches a list of nets and a selector at once": bool(rule.source.nets) and has_selector(rule.source),
    }
    return next((reason for reason, applies in asked.items() if applies), "")


def _check(stage: Stage, following: Stage, flight: Flight, world: World) -> Step:
    if world.mode is None or STAGE_OF_MODE[world.mode] is not stage:
        return Step(following, flight, "the interface", "no XDP program here")
    held = held_rules(world.policy)
    if not held:
        reason = why_not(world.policy.rules[0].rule) if world.policy.rules else "no rule applies"
        return Step(following, flight, "the interface", "no XDP program here", note=f"it would hold no rule: {reason}")
    ip = readable_ip(flight.packet.link)
    if ip is None:
        return _pass(stage, following, flight, "the frame", "no IP header that can be decided on")
    looked_at = f"source {ip.source}"
    rule = _first_match(held, ip, world)
    if rule is None:
        return _pass(stage, following, flight, looked_at, _no_match(world.policy, held))
    failsafe = _possible_failsafe(world.policy, ip)
    if failsafe:
        return _pass(stage, following, flight, looked_at, failsafe)
    target: Node = Fate.DROPPED
    return Step(target, flight, looked_at, f"{rule.name} denies it", rule.name, rule.rule)


def _pass(stage: Stage, following: Stage, flight: Flight, looked_at: str, why: str) -> Step:
    passed = Flight(flight.packet, flight.ip, flight.link_type, passed=f"{stage} passed it: {why}")
    return Step(following, passed, looked_at, "passes", note=why)


def _no_match(policy: Policy, held: tuple[NamedRule, ...]) -> str:
    if len(held) == len(policy.rules):
        return "no rule names its source"
    stopper = policy.rules[len(held)]
    own = f"{'the one rule' if len(held) == 1 else f'none of the {len(held)} rules'} held here "
    own += "does not name its source" if len(held) == 1 else "names its source"
    return f"{own}; {stopper.name} is left to raw: {why_not(stopper.rule)}"


def readable_ip(link: Ethernet | None) -> IP | None:
    """The IP header of a frame, where it is sound enough to look for its source. Two VLAN tags are looked behind."""
    if link is None or len(link.tags) > MAX_TAGS:
        return None
    if link.ethertype == ETHERTYPE_IPV4:
        ip4 = parse_ipv4(link.payload)
        return ip4 if ip4 is not None and _is_sound4(ip4) else None
    if link.ethertype == ETHERTYPE_IPV6:
        ip6 = parse_ipv6(link.payload)
        return ip6 if ip6 is not None and ip6.version == 6 else None
    return None


def _is_sound4(ip: IPv4) -> bool:
    """A total length beyond the frame and a wrong checksum are no obstacle: whatever raw never sees may be dropped."""
    return ip.version == 4 and IPV4_HEADER <= ip.header_length <= min(ip.total_length, len(ip.octets))


def _first_match(held: tuple[NamedRule, ...], ip: IP, world: World) -> NamedRule | None:
    seen = Seen(ip.version, ip.source, ip.destination, None)
    selection = world.policy.selection
    return next((item for item in held if rule_matches(item.rule, seen, selection) is Answer.YES), None)


def _possible_failsafe(policy: Policy, ip: IP) -> str:
    """Why a failsafe might apply; "" when none can. The net of a failsafe is left to raw."""
    transport = known_transport(ip)
    for failsafe, answers in policy.failsafes():
        if transport is None:
            return "its protocol cannot be known here, and there are failsafes"
        if failsafe.protocol != transport.protocol:
            continue
        if not _are_ports_known(transport):
            return f"its ports cannot be known here, and there are failsafes of protocol {transport.protocol}"
        if _is_port(failsafe, transport, answers=answers):
            return f"{policy.describe(failsafe, answers=answers)} applies"
    return ""


def _is_port(failsafe: Failsafe, transport: Transport, *, answers: bool) -> bool:
    return transport.ports is not None and transport.ports[0 if answers else 1] == failsafe.port


def _are_ports_known(transport: Transport) -> bool:
    least = HEADER_LENGTHS.get(transport.protocol)
    return least is not None and not transport.fragment_offset and len(transport.octets) >= least


def known_transport(ip: IP) -> Transport | None:
    """What the program knows of the transport; None when not even the protocol."""
    if isinstance(ip, IPv4):
        transport = Transport(ip.protocol, ip.header_length, ip.payload, ip.offset)
        return None if transport.protocol == UNKNOWN_PROTOCOL else transport
    return _behind_extension_headers(ip)


def _behind_extension_headers(ip: IPv6) -> Transport | None:
    """``parse_extensions``: at most eight headers, each with its first eight octets there and its length in the
    packet.
    """
    is_jumbogram = ip.payload_length == 0 and ip.next_header == HOP_BY_HOP
    end = len(ip.octets) if is_jumbogram else min(IPV6_HEADER + ip.payload_length, len(ip.octets))
    stated_end = None if is_jumbogram else IPV6_HEADER + ip.payload_length
    octets, kind, at = ip.octets[:end], ip.next_header, IPV6_HEADER
    for _ in range(MAX_EXTENSION_HEADERS):
        if kind not in EXTENSION_HEADERS or kind == NO_NEXT:
            break
        if len(octets) < at + FRAGMENT_HEADER:
            return None
        following = octets[at]
        if kind == FRAGMENT and (offset := number(octets, at + 2, 2) & 0xFFF8):
            is_final = following not in EXTENSION_HEADERS or following == NO_NEXT
            return Transport(following, at, octets[at:], offset) if is_final else None
        at += extension_length(kind, octets[at + 1])
        if stated_end is not None and at > stated_end:
            return None
        kind = following
    if kind in EXTENSION_HEADERS and kind != NO_NEXT:
        return None
    return Transport(kind, at, octets[at:])
