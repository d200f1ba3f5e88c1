"""IPv4 CIDRs in text, parsed in columns: ten times as fast as one by one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

LONGEST = len("255.255.255.255/32") + 1
"""The bytes that must follow each position: a CIDR and what ends it."""

_ZERO, _DOT, _SLASH = (np.uint8(ord(character)) for character in "0./")
_ALL = np.uint64(0xFFFFFFFF)


def parse4(text: U8, at: I64) -> tuple[Bool, U32, U8, I64]:
    """What is at these positions: whether it is an IPv4 address or CIDR in plain decimal, its network without host bits
    (host order), the prefix length, and the position behind it.

    At least :data:`LONGEST` bytes of the text follow each position. Other spellings that ``parse_cidr`` reads (a prefix
    length of three digits) are not recognised: parse them one by one.
    """
    good = np.ones(len(at), np.bool_)
    address = np.zeros(len(at), np.uint32)
    for octet in range(4):
        value, width = _number(text, at)
        good &= (width > 0) & (value <= 255) & ((width == 1) | (text[at] != _ZERO))
        address = address << np.uint32(8) | value
        at = at + width
        if octet < 3:
            good &= text[at] == _DOT
            at = at + 1
    masked = text[at] == _SLASH
    value, width = _number(text, at + masked)
    width = np.where(masked, width, 0)
    length = np.where(masked, value, np.uint16(32))
    good &= (masked <= (width > 0)) & (width < 3) & (length <= 32)
    mask = _ALL << (np.uint64(32) - np.minimum(length, 32).astype(np.uint64))
    return good, address & mask.astype(np.uint32), length.astype(np.uint8), at + masked + width


def _number(text: U8, at: I64) -> tuple[U16, I64]:
    """The number of up to three digits at each position, and how many digits it has."""
    value = np.zeros(len(at), np.uint16)
    width = np.zeros(len(at), np.int64)
    more = np.ones(len(at), np.bool_)
    for _ in range(3):
        digit = text[at + width] - _ZERO  # wraps around: what comes before "0" is large
        more &= digit < 10
        value = np.where(more, value * np.uint16(10) + digit, value)
        width += more
    return value, width
