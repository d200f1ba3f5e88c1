"""Random policies against the running kernel: what explain and predict agree on, raw and XDP do as well.

Each example is a whole drill: random resources compiled, planned, rendered into the kernel, and random frames through
it. The strategies are those of the property that explain equals predict.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from dossim.drill import Situation, drill_capture
from dossim.host import Host
from dossim.packet.capture import Capture
from enforcer.mode import ModeChoice
from enforcer.policy.resources import Resources
from tests.frames import captures
from tests.strategies import hosts, resources

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]


# A drill cannot be shrunk in reasonable time: an example that fails is printed as it is.
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@given(resources(), hosts(), st.sampled_from((ModeChoice.RAW, ModeChoice.NATIVE, ModeChoice.GENERIC)), captures())
def test_the_kernel_does_what_was_predicted(
    policy: Resources, host: Host, choice: ModeChoice, frames: list[bytes]
) -> None:
    sendable = [frame for frame in frames if len(frame) >= 14]
    result = drill_capture(Capture.from_frames(sendable), Situation(policy, host, choice))
    verification = result.verification
    for mismatch in verification.mismatches:
        note(f"{mismatch.summary} {sendable[mismatch.packet].hex()}")
        note(f"predicted {mismatch.predicted}, observed {mismatch.observed}: {mismatch.evidence}")
    assert verification.agrees, verification.entries
