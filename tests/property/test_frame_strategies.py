"""Frames aimed at a table match its entries, just fail to match, and have every shape that a program must parse."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from dossim.packet.fields import IPv4, IPv6
from dossim.packet.parse import parse
from dossim.pipeline.xdp_headers import Missing, known_transport, readable_ip
from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Action, Stage
from enforcer.policy.resources import Rule
from tests.support.frame_strategies import SHORTEST, random_frames
from tests.support.witnesses import predicted, table_of
from tests.unit.dossim.pipeline.test_xdp_held import EVERY_KIND
from tests.unit.dossim.xdp_decisions import HOST, policy

COUNT = 2000
RULES = [replace(rule, action=Action.DENY) for rule in EVERY_KIND if rule != Rule(Action.PASS)]
# No endpoint of that policy has a label x: these match nothing.
RULES = [rule for rule in RULES if "has(x)" not in (rule.source.selector, rule.destination.selector)]


def frames(*rules: Rule, seed: int = 1) -> list[bytes]:
    return random_frames(table_of(policy(*rules), HOST), random.Random(seed), COUNT)


def test_they_are_the_same_for_the_same_seed() -> None:
    found = frames(*RULES)
    assert found == frames(*RULES)
    assert found != frames(*RULES, seed=2)
    assert len(found) == COUNT
    assert min(map(len, found)) >= SHORTEST


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_an_entry_is_hit_and_missed(rule: Rule) -> None:
    ends = predicted(policy(rule), HOST, ModeChoice.NATIVE, frames(rule))
    dropped = sum(end.stage is Stage.DRIVER for end in ends)
    assert COUNT // 20 <= dropped <= COUNT - COUNT // 20


def test_every_shape_is_among_them() -> None:
    shapes: Counter[object] = Counter()
    for frame in frames(*RULES):
        packet = parse(frame)
        shapes["tags", len(packet.link.tags) if packet.link else 0] += 1
        ip = readable_ip(packet.link)
        if ip is None:
            shapes["not sound"] += 1
            continue
        known = known_transport(ip, by_device=False)
        shapes[ip.version, known.missing, known.why.partition(" of ")[2] or known.why] += 1
        if isinstance(ip, IPv4):
            shapes["IPv4 options"] += ip.header_length > 20
            shapes["IPv4 first fragment"] += ip.more_fragments and not ip.offset
            shapes["longer than the frame"] += ip.total_length > len(ip.buf)
        if isinstance(ip, IPv6) and known.transport:
            shapes["after extension headers"] += known.transport.offset > 40
    expected = {("tags", number) for number in range(4)} | {"not sound", "longer than the frame"}
    expected |= {"IPv4 options", "IPv4 first fragment", "after extension headers"}
    expected |= {(version, None, "") for version in (4, 6)}
    expected |= {(4, missing, "later fragment") for missing in (Missing.PORTS, Missing.ICMP_TYPE)}
    expected |= {(version, Missing.PORTS, f"{buf} bytes of its header") for version in (4, 6) for buf in (8, 20)}
    expected |= {(6, Missing.PROTOCOL, "later fragment"), (6, Missing.PROTOCOL, "authentication header")}
    expected |= {(6, Missing.PROTOCOL, "its extension headers break off")}
    expected |= {(6, Missing.PROTOCOL, "more than 8 extension headers")}
    expected |= {(6, Missing.PROTOCOL, "first fragment after extension headers")}
    assert not [shape for shape in expected if not shapes[shape]], shapes
