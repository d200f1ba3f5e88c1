"""The XDP program compiled for the host drops what ``predict`` says, by the same entries, also of mutated frames.

The same law as in ``test_xdp_program.py``, without a kernel and without root, for many more frames: bytes of the
headers are changed and frames cut, to lengths and values that no generator thinks of.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dossim.model.disposition import Fate
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.predict import predict
from dossim.predict.prediction import FATE_CODE, STAGE_CODE
from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Stage
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.resources import Resources
from tests.support.counterexample import kept
from tests.support.examples import examples
from tests.support.frame_strategies import SHORTEST, random_frames
from tests.support.frames import captures
from tests.support.host_xdp import PASSED, HostXdp
from tests.support.mutated import mutated
from tests.support.strategies import hosts, resources
from tests.support.witnesses import plan_for, table_of
from tests.unit.dossim import xdp_decisions
from tests.unit.dossim.xdp_decisions import Row
from tests.unit.dossim.xdp_rows import ROWS

AIMED, MUTATED = 500, 65_000  # frames per example
LEAST_FRAMES = examples(3_000_000, nightly=300_000_000)


@pytest.mark.long
def test_it_drops_what_is_predicted_also_of_mutated_frames() -> None:
    asked, dropped = 0, 0

    # Not minimised: the frames that differ are a few of thousands already.
    @settings(
        max_examples=examples(80, nightly=10_000),
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(resources(), hosts(), captures(), st.integers(0, 1 << 32))
    def agree(policy: Resources, host: Host, others: list[bytes], seed: int) -> None:
        nonlocal asked, dropped
        plan = plan_for(policy, host, ModeChoice.NATIVE)
        if plan.mode is None:
            return
        frames = [*random_frames(table_of(policy, host), random.Random(seed), AIMED), *others]
        capture = mutated([frame for frame in frames if len(frame) >= SHORTEST], seed, MUTATED)
        capture = replace(capture, wire_length=capture.length)  # as cut frames come from the wire
        said = predicted(plan, host, capture)
        found = HostXdp(plan).entries(capture)
        wrong = np.flatnonzero(said != found)[:10].tolist()
        with kept("found-host-xdp", policy, host, [capture.frame(at) for at in wrong]):
            assert not [f"said {said[at]}, found {found[at]}: {capture.frame(at).hex()}" for at in wrong]
        asked += len(capture)
        dropped += int((found != PASSED).sum())

    agree()
    assert asked >= LEAST_FRAMES
    assert dropped >= LEAST_FRAMES // 50


@pytest.mark.parametrize("row", ROWS, ids=[row.sentence for row in ROWS])
def test_every_row_of_the_table(row: Row) -> None:
    plan = plan_for(row.policy, xdp_decisions.HOST, ModeChoice.NATIVE)
    (entry,) = HostXdp(plan).entries(Capture.from_frames([row.frame]))
    assert (None if entry == PASSED else plan.table.ingress[entry].name) == row.entry


def predicted(plan: InterfacePlan, host: Host, capture: Capture) -> npt.NDArray[np.int32]:
    """int32[N]: the index of the entry by which XDP drops the frame, or PASSED."""
    found = predict(capture, plan, host)
    early = (found.fate == FATE_CODE[Fate.DROPPED]) & (found.stage == STAGE_CODE[Stage.DRIVER])
    return np.where(early, found.entry, PASSED)
