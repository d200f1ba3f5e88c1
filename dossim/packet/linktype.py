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

from dossim.model.counted import counted
from dossim.model.errors import CaptureError
from dossim.packet.linkdecoders import DECODERS, ETHERNET, PPI, RADIOTAP, Reframer
from dossim.packet.linknames import link_name, link_name_and_number
from dossim.packet.records import CAUSES, RECEIVED, Records

_MOST_KINDS = 40
_OWN_FCS = (RADIOTAP, PPI)  # these state themselves whether there is a check sequence


@dataclass(frozen=True)
class Frames:
    """Ethernet frames: ``data`` with PADDING zero bytes at its end, and columns as Capture has them."""

    data: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int32]
    wire_length: npt.NDArray[np.int32]
    record: npt.NDArray[np.int64]
    skipped: Mapping[str, int]
    link_types: Mapping[str, int]


def as_ethernet(name: str, buf: bytearray, records: Records, *, skip_unknown: bool = False) -> Frames:
    """The received packets as Ethernet frames; nothing is copied if all are Ethernet already.

    Raises CaptureError for packets of unsupported link types, unless ``skip_unknown`` leaves them out.
    """
    links, counts = np.unique(records.link, return_counts=True)
    by_name = Counter[str]()
    for link, count in zip(links.tolist(), counts.tolist(), strict=True):
        by_name[link_name(link)] += count
    skipped = Counter[str]()
    for cause, kind in CAUSES.items():
        skipped[kind] = int(np.count_nonzero(records.cause == cause))
    received = records.cause == RECEIVED
    unknown = received & ~np.isin(records.link, list(DECODERS))
    if unknown.any():
        found = dict(
            zip(*(part.tolist() for part in np.unique(records.link[unknown], return_counts=True)), strict=True)
        )
        if not skip_unknown:
            raise _unknown(name, found, len(records))
        skipped.update({f"of {link_name_and_number(link)}": count for link, count in found.items()})
        received &= ~unknown
    rows = np.flatnonzero(received)
    length, wire_length = _without_fcs(records, rows)
    frames = Frames(np.frombuffer(buf, np.uint8), records.offset[rows], length, wire_length, rows, skipped, by_name)
    if not set(links.tolist()) <= {ETHERNET}:
        frames = _reframed(buf, records, frames)
    return replace(
        frames, skipped=_by_count(frames.skipped, "of other kinds"), link_types=_by_count(by_name, "other link types")
    )


def _unknown(name: str, found: Mapping[int, int], total: int) -> CaptureError:
    kinds = ", ".join(f"{count:,} of {link_name_and_number(link)}" for link, count in list(found.items())[:_MOST_KINDS])
    kinds += ", …" if len(found) > _MOST_KINDS else ""
    return CaptureError(
        f"{name}: of {counted(total)}, {kinds} cannot be read; --skip-unknown-link-types leaves "
        "them out (in a scenario, skip-unknown-link-types: true). Ethernet, "
        "raw IP, Linux cooked (SLL, SLL2), BSD loopback, PPP, Cisco HDLC, 802.11 (radiotap, PPI) or NFLOG"
    )


def _by_count(found: Mapping[str, int], others: str) -> dict[str, int]:
    """The most frequent kinds first; the others are summed in one, because a crafted file can have thousands."""
    kinds = sorted(((kind, count) for kind, count in found.items() if count), key=lambda item: (-item[1], item[0]))
    named = dict(kinds[:_MOST_KINDS])
    if len(kinds) > _MOST_KINDS:
        named[others] = sum(count for _, count in kinds[_MOST_KINDS:])
    return named


def _without_fcs(records: Records, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Captured and original length without the frame check sequence, if the file says that there is one."""
    fcs = np.where(np.isin(records.link[rows], _OWN_FCS), 0, records.fcs[rows]).astype(np.int32)
    wire_length = np.maximum(records.wire_length[rows] - fcs, 0)
    return np.minimum(records.length[rows], wire_length), wire_length


def _reframed(buf: bytearray, records: Records, frames: Frames) -> Frames:
    """The same with every packet as an Ethernet frame."""
    reframer = Reframer(
        buf,
        frames.offset,
        frames.length,
        frames.wire_length,
        records.big_endian[frames.record],
        np.ones(len(frames.record), np.bool_),
        Counter(frames.skipped),
    )
    links = records.link[frames.record]
    for link in np.unique(links).tolist():
        reframer.run(link, np.flatnonzero(links == link))
    kept = reframer.kept
    return replace(
        frames,
        offset=reframer.at[kept],
        length=reframer.length[kept],
        wire_length=reframer.wire_length[kept],
        record=frames.record[kept],
        skipped=reframer.skipped,
    )
