"""An outlook as sentences and as JSON data."""

from __future__ import annotations

from math import isinf
from typing import Any

from dossim.exhaustion.flows import TIMEOUT_OF, NewFlows
from dossim.exhaustion.formulas import Burst, Interval
from dossim.exhaustion.outlook import SHOWN_CLASSES, Fills, Flood, Outlook, Remedy, fill_rates, flood_of
from dossim.exhaustion.table import UNLIMITED, Table
from enforcer.model.counted import counted

_SMALL = 0.0005


def lines(found: Outlook | str) -> list[str]:
    """For a terminal: the table, the new flows, what becomes of them, the remedies, and what is assumed. A string is
    why nothing can be said.
    """
    if isinstance(found, str):
        return [cannot_tell(found)]
    said = [f"conntrack: {size(found.table)}; {_flows(found.flows)}"]
    if found.flows.total:
        said += [f"  the capture once: {_alone(found.alone)}"] if found.alone else []
        said += [f"  if it goes on: {_flood(found.flood)}"] if found.flood else [f"  no rate: {found.why_no_rate}"]
        said += [f"  {_remedy(item)}" for item in found.remedies]
    if found.flows.perhaps:
        said.append(f"  {counted(found.flows.perhaps)} more may create an entry or not")
    return said + [f"  assumed: {text}" for text in found.table.assumed]


def cannot_tell(why: str) -> str:
    return f"conntrack: cannot tell whether the table fills: {why}"


def size(table: Table) -> str:
    """The size of a table and what is in it."""
    used = f", {table.count:,} in use" if table.count else ""
    limit = "no limit" if table.limit == UNLIMITED else counted(table.limit, "entry", "entries")
    return f"{limit}{used}, {counted(table.buckets, 'bucket')}"


def plan_lines(table: Table | str, per_s: float | None) -> list[str]:
    """For a plan, which has no capture: the rates that fill the table; or what each kind of flood does at a rate."""
    if isinstance(table, str):
        return [cannot_tell(table)]
    said = [f"conntrack: {size(table)}"]
    if per_s is None:
        rates = fill_rates(table)
        each = [f"{rates[item]:,.0f}/s of {item}" for item in SHOWN_CLASSES if item in rates]
        said.append(f"  fills above {', '.join(each)}")
    else:
        floods = plan_floods(table, per_s)
        said += [f"  {_rate(per_s)} of {item}: {_filling(flood)}" for item, flood in floods]
        said += [f"  then {_at_full(floods[0][1])}"] if any(f.fills is not Fills.NO for _, f in floods) else []
    return said + [f"  assumed: {text}" for text in table.assumed]


def plan_floods(table: Table, per_s: float) -> list[tuple[str, Flood]]:
    """What a flood of each kind does at one rate."""
    found = []
    for item in SHOWN_CLASSES:
        timeout = TIMEOUT_OF[item]
        assert timeout is not None, "its entries stay"
        found.append((str(item), flood_of(table, {float(table.timeouts[timeout]): per_s})))
    return found


def _flows(flows: NewFlows) -> str:
    if not flows.total:
        untracked = f", {flows.untracked:,} of them untracked" if flows.untracked else ""
        reached = flows.reached + flows.untracked
        return f"no new flows: {counted(reached)} of the capture reach{'es' if reached == 1 else ''} it{untracked}"
    each = ", ".join(f"{count:,} {item}" for item, count in flows.flows.items())
    denied = f"; {counted(flows.dropped_later)} dropped after it" if flows.dropped_later else ""
    more = "more than " if flows.is_more else ""
    return f"{more}{counted(flows.total, 'new flow')} ({each}){denied}"


def _alone(found: Burst) -> str:
    if not found.entries.high:
        return "no entry stays"
    if not found.over:
        return f"at most {_count(found.entries.high, 'entry', 'entries')}; the table does not fill"
    return (
        f"{counted(found.over, 'flow')} meet{'s' if found.over == 1 else ''} a full table: "
        f"{_counts(found.dropped)} dropped, {_counts(found.evicted)} entries evicted"
    )


def _flood(flood: Flood) -> str:
    rate = _rate(flood.per_s)
    if not flood.entries.high:
        return f"{rate}: no entry stays"
    then = "" if flood.fills is Fills.NO else f"; then {_at_full(flood)}"
    return f"{rate}: {_filling(flood)}{then}"


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f} new flows/s" if per_s >= 10 else f"{per_s:.2g} new flows/s"


