"""Netdev ingress has the properties of XDP: both witnesses agree on it, and it drops only what raw would drop."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dossim.model.host import Host
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.vocabulary import Stage
from enforcer.policy.resources import Resources
from tests.support.counterexample import kept
from tests.support.examples import examples
from tests.support.frame_strategies import random_frames
from tests.support.frames import captures
from tests.support.reach import reach
from tests.support.strategies import hosts, resources
from tests.support.witnesses import breaches, differences, explained, predicted, table_of, those_left

BACKENDS = (RawChoice.IPTABLES, RawChoice.NFTABLES)
AIMED = 60  # random frames per example, aimed at its table


def test_both_witnesses_agree_and_raw_would_have_dropped_it() -> None:
    dropped: Counter[bool] = Counter()

    @settings(max_examples=examples(60, nightly=10_000), suppress_health_check=list(HealthCheck))
    @given(resources(), hosts(), st.sampled_from(BACKENDS), captures(), st.integers(0, 9))
    def accelerates(policy: Resources, host: Host, raw: RawChoice, others: list[bytes], seed: int) -> None:
        table = table_of(policy, host)
        frames = [*reach(table, host, seed).frames, *random_frames(table, random.Random(seed), AIMED), *others]
        with kept("found-netdev-within-raw", policy, host, frames):
            about = (policy, host, ModeChoice.RAW)
            early = explained(*about, frames, raw, netdev=True)
            assert not differences(predicted(*about, frames, raw, netdev=True), early)
            left = [frames[number] for number in those_left(early)]
            assert not breaches(early, explained(*about, frames, raw), explained(*about, left, raw))
        dropped.update(end.stage is Stage.NETDEV_INGRESS for end in early)

    accelerates()
    assert dropped[True] > dropped[False] / 50, dropped
