"""Two witnesses agree on policy after conntrack: ``predict`` on the compiled tables, ``explain`` on the resources."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dossim.model.disposition import Disposition
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.pipeline.explain import Explainer
from dossim.predict import Tables, predict
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.policy.compile import compile_table, compile_tracked
from enforcer.policy.resources import Resources
from tests.property.test_tracked_explain import tracked_resources
from tests.support.counterexample import kept
from tests.support.examples import examples
from tests.support.frame_strategies import random_frames
from tests.support.frames import captures
from tests.support.reach import reach
from tests.support.strategies import hosts
from tests.support.witnesses import plan_for, table_of

CHOICES = (ModeChoice.RAW, ModeChoice.NATIVE)
BACKENDS = (RawChoice.IPTABLES, RawChoice.NFTABLES)
AIMED = 30

Frames = Sequence[bytes]


def predicted(policy: Resources, host: Host, choice: ModeChoice, frames: Frames, raw: RawChoice) -> list[Disposition]:
    addresses = [address.ip for address in host.addresses]
    tables = Tables(
        compile_tracked(policy, node=host.node, interface=host.interface, addresses=addresses),
        compile_tracked(policy, node=host.node, interface=host.inside),
    )
    inside = compile_table(policy, node=host.node, interface=host.inside)
    found = predict(Capture.from_frames(frames), plan_for(policy, host, choice, raw), host, tables, inside)
    return [found.disposition(number) for number in range(len(frames))]


def explained(policy: Resources, host: Host, choice: ModeChoice, frames: Frames, raw: RawChoice) -> list[Disposition]:
    plan = plan_for(policy, host, choice, raw)
    explainer = Explainer(policy, host, mode=plan.mode, raw_backend=plan.raw_backend, tracked=True)
    return [trace.disposition for trace in explainer.explain_capture(frames)]


@pytest.mark.long
@settings(max_examples=examples(100, nightly=5_000), suppress_health_check=list(HealthCheck))
@given(tracked_resources(), hosts(), st.sampled_from(CHOICES), captures(), st.integers(0, 9), st.sampled_from(BACKENDS))
def test_predict_equals_explain_with_tracked_policy(
    policy: Resources, host: Host, choice: ModeChoice, others: list[bytes], seed: int, raw: RawChoice
) -> None:
    table = table_of(policy, host)
    frames = [
        *reach(table, host, seed, candidates_each=6).frames,
        *random_frames(table, random.Random(seed), AIMED),
        *others,
        *others[:3],
    ]
    with kept("found-predict-tracked", policy, host, frames):
        pairs = zip(
            predicted(policy, host, choice, frames, raw), explained(policy, host, choice, frames, raw), strict=True
        )
        different = [
            f"packet {number}: predicted {one}; explained {other}"
            for number, (one, other) in enumerate(pairs)
            if one.ends != other.ends or one.entry != other.entry
        ]
        assert not different
