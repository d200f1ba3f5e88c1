"""The prediction for a cut packet holds for the whole packet, or is *undetermined*.

This is the decisive property for captures with a snapshot length. Both witnesses must also agree on them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dossim.model.disposition import Disposition, Fate
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.packet.cut import frame_on_wire
from dossim.pipeline.explain import Explainer
from dossim.predict import predict
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.policy.resources import Resources
from tests.support.cut_captures import cut_at, random_cuts
from tests.support.examples import examples
from tests.support.frame_strategies import random_frames
from tests.support.frames import captures
from tests.support.strategies import hosts, resources
from tests.support.witnesses import differences, plan_for, table_of

CHOICES = (ModeChoice.RAW, ModeChoice.NATIVE, ModeChoice.GENERIC, ModeChoice.OFFLOAD)
BACKENDS = (RawChoice.IPTABLES, RawChoice.NFTABLES)
AIMED = 80
LEAST = examples(1_000, nightly=4_000)  # cut packets
DECIDED = 0.05  # of them, at least: so that not everything is undetermined


def witnesses(
    policy: Resources, host: Host, choice: ModeChoice, raw: RawChoice, capture: Capture, *, netdev: bool
) -> tuple[list[Disposition], list[Disposition]]:
    """The results of explain and of predict for a capture."""
    plan = plan_for(policy, host, choice, raw, netdev=netdev)
    explainer = Explainer(policy, host, mode=plan.mode, raw_backend=plan.raw_backend, netdev=plan.netdev)
    traces = explainer.explain_capture([frame_on_wire(capture, number) for number in range(len(capture))])
    prediction = predict(capture, plan, host)
    return [trace.disposition for trace in traces], [prediction.disposition(n) for n in range(len(capture))]


def wrong(cut: Sequence[Disposition], whole: Sequence[Disposition]) -> list[str]:
    """Predictions for a cut packet that do not hold for the whole one."""
    return [
        f"packet {number}: {said} of the cut packet, {end} of the whole one"
        for number, (said, end) in enumerate(zip(cut, whole, strict=True))
        if said.fate is not Fate.UNDETERMINED and (not said.agrees(end) or said.entry != end.entry)
    ]


def test_what_is_said_of_a_cut_packet_holds_for_the_whole_one() -> None:
    ends: Counter[str] = Counter()

    @settings(max_examples=examples(25, nightly=100), suppress_health_check=list(HealthCheck))
    @given(
        resources(), hosts(), st.sampled_from(CHOICES), captures(), st.integers(0, 1 << 32), st.sampled_from(BACKENDS),
        st.booleans(),
    )  # fmt: skip
    def holds(
        policy: Resources, host: Host, choice: ModeChoice, others: list[bytes], seed: int, raw: RawChoice, netdev: bool
    ) -> None:
        rng = random.Random(seed)
        frames = [*others, *random_frames(table_of(policy, host), rng, AIMED), *others[:2]]
        capture = cut_at(frames, random_cuts(frames, rng))
        explained, predicted = witnesses(policy, host, choice, raw, capture, netdev=netdev)
        whole, _ = witnesses(policy, host, choice, raw, Capture.from_frames(frames), netdev=netdev)
        assert not differences(explained, predicted)
        assert not wrong(explained, whole)
        is_cut = capture.length < capture.wire_length
        ends.update(end.column for end, cut in zip(explained, is_cut.tolist(), strict=True) if cut)

    holds()
    assert ends.total() >= LEAST
    assert ends.total() - ends[str(Fate.UNDETERMINED)] >= DECIDED * ends.total(), ends