def _filling(flood: Flood) -> str:
    """Whether the table fills, and when."""
    first, last = _time(flood.full_after_s.low), _time(flood.full_after_s.high)
    match flood.fills:
        case Fills.NO:
            return f"at most {_count(flood.entries.high, 'entry', 'entries')}; the table does not fill"
        case Fills.PERHAPS:
            entries = _counts(flood.entries)
            return f"{entries} entries, as expired ones are removed late: full after {first} at the earliest, or never"
        case Fills.YES:
            return f"full after {first}" + ("" if first == last else f" to {last}")


def _at_full(flood: Flood) -> str:
    """What happens to new flows while the table is full."""
    full = flood.at_full
    return (
        f"{share(full.dropped)} of new flows dropped; each other one evicts an entry without a reply, which is "
        f"{_times(full.life_s)} old on average"
    )


def _remedy(item: Remedy) -> str:
    if isinf(item.full_after_s.low):
        effect = f"{_counts(item.entries)} entries, does not fill" if item.entries.high else "no entries"
    else:
        effect = f"{share(item.dropped)} dropped at a full table"
    return f"with {item.name}: {effect}" + (f"; {item.remark}" if item.remark else "")


def share(found: Interval) -> str:
    """A share as per cent: ``11.0-13.2 %``."""
    if found.high < _SMALL:
        return "less than 0.1 %"
    low, high = f"{100 * found.low:.1f}", f"{100 * found.high:.1f}"
    return f"{low} %" if low == high else f"{low}-{high} %"


def _counts(found: Interval) -> str:
    low, high = f"{found.low:,.0f}", f"{found.high:,.0f}"
    return low if low == high else f"{low}-{high}"


def _count(value: float, noun: str, plural: str) -> str:
    return counted(round(value), noun, plural)


def _time(seconds: float) -> str:
    return "never" if isinf(seconds) else f"{seconds:,.1f} s"


def _times(found: Interval) -> str:
    low, high = _time(found.low), _time(found.high)
    return low if low == high else f"{low.removesuffix(' s')}-{high}"


# --- JSON -----------------------------------------------------------------------------------------------------------


def as_dict(found: Outlook | str) -> dict[str, Any]:
    """JSON data: seconds, shares of 0 to 1, counts. null: never (a time) or unknown. A string is why nothing can be
    said.
    """
    if isinstance(found, str):
        return {"unknown": found}
    flows = found.flows
    return {
        "table": table_as_dict(found.table),
        "reached": flows.reached,
        "untracked": flows.untracked,
        "dropped_later": flows.dropped_later,
        "perhaps": flows.perhaps,
        "new_flows": {str(item): count for item, count in flows.flows.items()},
        "more_new_flows": flows.is_more,
        "capture_once": None if found.alone is None else _burst_as_dict(found.alone),
        "flood": None if found.flood is None else flood_as_dict(found.flood),
        "no_rate": found.why_no_rate or None,
        "remedies": [
            {
                "remedy": item.name,
                "entries": _interval(item.entries),
                "full_after_s": _interval(item.full_after_s),
                "dropped": _interval(item.dropped),
                "remark": item.remark,
            }
            for item in found.remedies
        ],
    }


def table_as_dict(table: Table) -> dict[str, Any]:
    return {"max": table.limit, "buckets": table.buckets, "count": table.count, "assumed": list(table.assumed)}


def plan_as_dict(table: Table | str, per_s: float | None) -> dict[str, Any]:
    """The key ``conntrack`` of a plan."""
    if isinstance(table, str):
        return {"unknown": table}
    fills_above = {str(item): rate for item, rate in fill_rates(table).items()}
    found = {"table": table_as_dict(table), "fills_above_per_s": fills_above}
    if per_s is not None:
        found["floods"] = {name: flood_as_dict(flood) for name, flood in plan_floods(table, per_s)}
    return found


def flood_as_dict(flood: Flood) -> dict[str, Any]:
    return {
        "new_flows_per_s": flood.per_s,
        "fills": str(flood.fills),
        "full_after_s": _interval(flood.full_after_s),
        "entries": _interval(flood.entries),
        "at_full": {
            "dropped": _interval(flood.at_full.dropped),
            "evicted_at_once": flood.at_full.evicted,
            "life_s": _interval(flood.at_full.life_s),
        },
    }


def _burst_as_dict(found: Burst) -> dict[str, Any]:
    return {
        "over": found.over,
        "dropped": _interval(found.dropped),
        "evicted": _interval(found.evicted),
        "entries": _interval(found.entries),
    }


def _interval(found: Interval) -> dict[str, float | None]:
    ends = {"least": found.low, "most": found.high}
    return {name: None if isinf(value) else value for name, value in ends.items()}
