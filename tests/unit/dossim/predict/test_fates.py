"""docs/packet-fates.md, predicted: the same rows that tests/kernel/test_fates.py sends to the kernel."""

from __future__ import annotations

import pytest

from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.predict import Prediction, predict
from enforcer.model.vocabulary import Backend
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.ruletable import RuleTable
from tests.kernel.test_fates import FORWARDED, HOST, ROUTER, ROWS, numbered

NO_POLICY = InterfacePlan(RuleTable("eth0"), None, Backend.IPTABLES, ())


def predicted(frames: list[bytes], host: Host) -> Prediction:
    return predict(Capture.from_frames(frames), NO_POLICY, host)


@pytest.mark.parametrize(
    ("host", "rows"), [pytest.param(HOST, ROWS, id="host"), pytest.param(ROUTER, FORWARDED, id="router")]
)
def test_every_row(host: Host, rows: dict[str, list[tuple[object, str]]]) -> None:
    table = numbered(rows)  # type: ignore[arg-type]  # checked when it runs
    prediction = predicted([frame for _, frame, _ in table], host)
    wrong = [
        f"{sentence}: {prediction.disposition(number)}, expected {expected}"
        for number, (sentence, _, expected) in enumerate(table)
        if prediction.disposition(number).column != expected
    ]
    assert not wrong


def test_every_drop_has_a_reason() -> None:
    prediction = predicted([frame for _, frame, _ in numbered(ROWS)], HOST)
    dispositions = [prediction.disposition(number) for number in range(len(prediction))]
    assert all(item.reason for item in dispositions if item.stage)


@pytest.mark.parametrize("size", range(14))
def test_a_frame_shorter_than_an_ethernet_header(size: int) -> None:
    assert predicted([bytes(size)], HOST).disposition(0).column == "not-sendable"
