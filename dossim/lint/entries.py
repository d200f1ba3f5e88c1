"""Findings about single entries of a table: entries that never act, that failsafes bypass, or that are enforced late.

An entry belongs to the tables of many interfaces. It is reported as never acting only if it acts in none of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from dossim.lint.failsafes import Bypass, bypasses, bypassing
from dossim.lint.finding import Finding, Level, Related, RuleId, some
from dossim.lint.shadow import Boxed, boxed, decided_by, may_meet
from dossim.lint.tables import Governed
from dossim.lint.unreachable import why_unreachable
from enforcer.model.vocabulary import Action, Direction
from enforcer.policy.ruletable import Entry

# Why an entry of a table never acts; None if it can act.
Dead = dict[Entry, Finding | None]


def dead_entries(tables: Sequence[Governed]) -> dict[Entry, Finding]:
    """shadowed-entry, unreachable-entry, pass-without-effect, and entries that failsafes bypass completely."""
    alive: set[Entry] = set()
    found: dict[Entry, Finding] = {}
    for governed in tables:
        for entry, finding in _dead_of(governed).items():
            if finding is None:
                alive.add(entry)
            else:
                found.setdefault(entry, finding)
    return {entry: finding for entry, finding in found.items() if entry not in alive}


def _dead_of(governed: Governed) -> Dead:
    found: Dead = {}
    for direction, entries in directions(governed):
        items = boxed(entries, governed.space)
        every = bypasses(governed.table, direction)
        for at, item in enumerate(items):
            found[item.entry] = (
                _unreachable(item.entry, governed)
                or _bypassed(item, every)
                or _shadowed(item, items[:at])
                or _idle_pass(item, items[at + 1 :])
            )
    return found


def directions(governed: Governed) -> list[tuple[Direction, tuple[Entry, ...]]]:
    return [(Direction.INGRESS, governed.table.ingress), (Direction.EGRESS, governed.table.egress)]


def _unreachable(entry: Entry, governed: Governed) -> Finding | None:
    why = why_unreachable(entry, governed.space)
    if not why:
        return None
    message = f"{entry.name} can match no packet: {why}"
    return Finding(RuleId.UNREACHABLE, Level.WARNING, entry.position, message)


def _bypassed(item: Boxed, every: Sequence[Bypass]) -> Finding | None:
    entry = item.entry
    found, wholly = bypassing(entry, item.boxes, every)
    if not wholly:
        return None
    names = some([str(bypass) for bypass in found])
    if entry.action is Action.DENY:
        message = f"{entry.name} denies nothing: failsafes let in all that it matches ({names}); {_remedy(found)}"
        return Finding(RuleId.FAILSAFE, Level.ERROR, entry.position, message)
    message = f"{entry.name} can match no packet: failsafes let in all that it matches ({names})"
    return Finding(RuleId.UNREACHABLE, Level.WARNING, entry.position, message)


def _remedy(found: Sequence[Bypass]) -> str:
    settings = " or ".join(dict.fromkeys(bypass.setting for bypass in found))
    return f"remove the port from {settings} to have it denied"


def _shadowed(item: Boxed, earlier: Sequence[Boxed]) -> Finding | None:
    entry = item.entry
    by = decided_by(item, earlier) if item.boxes else ()
    if not by:
        return None
    opposed = entry.action in (Action.ALLOW, Action.DENY) and any(
        other.action in (Action.ALLOW, Action.DENY) and other.action is not entry.action for other in by
    )
    names = " and ".join(f"{other.name} ({other.action}, {other.position})" for other in by[:3])
    more = f" and {len(by) - 3} more" if len(by) > 3 else ""
    verb = "decides" if len(by) == 1 else "between them decide"
    message = f"{entry.name} ({entry.action}) never acts: {names}{more} {verb} every packet it matches"
    related = tuple(Related(other.position, f"{other.action} of {other.name}, evaluated earlier") for other in by)
    return Finding(RuleId.SHADOWED, Level.ERROR if opposed else Level.WARNING, entry.position, message, related)


def _idle_pass(item: Boxed, later: Sequence[Boxed]) -> Finding | None:
    entry = item.entry
    if entry.action is not Action.PASS or not item.boxes:
        return None
    if any(other.entry.tier == entry.tier and may_meet(item, other) for other in later):
        return None
    message = f"{entry.name} skips nothing: no later untracked entry of tier {entry.tier!r} can match its packets"
    return Finding(RuleId.PASS, Level.NOTE, entry.position, message)


# -- failsafes ---------------------------------------------------------------------------------------------------------


def partly_bypassed(governed: Governed, dead: Collection[Entry]) -> Iterator[Finding]:
    """failsafe-bypasses-deny: entries that name a failsafe port among others, and one finding for the whole table.

    ``dead`` entries, which never act, are already reported.
    """
    general: Entry | None = None
    for direction, entries in directions(governed):
        every = bypasses(governed.table, direction)
        for item in boxed(entries, governed.space):
            entry = item.entry
            if entry.action is not Action.DENY or not item.boxes or entry in dead:
                continue
            found, _ = bypassing(entry, item.boxes, every)
            if found:
                names = some([str(bypass) for bypass in found])
                message = f"{entry.name} does not deny all that it matches: failsafes let in {names}; {_remedy(found)}"
                yield Finding(RuleId.FAILSAFE, Level.WARNING, entry.position, message)
            if general is None and direction is Direction.INGRESS and not any(box.reads_ports for box in item.boxes):
                general = entry
    if general is not None:
        yield from _in_general(governed, general)


def _in_general(governed: Governed, first: Entry) -> Iterator[Finding]:
    every = bypasses(governed.table, Direction.INGRESS)
    to = [str(item) for item in every if not item.answers]
    answers = [str(item) for item in every if item.answers]
    if not every:
        return
    parts = [f"to {', '.join(to)}"] * bool(to) + [f"from source port {', '.join(answers)}"] * bool(answers)
    endpoints = some([f"hep/{name}" for name in governed.endpoints])
    message = f"the Deny entries of {endpoints}, of which this is the first, do not apply to failsafe packets: "
    yield Finding(RuleId.FAILSAFE, Level.NOTE, first.position, message + "; ".join(parts))
