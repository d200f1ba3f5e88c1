"""Times of pcapng: 64-bit ticks of any resolution, and an offset, as nanoseconds since 1970."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dossim.packet.records import LAST_S, nanoseconds

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_NS = 1_000_000_000
_BINARY = 0x80  # the most significant bit of if_tsresol: a power of 2, else of 10
_DIGITS = 19  # exponent of the largest power of ten in 64 bits
# 2**34: the largest power of two whose product with 10**9 fits into 64 bits
_EXACT_BITS = 34


def nanoseconds_of(ticks: U64, resolution: I64, offset_s: I64) -> tuple[I64, int]:
    """``resolution`` is if_tsresol, ``offset_s`` if_tsoffset of each packet. Returns the times, and how many of them
    were clipped to 64 bits.
    """
    seconds, fraction = np.zeros(len(ticks), np.uint64), np.zeros(len(ticks), np.int64)
    for value in np.unique(resolution).tolist():
        rows = resolution == value
        split = _binary if value & _BINARY else _decimal
        seconds[rows], fraction[rows] = split(ticks[rows], value & ~_BINARY)
    # If the rounded sum is in range, the 64-bit sum is correct even if a term overflows, because both wrap.
    rounded = seconds.astype(np.float64) + offset_s
    reached = np.abs(rounded) < 2 * LAST_S
    beyond = np.where(rounded < 0, -2 * LAST_S, 2 * LAST_S)
    return nanoseconds(np.where(reached, seconds.view(np.int64) + offset_s, beyond), fraction)


def _decimal(ticks: U64, digits: int) -> tuple[U64, I64]:
    per_second = np.uint64(10 ** min(digits, _DIGITS))
    whole = ticks // per_second if digits <= _DIGITS else np.zeros_like(ticks)
    rest = ticks - whole * per_second if digits <= _DIGITS else ticks
    if digits <= 9:
        fraction = rest * np.uint64(10 ** (9 - digits))
    elif digits - 9 <= _DIGITS:
        fraction = rest // np.uint64(10 ** (digits - 9))
    else:
        fraction = np.zeros_like(ticks)
    return whole, fraction.astype(np.int64)


def _binary(ticks: U64, bits: int) -> tuple[U64, I64]:
    whole = _shifted(ticks, bits)
    rest = ticks - (whole << np.uint64(bits)) if bits < 64 else ticks
    fewer = max(bits - _EXACT_BITS, 0)
    fraction = _shifted(rest, fewer) * np.uint64(_NS)
    return whole, _shifted(fraction, bits - fewer).astype(np.int64)


def _shifted(value: U64, bits: int) -> U64:
    """Shifting by 64 bits and more is not defined in numpy."""
    return value >> np.uint64(bits) if bits < 64 else np.zeros_like(value)
