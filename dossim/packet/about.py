"""Sentences that describe a capture: what was cut, left out or not yet complete when it was taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

import numpy as np

from dossim.packet.capture import Capture
from dossim.packet.linktype import links_by_count, skipped_by_count
from dossim.packet.offload import HEADER, OFFLOADED, SENT, Artefacts, artefacts_of
from enforcer.model.counted import counted


@dataclass(frozen=True)
class Facts:
    """What there is to say of a capture, as numbers of packets. ``sent``: from an address of the host; ``offloaded``:
    without a complete checksum, ``both``: those of them that the host sent; ``header``: without an IPv4 header
    checksum. ``skipped`` and ``link_types`` as Capture has them.
    """

    packets: int = 0
    cut: int = 0
    sent: int = 0
    offloaded: int = 0
    both: int = 0
    header: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    link_types: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def merged(self, other: Facts) -> Facts:
        """Of the packets of both."""
        return Facts(
            self.packets + other.packets,
            self.cut + other.cut,
            self.sent + other.sent,
            self.offloaded + other.offloaded,
            self.both + other.both,
            self.header + other.header,
            _sum(self.skipped, other.skipped),
            _sum(self.link_types, other.link_types),
            (*self.warnings, *other.warnings),
        )


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {kind: one.get(kind, 0) + other.get(kind, 0) for kind in (*one, *other)}


def facts_of(capture: Capture, found: Artefacts) -> Facts:
    """``found``: of its packets."""
    return Facts(
        packets=len(capture),
        cut=int(np.count_nonzero(capture.wire_length > capture.length)),
        sent=found.count(SENT),
        offloaded=found.count(OFFLOADED),
        both=found.count(SENT | OFFLOADED),
        header=found.count(HEADER),
        skipped=capture.skipped,
        link_types=capture.link_types,
        warnings=capture.warnings,
    )


def describe(capture: Capture, addresses: Collection[IPv4Address | IPv6Address] = ()) -> list[str]:
    """As :func:`sentences`; ``addresses`` are those of the host that the capture is compared with."""
    return sentences(facts_of(capture, artefacts_of(capture, addresses)))


def sentences(facts: Facts) -> list[str]:
    """Sentences about the capture, the first on its contents. The warnings from reading it come last, unchanged."""
    found = [_contents(facts)]
    if facts.cut:
        found.append(f"{counted(facts.cut)} cut by the snapshot length: what is decided after the cut is not known.")
    for kind, count in skipped_by_count(facts.skipped).items():
        found.append(f"{counted(count)} left out: {kind}.")
    if facts.sent:
        found.append(f"{counted(facts.sent)} from an address of the host itself: sent, it seems, not received.")
    if facts.offloaded:
        of_host = f", {facts.both:,} of them sent by the host" if facts.both else ""
        found.append(
            f"{counted(facts.offloaded)} without a complete TCP, UDP or SCTP checksum{of_host}: as they look "
            "before hardware completes it (checksum offload)."
        )
    if facts.header:
        found.append(f"{counted(facts.header)} with 0 for the checksum of the IPv4 header, as before hardware sets it.")
    return [*found, *facts.warnings]


def _contents(facts: Facts) -> str:
    links = links_by_count(facts.link_types)
    kinds = ", ".join(name if len(links) == 1 else f"{count:,} {name}" for name, count in links.items())
    return f"{counted(facts.packets)}{f' ({kinds})' if kinds else ''}."
