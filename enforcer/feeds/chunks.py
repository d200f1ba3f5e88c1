"""Cuts a list into network sets by address, so that a refresh changes few of them. Pure.

A set has the networks that begin with the same hexadecimal digits: ``feed-drop-v4-c6`` those of 198.0.0.0/8. One that
grows beyond :data:`MOST` is cut in up to sixteen, by the next digit; they become one again when they have
:data:`FEW` together, so that a list that grows and shrinks at the limit does not change sixteen sets each time.
Whoever changes k networks of a list changes at most 17 k sets, wherever in the list they are.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from enforcer.lists.entry import BITS, Network

MOST = 2000  # networks in a set
FEW = 1000
_DIGIT = 4  # bits
_NAME = re.compile(r"feed-(.+)-v([46])(?:-([0-9a-f]+))?")


@dataclass(frozen=True)
class Part:
    """What the sets of a list have in common: the IP version, and the hexadecimal digits; "" for all networks."""

    version: int
    digits: str = ""


def name_of(feed: str, part: Part) -> str:
    """The name of a network set."""
    return "-".join(filter(None, (f"{prefix_of(feed)}v{part.version}", part.digits)))


def prefix_of(feed: str) -> str:
    """What the names of its sets begin with; those of other feeds may, too: see :func:`part_of`."""
    return f"feed-{feed}-"


def part_of(feed: str, name: str) -> Part | None:
    """The part that a network set of this name is; None if it is none of this feed."""
    found = _NAME.fullmatch(name)
    return Part(int(found[2]), found[3] or "") if found and found[1] == feed else None


def chunks(
    networks: Iterable[Network], present: Collection[Part] = (), *, most: int = MOST, few: int = FEW
) -> Mapping[Part, Sequence[Network]]:
    """The networks of each set. ``present``: the sets that there are now."""
    found: dict[Part, Sequence[Network]] = {}
    cut = {(part.version, part.digits[:length]) for part in present for length in range(len(part.digits))}
    rows = sorted(networks)
    for version, bits in BITS.items():
        of_family = rows[bisect_left(rows, (version,)) : bisect_left(rows, (version + 1,))]
        to_do: list[tuple[Part, Sequence[Network]]] = [(Part(version), of_family)] if of_family else []
        while to_do:
            part, some = to_do.pop()
            is_cut = (version, part.digits) in cut
            if len(some) <= (few if is_cut else most) or len(part.digits) * _DIGIT >= bits:
                found[part] = some
            else:
                to_do += _halves(part, some, bits)
    return found


def _halves(part: Part, rows: Sequence[Network], bits: int) -> list[tuple[Part, Sequence[Network]]]:
    """The parts with one digit more that have networks."""
    shift = bits - (len(part.digits) + 1) * _DIGIT
    begin = int(part.digits or "0", 16) << _DIGIT
    found = []
    for digit in range(1 << _DIGIT):
        first = bisect_left(rows, (part.version, (begin | digit) << shift))
        last = bisect_left(rows, (part.version, ((begin | digit) + 1) << shift))
        if first < last:
            found.append((Part(part.version, f"{part.digits}{digit:x}"), rows[first:last]))
    return found
