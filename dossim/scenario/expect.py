"""Evaluates expectations against a prediction, or against what a drill observed. Pure.

The same arrays describe both: a fate and a stage per packet, 255 for none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from dossim.drill.results import DrillResult, PredictResult
from dossim.model.disposition import Disposition, Fate
from dossim.predict.prediction import FATE_CODE, NO_ENTRY, STAGE_CODE
from dossim.scenario.model import (
    Bounds,
    ConntrackExpectation,
    ConntrackTableExpectation,
    EntryExpectation,
    Expectation,
    PacketExpectation,
    Scenario,
)
from dossim.scenario.traffic import LabelledCapture
from enforcer.model.choices import ModeChoice
from enforcer.model.conntrack import ConntrackStatistics
from enforcer.model.counted import counted
from enforcer.model.errors import Position
from enforcer.model.vocabulary import CtState, Stage
from enforcer.policy.resources import NOWHERE

UNSEEN = 255
SHOWN = 10  # packets named when an expectation fails


@dataclass(frozen=True)
class Outcome:
    """One expectation and what was found. ``holds`` None: unknown, for the reason in ``found``.

    ``packets`` are the first ones that ended otherwise.
    """

    expectation: str
    holds: bool | None
    found: str
    position: Position = NOWHERE
    packets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ends:
    """How packets ended: as predicted or as observed. ``entries`` are packets dropped per entry.

    Only ``determined`` packets count for expectations; the stage of the others is the first whose result is unknown.
    ``several``: predicted packets with several possible ends, each with all of them.
    """

    fate: npt.NDArray[np.uint8]
    stage: npt.NDArray[np.uint8]
    entries: Mapping[str, int]
    conntrack_entries: int | None
    determined: npt.NDArray[np.bool_]
    perhaps_denied: int  # undetermined packets that an entry might drop
    undetermined: int  # each may be tracked or not, whatever happened to the frame that was sent in its place
    conntrack: ConntrackStatistics | None = None  # what conntrack dropped and evicted; None: no drill, or unreadable
    states: Mapping[CtState, int] | None = None  # packets by the state that conntrack gave them; None: not observed
    several: Mapping[int, tuple[Disposition, ...]] = field(default_factory=dict)


def ends_of(result: PredictResult) -> Ends:
    """The observation if it was a drill, else the prediction."""
    prediction = result.prediction
    determined = prediction.is_determined
    is_open = prediction.fate == FATE_CODE[Fate.UNDETERMINED]
    # Where only a full table leaves the end open, the packet was sent as it is, and counted by conntrack.
    undetermined = int((is_open & (prediction.stage != STAGE_CODE[Stage.CONNTRACK])).sum())
    last = Stage.RAW if result.tables is None else Stage.FILTER_FORWARD
    perhaps = int((is_open & (prediction.stage <= STAGE_CODE[last])).sum())
    if not isinstance(result, DrillResult):
        several = {packet: (end, *end.others) for packet, end in prediction.several().items()}
        entry = prediction.entry.copy()
        entry[list(several)] = NO_ENTRY
        return Ends(
            prediction.fate,
            prediction.stage,
            replace(prediction, entry=entry).entry_counts(),
            conntrack_entries=None,
            determined=determined,
            perhaps_denied=perhaps,
            undetermined=undetermined,
            several=several,
        )
    rows = result.verification.entries
    counted = {row.entry: row.predicted if row.observed is None else row.observed for row in rows}
    seen = result.observations
    return Ends(
        seen.fate,
        seen.stage,
        counted,
        conntrack_entries=result.conntrack_entries,
        conntrack=result.conntrack,
        states=observed_states(result),
        determined=determined,
        perhaps_denied=perhaps,
        undetermined=undetermined,
    )


def observed_states(result: DrillResult) -> Mapping[CtState, int]:
    """How many packets conntrack gave each state, as observed."""
    return result.verification.states


def evaluate(
    scenario: Scenario, mode: ModeChoice, traffic: LabelledCapture, result: PredictResult
) -> tuple[Outcome, ...]:
    """An outcome for each expectation that applies to the mode; for a drill, first whether predicted == observed."""
    ends = ends_of(result)
    concerned = [item for item in scenario.expect if not item.modes or mode in item.modes]
    agreement = [_agreement(result)] if isinstance(result, DrillResult) else []
    return (*agreement, *(_evaluate(item, traffic, ends) for item in concerned))


def _agreement(result: DrillResult) -> Outcome:
    verification = result.verification
    wrong = [
        f"{row.entry}: predicted {row.predicted:,}, counted {row.observed:,}"
        for row in verification.entries
        if row.observed not in (None, row.predicted)
    ]
    parts = [f"{verification.matched:,} of {counted(verification.packets)}"]
    parts += [f"{verification.mismatched:,} mismatched"] if verification.mismatched else []
    in_state = verification.compared_states.differing
    parts += [f"{in_state:,} of them only in what conntrack said"] if in_state else []
    parts += [f"{verification.unobserved:,} unobserved"] if verification.unobserved else []
    parts += [f"{verification.undetermined:,} undetermined"] if verification.undetermined else []
    parts += [f"{verification.not_sendable:,} not sendable"] if verification.not_sendable else []
    packets = tuple(item.packet for item in verification.mismatches[:SHOWN])
    parts += [str(result.full)] if result.full else []
    agrees = verification.agrees and (result.full is None or result.full.agrees)
    return Outcome("predicted == observed", agrees, "; ".join(parts + wrong), packets=packets)


def _evaluate(expectation: Expectation, traffic: LabelledCapture, ends: Ends) -> Outcome:
    match expectation:
        case PacketExpectation():
            return _packets(expectation, traffic, ends)
        case EntryExpectation():
            return _entry(expectation, ends)
        case ConntrackExpectation():
            return _conntrack(expectation, ends)
        case ConntrackTableExpectation():
            return _conntrack_table(expectation, ends)


def _entry(expectation: EntryExpectation, ends: Ends) -> Outcome:
    """It holds only if it holds for every possible end of the undetermined packets that the entry might drop. Packets
    with several possible ends are not undetermined: if it depends on them, the outcome is unknown.
    """
    dropped, perhaps = ends.entries.get(expectation.entry, 0), ends.perhaps_denied
    several = sum(any(end.entry == expectation.entry for end in possible) for possible in ends.several.values())
    each = [all(expectation.packets.hold(dropped + more + one) for more in (0, perhaps)) for one in range(several + 1)]
    holds = True if all(each) else None if any(each) else False
    more = f"; {perhaps:,} more are undetermined" if perhaps else ""
    more += f"; {several:,} more have several possible ends" if several else ""
    return Outcome(str(expectation), holds, f"{counted(dropped)}{more}", expectation.position)


def _packets(expectation: PacketExpectation, traffic: LabelledCapture, ends: Ends) -> Outcome:
    labelled = traffic.having(expectation.label)
    concerned = labelled & ends.determined
    unseen = concerned & (ends.fate == UNSEEN)
    perhaps = unseen | (concerned & _may_end_either_way(expectation, ends))
    right = concerned & ended_so(expectation, ends) & ~perhaps
    total, count = int(concerned.sum()), int(right.sum())
    others = int(labelled.sum()) - total
    if not total:
        found = f"no packet with this label is determined, of {others:,}" if others else "no packet has this label"
        return Outcome(str(expectation), False, found, expectation.position)
    more = f"; {others:,} more are not determined" if others else ""
    for which, word in ((unseen, "unobserved"), (perhaps & ~unseen, "may end either way")):
        more += f"; {int(which.sum()):,} of them {word}" if which.any() else ""
    holds = _share_holds(expectation.share, count / total, (count + int(perhaps.sum())) / total)
    # If too many ended as expected, show those; if too few, show the others.
    shown = concerned & ~right if expectation.share.at_least is not None else right
    packets = () if holds is not False else tuple(int(packet) for packet in np.flatnonzero(shown)[:SHOWN])
    return Outcome(str(expectation), holds, f"{count:,} of {counted(total)}{more}", expectation.position, packets)


def _share_holds(share: Bounds, least: float, most: float) -> bool | None:
    """Whether a share between two values is within bounds; None if that depends on its value."""
    if share.hold(least) and share.hold(most):
        return True
    possible = (share.at_least is None or most >= share.at_least) and (share.at_most is None or least <= share.at_most)
    return None if possible and least != most else False


def _may_end_either_way(expectation: PacketExpectation, ends: Ends) -> npt.NDArray[np.bool_]:
    """Which packets have an end that is expected and one that is not."""
    found = np.zeros(len(ends.fate), np.bool_)
    for packet, possible in ends.several.items():
        found[packet] = len({_is_so(expectation, end) for end in possible}) > 1
    return found


def _is_so(expectation: PacketExpectation, end: Disposition) -> bool:
    at = end.stage in (None, expectation.stage) or expectation.stage is None
    limit = expectation.at_or_before
    in_time = limit is None or end.stage is None or STAGE_CODE[end.stage] in _up_to(limit)
    return end.fate is expectation.fate and at and in_time


def ended_so(expectation: PacketExpectation, ends: Ends) -> npt.NDArray[np.bool_]:
    """Which packets ended as expected."""
    same = ends.fate == FATE_CODE[expectation.fate]
    if expectation.stage is not None:
        same &= ends.stage == STAGE_CODE[expectation.stage]
    if expectation.at_or_before is not None:
        same &= np.isin(ends.stage, _up_to(expectation.at_or_before))
    return np.asarray(same, np.bool_)


def _up_to(last: Stage) -> list[int]:
    """Codes of the stages up to and including one, in pipeline order."""
    return [code for code in STAGE_CODE.values() if code <= STAGE_CODE[last]]


def _conntrack(expectation: ConntrackExpectation, ends: Ends) -> Outcome:
    if ends.conntrack_entries is None:
        return Outcome(str(expectation), None, "only a drill can tell", expectation.position)
    entries, perhaps = ends.conntrack_entries, ends.undetermined
    holds = expectation.entries.hold(max(entries - perhaps, 0)) and expectation.entries.hold(entries + perhaps)
    more = f"; {counted(perhaps, 'more packet is', 'more packets are')} undetermined" if perhaps else ""
    return Outcome(str(expectation), holds, f"{counted(entries, 'entry', 'entries')}{more}", expectation.position)


def _conntrack_table(expectation: ConntrackTableExpectation, ends: Ends) -> Outcome:
    """It holds if each of its counts does, whether or not the undetermined packets were tracked; it is unknown if one
    of them is, and no other fails.
    """
    answers: list[bool | None] = []
    parts = []
    for name, bounds, value in _conntrack_counts(expectation, ends):
        if value is None:
            answers.append(None)
            parts.append(f"{name} unknown")
            continue
        answers.append(bounds.hold(max(value - ends.undetermined, 0)) and bounds.hold(value + ends.undetermined))
        parts.append(f"{name} {value:,}")
    if ends.conntrack_entries is None:
        parts = ["only a drill can tell"]
    if ends.undetermined:
        parts.append(f"{counted(ends.undetermined, 'more packet is', 'more packets are')} undetermined")
    holds = False if False in answers else None if None in answers else True
    return Outcome(str(expectation), holds, "; ".join(parts), expectation.position)


def _conntrack_counts(expectation: ConntrackTableExpectation, ends: Ends) -> Iterator[tuple[str, Bounds, int | None]]:
    """Each count of which something is expected, and what it was; None if unknown."""
    for state, bounds in expectation.states.items():
        yield str(state), bounds, None if ends.states is None else ends.states.get(state, 0)
    counts = ends.conntrack
    for name, expected, value in (
        ("entries", expectation.entries, ends.conntrack_entries),
        ("early-drop", expectation.early_drop, None if counts is None else counts.early_drop),
        ("dropped", expectation.dropped, None if counts is None else counts.dropped),
    ):
        if expected is not None:
            yield name, expected, value


assert list(STAGE_CODE) == list(Stage), "codes follow the order in which packets meet the stages"
assert set(FATE_CODE) == set(Fate)
