"""Random policies against the running kernel: what explain and predict agree on, raw and XDP do as well.

Each example is two whole drills, one in raw and one with XDP: random resources compiled, planned, rendered into the
kernel, and the packets that reach every entry through it. The strategies are those of the property that explain equals
predict. Fragments wait for timeouts; they have drills of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from hypothesis import strategies as st

from dossim.disposition import Fate
from dossim.drill import DrillResult, Situation, drill_capture
from dossim.host import Host
from dossim.packet.capture import Capture
from dossim.packet.fragments import datagram_keys
from enforcer.mode import ModeChoice
from enforcer.policy.compile import compile_table
from enforcer.policy.resources import Resources
from enforcer.words import STAGE_OF_MODE, Mode
from tests.frames import captures
from tests.reach import reach
from tests.strategies import hosts, resources

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

EXAMPLES = 200


def without_fragments(frames: Iterable[bytes]) -> list[bytes]:
    sendable = [frame for frame in frames if len(frame) >= 14]
    fragments = datagram_keys(Capture.from_frames(sendable))
    return [frame for number, frame in enumerate(sendable) if number not in fragments]


def drilled(policy: Resources, host: Host, choice: ModeChoice, frames: list[bytes]) -> DrillResult:
    result = drill_capture(Capture.from_frames(frames), Situation(policy, host, choice))
    for mismatch in result.verification.mismatches:
        note(f"{choice}: {mismatch.summary} {frames[mismatch.packet].hex()}")
        note(f"predicted {mismatch.predicted}, observed {mismatch.observed}: {mismatch.evidence}")
    assert result.verification.agrees, result.verification.entries
    return result


def assert_within(early: DrillResult, raw: DrillResult) -> None:
    """What XDP drops, raw drops as well, or the kernel before raw; all else ends where it ends without XDP."""
    assert early.observations is not None
    assert raw.observations is not None
    stages = {STAGE_OF_MODE[mode] for mode in Mode}
    for packet in range(len(raw.capture)):
        with_xdp, without = early.observations.disposition(packet), raw.observations.disposition(packet)
        assert with_xdp is not None
        assert without is not None
        if with_xdp.stage in stages:
            assert without.fate is Fate.DROPPED, f"packet {packet}: XDP drops what raw lets through: {without}"
        else:
            assert with_xdp.agrees(without), f"packet {packet}: {with_xdp} with XDP, {without} without"


def test_the_kernel_does_what_was_predicted_and_xdp_drops_nothing_that_raw_would_not() -> None:
    seen: Counter[str] = Counter()

    # A drill cannot be shrunk in reasonable time: an example that fails is printed as it is.
    @settings(
        max_examples=max(EXAMPLES, settings().max_examples // 100),
        deadline=None,
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(
        resources(), hosts(), st.sampled_from((ModeChoice.NATIVE, ModeChoice.NATIVE, ModeChoice.GENERIC)), captures()
    )
    def drill(policy: Resources, host: Host, choice: ModeChoice, others: list[bytes]) -> None:
        addresses = [address.ip for address in host.addresses]
        table = compile_table(policy, node=host.node, interface=host.interface, addresses=addresses)
        assume(table.ingress)
        reached = reach(table, host)
        frames = without_fragments([*reached.frames, *others])
        raw = drilled(policy, host, ModeChoice.RAW, frames)
        early = drilled(policy, host, choice, frames)
        assert_within(early, raw)
        seen.update(policies=1, packets=2 * len(frames), entries=len(table.ingress))
        seen.update(reached=sum(count > 0 for count in reached.decided.values()))
        seen.update(denying=len(reached.decided), early=early.mode != "raw")
        seen.update(named=bool(table.port_sets))

    drill()
    assert seen["policies"] >= EXAMPLES
    assert seen["reached"] > seen["denying"] / 3, seen  # the others cannot be reached: tests/property/test_reach.py
    assert seen["early"] > EXAMPLES / 5, seen
    assert seen["named"] > EXAMPLES / 20, seen
