"""Packets for which policy is not asked again end as if they were followed each: the engine with and without what it
remembers of their classes.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dossim.engine.follower import Counted, Follower, Limits, Way
from dossim.engine.new_flows import BegunFlows
from dossim.engine.predictor import Predictor
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.packet.fields import TCP
from dossim.predict.following import refused_of, way_of
from dossim.predict.prediction import FATES, NO_STAGE, STAGES, Draft
from dossim.predict.world import predictor_of, reasons_of
from enforcer.model.choices import ModeChoice
from enforcer.model.nets import Nets
from enforcer.policy.resources import Resources
from enforcer.policy.ruletable import RuleTable
from tests.support.counterexample import kept
from tests.support.examples import PROFILE, examples
from tests.support.frame_strategies import SHORTEST, random_frames
from tests.support.mutated import mutated
from tests.support.strategies import hosts
from tests.support.tracked_strategies import spoken, tracked_resources
from tests.support.tracked_witnesses import tables_of
from tests.support.witnesses import plan_for, table_of

AIMED, MUTATED = 100, 5_000
FEW = Limits(flow_bytes=20_000)  # some 200 flows
COLUMNS = ("fate", "stage", "entry", "reason", "untracked", "ct")


@pytest.mark.long
def test_they_end_as_if_each_was_followed() -> None:
    ends: Counter[str] = Counter()

    @settings(
        max_examples=examples(40, nightly=10_000), phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(tracked_resources(), hosts(), st.integers(0, 1 << 32), st.booleans(), st.data())
    def agree(policy: Resources, host: Host, seed: int, is_short: bool, data: st.DataObject) -> None:
        plan, tables = plan_for(policy, host, ModeChoice.RAW), tables_of(policy, host)
        frames = [
            *data.draw(spoken(host, most=40)),
            *random_frames(table_of(policy, host), random.Random(seed), AIMED),
        ]
        capture = mutated([frame for frame in frames if len(frame) >= SHORTEST], seed, MUTATED)
        tracked = way_of(plan, host, tables, RuleTable(host.inside), tracks=True)
        ways = [Way(), tracked] if seed % 2 else [tracked]
        engine, limits = predictor_of(plan, host, ways), FEW if is_short else Limits()
        assert engine.struct.classes, "there are not too many"
        usual = followed(engine, ways, host, capture, limits)
        engine.struct.classes, classes = None, engine.struct.classes
        each = followed(engine, ways, host, capture, limits)
        engine.struct.classes = classes
        with kept("found-usual", policy, host, [capture.frame(row) for row in range(len(capture))]):
            for mine, other in zip(usual[0], each[0], strict=True):
                wrong = {name: np.flatnonzero(mine[name] != other[name])[:5].tolist() for name in mine}
                assert not any(wrong.values()), wrong
            assert usual[1:] == each[1:]
        codes = usual[0][-1]["fate"].astype(np.int64) << 8 | usual[0][-1]["stage"]
        for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
            stage = int(code) & 0xFF
            fate = int(code) >> 8
            if fate < len(FATES):
                ends[f"{FATES[fate]} {'' if stage == NO_STAGE else STAGES[stage]}"] += int(count)

    agree()
    if PROFILE == "quick":
        return
    expected = {"dropped mangle", "dropped filter-input", "dropped socket", "dropped raw", "delivered "}
    assert not [end for end in sorted(expected) if ends[end] < 100], dict(ends)


def followed(
    engine: Predictor, ways: list[Way], host: Host, capture: Capture, limits: Limits
) -> tuple[list[dict[str, Any]], list[Counted], list[int]]:
    """The columns of each way, all counts, and the new flows by class."""
    own = Nets.of(address.ip for address in host.addresses)
    ports = [item.port for item in host.listen if item.protocol == TCP]
    begun = BegunFlows(own, ports, forward=host.forward, tcp_loose=True)
    drafts = [Draft(capture, reasons_of(host)) for _ in ways]
    times = np.arange(len(capture), dtype=np.int64) * 20_000_000
    with Follower(engine, ways, new_flows=begun, limits=limits) as follower:
        found, _ = follower.follow(capture, drafts, refused=refused_of(drafts[0]), times=times)
        counted = [follower.counted(way) for way in range(len(ways))]
    columns = [
        {name: getattr(draft, name) for name in COLUMNS} | {"said": one.said}
        for draft, one in zip(drafts, found, strict=True)
    ]
    counts = begun.counts
    return columns, counted, [*counts.flows, counts.beginning, counts.unknown]
