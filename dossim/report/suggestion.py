"""A suggested deny list, for people and machines: what is shown of it, and the plot of its curve. Pure.

JSON is ``dossim/suggest/v1``: fields may be added, but none is removed or changes its meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING, Any

from dossim.model.disposition import Fate
from dossim.predict.prediction import STAGES
from dossim.suggest.job import ATTACK, BASELINE
from dossim.suggest.measure import Costly, Point, Rule, Suggested
from dossim.suggest.suggest import Suggestion
from enforcer.model.counted import counted
from enforcer.model.vocabulary import Stage

if TYPE_CHECKING:
    from dossim.suggest.applied import Applied

SUGGEST = "dossim/suggest/v1"
_SHOWN = 5  # customers and parts of the list on a terminal
_MANY = 0.5  # a list that blocks less is said not to help much


@dataclass(frozen=True)
class SuggestionView:
    """``attack_text``, ``baseline_text``: where the packets come from, in words. ``written``: the file with the
    resources, "" if none. ``ends``: of the packets of the attack, and of the baseline, with the list applied.
    """

    suggestion: Suggestion
    attack_text: str
    baseline_text: str
    about: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()
    written: str = ""
    ends: Mapping[str, Applied] | None = None

    @property
    def verdict(self) -> str:
        """In one sentence."""
        found = self.suggestion
        if found.forged and not found.helps:
            return f"no list of sources helps: they are forged; {found.spread}"
        if not found.helps:
            return "no list helps: none denies a larger share of the attack than it does of the baseline"
        blocked = share(found.here.blocked, found.attack.total)
        what = f"{size_text(found.suggested)} {_block(found)} {blocked} of the attack"
        if found.forged:
            return f"no list of sources helps: they are forged; {what}"
        return what

    @property
    def is_good(self) -> bool:
        return self.suggestion.helps and self.suggestion.blocked_share >= _MANY and not self.warnings

    @property
    def collateral(self) -> str:
        found = self.suggestion
        limit = f"at most {percent(found.limit)} was allowed"
        if found.baseline is None:
            return f"{percent(found.here.share)} of all addresses ({limit}); nothing is known of legitimate traffic"
        return f"{share(found.here.collateral, found.baseline.total)} of the baseline ({limit})"

    @property
    def warnings(self) -> tuple[str, ...]:
        found = self.suggestion
        sentences = []
        if found.held_out and found.held_out.unknown > max(found.limit, 2 * found.held_out.known):
            sentences.append(
                f"a list made from half of the customers denies {percent(found.held_out.unknown)} of the packets of "
                "the other half: the baseline is too small to know the customers of networks this wide"
            )
        if found.helps and found.blocked_share < _MANY:
            sentences.append(f"{percent(1 - found.blocked_share)} of the attack gets through")
        return (*sentences, *self._contradictions())

    def _contradictions(self) -> Iterator[str]:
        """Where the prediction with the list applied is not what the list is counted to do."""
        found, ends = self.suggestion, self.ends or {}
        if (attack := ends.get(ATTACK)) and (missed := found.here.blocked - _before_conntrack(attack.after)) > 0:
            yield (
                f"with the list applied {counted(missed)} of the {found.here.blocked:,} get through: a rule of the "
                "policy that comes first lets them pass, or the one that denies the list denies not all packets"
            )
        if (usual := ends.get(BASELINE)) and (
            more := _denied(usual.after) - _denied(usual.before) - found.here.collateral
        ) > 0:
            yield f"with the list applied {counted(more)} of the baseline more than those are denied"

    @property
    def held_out(self) -> str:
        """A sentence, "" without one."""
        found = self.suggestion.held_out
        if found is None:
            return ""
        return (
            f"a list made in the same way from half of the customers denies {percent(found.known)} of their packets "
            f"and {percent(found.unknown)} of the others'"
        )


def _before_conntrack(ends: Mapping[str, int]) -> int:
    """Packets that are dropped there, or may be."""
    return ends.get(Fate.UNDETERMINED, 0) + sum(ends.get(stage, 0) for stage in STAGES[: STAGES.index(Stage.CONNTRACK)])


def _denied(ends: Mapping[str, int]) -> int:
    """Packets that untracked policy drops."""
    return _before_conntrack(ends) - sum(
        ends.get(item, 0) for item in (Fate.UNDETERMINED, Stage.IP_INPUT, Stage.DEFRAG)
    )


def _block(found: Suggestion) -> str:
    return "blocks" if found.suggested.size == 1 else "block"


def share(part: int, whole: int) -> str:
    """``1,234 of 5,000 packets (24.7 %)``."""
    return f"{part:,} of {counted(whole)} ({percent(part / whole if whole else 0.0)})"


def percent(value: float) -> str:
    """With as many digits as it takes to tell it from 0 and 1."""
    digits = 1 if value == 0 or 0.01 <= value <= 0.99 else 3
    text = f"{100 * value:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def size_text(suggested: Suggested) -> str:
    """``812 networks and 1 rule for all sources``."""
    nets = sum(len(rule.nets) for rule in suggested.rules)
    rules = suggested.size - nets
    parts = [counted(nets, "network")] if nets else []
    parts += [f"{counted(rules, 'rule')} for all sources"] if rules else []
    return " and ".join(parts) or "nothing"


def rule_text(rule: Rule) -> str:
    """What a rule denies."""
    what = "all packets" if rule.signature is None else str(rule.signature)
    whom = (
        [f"{'IPv4 and IPv6' if len(rule.anywhere) == 2 else f'IPv{rule.anywhere[0]}'} everywhere"]
        if rule.anywhere
        else []
    )
    whom += [counted(len(rule.nets), "network")] if rule.nets else []
    return f"{what} from {' and '.join(whom)}"


def point_text(found: Point, suggestion: Suggestion) -> tuple[str, str]:
    """The shares of the attack and of the baseline, or of all addresses."""
    return percent(found.blocked / suggestion.attack.total), percent(found.share)


def where_text(item: Costly) -> str:
    what = "" if item.rule.signature is None else f"{item.rule.signature} from "
    return f"{what}{'everywhere' if item.net is None else item.net}"


def customers_text(item: Costly) -> str:
    shown = ", ".join(f"{_address(net)} ({counted(packets)})" for net, packets in item.customers)
    return shown + (f" and {counted(item.others, 'other')}" if item.others else "")


def _address(net: object) -> str:
    return str(net).removesuffix("/32")


def lines(view: SuggestionView) -> Iterator[tuple[str, str]]:
    """For a terminal: sentences, and how each is meant (``""``, ``dim``, ``warn``, ``good``)."""
    found = view.suggestion
    yield f"attack: {view.attack_text}", "dim"
    yield f"baseline: {view.baseline_text}", "dim"
    for text in view.about:
        yield text, "dim"
    yield view.verdict, "good" if view.is_good else "warn"
    if found.helps:
        yield f"collateral: {view.collateral}", ""
        yield from ((f"  {rule_text(rule)}", "") for rule in found.suggested.rules)
    if view.held_out:
        yield view.held_out, "dim"
    yield from ((text, "warn") for text in view.warnings)
    for item in found.costly[:_SHOWN]:
        yield f"  denies {counted(item.collateral)} of customers: {where_text(item)}: {customers_text(item)}", "warn"
    for name, ends in (view.ends or {}).items():
        yield f"predicted, {name}: {_ends(ends.before)}; with the list: {_ends(ends.after)}", ""
    if view.written:
        yield f"written: {view.written}", ""


def _ends(ends: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {word}" for word, count in ends.items())


def as_dict(view: SuggestionView) -> dict[str, Any]:
    found = view.suggestion
    return {
        "schema": SUGGEST,
        "verdict": view.verdict,
        "helps": found.helps,
        "forged": found.forged,
        "warnings": list(view.warnings),
        "about": list(view.about),
        "attack": {"packets": found.attack.total, "sources": found.spread.sources, "networks": found.spread.networks},
        "baseline": None if found.baseline is None else {"packets": found.baseline.total},
        "budget": found.budget,
        "limit": found.limit,
        "weight": found.weight,
        "size": found.here.size,
        "blocked": found.here.blocked,
        "collateral": found.here.collateral,
        "collateral_share": found.here.share,
        "held_out": found.held_out and {"known": found.held_out.known, "unknown": found.held_out.unknown},
        "rules": [_rule(rule) for rule in found.suggested.rules],
        "curve": [_point(item) for item in found.curve],
        "instead": {f"/{length}": _point(item) for length, item in found.instead.items()},
        "costly": [
            {
                "where": where_text(item),
                "blocked": item.blocked,
                "collateral": item.collateral,
                "customers": {_address(net): packets for net, packets in item.customers},
                "others": item.others,
            }
            for item in found.costly
        ],
        "protected": list(view.protected),
        "predicted": {name: {"before": ends.before, "after": ends.after} for name, ends in (view.ends or {}).items()},
    }


def _rule(rule: Rule) -> dict[str, Any]:
    what = None if rule.signature is None else str(rule.signature)
    return {"signature": what, "anywhere": list(rule.anywhere), "nets": [str(net) for net in rule.nets]}


def _point(item: Point) -> dict[str, int | float]:
    return {"size": item.size, "blocked": item.blocked, "collateral": item.collateral, "share": item.share}


# -- the plot --------------------------------------------------------------------------------------------------------

WIDTH, LEFT, RIGHT = 1000, 64, 20
TOP, _HIGH, _GAP, _LOW = 30, 220, 44, 90  # of the two panels, from the top; each has its title above it
BOTTOM = TOP + _HIGH + _GAP + _LOW
HEIGHT = BOTTOM + 46


@dataclass(frozen=True)
class Mark:
    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Panel:
    """``path`` joins the marks; ``rows``: (y, label) of its lines. ``limit``: the y of the largest collateral that
    was allowed.
    """

    title: str
    top: float
    path: str
    marks: tuple[Mark, ...]
    rows: tuple[tuple[float, str], ...]
    limit: float | None = None


@dataclass(frozen=True)
class Plot:
    """``columns``: (x, label). ``chosen``: the x of the suggested size."""

    panels: tuple[Panel, ...]
    columns: tuple[tuple[float, str], ...]
    chosen: float | None


def plot(suggestion: Suggestion) -> Plot:
    """Blocked and collateral by size, which grows in powers of ten."""
    points = [item for item in suggestion.curve if item.size]
    most = max([10, suggestion.here.size, *(item.size for item in points)])

    def x(size: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * log10(size) / log10(most), 1)

    texts = [_text(item, suggestion) for item in points]
    xs = [x(item.size) for item in points]
    blocked = [item.blocked / suggestion.attack.total for item in points]
    denied = [item.share for item in points]
    usual = "baseline" if suggestion.baseline else "addresses"
    panels = (
        _panel("blocked, % of the attack", TOP, _HIGH, 1.0, list(zip(xs, blocked, texts, strict=True))),
        _panel(
            f"collateral, % of the {usual}",
            TOP + _HIGH + _GAP,
            _LOW,
            max([suggestion.limit, *denied]) * 1.15 or 1.0,
            list(zip(xs, denied, texts, strict=True)),
            suggestion.limit,
        ),
    )
    tens = [10**power for power in range(len(str(most))) if 10**power <= most]
    chosen = suggestion.here.size
    return Plot(panels, tuple((x(size), f"{size:,}") for size in tens), x(chosen) if chosen else None)


def _text(found: Point, suggestion: Suggestion) -> str:
    blocked, collateral = point_text(found, suggestion)
    return f"{found.size:,}: {blocked} blocked, {collateral} collateral"


def _panel(
    title: str, top: int, high: int, most: float, items: list[tuple[float, float, str]], limit: float | None = None
) -> Panel:
    def y(value: float) -> float:
        return round(top + high * (1 - value / most), 1)

    marks = tuple(Mark(x, y(value), text) for x, value, text in items)
    path = "M" + " L".join(f"{mark.x},{mark.y}" for mark in marks) if marks else ""
    rows = [0.0, 0.25, 0.5, 0.75, 1.0] if limit is None else [0.0, limit]
    return Panel(
        title, top, path, marks, tuple((y(row), percent(row)) for row in rows), None if limit is None else y(limit)
    )
