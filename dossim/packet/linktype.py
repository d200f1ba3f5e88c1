"""Link types other than Ethernet: their packets get an Ethernet header, so that the rest of the project handles one
kind.

Records that are not received packets for IP (sent by the host, to another host, management frames, …) are left out and
counted by kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dossim.model.errors import CaptureError
from dossim.packet.linkdecoders import DECODERS, ETHERNET, PPI, RADIOTAP, Reframer
from dossim.packet.linknames import link_name, link_name_and_number
from dossim.packet.records import CAUSES, RECEIVED, Kinds, Records
from enforcer.model.counted import counted

_MOST_KINDS = 40
_OWN_FCS = (RADIOTAP, PPI)  # these state themselves whether there is a check sequence


@dataclass(frozen=True)
class Frames:
    """Ethernet frames: ``data`` with PADDING zero bytes at its end, and columns as Capture has them. ``record``: which
    of the records; None: all of them. ``skipped`` and ``links``: records by why they are no frames, and by link type.
    """

    data: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int32]
    wire_length: npt.NDArray[np.int32]
    record: npt.NDArray[np.int64] | None
    skipped: Mapping[str, int]
    links: Mapping[str, int]


def as_ethernet(name: str, buf: memoryview, records: Records, *, skip_unknown: bool = False) -> Frames:
    """The received packets as Ethernet frames; nothing is copied if all are Ethernet already.

    Raises CaptureError for packets of unsupported link types, unless ``skip_unknown`` leaves them out.
    """
    data, count = np.frombuffer(buf, np.uint8), len(records)
    kinds = records.kinds
    if kinds is None:
        by_name = {link_name(ETHERNET): count} if count else {}
        return Frames(data, records.offset, records.length, records.wire_length, None, {}, by_name)
    links, counts = _distinct(kinds.link)
    by_link = Counter[str]()
    for link, found in zip(links, counts, strict=True):
        by_link[link_name(link)] += found
    skipped = Counter[str]()
    for cause, kind in CAUSES.items():
        skipped[kind] = int(np.count_nonzero(kinds.cause == cause))
    received = kinds.cause == RECEIVED
    unknown = received & ~np.isin(kinds.link, list(DECODERS))
    if unknown.any():
        others = dict(zip(*(part.tolist() for part in np.unique(kinds.link[unknown], return_counts=True)), strict=True))
        if not skip_unknown:
            raise _unknown(name, others, count)
        skipped.update({f"of {link_name_and_number(link)}": found for link, found in others.items()})
        received &= ~unknown
    rows = np.flatnonzero(received)
    frames = Frames(data, records.offset[rows], *_without_fcs(records, kinds, rows), rows, skipped, by_link)
    if not set(links) <= {ETHERNET}:
        frames = _reframed(buf, kinds, rows, frames)
    return replace(frames, skipped={kind: found for kind, found in frames.skipped.items() if found})


def _distinct(links: npt.NDArray[np.int32]) -> tuple[list[int], list[int]]:
    """The link types, ascending, and how often each occurs."""
    if len(links) and (links == links[0]).all():  # usual, and sorting takes as long as all the rest
        return [int(links[0])], [len(links)]
    found, counts = np.unique(links, return_counts=True)
    return found.tolist(), counts.tolist()


def _unknown(name: str, found: Mapping[int, int], total: int) -> CaptureError:
    kinds = ", ".join(f"{count:,} of {link_name_and_number(link)}" for link, count in list(found.items())[:_MOST_KINDS])
    kinds += ", …" if len(found) > _MOST_KINDS else ""
    return CaptureError(
        f"{name}: of {counted(total)}, {kinds} cannot be read; --skip-unknown-link-types leaves "
        "them out (in a scenario, skip-unknown-link-types: true). Readable: Ethernet, "
        "raw IP, Linux cooked (SLL, SLL2), BSD loopback, PPP, Cisco HDLC, 802.11 (radiotap, PPI) or NFLOG"
    )


def skipped_by_count(found: Mapping[str, int]) -> dict[str, int]:
    """As :func:`_by_count`, of Frames.skipped."""
    return _by_count(found, "of other kinds")


def links_by_count(found: Mapping[str, int]) -> dict[str, int]:
    """As :func:`_by_count`, of Frames.links."""
    return _by_count(found, "other link types")


def _by_count(found: Mapping[str, int], others: str) -> dict[str, int]:
    """The most frequent kinds first; the others are summed in one, because a crafted file can have thousands."""
    kinds = sorted(((kind, count) for kind, count in found.items() if count), key=lambda item: (-item[1], item[0]))
    named = dict(kinds[:_MOST_KINDS])
    if len(kinds) > _MOST_KINDS:
        named[others] = sum(count for _, count in kinds[_MOST_KINDS:])
    return named


def _without_fcs(
    records: Records, kinds: Kinds, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Captured and original length without the frame check sequence, if the file says that there is one."""
    fcs = np.where(np.isin(kinds.link[rows], _OWN_FCS), 0, kinds.fcs[rows]).astype(np.int32)
    wire_length = np.maximum(records.wire_length[rows] - fcs, 0)
    return np.minimum(records.length[rows], wire_length), wire_length


def _reframed(buf: memoryview, kinds: Kinds, rows: npt.NDArray[np.int64], frames: Frames) -> Frames:
    """The same, which are these records, with every packet as an Ethernet frame."""
    reframer = Reframer(
        buf,
        frames.offset,
        frames.length,
        frames.wire_length,
        kinds.big_endian[rows],
        np.ones(len(rows), np.bool_),
        Counter(frames.skipped),
    )
    links = kinds.link[rows]
    for link in np.unique(links).tolist():
        reframer.run(link, np.flatnonzero(links == link))
    kept = reframer.kept
    return replace(
        frames,
        offset=reframer.at[kept],
        length=reframer.length[kept],
        wire_length=reframer.wire_length[kept],
        record=rows[kept],
        skipped=reframer.skipped,
    )
