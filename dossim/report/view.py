"""View: what every report shows about a prediction, a drill or a scenario, as plain values. Pure.

The formats differ only in presentation; what is counted, and how, is decided here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dossim.drill.results import CountedResult, Drawn, DrillResult, PredictResult
from dossim.model.disposition import OPEN_FATES, Fate
from dossim.packet.linktype import skipped_by_count
from dossim.predict.prediction import FATES, STAGES
from dossim.report.calico import CalicoView, calico_of
from dossim.report.sources import source_of, sources_of_defaults
from dossim.verify import Mismatch, StateCount
from enforcer.model.choices import TrackedChoice
from enforcer.model.counted import counted
from enforcer.model.errors import Position
from enforcer.model.vocabulary import Action, CtState, Stage
from enforcer.policy.resources import NOWHERE, Resources
from enforcer.policy.ruletable import Entry

if TYPE_CHECKING:  # a prediction has no scenario, and needs no Scapy
    from dossim.exhaustion.outlook import Outlook
    from dossim.scenario.expect import Outcome
    from dossim.scenario.run import ScenarioResult

UNOBSERVED = "unobserved"

# Why no earlier stage enforces tracked policy.
AFTER_CONNTRACK = "tracked policy: it acts on the state that conntrack gives a packet"

# Explanations of the stages, for readers who do not know their names.
GLOSS: Mapping[str, str] = {
    "nic-offload": "NIC hardware, XDP offload",
    "driver": "NIC driver, XDP native",
    "generic": "kernel, XDP generic",
    "netdev-ingress": "nftables netdev ingress, -300",
    "ip-input": "header checks, before netfilter",
    "defrag": "reassembly of fragments, -400",
    "raw": "iptables raw, -300",
    "conntrack": "connection tracking, -200",
    "mangle": "iptables mangle",
    "nat": "iptables nat",
    "route": "routing: martians, not for us, no route",
    "filter-input": "iptables filter INPUT",
    "filter-forward": "iptables filter FORWARD",
    "socket": "malformed for its transport",
    "egress": "on its way out",
    "delivered": "reached the host's transport",
    "forwarded": "left towards another host",
}


@dataclass(frozen=True)
class StageRow:
    """Packets that ended at a stage or with a fate; ``observed`` and ``matched`` are None without a drill."""

    word: str
    predicted: int
    observed: int | None = None
    matched: int | None = None

    @property
    def is_drop(self) -> bool:
        return self.word in {str(stage) for stage in Stage}

    @property
    def gloss(self) -> str:
        return GLOSS[self.word]

    @property
    def agrees(self) -> bool:
        return self.matched is None or self.predicted == self.observed == self.matched


@dataclass(frozen=True)
class EntryRow:
    """An entry of the table, or a default of tracked policy: where it is enforced, why not earlier, and the packets it
    dropped. ``source``: "" for a default that no resource sets.
    """

    entry: str
    source: str
    action: str
    stages: tuple[str, ...]
    reason: str
    predicted: int
    observed: int | None = None

    @property
    def stage(self) -> str:
        """Where it is enforced, as text."""
        return ", ".join(self.stages)

    @property
    def dropped(self) -> int:
        """As observed, where there was an observer."""
        return self.predicted if self.observed is None else self.observed


@dataclass(frozen=True)
class View:
    """One result. The second half is what a drill adds; ``matrix`` counts packets by (predicted, observed) word."""

    title: str
    capture: str
    sha256: str
    packets: int
    mode: str
    choice: str
    interface: str
    node: str
    stages: tuple[StageRow, ...]
    entries: tuple[EntryRow, ...]
    timings_s: Mapping[str, float]
    policy: tuple[str, ...]
    mode_reasons: tuple[tuple[str, str], ...]
    tracked: tuple[str, ...] = ()  # policies for the interface that act after conntrack
    tracked_choice: TrackedChoice = TrackedChoice.MODEL  # what becomes of them
    calico: CalicoView | None = None  # what Calico would drop by policy that is not enforced; nothing verifies it
    description: str = ""
    outcomes: tuple[Outcome, ...] = ()
    sample: Drawn | None = None  # if not all packets were predicted
    about: tuple[str, ...] = ()  # sentences that describe the capture, shown before any verdict
    warnings: tuple[str, ...] = ()  # about reading the file: cut short, damaged; also in ``about``
    skipped: Mapping[str, int] = field(default_factory=dict)  # what the file holds besides received packets
    undetermined: int = 0
    not_sendable: int = 0
    open_reasons: tuple[tuple[str, int], ...] = ()  # of the undetermined and not sendable packets, with their number
    several: Mapping[str, int] = field(default_factory=dict)  # packets with several possible ends, by what decides

    drilled: bool = False
    agrees: bool = True
    kernel: str = ""
    driver: str = ""
    matched: int = 0
    mismatched: int = 0
    unobserved: int = 0
    unpredicted: int = 0
    mismatches: tuple[Mismatch, ...] = ()
    matrix: Mapping[tuple[str, str], int] = field(default_factory=dict)
    conntrack_entries: int | None = None
    conntrack_drops: int | None = None  # conntrack's own counter; None also where the kernel does not say
    states: Mapping[CtState, int] = field(default_factory=dict)  # of the packets that got past conntrack, as observed
    compared_states: StateCount = field(default_factory=StateCount)  # predicted and observed
    full_table: str = ""  # what conntrack was predicted to drop and evict, and did, if the replay filled its table
    outlook: Outlook | str | None = None  # of the connection tracking table; a string: why nothing can be said of it
    busy: str = ""  # why packets are unobserved, when the machine was too busy for them

    @property
    def holds(self) -> bool:
        """Whether predicted == observed, and every expectation that could be evaluated holds."""
        return self.agrees and all(outcome.holds is not False for outcome in self.outcomes)

    @property
    def verdict(self) -> str:
        """The sentence that states whether prediction and kernel agree."""
        packets = counted(self.packets)
        others = "".join(f"; {text}" for text in self.open_counts)
        if not self.packets:
            return f"{packets}: nothing was {'shown' if self.drilled else 'predicted'}, because there is none"
        if not self.drilled:
            return f"{packets}: predicted only; nothing was enforced, replayed or observed{others}"
        if self.agrees:
            of_them = f" for {self.matched:,} of them" if others else ""
            return f"{packets}: predicted == observed{of_them}{others}"
        in_state = self.compared_states.differing
        of_them = f" ({in_state:,} of them only in what conntrack said)" if in_state else ""
        parts = [f"{self.mismatched:,} mismatched{of_them}"] if self.mismatched else []
        parts += [f"{self.unobserved:,} unobserved"] if self.unobserved else []
        if not parts and self.undetermined and not self.matched:
            return f"{packets}: nothing was shown, because the end of none is determined{others}"
        parts += [self.full_table] if self.full_table and not parts else []
        parts += [] if parts else ["an entry counted other packets than predicted"]
        return f"{packets}: predicted != observed: {', '.join(parts)}{others}"

    @property
    def summary(self) -> str:
        """The verdict, after the number of expectations that failed although prediction and kernel agree."""
        failed = sum(outcome.holds is False for outcome in self.expected)
        return f"{counted(failed, 'expectation')} failed; {self.verdict}" if failed and self.agrees else self.verdict

    @property
    def open_counts(self) -> list[str]:
        """How many packets have no fate to compare with a kernel's, as phrases; [] when there are none."""
        counted = ((self.undetermined, "undetermined"), (self.not_sendable, "not sendable"))
        return [f"{count:,} {word}" for count, word in counted if count]

    @property
    def is_lack_of_time(self) -> bool:
        """Whether the only problem is that the machine was too busy to observe every packet."""
        return bool(self.busy) and not self.mismatched and all(item.holds is not False for item in self.expected)

    @property
    def conntrack(self) -> str:
        """What conntrack said of the packets, as a sentence; "" where none got past it and it dropped none."""
        parts = [f"{count:,} {state}" for state, count in self.states.items()]
        parts += [f"{self.conntrack_drops:,} dropped by conntrack itself"] if self.conntrack_drops else []
        return f"conntrack: {', '.join(parts)}{self._of_states}" if parts else ""

    @property
    def _of_states(self) -> str:
        """Whether the states of the packets that ended as predicted are predicted ones; "" where none is compared."""
        found = self.compared_states
        several = f", {found.several:,} of them one of several possible" if found.several else ""
        parts = [f"{found.matched:,} as predicted{several}"] if found.matched else []
        parts += [f"{found.differing:,} not as predicted"] if found.differing else []
        return f"; {'; '.join(parts)}" if parts else ""

    @property
    def expected(self) -> tuple[Outcome, ...]:
        """The outcomes of the scenario's expectations, without the one that compares prediction and kernel."""
        return tuple(item for item in self.outcomes if item.position != NOWHERE)

    @property
    def scope(self) -> str:
        """Which part of the policy is left out, "" if none."""
        if not self.tracked or self.tracked_choice is TrackedChoice.ENFORCE:
            return ""
        return f"tracked policy {', '.join(self.tracked)} is not enforced here (--tracked model)"

    @property
    def several_ends(self) -> int:
        """How many packets have several possible ends."""
        return sum(self.several.values())

    @property
    def blocking(self) -> tuple[EntryRow, ...]:
        """The entries that dropped packets, most packets first."""
        rows = [row for row in self.entries if row.action == Action.DENY and row.dropped]
        return tuple(sorted(rows, key=lambda row: -row.dropped))

    @property
    def matrix_words(self) -> tuple[list[str], list[str]]:
        """The rows (predicted) and columns (observed) of the matrix, in packet order."""
        rows, columns = ({pair[side] for pair in self.matrix} for side in (0, 1))
        order = [*WORDS, UNOBSERVED]
        shared = [word for word in order if word in rows | columns]
        return [word for word in shared if word != UNOBSERVED], shared


