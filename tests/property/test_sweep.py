"""What a sweep counts in one pass is what the columns of prediction and artefacts say; it leaves the rest."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dossim.engine.artefacts import HEADER_NOT_SUMMED, LENGTH_MISSING, NOT_SUMMED, SENT_BY_HOST, artefacts
from dossim.engine.sweep import Sweep
from dossim.model.disposition import Fate
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.predict.prediction import FATE_CODE, STAGE_CODE, Draft
from dossim.predict.world import predictor_of
from enforcer.model.choices import ModeChoice
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Stage
from enforcer.policy.resources import Resources
from tests.property.test_ordinary import AIMED
from tests.support.examples import examples
from tests.support.frame_strategies import SHORTEST, random_frames
from tests.support.mutated import mutated
from tests.support.strategies import hosts, resources
from tests.support.witnesses import plan_for, table_of

WINDOWS, PACKETS = 3, 3_000
LEFT_BY = NOT_SUMMED | HEADER_NOT_SUMMED | LENGTH_MISSING


@pytest.mark.long
def test_windows_are_counted_as_columns_are() -> None:
    @settings(
        max_examples=examples(40, nightly=3_000), phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(resources(), hosts(), st.sampled_from([ModeChoice.RAW, ModeChoice.NATIVE]), st.integers(0))
    def agree(policy: Resources, host: Host, choice: ModeChoice, seed: int) -> None:
        engine = predictor_of(plan_for(policy, host, choice), host)
        frames = [*random_frames(table_of(policy, host), random.Random(seed), AIMED)]
        frames = [offloaded(frame, seed + at) for at, frame in enumerate(frames) if len(frame) >= SHORTEST]
        sweep, ends, sent, cut = Sweep(engine), Counter[tuple[int, ...]](), 0, 0
        for window in range(WINDOWS):
            capture = mutated(frames, seed + window, PACKETS)
            draft = Draft(capture)
            odd, _ = engine.predict(capture, draft, records_flows=False)
            marks, _ = artefacts(capture, Nets.of(address.ip for address in host.addresses))
            is_left = (odd != 0) | (marks & LEFT_BY != 0)
            is_left |= (draft.fate != FATE_CODE[Fate.DROPPED]) | (draft.stage >= STAGE_CODE[Stage.CONNTRACK])
            is_left |= capture.wire_length > 65_549  # Python tells which of them can be sent
            assert sweep.take(capture)["row"].tolist() == np.flatnonzero(is_left).tolist()
            ends.update(zip(*(getattr(draft, name)[~is_left].tolist() for name in KIND), strict=True))
            sent += int(np.count_nonzero(marks[~is_left] & SENT_BY_HOST))
            cut += int((capture.wire_length > capture.length)[~is_left].sum())
        assert sweep.ends() == dict(ends)
        assert (sweep.packets, sweep.from_host, sweep.cut) == (sum(ends.values()), sent, cut)

    agree()


KIND = ("fate", "stage", "entry", "reason")


def offloaded(frame: bytes, seed: int) -> bytes:
    """Some with the TCP or UDP checksum that hardware is to complete, or without one."""
    if seed % 4 or len(frame) < 54 or frame[12:15] != b"\x08\0\x45" or frame[23] not in (6, 17):
        return frame
    at, length = {6: 50, 17: 40}[frame[23]], int.from_bytes(frame[16:18]) - 20
    total = sum(int.from_bytes(frame[place : place + 2]) for place in range(26, 34, 2)) + frame[23] + length
    for _ in range(2):
        total = (total & 0xFFFF) + (total >> 16)
    return frame[:at] + (total if seed % 8 else 0).to_bytes(2) + frame[at + 2 :]


def test_a_packet_outside_of_the_data_is_refused() -> None:
    capture = Capture.from_frames([bytes(60), bytes(60)])
    object.__setattr__(capture, "length", np.array([60, 1 << 30], np.int32))
    host = Host("jasper")
    with pytest.raises(ValueError, match="packet 1 is not within the capture's data"):
        Sweep(predictor_of(plan_for(Resources(), host, ModeChoice.RAW), host)).take(capture)
