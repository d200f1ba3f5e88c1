"""Where a record may begin after any byte of a capture: the first place from which many plausible headers follow each
other. Pure.

That is only likely: a payload may hold a capture itself. It has to be proved (:mod:`dossim.cluster.chain`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from dossim.packet.records import LARGEST_PACKET

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
# Of headers at these places: which are plausible after others (None: the first of a chain), and where the next are.
Look = Callable[[I64, "I64 | None"], "tuple[Bool, I64]"]

HEADERS = 32  # that follow each other
REACH = LARGEST_PACKET + 64  # a record begins within so many bytes, unless a block of pcapng is larger than any packet
_DAY_S = 86_400  # between two packets that follow each other
_EARLIEST_S = 100_000_000  # in 1973: other fields of a header are not as large, or more
_LARGEST_BLOCK = 16 << 20
_SECTION, _ENHANCED = 0x0A0D0D0A, 6
# Interface, obsolete and simple packet, names, statistics, enhanced packet, secrets, custom.
_KINDS = (1, 2, 3, 4, 5, _ENHANCED, 10, 0x0BAD, 0x4000_0BAD, _SECTION)


def guess_pcap(buf: U8, *, big_endian: bool, header: int, unit_ns: int) -> int | None:
    """The place of the first record in ``buf``, which begins anywhere in a pcap file; None if none is plausible.
    ``header`` bytes are before each packet; ``unit_ns``: the unit of the fraction of a second.
    """
    word = _words(buf, ">u4" if big_endian else "<u4")
    starts = np.arange(min(len(buf) - header, REACH), dtype=np.int64)
    earliest_s = _EARLIEST_S

    def look(at: I64, before: I64 | None) -> tuple[Bool, I64]:
        seconds, fraction, captured, original = (word(at + 4 * item) for item in range(4))
        good = (captured > 0) & (captured <= LARGEST_PACKET) & (captured <= original)
        good &= (original <= LARGEST_PACKET) & (fraction * unit_ns < 1_000_000_000) & (seconds >= earliest_s)
        if before is not None:
            good &= np.abs(seconds - word(before)) <= _DAY_S
        return good, at + header + captured

    found = _first_chain(starts, len(buf) - header, look)
    if found is None:  # a capture whose clock was not set
        earliest_s = 0
        found = _first_chain(starts, len(buf) - header, look)
    return found


def guess_pcapng(buf: U8, first: int, *, big_endian: bool) -> int | None:
    """As :func:`guess_pcap`, for the blocks of a section; ``buf`` begins at byte ``first`` of the file."""
    word = _words(buf, ">u4" if big_endian else "<u4")

    def look(at: I64, before: I64 | None) -> tuple[Bool, I64]:
        kind, size = word(at), word(at + 4)
        good = np.isin(kind, _KINDS) & (size >= 12) & (size % 4 == 0) & (size <= _LARGEST_BLOCK)
        good &= (kind != _ENHANCED) | (size >= 32)
        after = at + size
        is_here = good & (after <= len(buf))
        good[is_here] = word(after[is_here] - 4) == size[is_here]
        return good, after

    return _first_chain(np.arange(-first % 4, min(len(buf) - 12, REACH), 4, dtype=np.int64), len(buf) - 12, look)


def _words(buf: U8, form: str) -> Callable[[I64], I64]:
    """The numbers at any places of the bytes."""
    if len(buf) < 4:
        return lambda at: np.zeros(len(at), np.int64)
    every = np.ndarray((len(buf) - 3,), form, buf, strides=(1,))
    return lambda at: every[at].astype(np.int64)


def _first_chain(starts: I64, end: int, look: Look) -> int | None:
    """The first of the starts from which HEADERS plausible ones follow each other, or all up to ``end``, after which no
    header is whole.
    """
    if not len(starts):
        return None
    good, after = look(starts, None)
    starts, at, after = starts[good], starts[good], after[good]
    chains = [np.zeros(0, np.int64)]
    for _ in range(HEADERS - 1):
        is_over = after > end
        chains.append(starts[is_over])
        starts, before, at = starts[~is_over], at[~is_over], after[~is_over]
        if not len(starts):
            break
        good, after = look(at, before)
        starts, at, after = starts[good], at[good], after[good]
    found = np.concatenate([*chains, starts])
    return int(found.min()) if len(found) else None