# In packet order: the stages that drop, then the other fates.
ENDS = tuple(fate for fate in FATES if fate not in (Fate.DROPPED, *OPEN_FATES))
WORDS: tuple[str, ...] = (*map(str, STAGES), *map(str, ENDS))


def view_of(result: PredictResult | CountedResult, *, title: str = "") -> View:
    """The view of a prediction or a drill."""
    found = result if isinstance(result, CountedResult) else result.counted
    host, totals = found.situation.host, found.totals
    view = View(
        title=title or found.path,
        capture=found.path,
        sha256=found.sha256,
        packets=totals.packets,
        mode=found.mode,
        choice=str(found.situation.choice),
        interface=host.interface,
        node=host.node,
        stages=tuple(StageRow(word, count) for word, count in totals.stages().items()),
        entries=_entry_rows(found, totals.entries(), None),
        timings_s=dict(found.timings_s),
        policy=_policy_files(found),
        mode_reasons=tuple((str(mode), reason) for mode, reason in found.plan.mode_reasons),
        tracked=tuple(item.name for item in found.plan.table.tracked),
        tracked_choice=found.situation.tracked,
        calico=calico_of(found),
        sample=found.sample,
        about=found.about,
        warnings=totals.facts.warnings,
        skipped=skipped_by_count(totals.facts.skipped),
        undetermined=totals.count(Fate.UNDETERMINED),
        not_sendable=totals.count(Fate.NOT_SENDABLE),
        open_reasons=totals.open_reasons(),
        several=dict(Counter(totals.several).most_common()),
    )
    return _with_drill(view, result) if isinstance(result, DrillResult) else view


