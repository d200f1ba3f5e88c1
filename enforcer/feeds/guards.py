"""What a fetched list must satisfy before it replaces the one that is enforced. Pure.

A list that somebody else publishes decides what is denied: one that is cut off opens the door, and one that is wrong
closes it. Each refusal says what the list would have done, and how a person can insist.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from enforcer.feeds.canonical import Size
from enforcer.lists.entry import Network, written
from enforcer.lists.parse import Parsed
from enforcer.model.vocabulary import Word

_NAMED = 5
_IPV4 = 1 << 32


class Guard(Word):
    INCOMPLETE = "incomplete"
    EMPTY = "empty"
    EVERYTHING = "everything"
    ENTRIES = "entries"
    BAD_LINES = "bad-lines"
    WIDE = "wide"
    CIDRS = "cidrs"
    SHARE = "ipv4-share"
    CHANGE = "change"


# A person cannot accept these: there is nothing to enforce, nobody knows what is missing, or nobody could mean it.
FINAL = (Guard.INCOMPLETE, Guard.EMPTY, Guard.EVERYTHING, Guard.ENTRIES)
ENTRIES_PER_CIDR = 10  # a list is read up to so many times the CIDRs that it may have when neighbours are joined


@dataclass(frozen=True)
class Limits:
    """``bytes``: of the list as fetched. ``bad_share``: of its lines. ``cidrs``, ``ipv4_share``: of its canonical form.
    ``change``: the share by which it may grow or shrink; 0: by any. ``widest4``, ``widest6``: prefix lengths.
    """

    bytes: int = 64 << 20
    bad_share: float = 0.001
    cidrs: int = 200_000
    ipv4_share: float = 1 / 16
    change: float = 0.5
    widest4: int = 8
    widest6: int = 19


@dataclass(frozen=True)
class Refusal:
    guard: Guard
    sentence: str
    setting: str = ""  # of feeds.yaml that raises the limit

    @property
    def final(self) -> bool:
        return self.guard in FINAL

    def told(self, feed: str) -> str:
        """The sentence, with how to insist."""
        raises = f"limits.{self.setting} of the feed raises the limit"
        if not self.final:
            return f"{self.sentence}; to insist: 'enforcer feed sync --accept {feed}' takes this fetch, and {raises}"
        if self.setting:
            return f"{self.sentence}; the current sets stay; {raises}"
        return f"{self.sentence}; the current sets stay; to have none: 'enforcer feed remove {feed}'"


def of_lines(parsed: Parsed, limits: Limits) -> Iterator[Refusal]:
    """Of the text."""
    if parsed.problem:
        yield Refusal(Guard.INCOMPLETE, parsed.problem)
    if parsed.more:
        yield Refusal(Guard.ENTRIES, f"it has more than {parsed.most:,} entries, which are not all read", "cidrs")
    if any(length == 0 for _, _, length in parsed.networks):
        yield Refusal(Guard.EVERYTHING, "it would deny every address")
    total = parsed.good + parsed.bad
    if parsed.problem and not parsed.good + parsed.bad:
        return  # that says why there is no entry
    if not parsed.good:
        seen = f"{parsed.bad:,} lines, none of them an entry ({_some_bad(parsed)})" if parsed.bad else "no entry"
        yield Refusal(Guard.EMPTY, f"the list is empty: {seen}")
    elif parsed.bad > limits.bad_share * total:
        yield Refusal(
            Guard.BAD_LINES,
            f"{parsed.bad:,} of {total:,} lines are not entries, more than {limits.bad_share:.2%}: {_some_bad(parsed)}",
            "badShare",
        )


def is_wide(network: Network, limits: Limits) -> bool:
    return network[2] < (limits.widest4 if network[0] == 4 else limits.widest6)


def of_wide(wide: Sequence[Network], limits: Limits) -> Iterator[Refusal]:
    """``wide``: the networks of the list that are wide, also without what is protected in them."""
    if wide:
        is_four = wide[0][0] == 4
        widest, setting = (limits.widest4, "widestIPv4") if is_four else (limits.widest6, "widestIPv6")
        named = _some(map(written, wide), len(wide))
        yield Refusal(Guard.WIDE, f"it would deny {named}, wider than /{widest}", setting)


def of_size(size: Size, before: Size | None, limits: Limits) -> Iterator[Refusal]:
    """Of the canonical form. ``before``: of the last one that was taken, None if there was none."""
    if size.cidrs > limits.cidrs:
        yield Refusal(Guard.CIDRS, f"it has {size.cidrs:,} CIDRs, more than {limits.cidrs:,}", "cidrs")
    share = size.addresses4 / _IPV4
    if share > limits.ipv4_share:
        yield Refusal(
            Guard.SHARE, f"it would deny {share:.1%} of all IPv4 addresses, more than {limits.ipv4_share:.1%}",
            "ipv4Share",
        )  # fmt: skip
    if before is not None and limits.change:
        yield from _of_change(size, before, limits)


_UNITS = {"cidrs": "CIDRs", "addresses4": "IPv4 addresses", "networks6": "IPv6 networks of /64"}


def _of_change(size: Size, before: Size, limits: Limits) -> Iterator[Refusal]:
    for item in fields(Size):
        old, new = getattr(before, item.name), getattr(size, item.name)
        if abs(new - old) > limits.change * old and (old or item.name == "cidrs"):
            count = f"{abs(new - old):,} {_UNITS[item.name]}"
            more = f"it would deny {count} more" if new > old else f"it would let through {count} that are denied now"
            yield Refusal(
                Guard.CHANGE,
                f"from {old:,} {_UNITS[item.name]} to {new:,}, a change by more than {limits.change:.0%}: {more}",
                "change",
            )
            return


def _some_bad(parsed: Parsed) -> str:
    named = "; ".join(map(str, parsed.first_bad[:_NAMED]))
    return f"{named}; and {parsed.bad - _NAMED:,} more" if parsed.bad > _NAMED else named


def _some(items: Iterator[str], count: int) -> str:
    named = ", ".join(item for item, _ in zip(items, range(_NAMED), strict=False))
    return f"{named} and {count - _NAMED:,} more" if count > _NAMED else named
