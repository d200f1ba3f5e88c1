"""Two witnesses agree on policy after conntrack: ``predict`` on the compiled tables, ``explain`` on the resources."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dossim.drill.run import predict_capture
from dossim.drill.situation import Situation
from dossim.model.disposition import Disposition
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.predict import Prediction
from enforcer.model.choices import ModeChoice, RawChoice, TrackedChoice
from enforcer.policy.resources import Resources
from tests.support.counterexample import kept
from tests.support.examples import examples
from tests.support.frame_strategies import random_frames
from tests.support.frames import captures
from tests.support.reach import reach
from tests.support.reach_tracked import reach_tracked
from tests.support.strategies import hosts
from tests.support.tracked_strategies import spoken, tracked_resources
from tests.support.tracked_witnesses import differences, explained, predicted, tables_of
from tests.support.witnesses import explained as explained_untracked
from tests.support.witnesses import plan_for, table_of

CHOICES = (ModeChoice.RAW, ModeChoice.NATIVE)
BACKENDS = (RawChoice.IPTABLES, RawChoice.NFTABLES)
AIMED = 30


@pytest.mark.long
@settings(max_examples=examples(60, nightly=5_000), suppress_health_check=list(HealthCheck))
@given(
    tracked_resources(), hosts(), st.sampled_from(CHOICES), captures(), st.integers(0, 9), st.sampled_from(BACKENDS),
    st.data(),
)  # fmt: skip
def test_predict_equals_explain_with_tracked_policy(
    policy: Resources,
    host: Host,
    choice: ModeChoice,
    others: list[bytes],
    seed: int,
    raw: RawChoice,
    data: st.DataObject,
) -> None:
    table = table_of(policy, host)
    frames = [
        *reach(table, host, seed, candidates_each=6).frames,
        *reach_tracked(
            tables_of(policy, host), plan_for(policy, host, choice, raw), host, seed, candidates_each=6, adjacent=3
        ).frames,
        *random_frames(table, random.Random(seed), AIMED),
        *others,
        *others[:3],
        *data.draw(spoken(host)),
    ]
    with kept("found-predict-tracked", policy, host, frames):
        ends = (witness(policy, host, choice, frames, raw) for witness in (predicted, explained))
        assert not differences(*ends)


def dispositions(found: Prediction) -> list[Disposition]:
    return [found.disposition(packet) for packet in range(len(found))]


@settings(max_examples=examples(10, nightly=2_000), suppress_health_check=list(HealthCheck))
@given(tracked_resources(), hosts(), captures(), st.integers(0, 9), st.data())
def test_in_model_mode_both_predictions_equal_explain(
    policy: Resources, host: Host, others: list[bytes], seed: int, data: st.DataObject
) -> None:
    """What the enforcer does, without tracked policy; and what Calico would do, with it."""
    reached = reach_tracked(
        tables_of(policy, host),
        plan_for(policy, host, ModeChoice.RAW, RawChoice.IPTABLES),
        host,
        seed,
        candidates_each=4,
        adjacent=2,
    )
    frames = [*reached.frames, *others, *data.draw(spoken(host))]
    situation = Situation(policy, host, ModeChoice.RAW, tracked=TrackedChoice.MODEL)
    with kept("found-model", policy, host, frames):
        result = predict_capture(Capture.from_frames(frames), situation)
        about = policy, host, ModeChoice.RAW, frames
        assert not differences(dispositions(result.prediction), explained_untracked(*about))
        calico = result.modelled.prediction if result.modelled else result.prediction
        assert calico is not None, "every rule that the strategy draws can be evaluated"
        assert not differences(dispositions(calico), explained(*about))