def view_of_scenario(item: ScenarioResult) -> View:
    """The view of a scenario in one mode, its expectations included."""
    scenario = item.scenario
    return replace(
        view_of(item.result, title=scenario.name),
        description=scenario.description,
        outcomes=item.outcomes,
        policy=scenario.policy,
        choice=str(item.choice),
    )


def _with_drill(view: View, result: DrillResult) -> View:
    found = result.verification
    predicted = {row.entry: row.predicted for row in found.entries}
    observed = {row.entry: row.observed for row in found.entries if row.observed is not None}
    return replace(
        view,
        drilled=True,
        agrees=found.agrees and (result.full is None or result.full.agrees),
        full_table=str(result.full or ""),
        kernel=result.kernel,
        driver=result.driver,
        stages=tuple(StageRow(word, c.predicted, c.observed, c.matched) for word, c in found.stages.items()),
        entries=_entry_rows(result.counted, predicted, observed),
        matched=found.matched,
        mismatched=found.mismatched,
        unobserved=found.unobserved,
        undetermined=found.undetermined,
        not_sendable=found.not_sendable,
        busy=result.busy,
        unpredicted=found.unpredicted,
        mismatches=found.mismatches,
        matrix=_matrix(result),
        conntrack_entries=result.conntrack_entries,
        conntrack_drops=result.conntrack_drops,
        states=found.states,
        compared_states=found.compared_states,
    )


