"""shadowed-entry: the earlier entries that decide every packet of an entry. Pure; reports only what is proved.

An entry is not evaluated for a packet that an earlier Allow or Deny decided, or that an earlier Pass of its own tier
matched. An Allow or Deny of another tier counts only if no Pass before it, in that tier, can match the packet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dossim.lint.boxes import Box, Space
from enforcer.model.vocabulary import Action
from enforcer.policy.resources import NOWHERE
from enforcer.policy.ruletable import Entry

Boxes = Sequence[Box]


@dataclass(frozen=True)
class Boxed:
    """An entry of a table, and its boxes that are not empty. ``match`` is equal for entries that match the same
    packets, and ``key`` is its hash.
    """

    entry: Entry
    match: Entry
    key: int
    boxes: tuple[Box, ...]


def boxed(entries: Sequence[Entry], space: Space) -> list[Boxed]:
    return [_boxed(entry, _match_of(entry), space) for entry in entries]


def _boxed(entry: Entry, match: Entry, space: Space) -> Boxed:
    return Boxed(entry, match, hash(match), tuple(box for box in space.boxes(entry) if box))


def decided_by(item: Boxed, earlier: Sequence[Boxed]) -> tuple[Entry, ...]:
    """The earlier entries, in order, that together decide every packet of the entry; () if that is not proved."""
    deciding = list(_deciding(item, earlier))
    same = next((other for other in deciding if item.key == other.key and item.match == other.match), None)
    if same is not None:
        return (same.entry,)
    found: dict[str, Entry] = {}
    for box in item.boxes:
        parts = _covering(box, deciding)
        if not parts:
            return ()
        found |= {entry.name: entry for entry in parts}
    return tuple(other.entry for other in earlier if other.entry.name in found)


def takes(box: Box, item: Boxed, earlier: Sequence[Boxed]) -> bool:
    """Whether earlier entries are proved to decide every packet of one box of an entry."""
    return bool(_covering(box, list(_deciding(replace(item, boxes=(box,)), earlier))))


def _deciding(item: Boxed, earlier: Sequence[Boxed]) -> Iterator[Boxed]:
    """The earlier entries whose match keeps a packet from reaching the entry."""
    passing: set[str] = set()  # other tiers in which a Pass may match some of its packets
    for other in earlier:
        own_tier = other.entry.tier == item.entry.tier
        if other.entry.action is Action.PASS and not own_tier:
            if _meet(item.boxes, other.boxes):
                passing.add(other.entry.tier)
        elif other.entry.action is not Action.LOG and (own_tier or other.entry.tier not in passing):
            yield other


def _covering(box: Box, earlier: Sequence[Boxed]) -> list[Entry]:
    """One entry that covers the box, else several that together do, each for a part of its sources; else []."""
    candidates = [(other.entry, mine) for other in earlier for mine in other.boxes if mine.holds_but_for_source(box)]
    for entry, mine in candidates:
        if box.source <= mine.source:
            return [entry]
    parts: list[Entry] = []
    rest = box.source
    for entry, mine in candidates:
        if rest.meets(mine.source):
            parts.append(entry)
            rest -= mine.source
        if not rest:
            return parts
    return []


def _meet(some: Boxes, others: Boxes) -> bool:
    return any(one.meets(other) for one in some for other in others)


def may_meet(one: Boxed, other: Boxed) -> bool:
    """Whether a packet may match both entries."""
    return _meet(one.boxes, other.boxes)


def _match_of(entry: Entry) -> Entry:
    return replace(entry, name="", action=Action.DENY, tier="", policy="", index=0, position=NOWHERE)
