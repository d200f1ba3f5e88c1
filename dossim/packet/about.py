"""Sentences that describe a capture: what was cut, left out or not yet complete when it was taken."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address

from dossim.model.counted import counted
from dossim.packet.capture import Capture
from dossim.packet.columns import parse_columns
from dossim.packet.offload import header_offloaded, offloaded, sent_by

_PART = 1 << 18


def describe(capture: Capture, addresses: Collection[IPv4Address | IPv6Address] = ()) -> list[str]:
    """Sentences about the capture, the first on its contents; ``addresses`` are those of the host it is compared with.
    The warnings from reading it come last, unchanged.
    """
    sent, partial, both, header = _counts(capture, addresses)
    cut = int((capture.wire_length > capture.length).sum())
    sentences = [_contents(capture)]
    if cut:
        sentences.append(f"{counted(cut)} cut by the snapshot length: what is decided after the cut is not known.")
    for kind, count in capture.skipped.items():
        sentences.append(f"{counted(count)} left out: {kind}.")
    if sent:
        sentences.append(f"{counted(sent)} from an address of the host itself: sent, it seems, not received.")
    if partial:
        of_host = f", {both:,} of them sent by the host" if both else ""
        sentences.append(
            f"{counted(partial)} without a complete TCP, UDP or SCTP checksum{of_host}: as they look "
            "before hardware completes it (checksum offload)."
        )
    if header:
        sentences.append(f"{counted(header)} with 0 for the checksum of the IPv4 header, as before hardware sets it.")
    return [*sentences, *capture.warnings]


def _counts(capture: Capture, addresses: Collection[IPv4Address | IPv6Address]) -> tuple[int, int, int, int]:
    """Numbers of packets that the host sent, without a complete checksum, both, and without an IPv4 header checksum.
    Counted in parts: the columns take several times the memory of the capture.
    """
    sent = partial = both = header = 0
    for start in range(0, len(capture), _PART):
        columns = parse_columns(capture.part(start, start + _PART))
        own, incomplete = sent_by(columns, addresses), offloaded(columns)
        sent += int(own.sum())
        partial += int(incomplete.sum())
        both += int((own & incomplete).sum())
        header += int(header_offloaded(columns).sum())
    return sent, partial, both, header


def _contents(capture: Capture) -> str:
    kinds = ", ".join(
        name if len(capture.link_types) == 1 else f"{count:,} {name}" for name, count in capture.link_types.items()
    )
    return f"{counted(len(capture))}{f' ({kinds})' if kinds else ''}."
