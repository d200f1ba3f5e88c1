"""Both witnesses agree with every row: what the XDP program drops, by which rule, and why it passes the rest."""

from __future__ import annotations

import pytest

from dossim.pipeline.explain import Explainer
from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import STAGE_OF_MODE, Mode
from tests.support.witnesses import explained, plan_for, predicted
from tests.unit.dossim.xdp_decisions import HOST, Row
from tests.unit.dossim.xdp_rows import DEVICE_ROWS, ROWS

CHOICE = {Mode.NATIVE: ModeChoice.NATIVE, Mode.GENERIC: ModeChoice.GENERIC, Mode.OFFLOAD: ModeChoice.OFFLOAD}
CASES = [(Mode.NATIVE, row) for row in ROWS] + [(Mode.OFFLOAD, row) for row in DEVICE_ROWS]
cases = pytest.mark.parametrize(("mode", "row"), CASES, ids=[f"{mode}: {row.sentence}" for mode, row in CASES])


def test_no_sentence_stands_twice() -> None:
    sentences = [(mode, row.sentence) for mode, row in CASES]
    assert len(sentences) == len(set(sentences))


@cases
def test_explain(mode: Mode, row: Row) -> None:
    assert plan_for(row.policy, HOST, CHOICE[mode]).mode is mode
    hops = Explainer(row.policy, HOST, mode=mode).explain(row.frame).hops
    program = next(hop for hop in hops if hop.stage is STAGE_OF_MODE[mode])
    assert program.entry == row.entry
    assert row.why in program.note
    assert bool(program.note) is (row.entry is None)


@cases
def test_predict(mode: Mode, row: Row) -> None:
    (end,) = predicted(row.policy, HOST, CHOICE[mode], [row.frame])
    assert (end.entry if end.stage is STAGE_OF_MODE[mode] else None) == row.entry


@pytest.mark.parametrize("mode", CHOICE, ids=str)
def test_the_mode_names_the_stage(mode: Mode) -> None:
    row = DEVICE_ROWS[0]
    for witness in (explained, predicted):
        (end,) = witness(row.policy, HOST, CHOICE[mode], [row.frame])
        assert (end.stage, end.entry) == (STAGE_OF_MODE[mode], row.entry)