def _entry_rows(
    result: CountedResult, predicted: Mapping[str, int], observed: Mapping[str, int] | None
) -> tuple[EntryRow, ...]:
    """Everything that can drop received packets, in evaluation order, including what dropped nothing. ``observed``:
    None without a drill.
    """
    planned = {item.entry.name: item for item in result.plan.entries}

    def row(entry: Entry, position: Position, stages: Sequence[Stage], reason: str) -> EntryRow:
        return EntryRow(
            entry=entry.name,
            source=source_of(position),
            action=str(entry.action),
            stages=tuple(map(str, stages)),
            reason=reason,
            predicted=predicted.get(entry.name, 0),
            observed=None if observed is None else observed.get(entry.name, 0),
        )

    untracked = (
        row(entry, entry.position, (planned[entry.name].stage,), planned[entry.name].reason)
        if entry.name in planned
        else row(entry, entry.position, (), "")
        for entry in result.plan.table.ingress
    )
    if result.tables is None:
        return tuple(untracked)
    stages, defaults = result.tables.stages(), sources_of_defaults(result.situation.resources, result.tables)
    tracked = (
        row(entry, defaults.get(entry.name, entry.position), stages[entry.name], AFTER_CONNTRACK)
        for entry in result.tables.entries()
        if entry.name in stages
    )
    return (*untracked, *tracked)


def _policy_files(result: CountedResult) -> tuple[str, ...]:
    """The files that the resources came from, in order, without repetition."""
    resources = result.situation.resources
    every = [item for name in _KINDS for item in getattr(resources, name)]
    return tuple(dict.fromkeys(item.position.path for item in every))


_KINDS = tuple(item.name for item in fields(Resources) if item.name != "skipped")


def _matrix(result: DrillResult) -> Mapping[tuple[str, str], int]:
    """Counts only packets whose end is determined."""
    known = result.prediction.is_determined
    predicted = _words(result.prediction.fate[known], result.prediction.stage[known])
    observed = _words(result.observations.fate[known], result.observations.stage[known])
    pairs, counts = np.unique(predicted * (len(WORDS) + 1) + observed, return_counts=True)
    names = [*WORDS, UNOBSERVED]
    return {
        (names[pair // (len(WORDS) + 1)], names[pair % (len(WORDS) + 1)]): int(count)
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)
    }


def _words(fate: npt.NDArray[np.uint8], stage: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """For each packet the index into WORDS of its end; one past the last word without evidence."""
    index = np.full(len(fate), len(WORDS), np.int64)
    for item in (Fate.DROPPED, *ENDS):
        here = fate == FATES.index(item)
        index[here] = stage[here] if item is Fate.DROPPED else WORDS.index(str(item))
    return np.minimum(index, len(WORDS))
