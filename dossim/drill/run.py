"""predict_capture and drill_capture. A prediction imports nothing that needs root, libbpf or netlink."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dossim.drill.judged import HEADER, ZERO, Judged, judged
from dossim.drill.modelled import Modelled, modelled
from dossim.drill.results import DrillResult, PredictResult, Stopwatch
from dossim.drill.situation import Situation, enforced_after, lab_facts, plan_for
from dossim.drill.totals import Later, Totals, later_of, several_of
from dossim.packet.about import facts_of, sentences
from dossim.packet.capture import Capture
from dossim.packet.fragments import datagram_keys, widest_datagram
from dossim.packet.offload import artefacts_of
from dossim.packet.summary import summary
from dossim.predict import Prediction, Tables, predict
from enforcer.model.choices import TrackedChoice
from enforcer.model.counted import counted
from enforcer.model.errors import UsageError
from enforcer.model.facts import HostFacts
from enforcer.model.vocabulary import Backend, Stage
from enforcer.planning.plan import InterfacePlan

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from dossim.drill.attempt import Attempt
    from dossim.drill.full_table import Compared
    from dossim.observe import Observations
    from dossim.verify.verification import Verification

Progress = Callable[[str, int, int], None]
Recorded = npt.NDArray[np.bool_] | None

_FRAGMENT_TIMEOUT_S = 2  # longer than a busy machine stalls between two fragments
_USUAL_REPLAY_PPS = 1000  # the first timeout allows for this; the second one is measured
_ATTEMPTS = 4


def predict_capture(
    capture: Capture, situation: Situation, *, facts: HostFacts | None = None, recorded: Recorded = None
) -> PredictResult:
    """Where each packet would end. ``facts`` of the real host, if known; else those of the lab's veth. ``recorded``
    says which packets were captured, rather than made: their checksums may be incomplete (:mod:`dossim.drill.judged`).
    """
    watch = Stopwatch()
    with watch.phase("predict"):
        plan = plan_for(situation, facts or lab_facts(situation.host))
        instead = judged(capture, recorded)
        after = enforced_after(situation)
        prediction = ends_of(instead, lambda it: predict(it, plan, situation.host, after.tables, after.inside))
    later = _modelled(instead, plan, situation, watch)
    totals = _totals(capture, instead, situation, prediction, later)
    return PredictResult(
        capture,
        situation,
        plan,
        prediction,
        watch.seconds,
        totals=totals,
        about=about(totals),
        tables=after.tables,
        modelled=later,
    )


def _modelled(instead: Judged, plan: InterfacePlan, situation: Situation, watch: Stopwatch) -> Modelled | None:
    with watch.phase("calico"):
        return modelled(situation, plan, partial(ends_of, instead))


def ends_of(instead: Judged, predict: Callable[[Capture], Prediction]) -> Prediction:
    """Where the packets that are judged end by a prediction; undetermined, where it is unknown how they were."""
    prediction = predict(instead.capture).with_reason(instead.zero, ZERO)
    if instead.mended is None:
        return prediction
    return prediction.open_where_other(predict(instead.mended), Stage.IP_INPUT, HEADER)


def _totals(
    capture: Capture, instead: Judged, situation: Situation, prediction: Prediction, later: Modelled | None
) -> Totals:
    found = artefacts_of(capture, [address.ip for address in situation.host.addresses])
    return Totals(
        facts=facts_of(capture, found),
        ends=prediction.ends(),
        several=several_of(prediction),
        later=Later() if later is None or later.prediction is None else later_of(later.prediction, prediction),
        completed=instead.completed,
        zero=int(instead.zero.sum()),
        ambiguous=instead.ambiguous,
    )


def about(totals: Totals, *, padded: int | None = None) -> tuple[str, ...]:
    """Sentences about the packets, and what was judged in their place; ``padded``: how many a drill filled up."""
    found = sentences(totals.facts)
    if totals.completed:
        sent = "" if padded is None else " and replayed"
        packets = counted(totals.completed, "packet is", "packets are")
        found.append(f"{packets} predicted{sent} with the checksum that hardware would have computed.")
    if totals.zero:
        found.append(f"{counted(totals.zero)} with a checksum of 0: unknown whether the wire had it too.")
    if totals.ambiguous:
        found.append(
            f"{counted(totals.ambiguous)} with an IPv4 header that hardware may have completed: predicted both ways."
        )
    if padded:
        found.append(f"{counted(padded)} cut by the capture: replayed with zeros for the missing bytes.")
    return tuple(found)


@dataclass(frozen=True)
class _Judgement:
    """An attempt's observations, compared with the prediction for the frames that were sent. ``late`` packets are those
    whose datagram the kernel may have timed out because the replay was too slow.
    """

    attempt: Attempt
    prediction: Prediction
    sent: Prediction
    observations: Observations
    late: Mapping[int, str]
    longest_s: float
    tables: Tables | None

    @property
    def is_incomplete(self) -> bool:
        """Whether another replay may show more: packets that were sent were not observed, or were late."""
        return bool(self.late) or int(self.observations.unobserved.sum()) > len(self.attempt.unsent)

    @property
    def lacked_time(self) -> bool:
        """Whether packets are unobserved that might not be on a machine with more time."""
        return bool(self.late) or (self.attempt.waiting.is_busy and bool(self.observations.unobserved.any()))


def drill_capture(
    capture: Capture, situation: Situation, *, progress: Progress | None = None, recorded: Recorded = None
) -> DrillResult:
    """Replay a capture against the real enforcer and verify every packet; leaves nothing behind, even when it raises.

    Packets that the capture cut are sent with zeros in place of what is missing. If not every packet was observed and
    nothing contradicts the prediction, the replay is repeated; if the machine was too slow for the kernel's fragment
    timeout, with a longer one, from the time measured. Packets late even then are unobserved. Raises
    PrivilegeError without root, HostError when this kernel cannot observe or enforce, UnsupportedRuleError for a rule
    that cannot be enforced, UsageError for more packets than can be numbered. ``progress`` is called with (phase, done,
    total).
    """
    from dossim.drill.load import longer_timeout_s
    from dossim.replay import MOST_PACKETS

    if len(capture) > MOST_PACKETS:
        raise UsageError(
            f"a drill replays at most {MOST_PACKETS:,} packets, and the capture has {len(capture):,}: split it, "
            "for example with editcap -c"
        )
    watch = Stopwatch()
    report = progress or (lambda phase, done, total: None)
    instead = judged(capture, recorded)
    fragments = datagram_keys(instead.sent)
    timeout_s = _FRAGMENT_TIMEOUT_S + widest_datagram(fragments) // _USUAL_REPLAY_PPS
    for _ in range(_ATTEMPTS):
        found = _attempt(instead, situation, fragments, timeout_s, watch, report)
        compared, verification = _verified(found, capture, instead, situation, watch)
        if verification.mismatched or not found.is_incomplete:
            break  # a replay that contradicts the prediction counts, however busy the machine was
        if found.late:
            timeout_s = longer_timeout_s(found.longest_s)
    attempt = found.attempt
    later = _modelled(instead, attempt.plan, situation, watch)
    totals = _totals(capture, instead, situation, compared.prediction, later)
    return DrillResult(
        capture=capture,
        situation=situation,
        plan=attempt.plan,
        prediction=compared.prediction,
        timings_s=watch.seconds,
        totals=totals,
        about=about(totals, padded=instead.padded),
        tables=found.tables,
        modelled=later,
        verification=verification,
        observations=found.observations,
        conntrack_entries=attempt.tracked,
        conntrack=attempt.conntrack.statistics,
        full=compared.full,
        kernel=os.uname().release,
        driver="veth",
        busy=str(attempt.waiting) if verification.unobserved and found.lacked_time else "",
    )


def _verified(
    found: _Judgement, capture: Capture, instead: Judged, situation: Situation, watch: Stopwatch
) -> tuple[Compared, Verification]:
    """What is compared of an attempt, and the result."""
    from dossim.drill.full_table import with_full_table
    from dossim.verify.compare import verify

    attempt = found.attempt
    with watch.phase("verify"):
        compared = with_full_table(
            instead.sent,
            found.prediction,
            found.sent,
            found.observations,
            host=situation.host,
            facts=attempt.conntrack,
            replay_s=watch.seconds.get("replay", 0.0),
        )
        verification = verify(
            compared.prediction,
            found.observations,
            entries=found.prediction.entries,
            counters=attempt.counters,
            summary=lambda number: summary(capture.frame(number)),
            sent=compared.sent,
            record=lambda number: int(capture.record[number]),
            deny_mask=_deny_mask(situation, attempt.plan.raw_backend),
        )
    return compared, verification


def _deny_mask(situation: Situation, backend: Backend) -> int:
    """The bit that our rules after conntrack set before they drop; 0 if there are none."""
    from enforcer.backends.iptables.settings import settings_of as iptables_settings
    from enforcer.backends.nftables.settings import settings_of as nftables_settings

    if situation.tracked is TrackedChoice.MODEL:
        return 0
    felix = situation.resources.felix_for(situation.host.node)
    settings = nftables_settings(felix) if backend is Backend.NFTABLES else iptables_settings(felix)
    return settings.drop_mark


def _attempt(
    instead: Judged,
    situation: Situation,
    fragments: Mapping[int, Hashable],
    timeout_s: int,
    watch: Stopwatch,
    report: Progress,
) -> _Judgement:
    from dossim.drill.attempt import replay_once
    from dossim.drill.load import overdue
    from dossim.observe import arrivals_ns, judge

    attempt = replay_once(instead.sent, situation, fragments, timeout_s, watch, report)
    with watch.phase("predict"):
        after = enforced_after(situation)

        def ends(capture: Capture) -> Prediction:
            tables, inside = after.tables, after.inside
            return predict(capture, attempt.plan, situation.host, tables, inside, states=True, times=times)

        times = arrivals_ns(attempt.journeys)
        prediction = ends_of(instead, ends)
        is_known = prediction.is_determined.all()
        sent = prediction if is_known else ends(instead.sent)
    with watch.phase("verify"):
        observations = judge(attempt.journeys, fragments, attempt.unsent, attempt.conntrack.dropped)
        late, longest_s = overdue(attempt.journeys, fragments, timeout_s)
        settled = sent.settled(observations.ct_state)
        wrong = (settled.fate != observations.fate) | (settled.stage != observations.stage)
        late = {packet: why for packet, why in late.items() if wrong[packet]}
    return _Judgement(attempt, prediction, sent, observations.without(late), late, longest_s, after.tables)
