"""Two witnesses agree: ``predict`` on the compiled RuleTable, ``explain`` on the resources, packet by packet.

They share the model of the kernel for unusual packets. The evaluation of policy is written twice, so that a bug of the
compiler, the planner or the vectorised code shows here.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dossim.model.host import Host
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.vocabulary import STAGE_OF_MODE, Stage
from enforcer.policy.resources import Resources
from tests.support.counterexample import kept
from tests.support.examples import draw_until, examples
from tests.support.frame_strategies import random_frames
from tests.support.frames import captures
from tests.support.reach import reach
from tests.support.strategies import hosts, resources
from tests.support.witnesses import differences, explained, predicted, table_of

CHOICES = (ModeChoice.RAW, ModeChoice.NATIVE, ModeChoice.NATIVE, ModeChoice.GENERIC, ModeChoice.OFFLOAD)
BACKENDS = (RawChoice.IPTABLES, RawChoice.NFTABLES)

AIMED = 60  # random frames per example, aimed at its table

# Pairs of resources and a packet.
LEAST_PAIRS = examples(2_000, nightly=200_000)


@pytest.mark.long
def test_predict_equals_explain() -> None:
    """On random captures, and on the packets that reach every entry."""
    pairs = 0

    # Some fifty frames per example: a tenth of the nightly profile's examples are more than enough pairs.
    @settings(max_examples=examples(250, nightly=10_000), suppress_health_check=list(HealthCheck))
    @given(resources(), hosts(), st.sampled_from(CHOICES), captures(), st.integers(0, 9), st.sampled_from(BACKENDS))
    def agree(
        policy: Resources, host: Host, choice: ModeChoice, others: list[bytes], seed: int, raw: RawChoice
    ) -> None:
        nonlocal pairs
        table = table_of(policy, host)
        frames = [
            *reach(table, host, seed, adjacent=None).frames,
            *random_frames(table, random.Random(seed), AIMED),
            *others,
        ]
        with kept("found-predict-and-explain", policy, host, frames):
            ends = (predicted(policy, host, choice, frames, raw), explained(policy, host, choice, frames, raw))
            assert not differences(*ends)
        pairs += len(frames)

    agree()
    assert pairs >= LEAST_PAIRS


@pytest.mark.long
@pytest.mark.slow
def test_random_captures_end_everywhere() -> None:
    """The strategies cover enough: policy drops at every enforcing stage, and packets get through."""
    ends: Counter[object] = Counter()
    enforcing = {(choice.mode and STAGE_OF_MODE[choice.mode]) or Stage.RAW: choice for choice in CHOICES}
    expected = {f"{stage} by an entry" for stage in enforcing}
    expected |= {"ip-input", "defrag", "raw", "route", "socket", "delivered", "forwarded"}

    def has_all(drawn: tuple[Resources, Host, list[bytes]]) -> bool:
        policy, host, others = drawn
        frames = [*reach(table_of(policy, host), host, candidates_each=6).frames, *others]
        missing = [choice for stage, choice in enforcing.items() if not ends[f"{stage} by an entry"]]
        for choice in missing or [ModeChoice.RAW]:
            for end in explained(policy, host, choice, frames):
                ends[end.column] += 1
                ends[f"{end.column} by an entry"] += end.entry is not None
        return all(ends[end] for end in expected)

    draw_until(has_all, st.tuples(resources(), hosts(), captures()), most=500)
    assert not [end for end in sorted(expected) if not ends[end]], dict(ends)
