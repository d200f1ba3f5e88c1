"""Every counter-example of ``tests/counterexamples`` with all witnesses, with tracked policy enforced and without:
explain, predict, raw and XDP agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from dossim.drill.run import drill_capture
from dossim.drill.situation import Situation
from dossim.model.disposition import Disposition
from dossim.packet.capture import Capture
from enforcer.model.choices import ModeChoice, RawChoice, TrackedChoice
from tests.kernel.drill_support import assert_as_predicted, ends
from tests.support import tracked_witnesses
from tests.support.counterexample import FOLDER, CounterExample, read
from tests.support.witnesses import breaches_of, differences, explained, predicted

EXAMPLES = sorted(FOLDER.glob("*.yaml"))

each_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def observed(example: CounterExample, choice: ModeChoice, frames: Sequence[bytes]) -> list[Disposition]:
    result = drill_capture(Capture.from_frames(frames), Situation(example.policy, example.host, choice))
    assert_as_predicted(result)
    return ends(result)


@each_example
@pytest.mark.parametrize("choice", ModeChoice)
def test_predict_says_what_explain_says(path: Path, choice: ModeChoice) -> None:
    example = read(path)
    answers = (witness(example.policy, example.host, choice, example.frames) for witness in (predicted, explained))
    assert not differences(*answers)


@each_example
@pytest.mark.parametrize("choice", [ModeChoice.NATIVE, ModeChoice.GENERIC])
def test_xdp_drops_nothing_that_raw_would_not(path: Path, choice: ModeChoice) -> None:
    example = read(path)
    for witness in (explained, predicted):
        assert not breaches_of(partial(witness, example.policy, example.host), choice, example.frames)


@pytest.mark.needs_root
@each_example
@pytest.mark.parametrize("choice", [ModeChoice.NATIVE, ModeChoice.GENERIC])
def test_the_kernel_does_what_was_predicted_with_xdp_and_without(path: Path, choice: ModeChoice) -> None:
    example = read(path)
    assert not breaches_of(partial(observed, example), choice, example.frames)


@each_example
@pytest.mark.parametrize("choice", ModeChoice)
def test_predict_says_what_explain_says_with_tracked_policy(path: Path, choice: ModeChoice) -> None:
    example = read(path)
    witnesses = (tracked_witnesses.predicted, tracked_witnesses.explained)
    answers = (witness(example.policy, example.host, choice, example.frames) for witness in witnesses)
    assert not tracked_witnesses.differences(*answers)


@pytest.mark.needs_root
@each_example
@pytest.mark.parametrize("choice", [ModeChoice.RAW, ModeChoice.NATIVE])
def test_the_kernel_does_what_was_predicted_with_tracked_policy(path: Path, choice: ModeChoice) -> None:
    example = read(path)
    situation = Situation(example.policy, example.host, choice, RawChoice.IPTABLES, tracked=TrackedChoice.ENFORCE)
    assert_as_predicted(drill_capture(Capture.from_frames(example.frames), situation))
