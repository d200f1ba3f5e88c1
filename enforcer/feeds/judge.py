"""From the text of a list to what it denies, and why it must not be taken. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from enforcer.feeds import crowdsec, guards
from enforcer.feeds.canonical import Protected, Size, Taken, aggregated, size_of, without
from enforcer.feeds.config import Feed
from enforcer.feeds.guards import Guard, Refusal
from enforcer.lists.entry import Network, written
from enforcer.lists.parse import Parsed, parse
from enforcer.lists.recognise import shape_of

_NAMED = 5
_NOTES = 20


@dataclass(frozen=True)
class Judged:
    """``networks``: in canonical form. ``notes``: what is to be told though the list is taken. ``decisions``: of a
    CrowdSec Local API.
    """

    networks: Sequence[Network] = ()
    size: Size = field(default_factory=Size)
    refusals: Sequence[Refusal] = ()
    notes: Sequence[str] = ()
    expires_s: int | None = None
    decisions: crowdsec.Decisions = field(default_factory=dict)


def judged(content: bytes, feed: Feed, protected: Sequence[Protected], before: Size | None, now_s: float) -> Judged:
    """A list of a feed with a shape. ``before``: the size of the last one that was taken."""
    assert feed.shape is not None
    text = decoded(content)
    parsed = parse(text, feed.shape, guards.ENTRIES_PER_CIDR * feed.limits.cidrs)
    found = _judged(parsed, parsed.networks, feed, protected, before)
    refusals = [_hinted(item, text, feed) for item in found.refusals]
    notes = [*found.notes]
    if parsed.expires_s is not None and parsed.expires_s < now_s:
        notes.append("it has expired by its own header; its sets stay, because what was denied stays denied")
    return replace(found, refusals=refusals, notes=notes, expires_s=parsed.expires_s)


def judged_stream(
    content: bytes,
    feed: Feed,
    protected: Sequence[Protected],
    held: crowdsec.Decisions,
    before: Size | None,
    now_s: float,
) -> Judged:
    """An answer of a CrowdSec Local API. That nothing is denied now is no failure: each decision has an end."""
    answer = crowdsec.applied(decoded(content), held, now_s)
    networks = crowdsec.networks(answer.decisions, now_s)
    found = _judged(answer.parsed, networks, feed, protected, before)
    refusals = [item for item in found.refusals if item.guard is not Guard.EMPTY or answer.parsed.bad]
    others = [f"{count:,} decisions are not denied here: {what}" for what, count in answer.others.items()]
    return replace(found, refusals=refusals, notes=[*found.notes, *others], decisions=answer.decisions)


def of_decisions(feed: Feed, protected: Sequence[Protected], held: crowdsec.Decisions, now_s: float) -> Judged:
    """What known decisions deny now."""
    return _judged(Parsed(good=1), crowdsec.networks(held, now_s), feed, protected, None)


def decoded(content: bytes) -> str:
    """Bytes that are no UTF-8 are in comments, or make their line a bad one."""
    return content.decode("utf-8-sig", errors="replace")


def _judged(
    parsed: Parsed,
    networks: Sequence[Network],
    feed: Feed,
    protected: Sequence[Protected],
    before: Size | None,
) -> Judged:
    refusals = list(guards.of_lines(parsed, feed.limits))
    rows = sorted(set(networks))
    kept, taken = without(rows, protected)
    wide = [item for item in rows if guards.is_wide(item, feed.limits)]
    still = [item for item in wide if any(guards.is_wide(part, feed.limits) for part in without([item], protected)[0])]
    refusals += guards.of_wide(still, feed.limits)
    final = aggregated(kept)
    size = size_of(final)
    if parsed.good and networks and not final:
        refusals.append(Refusal(Guard.EMPTY, "the list is empty: all of it is protected"))
    refusals += guards.of_size(size, before, feed.limits)
    notes = [*_told_taken(taken)]
    if parsed.bad:
        named = "; ".join(map(str, parsed.first_bad[:_NAMED]))
        notes.append(f"{parsed.bad:,} lines are not entries: {named}")
    return Judged(final, size, refusals, notes)


def _told_taken(taken: Sequence[Taken]) -> Sequence[str]:
    """A sentence for each thing that is protected, of very many for the first."""
    by: dict[Protected, list[Network]] = {}
    for item in taken:
        by.setdefault(item.because, []).append(item.network)
    notes = []
    for what, hit in [*by.items()][:_NOTES]:
        named = ", ".join(map(written, hit[:_NAMED])) + (f" and {len(hit) - _NAMED:,} more" if hit[_NAMED:] else "")
        notes.append(f"not denied: {written(what.network)}, {what.what}; the list has {named}")
    return [*notes, f"and {len(by) - _NOTES:,} more are not denied"] if len(by) > _NOTES else notes


def _hinted(refusal: Refusal, text: str, feed: Feed) -> Refusal:
    """With the format that the text seems to have."""
    if refusal.guard not in (Guard.EMPTY, Guard.BAD_LINES) or feed.shape is None:
        return refusal
    other = shape_of(text)
    if other is None or other.format is feed.shape.format:
        return refusal
    return replace(refusal, sentence=f"{refusal.sentence}; it looks like format: {other.format}")
