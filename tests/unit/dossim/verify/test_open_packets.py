"""Undetermined packets: counted separately, and still compared with the frame that was sent in their place."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_interface

import numpy as np
import pytest

from dossim.drill.judged import judged
from dossim.drill.run import predict_capture
from dossim.drill.situation import Situation
from dossim.model.disposition import Fate
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.predict import predict
from dossim.predict.prediction import FATE_CODE, NO_STAGE, STAGE_CODE
from dossim.verify import Verification
from dossim.verify.compare import verify
from enforcer.model.vocabulary import Stage
from enforcer.policy.resources import Resources
from tests.support.cut_captures import cut_at
from tests.support.frames import ME4, ethernet, ipv4, segment
from tests.unit.dossim.fabricated import observed

HOST = Host("jasper", addresses=(ip_interface(ME4),))
WHOLE = ethernet(
    ipv4(
        segment(6, "203.0.113.7", ME4, (1024, 80), b"data"), source="203.0.113.7", destination=ME4, protocol=6
    ),
    0x0800,
)  # fmt: skip
# One whole and delivered; one cut and undetermined, with a bad checksum when padded with zeros; one too short to be
# sent.
CAPTURE = cut_at([WHOLE, WHOLE, WHOLE[:10]], [len(WHOLE), 55, 10])

Ending = tuple[Fate, Stage | None] | None
AS_SENT: Mapping[int, Ending] = {0: (Fate.DELIVERED, None), 1: (Fate.DROPPED, Stage.SOCKET), 2: None}


def verified(ends: Mapping[int, Ending]) -> Verification:
    result = predict_capture(CAPTURE, Situation(Resources(), HOST))
    ends = {**AS_SENT, **ends}
    fate = [255 if (end := ends[n]) is None else FATE_CODE[end[0]] for n in range(3)]
    stage = [NO_STAGE if (end := ends[n]) is None or end[1] is None else STAGE_CODE[end[1]] for n in range(3)]
    nothing = np.zeros(3, np.int32)
    seen = observed(np.array(fate, np.uint8), np.array(stage, np.uint8), nothing, ("seen",))
    sent = predict(judged(CAPTURE).sent, result.plan, HOST)
    return verify(result.prediction, seen, entries=(), counters={}, summary=str, sent=sent, record=lambda n: n + 7)


def counts(found: Verification) -> tuple[int, ...]:
    assert found.packets == (
        found.matched + found.mismatched + found.unobserved + found.undetermined + found.not_sendable
    )
    return found.matched, found.mismatched, found.unobserved, found.undetermined, found.not_sendable


@pytest.mark.parametrize(
    ("ends", "expected", "agrees"),
    [
        ({}, (1, 0, 0, 1, 1), True),
        ({0: (Fate.DROPPED, Stage.RAW)}, (0, 1, 0, 1, 1), False),
        ({1: (Fate.DELIVERED, None)}, (1, 1, 0, 0, 1), False),  # not the predicted fate of the frame that was sent
        ({1: None}, (1, 0, 1, 0, 1), False),
        ({2: (Fate.DROPPED, Stage.IP_INPUT)}, (1, 1, 0, 1, 0), False),  # it was sendable after all
    ],
)
def test_each_packet_counts_once(ends: Mapping[int, Ending], expected: tuple[int, ...], agrees: bool) -> None:
    found = verified(ends)
    assert counts(found) == expected
    assert found.agrees is agrees
    assert all(item.record == item.packet + 7 for item in found.mismatches)


def test_frames_that_cannot_be_sent_are_no_reason_to_fail() -> None:
    short = Capture.from_frames([b"", bytes(10)])
    result = predict_capture(short, Situation(Resources(), HOST))
    unseen, nothing = np.full(2, 255, np.uint8), np.zeros(2, np.int32)
    seen = observed(unseen, unseen, nothing, ("not sent",))
    found = verify(result.prediction, seen, entries=(), counters={}, summary=str)
    assert (found.not_sendable, found.agrees) == (2, True)


def test_stages_count_what_is_determined() -> None:
    assert {word: (row.predicted, row.observed, row.matched) for word, row in verified({}).stages.items()} == {
        "delivered": (1, 1, 1)
    }
