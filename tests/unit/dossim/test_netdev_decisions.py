"""Netdev ingress decides like an XDP program, row by row, except where it treats more as unknown; both witnesses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dossim.pipeline.explain import Explainer
from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Stage
from enforcer.policy.resources import Rule, Tier
from tests.support.frames import ME4, ethernet, ipv4
from tests.support.witnesses import plan_for, predicted
from tests.unit.dossim.xdp_decisions import (
    ALLOW,
    BAD,
    DENY,
    HOST,
    HTTP,
    ICMP,
    LISTED,
    MORE,
    PASS,
    SCTP,
    TCP,
    UDP,
    WHOLE,
    Row,
    four,
    icmp,
    options,
    policy,
    ports,
    resources,
    six,
    tcp,
    tcp6,
    transport,
    udp,
    untracked,
)
from tests.unit.dossim.xdp_rows import ECHO, ROWS, SOURCE_ONLY, SSH

HEADERS, NOT_SOUND = "its protocol cannot be determined here (extension header)", "tagged, or no IP header"
# Rows where an XDP program knows more, or has another reason: here all of them are passed to raw.
LESS = {
    "TCP after destination options": HEADERS,
    "after eight headers": HEADERS,
    "40 bytes by the header, 19 in the frame": NOT_SOUND,
    "an IPv6 first fragment": HEADERS,
    "after an atomic fragment header": HEADERS,
    "headers that break off, their source denied": NOT_SOUND,
    "a later fragment of another protocol, by its own word": HEADERS,
    "headers that break off": NOT_SOUND,
    "a header longer than the packet": HEADERS,
    "nine headers": HEADERS,
    "a first fragment after hop-by-hop": HEADERS,
    "after destination options": HEADERS,
    "after a second hop-by-hop": HEADERS,
    "an atomic one after destination options": HEADERS,
    "a first fragment that has headers of its own": HEADERS,
    "a protocol matched on for other sources: raw matches on it before it looks into lists": NOT_SOUND,
    "a rule of IPv4 is not evaluated": NOT_SOUND,
    "an authentication header: nftables does not look past it": HEADERS,
    "not those headers of another's source": NOT_SOUND,
    "after two tags": NOT_SOUND,
    "a VLAN's": NOT_SOUND,
    "a VLAN's in a priority tag": NOT_SOUND,
    "options": "its ports cannot be determined here (IP options)",
}


def tagged(frame: bytes, *tags: tuple[int, int]) -> bytes:
    return ethernet(frame[14:], int.from_bytes(frame[12:14], "big"), tags=tags)


def with_options(buf: bytes, protocol: int) -> bytes:
    packet = ipv4(buf, source=BAD, destination=ME4, protocol=protocol, options=b"\1" * 4)
    return ethernet(packet, 0x0800)


def patched(frame: bytes, at: int, buf: bytes) -> bytes:
    """The frame with these bytes of its IP header replaced."""
    return frame[: 14 + at] + buf + frame[14 + at + len(buf) :]


WEB = policy(Rule(DENY, protocol=UDP, destination=ports(80)))
PADDED = four(transport(UDP, size=8), UDP, cut=4)
TWO_TIERS = resources(
    untracked("a", Rule(PASS, source=LISTED), Rule(ALLOW, protocol=UDP, destination=ports(9)), tier="first"),
    untracked("p", Rule(DENY, protocol=UDP, destination=ports(80))),
    tiers=(Tier("first", order=1.0),),
)
OWN = [
    Row("one tag, of id 0", SOURCE_ONLY, tagged(tcp(), (0x8100, 0)), None, NOT_SOUND),
    Row("one of id 5", SOURCE_ONLY, tagged(tcp(), (0x8100, 5)), None, NOT_SOUND),
    Row("a provider's tag", SOURCE_ONLY, tagged(tcp6(), (0x88A8, 5)), None, NOT_SOUND),
    Row("version 5 in an IPv4 frame", policy(WHOLE), patched(tcp(), 0, b"\x55"), None, NOT_SOUND),
    Row("a header of four words", policy(WHOLE), patched(tcp(), 0, b"\x44"), None, NOT_SOUND),
    Row("a total length of 19", policy(WHOLE), patched(tcp(), 2, b"\x00\x13"), None, NOT_SOUND),
    Row("a total length one beyond the frame", policy(WHOLE), tcp()[:-1], None, NOT_SOUND),
    Row("padding after the packet", WEB, udp() + bytes(9), 0),
    Row("ports in the padding", WEB, PADDED, None, "(4 of 8 bytes"),
    Row("version 4 in an IPv6 frame", policy(WHOLE), patched(tcp6(), 0, b"\x40"), None, NOT_SOUND),
    Row("a payload length one beyond the frame", policy(WHOLE), tcp6()[:-1], None, NOT_SOUND),
    Row("IPv6 ports in the padding", WEB, patched(six(transport(UDP, size=8), UDP), 4, b"\0\4"), None, "(4 of 8"),
    Row("a payload length of 0, and the source alone is denied", SOURCE_ONLY, patched(tcp6(), 4, b"\0\0"), 0),
    Row("options, the source alone denied", SOURCE_ONLY, with_options(transport(TCP), TCP), 0),
    Row("options, any TCP denied", policy(Rule(DENY, protocol=TCP)), with_options(transport(TCP), TCP), 0),
    Row("options, and a type of ICMP", ECHO, with_options(icmp(8), ICMP), None,
        "its ICMP type cannot be determined here (IP options)"),
    Row("options, a protocol without ports", SSH, with_options(bytes(8), 47), 0),
    Row("options, perhaps to a failsafe", SSH, with_options(transport(TCP), TCP), None, "failsafe tcp/22 might apply"),
    Row("a first fragment to a port", WEB, four(transport(UDP, size=16), UDP, fragment=MORE), 0),
    Row("a first fragment of SCTP that the kernel cuts to 8", policy(Rule(DENY, protocol=SCTP, source=ports(1024))),
        four(transport(SCTP, size=15), SCTP, fragment=MORE), None, "(8 of 12 bytes"),
    Row("a later fragment from a listed source", SOURCE_ONLY, four(bytes(16), UDP, fragment=3), 0),
    Row("options after IPv6, the source alone denied", SOURCE_ONLY, six(options(TCP) + transport(TCP), 60), 0),
    Row("skipped before its tier matches on ports, and the next tier matches on them", TWO_TIERS, PADDED, None,
        "gnp/p ingress[0] might match: its ports cannot be determined here (4 of 8"),
    Row("the same of a protocol", resources(untracked("a", Rule(PASS, source=LISTED), Rule(ALLOW, protocol=TCP),
                                                      tier="first"), untracked("p", Rule(DENY, protocol=UDP)),
                                            tiers=(Tier("first", order=1.0),)),
        six(options(UDP) + transport(UDP), 60), None, HEADERS),
    Row("names for anything but UDP, and then a port of UDP",
        policy(Rule(ALLOW, not_protocol=UDP, destination=HTTP), Rule(DENY, protocol=UDP, destination=ports(80))),
        PADDED, None, "gnp/p ingress[1] might match"),
    Row("a list looked up last", policy(Rule(DENY, protocol=UDP, source=LISTED, destination=ports(80))), udp(), 0),
]  # fmt: skip

XDP_ROWS = [replace(row, dropped_by=None, why=LESS[row.sentence]) if row.sentence in LESS else row for row in ROWS]
NETDEV_ROWS = [*XDP_ROWS, *OWN]
rows = pytest.mark.parametrize("row", NETDEV_ROWS, ids=[row.sentence for row in NETDEV_ROWS])


def test_every_difference_is_of_a_row() -> None:
    assert LESS.keys() <= {row.sentence for row in ROWS}
    assert len({row.sentence for row in NETDEV_ROWS}) == len(NETDEV_ROWS)


@rows
def test_explain(row: Row) -> None:
    hops = Explainer(row.policy, HOST, mode=None, netdev=True).explain(row.frame).hops
    chain = next(hop for hop in hops if hop.stage is Stage.NETDEV_INGRESS)
    assert chain.entry == row.entry
    assert row.why in chain.note
    assert bool(chain.note) is (row.entry is None)


@rows
def test_predict(row: Row) -> None:
    assert plan_for(row.policy, HOST, ModeChoice.RAW, netdev=True).netdev
    (end,) = predicted(row.policy, HOST, ModeChoice.RAW, [row.frame], netdev=True)
    assert (end.entry if end.stage is Stage.NETDEV_INGRESS else None) == row.entry


def test_an_interface_with_xdp_has_no_chain() -> None:
    row = NETDEV_ROWS[0]
    plan = plan_for(row.policy, HOST, ModeChoice.NATIVE, netdev=True)
    assert (plan.netdev, plan.early) == (False, Stage.DRIVER)
    (end,) = predicted(row.policy, HOST, ModeChoice.NATIVE, [row.frame], netdev=True)
    assert end.stage is Stage.DRIVER
