"""XDP drops ⊆ raw drops: what is dropped early is what raw drops, by the same entry; all else ends as without XDP.

Asked of both witnesses. Packets that die between XDP and raw (bad headers, fragments that stay incomplete) raw never
sees, so XDP may drop them by their source. And a fragment's fate is its datagram's: without one that XDP dropped, the
others may be lost, or whole where it overlapped them. So of a fragment that XDP passes nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from dossim.disposition import Disposition, Fate
from dossim.host import Host
from dossim.packet.capture import Capture
from dossim.packet.fragments import datagram_keys
from dossim.pipeline import Explainer
from dossim.predict import predict
from enforcer.mode import ModeChoice
from enforcer.policy.resources import Resources
from enforcer.words import STAGE_OF_MODE, Mode, Stage
from tests.frames import captures
from tests.property.test_predict_equals_explain import plan_for
from tests.reach import reach
from tests.strategies import hosts, resources

EARLY = {STAGE_OF_MODE[mode] for mode in Mode}
BEFORE_RAW = {Stage.IP_INPUT, Stage.DEFRAG}

Witness = Callable[[Resources, Host, ModeChoice, Sequence[bytes]], list[Disposition]]


def explained(policy: Resources, host: Host, choice: ModeChoice, frames: Sequence[bytes]) -> list[Disposition]:
    mode = plan_for(policy, host, choice).mode
    return [trace.disposition for trace in Explainer(policy, host, mode=mode).explain_capture(frames)]


def predicted(policy: Resources, host: Host, choice: ModeChoice, frames: Sequence[bytes]) -> list[Disposition]:
    prediction = predict(Capture.from_frames(frames), plan_for(policy, host, choice), host)
    return [prediction.disposition(number) for number in range(len(frames))]


def assert_within(witness: Witness, policy: Resources, host: Host, choice: ModeChoice, frames: list[bytes]) -> None:
    early = witness(policy, host, choice, frames)
    raw = witness(policy, host, ModeChoice.RAW, frames)
    fragments = datagram_keys(Capture.from_frames(frames))
    for number, (frame, with_xdp, without) in enumerate(zip(frames, early, raw, strict=True)):
        note(f"{frame.hex()}: {with_xdp} with XDP, {without} without")
        if with_xdp.stage not in EARLY:
            same = with_xdp.agrees(without) and with_xdp.entry == without.entry
            assert same or number in fragments
            continue
        assert without.fate is Fate.DROPPED
        assert without.stage in BEFORE_RAW or (without.stage is Stage.RAW and without.entry == with_xdp.entry)


@settings(max_examples=max(150, settings().max_examples), suppress_health_check=list(HealthCheck))
@given(resources(), hosts(), st.sampled_from([ModeChoice.NATIVE, ModeChoice.GENERIC]), captures(), st.integers(0, 9))
def test_xdp_drops_nothing_that_raw_would_not(
    policy: Resources, host: Host, choice: ModeChoice, others: list[bytes], seed: int
) -> None:
    frames = [*reach(plan_for(policy, host, choice).table, host, seed).frames, *others]
    assert_within(explained, policy, host, choice, frames)
    assert_within(predicted, policy, host, choice, frames)
