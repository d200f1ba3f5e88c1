"""When an act ends, by clocks that jump, lag and stop. Every case errs towards denying."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.emergency.act import Act
from enforcer.emergency.expiry import Clock, ClockState, Decision, Sightings, decide, sightings, without
from enforcer.policy.resources import Resources
from tests.support.examples import examples
from tests.unit.enforcer.emergency.world import HOUR, NOW, act, resources, with_acts

BASE = resources()


@dataclass
class Host:
    """A host whose clocks the test moves. ``off_s``: by how much the wall clock is wrong."""

    acts: tuple[Act, ...]
    true_s: float = NOW
    boot_s: float = 1000.0
    off_s: float = 0.0
    synchronized: bool = True
    seen: Sightings | None = None

    @property
    def resources(self) -> Resources:
        return with_acts(BASE, *self.acts)

    def passes(self, seconds: float) -> None:
        self.true_s += seconds
        self.boot_s += seconds

    def boots(self, down_s: float = 60.0) -> None:
        self.true_s += down_s
        self.boot_s, self.seen = 5.0, None

    def look(self) -> Decision:
        clock = Clock(self.true_s + self.off_s, self.boot_s, self.synchronized)
        self.seen = sightings(self.resources, clock, self.seen or {})
        return decide(self.resources, clock, self.seen)

    @property
    def denies(self) -> bool:
        return not self.look().ended


def test_an_act_ends_at_its_end() -> None:
    host = Host((act("192.0.2.1/32", hours=4),))
    assert host.look().wake_s == host.boot_s + 4 * HOUR
    host.passes(4 * HOUR - 1)
    assert host.denies
    host.passes(1)
    decision = host.look()
    assert decision.ended == {host.acts[0].name}
    assert (decision.wake_s, decision.cidrs, decision.next_end_s) == (None, 0, None)


def test_a_permanent_act_does_not_end() -> None:
    host = Host((act("192.0.2.1/32", hours=None),))
    decision = host.look()
    assert (decision.wake_s, decision.state, decision.cidrs) == (None, None, 1)
    host.passes(10_000 * HOUR)
    assert host.denies


def test_the_next_end_and_how_many_there_are() -> None:
    host = Host((act("192.0.2.1/32", hours=4), act("192.0.2.2/32", "192.0.2.3/32", hours=1)))
    decision = host.look()
    assert (decision.cidrs, decision.next_end_s, decision.state) == (3, NOW + HOUR, ClockState.TRUSTED)
    host.passes(HOUR)
    decision = host.look()
    assert (decision.cidrs, decision.next_end_s, len(decision.ended)) == (1, NOW + 4 * HOUR, 1)


def test_a_wall_clock_that_jumps_ahead_ends_nothing_early() -> None:
    host = Host((act("192.0.2.1/32", hours=4),))
    assert host.denies
    host.off_s = 10 * HOUR
    host.passes(HOUR)
    assert host.denies
    host.passes(3 * HOUR)
    assert not host.denies, "the time has passed on CLOCK_BOOTTIME"


def test_a_wall_clock_that_jumps_back_denies_longer_but_not_for_ever() -> None:
    host = Host((act("192.0.2.1/32", hours=4),))
    assert host.denies
    host.passes(HOUR)
    host.off_s = -2 * HOUR
    assert host.look().state is ClockState.BEHIND, "the act was written later than now"
    assert host.denies
    host.passes(3 * HOUR)
    assert not host.denies, "its whole duration has passed since it was first seen"


def test_nothing_ends_by_a_clock_that_is_not_synchronized() -> None:
    """As after a boot, before NTP, with a battery that is empty or a clock that is ahead."""
    host = Host((act("192.0.2.1/32", hours=4),), synchronized=False, off_s=100 * HOUR)
    assert host.look().state is ClockState.UNSYNCHRONIZED
    assert host.denies
    host.passes(3 * HOUR)
    assert host.denies
    host.off_s, host.synchronized = 0.0, True
    host.passes(HOUR - 1)
    assert host.denies
    host.passes(101 * HOUR)
    assert not host.denies


def test_after_a_boot_the_wall_clock_decides() -> None:
    host = Host((act("192.0.2.1/32", hours=4),))
    assert host.denies
    host.passes(HOUR)
    host.boots()
    assert host.denies
    host.passes(3 * HOUR - 61)
    assert host.denies
    host.passes(1)
    assert not host.denies


def test_after_a_boot_with_a_wrong_clock_it_is_denied_until_the_clock_is_right() -> None:
    host = Host((act("192.0.2.1/32", hours=4),))
    host.passes(HOUR)
    host.synchronized, host.off_s = False, 50 * HOUR
    host.boots()
    assert host.denies
    host.synchronized, host.off_s = True, 0.0
    assert host.denies
    host.passes(3 * HOUR - 61)
    assert host.denies
    host.passes(1)
    assert not host.denies


def test_an_act_that_ended_while_the_host_was_off_is_not_enforced_again() -> None:
    host = Host((act("192.0.2.1/32", hours=4),))
    host.boots(down_s=5 * HOUR)
    assert not host.denies


def test_an_extension_counts_and_so_does_a_shortening() -> None:
    host = Host((act("192.0.2.1/32", hours=4),))
    host.look()
    host.passes(3 * HOUR)
    host.acts = (act("192.0.2.1/32", hours=8),)
    host.passes(2 * HOUR)
    assert host.denies
    host.acts = (act("192.0.2.1/32", hours=4),)
    assert not host.denies


def test_an_act_that_is_written_again_is_another_one() -> None:
    host = Host((act("192.0.2.1/32", hours=1),), synchronized=False)
    host.look()
    host.passes(5 * HOUR)
    host.acts = (act("192.0.2.1/32", hours=2, at_s=int(host.true_s)),)
    assert host.denies, "its duration begins when it is first seen, not with the one before"
    host.passes(2 * HOUR)
    assert not host.denies


def test_what_is_gone_is_forgotten_and_what_ended_is_left_out() -> None:
    host = Host((act("192.0.2.1/32", hours=1),))
    name = host.acts[0].name
    host.look()
    assert host.seen
    assert without(host.resources, frozenset()) == host.resources
    assert [item.name for item in without(host.resources, frozenset({name, "bots"})).global_network_sets] == ["bots"]
    host.acts = ()
    host.look()
    assert host.seen == {}


@pytest.mark.parametrize("boot_s", [3.0])
def test_a_sighting_of_another_boot_does_not_count(boot_s: float) -> None:
    host = Host((act("192.0.2.1/32", hours=1),))
    host.look()
    host.boot_s = boot_s
    host.look()
    assert host.seen
    assert next(iter(host.seen.values())).boot_s == boot_s


STEPS = st.one_of(
    st.tuples(st.just("passes"), st.integers(0, 3 * HOUR)),
    st.tuples(st.just("jumps"), st.integers(-50 * HOUR, 50 * HOUR)),
    st.tuples(st.just("synchronized"), st.booleans()),
)


@given(st.lists(STEPS, max_size=12), st.integers(0, 5 * HOUR))
@settings(max_examples=examples(300, nightly=100_000))
def test_nothing_ends_early_whatever_the_clock_does_once_it_was_seen_by_a_clock_that_is_right(
    steps: list[tuple[str, int]], delay_s: int
) -> None:
    made = act("192.0.2.1/32", hours=4)
    host = Host((made,))
    host.passes(min(delay_s, 4 * HOUR - 1))
    assert host.denies
    assert made.until_s
    for what, value in steps:
        if what == "passes":
            host.passes(value)
        elif what == "jumps":
            host.off_s = value
        else:
            host.synchronized = bool(value)
        assert host.denies or host.true_s >= made.until_s
    host.off_s, host.synchronized = 0, True
    host.passes(max(0, made.until_s - host.true_s))
    assert not host.denies, "and once the clock is right, it ends in time"
