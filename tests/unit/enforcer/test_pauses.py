"""If another program removes things repeatedly, they are restored at once at first, then after growing pauses."""

from __future__ import annotations

from enforcer.agent.repairs import RepairPauses


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_different_things_may_all_go_at_once() -> None:
    pauses = RepairPauses(Clock())
    assert not pauses.count(f"chain {number}" for number in range(100))
    assert not pauses.count(f"chain {number}" for number in range(100))
    assert pauses.not_before_s == 0.0


def test_the_same_thing_for_the_eighth_time_within_a_minute_waits() -> None:
    clock = Clock()
    pauses = RepairPauses(clock)
    for _ in range(7):
        clock.now_s += 1
        assert not pauses.count(["the table"])
    clock.now_s += 1
    assert pauses.count(["a chain", "the table"]).startswith("removed 8 times in 7 s: the table. Another program")
    assert pauses.not_before_s == clock.now_s + 2


def test_pauses_grow_to_half_a_minute_and_end_after_a_quiet_minute() -> None:
    clock = Clock()
    pauses = RepairPauses(clock)
    waits = []
    for _ in range(13):
        pauses.count(["the table"])
        waits.append(max(pauses.not_before_s - clock.now_s, 0.0))
        clock.now_s += 0.5 + waits[-1]
    assert waits == [0, 0, 0, 0, 0, 0, 0, 2, 4, 8, 16, 32, 32]
    clock.now_s += 100
    assert not pauses.count(["the table"])
    assert pauses.not_before_s <= clock.now_s


def test_what_is_taken_away_now_and_then_is_put_back_at_once() -> None:
    clock = Clock()
    pauses = RepairPauses(clock)
    for _ in range(50):
        clock.now_s += 20
        assert not pauses.count(["the table"])
