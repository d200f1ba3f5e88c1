"""Random policies on the running kernel: raw and XDP do what explain and predict agree on.

Each example is two whole drills, one in raw and one with XDP: random resources compiled, planned, rendered into the
kernel, and the packets that reach every entry through it. That is done with raw in iptables and with raw in nftables.
The strategies are those of the property that explain equals predict. Fragments wait for timeouts; they have drills of
their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from dossim.drill.results import DrillResult
from dossim.drill.run import drill_capture
from dossim.drill.situation import Situation
from dossim.model.addresses import broadcasts
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.packet.fragments import datagram_keys
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.policy.resources import Resources
from tests.kernel.drill_support import assert_as_predicted, ends
from tests.support.counterexample import kept
from tests.support.examples import examples
from tests.support.frames import captures
from tests.support.reach import reach
from tests.support.strategies import hosts, resources
from tests.support.unmutated import UNMUTATED
from tests.support.witnesses import breaches, table_of

pytestmark = [pytest.mark.needs_root, pytest.mark.slow, pytest.mark.long]

EXAMPLES = {RawChoice.IPTABLES: 65, RawChoice.NFTABLES: 35}
ADJACENT = 4  # points adjacent to the edges of each entry; the property test has all


def without_fragments(frames: Iterable[bytes]) -> list[bytes]:
    sendable = [frame for frame in frames if len(frame) >= 14]
    fragments = datagram_keys(Capture.from_frames(sendable))
    return [frame for number, frame in enumerate(sendable) if number not in fragments]


def drillable(frames: Iterable[bytes], host: Host) -> list[bytes]:
    """Without fragments, and without packets from a broadcast address: what the host answers to it is received again,
    and counted by an entry that denies it (docs/kernel-notes.md).
    """
    everyone = {address.packed for address in broadcasts(host)}
    return without_fragments(frame for frame in frames if _source4(frame) not in everyone)


def _source4(frame: bytes) -> bytes:
    """Of IPv4, whatever tags are before it."""
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    return frame[at + 14 : at + 18] if frame[at : at + 2] == b"\x08\x00" else b""


def drilled(policy: Resources, host: Host, choice: ModeChoice, raw: RawChoice, frames: list[bytes]) -> DrillResult:
    result = drill_capture(Capture.from_frames(frames), Situation(policy, host, choice, raw))
    assert_as_predicted(result)
    return result


@pytest.mark.parametrize("backend", EXAMPLES, ids=str)
def test_the_kernel_does_what_was_predicted_and_xdp_drops_nothing_that_raw_would_not(backend: RawChoice) -> None:
    least = EXAMPLES[backend]
    seen: Counter[str] = Counter()
    tables: set[str] = set()

    # Shrinking a drill takes too long: a failing example is reported as it is.
    @settings(
        backend=UNMUTATED,
        max_examples=examples(least, nightly=1000),
        deadline=None,
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(
        resources(), hosts(), st.sampled_from((ModeChoice.NATIVE, ModeChoice.NATIVE, ModeChoice.GENERIC)), captures()
    )
    def drill(policy: Resources, host: Host, choice: ModeChoice, others: list[bytes]) -> None:
        table = table_of(policy, host)
        assume(table.ingress and str(table.ingress) not in tables)
        tables.add(str(table.ingress))
        reached = reach(table, host, adjacent=ADJACENT)
        frames = drillable([*reached.frames, *others], host)
        with kept("found-random-policies", policy, host, frames):
            raw = drilled(policy, host, ModeChoice.RAW, backend, frames)
            early = drilled(policy, host, choice, backend, frames)
            assert not breaches(ends(early), ends(raw))
        seen.update(policies=1, packets=2 * len(frames), entries=len(table.ingress))
        seen.update(reached=sum(map(bool, reached.decided.values())))
        seen.update(early=early.mode != "raw", named=bool(table.port_sets))

    drill()
    assert seen["policies"] >= least
    assert seen["reached"] > seen["entries"] / 3, seen  # the others cannot be reached: tests/property/test_reach.py
    assert seen["early"] > least / 5, seen
    assert seen["named"] or backend is RawChoice.NFTABLES, seen  # rare; rows: test_iptables_named_ports.py
