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
from dossim.model.counted import counted
from dossim.packet.about import describe
from dossim.packet.capture import Capture
from dossim.packet.fragments import datagram_keys, widest_datagram
from dossim.packet.summary import summary
from dossim.predict import Prediction, Tables, predict
from enforcer.model.choices import TrackedChoice
from enforcer.model.facts import HostFacts
from enforcer.model.vocabulary import Backend, Stage
from enforcer.planning.plan import InterfacePlan

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from dossim.drill.attempt import Attempt
    from dossim.observe import Observations

Progress = Callable[[str, int, int], None]
Recorded = npt.NDArray[np.bool_] | None

_FRAGMENT_TIMEOUT_S = 2  # longer than a busy machine stalls between two fragments
_USUAL_REPLAY_PPS = 1000  # the first timeout allows for this; the second one is measured
_ATTEMPTS = 3


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
        prediction = _predict(instead, lambda it: predict(it, plan, situation.host, after.tables, after.inside))
    return PredictResult(
        capture,
        situation,
        plan,
        prediction,
        watch.seconds,
        about=_about(capture, instead, situation, drilled=False),
        tables=after.tables,
        modelled=_modelled(instead, plan, situation, watch),
    )


def _modelled(instead: Judged, plan: InterfacePlan, situation: Situation, watch: Stopwatch) -> Modelled | None:
    with watch.phase("calico"):
        return modelled(situation, plan, partial(_predict, instead))


def _predict(instead: Judged, predict: Callable[[Capture], Prediction]) -> Prediction:
    prediction = predict(instead.capture).with_reason(instead.zero, ZERO)
    if instead.mended is None:
        return prediction
    return prediction.open_where_other(predict(instead.mended), Stage.IP_INPUT, HEADER)


def _about(capture: Capture, instead: Judged, situation: Situation, *, drilled: bool) -> tuple[str, ...]:
    sentences = describe(capture, [address.ip for address in situation.host.addresses])
    if instead.completed:
        sent = " and replayed" if drilled else ""
        packets = counted(instead.completed, "packet is", "packets are")
        sentences.append(f"{packets} predicted{sent} with the checksum that hardware would have computed.")
    if instead.zero.any():
        sentences.append(
            f"{counted(int(instead.zero.sum()))} with a checksum of 0: unknown whether the wire had it too."
        )
    if instead.ambiguous:
        sentences.append(
            f"{counted(instead.ambiguous)} with an IPv4 header that hardware may have completed: predicted both ways."
        )
    if instead.padded and drilled:
        packets = counted(instead.padded)
        sentences.append(f"{packets} cut by the capture: replayed with zeros for the missing bytes.")
    return tuple(sentences)


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


def drill_capture(
    capture: Capture, situation: Situation, *, progress: Progress | None = None, recorded: Recorded = None
) -> DrillResult:
    """Replay a capture against the real enforcer and verify every packet; leaves nothing behind, even when it raises.

    Packets that the capture cut are sent with zeros in place of what is missing. If the replay was too slow for the
    kernel's fragment timeout, it is repeated with a longer one, from the time measured; packets late even then are
    unobserved. Raises PrivilegeError without root, HostError when this kernel cannot observe or enforce,
    UnsupportedRuleError for a rule that cannot be enforced. ``progress`` is called with (phase, done, total).
    """
    from dossim.drill.full_table import with_full_table
    from dossim.drill.load import longer_timeout_s
    from dossim.verify import verify

    watch = Stopwatch()
    report = progress or (lambda phase, done, total: None)
    instead = judged(capture, recorded)
    fragments = datagram_keys(instead.sent)
    timeout_s = _FRAGMENT_TIMEOUT_S + widest_datagram(fragments) // _USUAL_REPLAY_PPS
    for _ in range(_ATTEMPTS):
        found = _attempt(instead, situation, fragments, timeout_s, watch, report)
        if not found.late:
            break
        timeout_s = longer_timeout_s(found.longest_s)
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
    return DrillResult(
        capture=capture,
        situation=situation,
        plan=attempt.plan,
        prediction=compared.prediction,
        timings_s=watch.seconds,
        about=_about(capture, instead, situation, drilled=True),
        tables=found.tables,
        modelled=_modelled(instead, attempt.plan, situation, watch),
        verification=verification,
        observations=found.observations,
        conntrack_entries=attempt.tracked,
        conntrack=attempt.conntrack.statistics,
        full=compared.full,
        kernel=os.uname().release,
        driver="veth",
        busy=str(attempt.waiting) if verification.unobserved and (found.late or attempt.waiting.is_busy) else "",
    )


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
        prediction = _predict(instead, ends)
        is_known = prediction.is_determined.all()
        sent = prediction if is_known else ends(instead.sent)
    with watch.phase("verify"):
        observations = judge(attempt.journeys, fragments, attempt.unsent, attempt.conntrack.dropped)
        late, longest_s = overdue(attempt.journeys, fragments, timeout_s)
        settled = sent.settled(observations.ct_state)
        wrong = (settled.fate != observations.fate) | (settled.stage != observations.stage)
        late = {packet: why for packet, why in late.items() if wrong[packet]}
    return _Judgement(attempt, prediction, sent, observations.without(late), late, longest_s, after.tables)
