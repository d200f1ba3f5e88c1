"""predict_stream: a capture of any size, predicted window by window and counted; no packet is kept.

Which Ethernet sources leave pseudo header sums is known only at the end (:mod:`dossim.drill.judged`). Where that would
have decided earlier packets, files are read once more, with what is known by then. A pipe is there once: its packets
are judged by what came before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Protocol

import numpy as np

from dossim.drill.judged import HEADER, ZERO, Judged, every, judged, judged_by
from dossim.drill.modelled import Modelled
from dossim.drill.results import CountedResult, Drawn, Stopwatch
from dossim.drill.run import about
from dossim.drill.situation import LaterPolicy, Situation, enforced_after, lab_facts, modelled_after, plan_for
from dossim.drill.totals import STAGES_OF_TRACKED, Later, Totals
from dossim.engine.sweep import Sweep, merged, span_of
from dossim.exhaustion.flows import FlowCounter, NewFlows
from dossim.exhaustion.table import Table
from dossim.model.disposition import Fate
from dossim.model.host import Host
from dossim.packet.about import Facts, facts_of
from dossim.packet.capture import Capture
from dossim.packet.offload import artefacts_of
from dossim.packet.sample import Sample
from dossim.packet.stream import Stream, threads
from dossim.predict import Tables
from dossim.predict.batches import Batches, Counts, Decided, Doubt, Policy, Why
from dossim.predict.following import SEVERAL_BY
from dossim.predict.prediction import ends_of_kinds
from dossim.predict.world import reasons_of
from enforcer.model.errors import UnsupportedRuleError, UsageError
from enforcer.model.facts import HostFacts
from enforcer.model.nets import IPAddress
from enforcer.planning.plan import InterfacePlan

_MOST_SENDERS = 1 << 16  # that are kept: a crafted capture can have one for each packet
_STATELESS = "a sample lacks the earlier packets, on which conntrack states depend"
_LATE = (
    "a packet of its Ethernet source would have told what checksums of 0 before it mean; a pipe is read once, so that "
    "they stay unknown: use a file"
)


class Watcher(Protocol):
    """Sees what is decided. ``start`` is called once more if the capture is read again, if it ``can_start_again``. If
    none ``sees_all``, packets are counted and not shown.
    """

    can_start_again: bool
    sees_all: bool

    def start(self) -> None:
        """From here on everything is to be seen."""

    def see(self, decided: Decided) -> None:
        """The end of some packets."""

    def tell(self, done: int, total: int | None) -> None:
        """How many bytes have been read, of how many."""


def predict_stream(
    stream: Stream,
    situation: Situation,
    *,
    facts: HostFacts | None = None,
    watchers: Sequence[Watcher] = (),
    table: Table | None = None,
) -> CountedResult:
    """Where the packets would end. ``facts`` of the real host, if known; else those of the lab's veth. ``table``: new
    flows are counted for it. Raises CaptureError, and UnsupportedRuleError for a rule that cannot be enforced.
    """
    watch = Stopwatch()
    with watch.phase("plan"):
        plan = plan_for(situation, facts or lab_facts(situation.host))
        after = enforced_after(situation)
        modelled, later = left_to_calico(situation)
    with watch.phase("predict"):
        run = _Run(stream, situation, plan, after, later, watchers, table)
        totals = run.run()
    return CountedResult(
        stream.name,
        stream.sha256,
        situation,
        plan,
        totals,
        watch.seconds,
        about=about(totals),
        tables=after.tables,
        modelled=modelled,
        flows=run.flows,
    )


def predict_sample(
    stream: Stream,
    situation: Situation,
    size: int,
    *,
    seed: int = 0,
    facts: HostFacts | None = None,
    watchers: Sequence[Watcher] = (),
) -> CountedResult:
    """Where at most ``size`` packets would end, drawn at random from all. Each is judged by itself: nothing is said of
    conntrack states and fragments. Raises CaptureError, and UsageError if policy that is enforced needs the states.
    """
    watch = Stopwatch()
    plan = plan_for(situation, facts or lab_facts(situation.host))
    if (tables := enforced_after(situation).tables) and tables.governs:
        raise UsageError(
            "--sample: tracked policy that is enforced depends on the packets before; predict all, or without"
        )
    with watch.phase("draw"):
        whole, sample = Facts(), Sample(size, seed)
        for window in stream.windows():
            sample.offer(window)
            whole = whole.merged(Facts(skipped=window.skipped, warnings=window.warnings))
            for watcher in watchers:
                watcher.tell(stream.taken, stream.size)
        drawn = sample.drawn()
    with watch.phase("predict"):
        artefacts = artefacts_of(drawn, [address.ip for address in situation.host.addresses])
        instead = judged_by(drawn, artefacts, every(drawn), ())
        mine = replace(facts_of(drawn, artefacts), link_types={}, skipped=whole.skipped, warnings=whole.warnings)
        for watcher in watchers:
            watcher.start()
        with Batches(plan, situation.host, alone=True, shows=_is_shown(watchers)) as batches:
            _show(batches.take(*given(instead), is_last=True), watchers)
            totals = of_window(mine, instead).merged(counted(batches.counts()))
    modelled = left_to_calico(situation)[0]
    if modelled is not None and not modelled.why_not:
        modelled = replace(modelled, why_not=_STATELESS)
    found = Drawn(len(drawn), sample.offered, seed)
    sentences = (str(found), *about(totals))
    return CountedResult(
        stream.name, stream.sha256, situation, plan, totals, watch.seconds, sentences, None, modelled, found
    )


def left_to_calico(situation: Situation) -> tuple[Modelled | None, LaterPolicy]:
    """What is left to Calico: None, if nothing is."""
    try:
        later = modelled_after(situation)
    except UnsupportedRuleError as error:
        return Modelled(Tables(), None, str(error)), LaterPolicy()
    if later.tables is None or not later.tables.governs:
        return None, LaterPolicy()
    return Modelled(later.tables, None), later


def policy_of(later: LaterPolicy) -> Policy | None:
    """As it is predicted; None if there is none."""
    return None if later.tables is None else Policy(later.tables, later.inside)


@dataclass
class _Run:
    stream: Stream
    situation: Situation
    plan: InterfacePlan
    after: LaterPolicy
    later: LaterPolicy
    watchers: Sequence[Watcher]
    table: Table | None = None
    flows: NewFlows | None = None
    senders: set[bytes] = field(default_factory=set)
    wanted: set[bytes] = field(default_factory=set)

    def run(self) -> Totals:
        if self.stream.can_be_read_again and not all(watcher.can_start_again for watcher in self.watchers):
            self._scout()
        totals = self._once()
        if not self.wanted & self.senders:
            return totals
        if self.stream.can_be_read_again:
            return self._once()  # with all senders known
        return replace(
            totals, facts=replace(totals.facts, warnings=(*totals.facts.warnings, f"{self.stream.name}: {_LATE}"))
        )

    def _scout(self) -> None:
        """Learn all senders."""
        for window in self.stream.windows():
            self._learn(judged(window, every(window)))

    def _once(self) -> Totals:
        for watcher in self.watchers:
            watcher.start()
        self.wanted = set()
        totals = Totals()
        own = [address.ip for address in self.situation.host.addresses]
        counter = None if self.table is None else FlowCounter(self.situation.host, self.table)
        with self._batches(counter) as batches:
            sweeps = [] if _is_shown(self.watchers) else [batches.sweep() for _ in range(threads())]
            for window in self.stream.windows(sweeps):
                if counter is not None:
                    counter.last(span_of(window.timestamp_ns))
                totals = totals.merged(self._taken(batches, window, own) if len(window) else _about_file(window))
                for watcher in self.watchers:
                    watcher.tell(self.stream.taken, self.stream.size)
            _show(batches.take(Capture.from_frames([]), is_last=True), self.watchers)
            counts = batches.counts()
        totals = totals.merged(counted(counts))
        for sweep in sweeps:
            totals = totals.merged(of_sweep(sweep, self.plan, self.situation.host))
        if counter is not None:
            counter.last(reduce(merged, [sweep.span for sweep in sweeps], None))
            self.flows = counter.of(counts[0].kinds)
        return totals

    def _batches(self, counter: FlowCounter | None) -> Batches:
        return Batches(
            self.plan,
            self.situation.host,
            policy_of(self.after),
            policy_of(self.later),
            shows=_is_shown(self.watchers),
            new_flows=None if counter is None else counter.begun,
        )

    def _taken(self, batches: Batches, window: Capture, own: Sequence[IPAddress]) -> Totals:
        decided, taken = batches.take_complete(window)
        _show(decided, self.watchers)
        complete = replace(_about_file(window).facts, packets=taken.packets, cut=taken.cut, sent=taken.from_host)
        if taken.packets == len(window):
            return Totals(complete)
        rest = replace(window.part(taken.packets, len(window)), skipped={}, link_types={}, warnings=())
        return Totals(complete).merged(self._judged(batches, rest, own))

    def _judged(self, batches: Batches, window: Capture, own: Sequence[IPAddress]) -> Totals:
        """Packets, some of which hardware may not have completed."""
        artefacts = artefacts_of(window, own)
        instead = judged_by(window, artefacts, every(window), self.senders)
        self._learn(instead)
        _show(batches.take(*given(instead)), self.watchers)
        return of_window(facts_of(window, artefacts), instead)

    def _learn(self, instead: Judged) -> None:
        for mine, found in ((self.senders, instead.senders), (self.wanted, instead.wanted)):
            if len(mine) < _MOST_SENDERS:
                mine |= found


def _about_file(window: Capture) -> Totals:
    """What a window without packets says."""
    return Totals(Facts(skipped=window.skipped, link_types=window.link_types, warnings=window.warnings))


def _is_shown(watchers: Sequence[Watcher]) -> bool:
    return any(watcher.sees_all for watcher in watchers)


def _show(found: Sequence[Decided], watchers: Sequence[Watcher]) -> None:
    for decided in found:
        for watcher in watchers:
            watcher.see(decided)


def counted(counts: Sequence[Counts]) -> Totals:
    """All packets that Batches has ended, by each policy."""
    mine, *others = counts
    return Totals(ends=mine.ends, several=_several(mine.several), later=_later(others[0]) if others else Later())


def _later(counts: Counts) -> Later:
    drops = {
        end: packets
        for end, packets in counts.ends.items()
        if end.fate is Fate.DROPPED and end.stage in STAGES_OF_TRACKED
    }
    return Later(drops, _several(counts.several_after), counts.open_here)


def _several(packets: int) -> dict[str, int]:
    return {SEVERAL_BY: packets} if packets else {}


def of_sweep(sweep: Sweep, plan: InterfacePlan, host: Host) -> Totals:
    """The packets that were swept."""
    facts = Facts(sweep.packets, cut=sweep.cut, sent=sweep.from_host)
    return Totals(facts, ends=ends_of_kinds(sweep.ends(), plan.table.ingress, reasons_of(host)))


def of_window(facts: Facts, instead: Judged) -> Totals:
    """What is counted of a window whatever becomes of its packets."""
    zero = int(np.count_nonzero(instead.zero))
    return Totals(facts, completed=instead.completed, zero=zero, ambiguous=instead.ambiguous)


def given(instead: Judged) -> tuple[Capture, Doubt | None, Why | None]:
    """The packets to predict, and what is not known of them."""
    why = Why(instead.zero, ZERO, instead.whole.length) if instead.zero.any() else None
    if instead.mended is None:
        return instead.capture, None, why
    rows = np.array(instead.doubtful, np.int64)
    return instead.mended, Doubt(rows, instead.capture.only(rows), HEADER), why
