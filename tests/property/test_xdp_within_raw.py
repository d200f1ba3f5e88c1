"""XDP drops ⊆ raw drops: what XDP drops, raw would drop by the same entry; everything else ends as without XDP.

Checked on both witnesses, with either backend of raw. Some packets are dropped between XDP and raw (bad headers,
incomplete fragments): raw never sees them, so XDP may drop them by their source.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dossim.model.disposition import Disposition, Fate
from dossim.model.host import Host
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.vocabulary import Action, Stage
from enforcer.policy.resources import EntityRule, NamedPort, Resources, Rule
from tests.support.counterexample import kept
from tests.support.examples import examples
from tests.support.frame_strategies import random_frames
from tests.support.frames import captures
from tests.support.reach import reach
from tests.support.strategies import hosts, resources
from tests.support.witnesses import breaches_of, explained, predicted, table_of
from tests.unit.dossim.xdp_decisions import (
    BROKEN6,
    HOST,
    MORE,
    TCP,
    authentication,
    four,
    nets,
    piece,
    policy,
    six,
    transport,
)

CHOICES = (ModeChoice.NATIVE, ModeChoice.NATIVE, ModeChoice.GENERIC, ModeChoice.OFFLOAD)
BACKENDS = (RawChoice.IPTABLES, RawChoice.NFTABLES)
AIMED = 60  # random frames per example, aimed at its table


@pytest.mark.long
@settings(max_examples=examples(100, nightly=10_000), suppress_health_check=list(HealthCheck))
@given(resources(), hosts(), st.sampled_from(CHOICES), st.sampled_from(BACKENDS), captures(), st.integers(0, 9))
def test_xdp_drops_nothing_that_raw_would_not(
    policy: Resources, host: Host, choice: ModeChoice, raw: RawChoice, others: list[bytes], seed: int
) -> None:
    table = table_of(policy, host)
    frames = [*reach(table, host, seed).frames, *random_frames(table, random.Random(seed), AIMED), *others]
    with kept("found-xdp-within-raw", policy, host, frames):
        for witness in (explained, predicted):
            assert not breaches_of(partial(witness, policy, host, raw=raw), choice, frames)


# What was found where the program treats fields as unknown that it could read.
HTTP = EntityRule(ports=(NamedPort("http"),))
TCP_HEADER = transport(TCP, dport=80, size=20)
COUNTEREXAMPLES = {
    "TCP's header ends in bytes that the kernel cuts off, and the whole datagram is too short for a named port": (
        policy(Rule(Action.DENY, destination=HTTP)),
        [four(TCP_HEADER, TCP, fragment=MORE), four(TCP_HEADER[16:18], TCP, fragment=2)],
    ),
    "raw drops broken headers at an entry that matches on the protocol, before it looks into the entry's set": (
        policy(Rule(Action.DENY, protocol=TCP, source=nets("fd00::/64", "2600::/16")), Rule(Action.DENY)),
        [BROKEN6],
    ),
    "so it does to a datagram whose first part broke off": (
        policy(Rule(Action.ALLOW, protocol=TCP, source=EntityRule(selector="role == 'db'")), Rule(Action.DENY)),
        [six(piece(60) + bytes([60, 1, 1, 4, 0, 0, 0, 0]), 44), six(piece(60, offset=8, more=False) + b"\x06", 44)],
    ),
    "nftables does not look past an authentication header": (
        policy(Rule(Action.DENY, protocol=TCP)),
        [six(authentication(TCP) + transport(TCP), 51)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("raw", BACKENDS, ids=str)
@pytest.mark.parametrize(("told", "frames"), COUNTEREXAMPLES.values(), ids=COUNTEREXAMPLES)
def test_where_it_was_not_so(told: Resources, frames: list[bytes], raw: RawChoice) -> None:
    for witness in (explained, predicted):
        assert not breaches_of(partial(witness, told, HOST, raw=raw), ModeChoice.NATIVE, frames)


DENIED = Disposition(Fate.DROPPED, Stage.RAW, "a")
EARLY = Disposition(Fate.DROPPED, Stage.DRIVER, "a")
THROUGH = Disposition(Fate.DELIVERED)


def told(with_xdp: Sequence[Disposition], without: Sequence[Disposition]) -> list[str]:
    """The breaches that a witness with these results per frame reports."""

    def decide(choice: ModeChoice, frames: Sequence[bytes]) -> list[Disposition]:
        ends = without if choice is ModeChoice.RAW else with_xdp
        return [ends[frame[0]] for frame in frames]

    return breaches_of(decide, ModeChoice.NATIVE, [bytes([number]) for number in range(len(without))])


def test_the_law_sees_every_way_to_break_it() -> None:
    assert not told([EARLY, THROUGH], [DENIED, THROUGH])
    assert not told([EARLY], [Disposition(Fate.DROPPED, Stage.DEFRAG)])
    assert told([EARLY], [THROUGH])
    assert told([EARLY], [Disposition(Fate.DROPPED, Stage.RAW, "b")])
    assert told([EARLY], [Disposition(Fate.DROPPED, Stage.ROUTE)])
    assert told([THROUGH], [DENIED])
    assert told([DENIED], [Disposition(Fate.DROPPED, Stage.RAW, "b")])
