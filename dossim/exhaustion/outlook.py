"""Whether a table fills, when, what then happens to new flows, and what each remedy changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, inf, isinf

from dossim.exhaustion.flows import TIMEOUT_OF, FlowClass, NewFlows
from dossim.exhaustion.formulas import (
    GC_LAG_S,
    Burst,
    Interval,
    burst,
    drop_share,
    entries_after,
    entries_at_most,
    evicted_at_once,
    fills,
    mean_life,
)
from dossim.exhaustion.table import Table
from enforcer.model.conntrack import Timeout
from enforcer.model.vocabulary import Word


class Fills(Word):
    YES = "yes"
    NO = "no"
    PERHAPS = "perhaps"


@dataclass(frozen=True)
class AtFull:
    """What happens while the table is full. ``dropped``: the share of new flows whose packets are dropped. ``evicted``:
    entries evicted for each search that finds any, on average. ``life_s``: mean life of an entry without a reply.
    """

    dropped: Interval
    evicted: float
    life_s: Interval


@dataclass(frozen=True)
class Flood:
    """New flows at a constant rate. ``entries``: how many there are once as many expire as are added, if there were
    room. ``full_after_s``: from when the flood begins.
    """

    per_s: float
    fills: Fills
    full_after_s: Interval
    entries: Interval
    at_full: AtFull


@dataclass(frozen=True)
class Remedy:
    """What one change would do to the same flood."""

    name: str
    entries: Interval
    full_after_s: Interval
    dropped: Interval
    remark: str = ""


@dataclass(frozen=True)
class Outlook:
    """``alone``: what the packets of the capture do if they come once, faster than any entry expires; None without a
    capture. ``flood``: what they do if they go on at their rate; None if no rate is known (``why_no_rate``).
    """

    table: Table
    flows: NewFlows
    alone: Burst | None
    flood: Flood | None
    why_no_rate: str = ""
    remedies: tuple[Remedy, ...] = ()


def flood_of(table: Table, rates: Mapping[float, float], per_s: float | None = None) -> Flood:
    """``rates``: timeout in seconds to new flows per second, of flows that leave an entry; ``per_s`` of all."""
    time = fills(table.free, rates)
    answer = Fills.NO if isinf(time.low) else Fills.PERHAPS if isinf(time.high) else Fills.YES
    staying = sum(rates.values())
    return Flood(per_s or staying, answer, time, entries_at_most(rates), at_full(table, staying))


def at_full(table: Table, per_s: float) -> AtFull:
    """Of the entries that are there before, it is not known how many are assured and so never evicted: from none to
    all.
    """
    unassured = Interval(table.free, table.limit)
    share = drop_share(unassured, table.buckets)
    accepted = Interval(per_s * (1 - share.high), per_s * (1 - share.low))
    life = Interval(mean_life(unassured.low, accepted.high), mean_life(unassured.high, accepted.low))
    return AtFull(share, evicted_at_once(table.limit, table.buckets), life)


def outlook(table: Table, flows: NewFlows, *, per_s: float | None = None) -> Outlook:
    """The outlook for the new flows of a capture, at ``per_s`` new flows per second or at the rate of the capture. If
    there are more than are counted, nothing is computed from their number.
    """
    if flows.is_more:
        at_once = "; if they come at once, they fill the table" if flows.leaving > table.free else ""
        return Outlook(table, flows, None, None, f"there are more than {flows.total:,} new flows{at_once}")
    alone = burst(
        flows.leaving,
        limit=table.limit,
        buckets=table.buckets,
        present=Interval(table.count, table.count),
        gc_runs=1,
    )
    if not flows.total:
        return Outlook(table, flows, alone, None, "no packet of it begins a connection that is tracked")
    if per_s is None and not flows.seconds:
        return Outlook(table, flows, alone, None, "its packets have one time stamp; --rate gives one")
    rate = per_s if per_s is not None else flows.total / flows.seconds
    rates = rates_of(table, {item: rate * count / flows.total for item, count in flows.flows.items()})
    flood = flood_of(table, rates, rate)
    return Outlook(table, flows, alone, flood, remedies=remedies(table, rates) if flood.fills is not Fills.NO else ())


def rates_of(table: Table, per_class: Mapping[FlowClass, float]) -> dict[float, float]:
    """Timeout in seconds to new flows per second, of the classes whose entries stay."""
    rates: dict[float, float] = {}
    for item, rate in per_class.items():
        timeout = TIMEOUT_OF[item]
        if timeout is not None:
            seconds = float(table.timeouts[timeout])
            rates[seconds] = rates.get(seconds, 0.0) + rate
    return rates


def remedies(table: Table, rates: Mapping[float, float]) -> tuple[Remedy, ...]:
    """What each change does to a flood that fills the table."""
    never, nothing = Interval(inf, inf), Interval(0, 0)
    enough = ceil(table.count + entries_after(inf, rates, GC_LAG_S)) + 1
    more = 4 * table.buckets
    larger = replace(table, buckets=more)
    return (
        Remedy("untracked Deny (XDP, raw)", nothing, never, nothing, "conntrack does not see the packets"),
        Remedy(
            "tracked Deny (filter INPUT)",
            nothing,
            never,
            nothing,
            "conntrack handles every packet; its entry is freed when the packet is dropped",
        ),
        Remedy(f"nf_conntrack_max {enough:,}", entries_at_most(rates), never, nothing),
        Remedy(
            f"nf_conntrack_buckets {more:,}, same nf_conntrack_max",
            Interval(table.limit, table.limit),
            fills(table.free, rates),
            at_full(larger, sum(rates.values())).dropped,
            "a search covers 8 buckets, so that it finds less in a sparser table",
        ),
    )


def fill_rates(table: Table) -> dict[FlowClass, float]:
    """For each class, the new flows per second above which the table fills: max / timeout."""
    rates = {}
    for item, timeout in TIMEOUT_OF.items():
        if timeout is not None and table.timeouts[timeout]:
            rates[item] = table.free / table.timeouts[timeout]
    return rates


_SHOWN: tuple[Timeout, ...] = (Timeout.UDP, Timeout.TCP_SYN_RECV, Timeout.TCP_SYN_SENT, Timeout.GENERIC)
SHOWN_CLASSES = tuple(item for item, timeout in TIMEOUT_OF.items() if timeout in _SHOWN)
