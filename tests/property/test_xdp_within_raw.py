"""XDP drops ⊆ raw drops: what is dropped early is what raw drops, by the same entry; all else ends as without XDP.

Asked of both witnesses. Some packets die between XDP and raw (bad headers, fragments that stay incomplete): raw never
sees them, so XDP may drop them by their source.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dossim.disposition import Disposition, Fate
from dossim.host import Host
from enforcer.mode import ModeChoice
from enforcer.policy.resources import Resources
from enforcer.words import Stage
from tests.counterexample import kept
from tests.frames import captures
from tests.reach import reach
from tests.strategies import hosts, resources
from tests.witnesses import breaches_of, explained, predicted, table_of


@settings(max_examples=max(150, settings().max_examples // 10), suppress_health_check=list(HealthCheck))
@given(resources(), hosts(), st.sampled_from([ModeChoice.NATIVE, ModeChoice.GENERIC]), captures(), st.integers(0, 9))
def test_xdp_drops_nothing_that_raw_would_not(
    policy: Resources, host: Host, choice: ModeChoice, others: list[bytes], seed: int
) -> None:
    frames = [*reach(table_of(policy, host), host, seed).frames, *others]
    with kept("found-xdp-within-raw", policy, host, frames):
        for witness in (explained, predicted):
            assert not breaches_of(partial(witness, policy, host), choice, frames)


DENIED = Disposition(Fate.DROPPED, Stage.RAW, "a")
EARLY = Disposition(Fate.DROPPED, Stage.DRIVER, "a")
THROUGH = Disposition(Fate.DELIVERED)


def told(with_xdp: Sequence[Disposition], without: Sequence[Disposition]) -> list[str]:
    """The breaches that a witness reports who says this of the frames one by one."""

    def ask(choice: ModeChoice, frames: Sequence[bytes]) -> list[Disposition]:
        ends = without if choice is ModeChoice.RAW else with_xdp
        return [ends[frame[0]] for frame in frames]

    return breaches_of(ask, ModeChoice.NATIVE, [bytes([number]) for number in range(len(without))])


def test_the_law_sees_every_way_to_break_it() -> None:
    assert not told([EARLY, THROUGH], [DENIED, THROUGH])
    assert not told([EARLY], [Disposition(Fate.DROPPED, Stage.DEFRAG)])
    assert told([EARLY], [THROUGH])
    assert told([EARLY], [Disposition(Fate.DROPPED, Stage.RAW, "b")])
    assert told([EARLY], [Disposition(Fate.DROPPED, Stage.ROUTE)])
    assert told([THROUGH], [DENIED])
    assert told([DENIED], [Disposition(Fate.DROPPED, Stage.RAW, "b")])
