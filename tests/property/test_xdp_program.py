"""The XDP program itself as the third witness of its stage: it drops what explain and predict say, by the same entries.

The program is loaded with what the backend renders for the plan, and runs in ``BPF_PROG_TEST_RUN``: no interface, no
kernel after it. Frames are aimed at the policy (:mod:`tests.support.frame_strategies`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dossim.model.disposition import Disposition, Fate
from dossim.model.host import Host
from dossim.packet.parse import parse
from dossim.pipeline.explain import Explainer
from dossim.pipeline.graph import START
from dossim.pipeline.stages import PacketState
from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Stage
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.resources import Resources
from tests.bpf.xdp_program import XDP_DROP, program_for
from tests.support.counterexample import kept
from tests.support.examples import examples
from tests.support.frame_strategies import SHORTEST, random_frames
from tests.support.frames import captures
from tests.support.reach import reach
from tests.support.strategies import hosts, resources
from tests.support.witnesses import plan_for, predicted, table_of
from tests.unit.dossim import xdp_decisions
from tests.unit.dossim.xdp_decisions import Row
from tests.unit.dossim.xdp_rows import ROWS

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

AIMED = 400  # frames per example
LEAST_FRAMES = examples(50_000, nightly=1_000_000)


@pytest.mark.long
def test_the_program_drops_what_both_witnesses_say() -> None:
    """At least so many frames; some thousands are dropped, by entries of every kind."""
    frames_asked, dropped = 0, 0

    @settings(max_examples=examples(300, nightly=10_000), suppress_health_check=list(HealthCheck))
    @given(resources(), hosts(), captures(), st.integers(0, 1 << 32))
    def agree(policy: Resources, host: Host, others: list[bytes], seed: int) -> None:
        nonlocal frames_asked, dropped
        plan = plan_for(policy, host, ModeChoice.NATIVE)
        if plan.mode is None:
            return
        table = table_of(policy, host)
        frames = [*random_frames(table, random.Random(seed), AIMED), *reach(table, host, seed).frames, *others]
        frames = [frame for frame in frames if len(frame) >= SHORTEST]
        with kept("found-xdp-program", policy, host, frames):
            entries = dropped_in_driver(policy, host, plan, frames)
            assert dropped_by(predicted(policy, host, ModeChoice.NATIVE, frames)) == entries
            assert program_differs(plan, frames, entries) == []
        frames_asked += len(frames)
        dropped += len(frames) - entries.count(None)

    agree()
    assert frames_asked >= LEAST_FRAMES
    assert dropped >= LEAST_FRAMES // 50


@pytest.mark.parametrize("row", ROWS, ids=[row.sentence for row in ROWS])
def test_every_row_of_the_table(row: Row) -> None:
    plan = plan_for(row.policy, xdp_decisions.HOST, ModeChoice.NATIVE)
    assert program_differs(plan, [row.frame], [row.entry]) == []


def dropped_in_driver(policy: Resources, host: Host, plan: InterfacePlan, frames: Sequence[bytes]) -> list[str | None]:
    """What ``explain`` says, asked for no stage after that of the program."""
    explainer = Explainer(policy, host, mode=plan.mode, raw_backend=plan.raw_backend)
    ends = (explainer._walk(PacketState(parse(frame)), START, Stage.GENERIC)[-1] for frame in frames)
    return [end.entry if end.to is Fate.DROPPED else None for end in ends]


def dropped_by(ends: Sequence[Disposition]) -> list[str | None]:
    """For each frame the entry by which XDP drops it; None if it passes."""
    return [end.entry if end.stage is Stage.DRIVER else None for end in ends]


def program_differs(plan: InterfacePlan, frames: Sequence[bytes], entries: Sequence[str | None]) -> list[str]:
    """Where the loaded program differs from the prediction: frame by frame, then in the counters of the entries."""
    with program_for(plan) as program:
        verdicts = [program.run(frame) == XDP_DROP for frame in frames]
        names = (name for name in program.names if name)
        counted = {name: packets for name, (packets, _) in zip(names, program.counts(), strict=True) if packets}
    found = [
        f"frame {number}: {'dropped' if drop else 'passed'} by the program, said: {entry} ({frame.hex()})"
        for number, (drop, entry, frame) in enumerate(zip(verdicts, entries, frames, strict=True))
        if drop is not (entry is not None)
    ]
    said = Counter(entry for entry in entries if entry is not None)
    return found + ([] if found or counted == said else [f"counted {counted}, said {dict(said)}"])
