"""The reconciler of XDP on a fake kernel: programs are replaced without a gap, whatever fails, without leftovers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings

from enforcer.kernel.bpf.maps import BPF_F_MMAPABLE
from enforcer.model.errors import KernelError
from enforcer.model.vocabulary import Action, Backend, Mode
from enforcer.planning.plan import Plan
from tests.kernel.iptables_plans import entry, ip_set, table
from tests.support.entries import SideMatch
from tests.support.examples import examples
from tests.support.fakes.bpf_maps import ARRAY
from tests.support.fakes.calls import Fault, Killed
from tests.support.host_plans import TIMELY, changes, plan_of, timely
from tests.support.reconcile import FAULTS, check_change, converge, no_hole, settled, watched
from tests.unit.enforcer.backends.xdp.xdp_world import State, XdpWorld, early

SETS = [ip_set("s:a", ["10.0.0.1/32", "2001:db8::1/128"]), ip_set("s:b", ["10.0.1.0/24"])]
FEWER = [ip_set("s:a", ["10.0.0.1/32"]), ip_set("s:b", ["10.0.0.0/24", "2001:db8::/64"])]
FEW = [SETS[0], ip_set("s:b", ["10.0.1.128/25", "10.0.2.7/32"])]
BY_A, BY_B = (entry(at, Action.DENY, source=SideMatch(ip_set=f"s:{name}")) for at, name in enumerate("ab"))
UDP = entry(2, Action.DENY, protocol=17)


def _plan(*tables: object) -> Plan:
    return early(plan_of(Backend.IPTABLES, *tables))  # type: ignore[arg-type]  # checked when it runs


NOTHING = _plan()
OLD = _plan(table(BY_A, BY_B, sets=SETS))
MEMBERS = _plan(table(BY_A, BY_B, sets=FEWER))
OF_IPV4 = _plan(table(BY_A, BY_B, sets=FEW))
NEW = _plan(table(UDP, BY_B, sets=SETS))
TWO = _plan(table(BY_A, BY_B, sets=SETS), replace(table(UDP, BY_B, sets=SETS), interface="eth1"))
GENERIC = early(plan_of(Backend.IPTABLES, table(BY_A, UDP, sets=SETS)), Mode.GENERIC)

# A plan, the next one, and whether XDP drops what both drop at every moment: no interface has two modes at once.
STEPS = {
    "from nothing": (NOTHING, OLD, True),
    "members in place": (OLD, MEMBERS, True),
    "a few of IPv4 in place": (OLD, OF_IPV4, True),
    "other entries": (OLD, NEW, True),
    "an interface more": (OLD, TWO, True),
    "an interface less": (TWO, NEW, True),
    "another mode": (OLD, GENERIC, False),
    "to nothing": (TWO, NOTHING, True),
}


def drops_no_more(world: XdpWorld, old: State, states: list[State]) -> None:
    """Whatever XDP drops during the pass, the old plan or the new one drops as well."""
    allowed = world.dropped(old, old) | world.dropped(states[-1], states[-1])
    for before, after in pairwise(states):
        extra = world.dropped(before, after) - allowed
        assert not extra, f"dropped: {sorted(map(str, extra))[:3]}"


@pytest.mark.parametrize("row", STEPS)
def test_a_step(row: str) -> None:
    old, new, whole = STEPS[row]
    if whole:
        check_change(XdpWorld, old, new)
    world = XdpWorld()
    converge(world, old)
    drops_no_more(world, world.state(), watched(world, lambda: world.apply(new)))
    converge(world, new)


@pytest.mark.parametrize("row", TIMELY)
def test_members_come_and_go_in_time(row: str) -> None:
    old, new = map(early, timely(row, Backend.IPTABLES))
    check_change(XdpWorld, old, new)


@settings(max_examples=examples(10, nightly=1000))
@given(changes(Backend.IPTABLES))
def test_a_change_has_no_hole(change: tuple[Plan, Plan]) -> None:
    check_change(XdpWorld, *map(early, change))


def test_members_are_changed_in_place() -> None:
    """With the same program, whose counters continue."""
    world = XdpWorld()
    converge(world, OLD)
    before = world.state()
    assert world.apply(MEMBERS) == ["eth0: address lists changed in place (2 entries, 3 CIDRs)"]
    after = world.state()
    assert (after.attached, after.programs, after.pins) == (before.attached, before.programs, before.pins)


def test_what_is_written_to_a_mapped_table_is_seen_at_once() -> None:
    """The fake compares its memory with what it had."""
    world = XdpWorld()
    with world.fake.create_map(ARRAY, "x", key_size=4, value_size=8, max_entries=1, flags=BPF_F_MMAPABLE) as opened:
        table, memory = world.fake.map(opened.fd), opened.mmap(writable=True)
        for number in (1, 2):
            memory[0] = number
            assert table.content()[0] == number
            assert table.content() is table.content()
        memory.close()


def test_a_few_members_after_a_few_others() -> None:
    """Each pass begins with what the one before it left, the second with blocks that the first has freed."""
    world = XdpWorld()
    converge(world, OLD)
    for plan in (OF_IPV4, OLD, OF_IPV4):
        assert world.apply(plan) == [
            f"eth0: address lists changed in place (2 entries, {4 if plan is OF_IPV4 else 3} CIDRs)"
        ]
        assert world.dropped(world.state(), world.state()) == _dropped_by(plan)
    converge(world, OF_IPV4)


def _dropped_by(plan: Plan) -> object:
    world = XdpWorld()
    converge(world, plan)
    return world.dropped(world.state(), world.state())


def test_another_program_replaces_the_one_of_an_older_version() -> None:
    world = XdpWorld()
    converge(world, OLD)
    before = world.state()
    world.fake.digest = "two"
    states = watched(world, lambda: world.apply(OLD))
    no_hole(world, states, world.dropped(before, before))
    converge(world, OLD)
    assert world.state().attached != before.attached


def test_what_entries_have_dropped_is_carried_over() -> None:
    """Packets of both plans: on two CPUs, in this generation and in earlier ones."""
    world = XdpWorld()
    converge(world, OLD)
    world.count("eth0", 5)
    a, b = [("eth0", item.name) for item in (BY_A, BY_B)]
    assert world.counts() == {a: 10, b: 10}
    converge(world, MEMBERS)
    assert world.counts() == {a: 10, b: 10}
    converge(world, NEW)
    assert world.counts() == {("eth0", UDP.name): 0, b: 10}
    world.count("eth0", 1)
    converge(world, OLD)
    assert world.counts() == {a: 0, b: 12}


def test_a_dry_run_changes_nothing_and_says_what_it_would() -> None:
    world = XdpWorld()
    converge(world, OLD)
    for plan in (NEW, GENERIC, TWO, MEMBERS):
        before = world.state()
        said = world.backend.apply(plan, dry_run=True).changes
        assert world.state() == before
        assert list(said) == world.apply(plan)
        converge(world, OLD)


# --- whatever fails ---------------------------------------------------------------------------------------------------


def _counting(plan: Plan) -> XdpWorld:
    """A kernel that enforces a plan, whose entries have dropped packets."""
    world = XdpWorld()
    converge(world, plan)
    if world.fake.links():
        world.count("eth0", 3)
    return world.copy()


def _calls(begin: XdpWorld, new: Plan) -> list[str]:
    """The calls of a pass."""
    world = begin.copy()
    world.apply(new)
    return world.calls.log


@dataclass
class _Mending:
    """What the next pass does after one that ended early: it fails, defers the work to the next, or does not need what
    failed; raw still enforces everything. Passes that leave the same behind are mended in the same way.
    """

    begin: XdpWorld
    new: Plan
    whole: bool
    _mended: dict[Hashable, list[State]] = field(default_factory=dict)

    def check(self, left: XdpWorld, states: list[State]) -> None:
        """``left``: by the first pass. ``states``: those from before the call at which it ended; up to there it is the
        pass of ``test_a_step``, which looks at each state of it.
        """
        begin, place = self.begin.state(), left.everything()
        if all(state == begin for state in (*states, left.state())):  # an agent finds what this one found
            return
        if place not in self._mended:
            self._mended[place] = watched(left, lambda: left.apply(self.new))
            settled(left, self.new)
            _keeps_counts(left, self.begin.counts())
        states = [*states, *self._mended[place]]
        if self.whole:
            no_hole(left, states, left.dropped(begin, begin) & left.dropped(states[-1], states[-1]))
        drops_no_more(left, begin, states)

    def fails(self, number: int, how: str) -> None:
        """At the call with this number."""
        world, states = self.begin.copy(), list[State]()
        error, after = FAULTS[how]
        world.calls.fault = Fault(number, error, after)

        def watch(at: int) -> None:
            if at == number:
                states.append(world.state())
                world.calls.observe = lambda _: states.append(world.state())

        world.calls.intrude = watch
        with suppress(KernelError, Killed):
            world.apply(self.new)
        world.calls.fault = world.calls.intrude = world.calls.observe = None
        assert states
        self.check(world, states)


def _keeps_counts(world: XdpWorld, before: Mapping[tuple[str, str], int]) -> None:
    """Of the entries that there were before."""
    now = world.counts()
    assert {name: now[name] for name in before if name in now} == {
        name: value for name, value in before.items() if name in now
    }


# The decisive calls of the step "other entries".
DECISIVE = (
    "mkdir v2/interfaces/eth0/next",
    "load the program",
    "pin pins/v2/interfaces/eth0/next/prog",
    "update link",
    "wait for readers",
    "open pins/v2/interfaces/eth0/counters",
    "open pins/v2/interfaces/eth0/next/manifest",
    "replace v2/interfaces/eth0/next/counters",
    "replace v2/interfaces/eth0/next/prog",
    "rmdir v2/interfaces/eth0/next",
)


@pytest.mark.parametrize("name", DECISIVE)
def test_where_a_swap_fails_the_next_pass_mends_it(name: str) -> None:
    old, new, whole = STEPS["other entries"]
    mending = _Mending(_counting(old), new, whole)
    number = _calls(mending.begin, new).index(name)
    for how in ("refused", "killed before"):
        mending.fails(number, how)


def test_counts_are_kept_though_the_old_manifest_cannot_be_read_now() -> None:
    old, new, whole = STEPS["other entries"]
    mending = _Mending(_counting(old), new, whole)
    names = _calls(mending.begin, new)
    swapped = names.index("update link")
    reads = [at for at, name in enumerate(names) if name.endswith("eth0/manifest") and at > swapped]
    assert len(reads) > 1
    for number in reads:
        mending.fails(number, "refused")


def _without_memory(world: XdpWorld, plan: Plan, number: int) -> list[str]:
    """The calls of a pass in which the call with this number fails for lack of memory."""
    first = len(world.calls.log)
    world.calls.fault = Fault(first + number, FAULTS["refused"][0])
    with suppress(KernelError):
        world.apply(plan)
    world.calls.fault = None
    return world.calls.log[first:]


@pytest.mark.slow
@pytest.mark.parametrize("first", ["wait for readers", "replace v2/interfaces/eth0/next/counters"])
def test_two_shortages_in_a_row_lose_neither_the_new_program_nor_counts(first: str) -> None:
    """The first pass leaves a live program under next/; the second, failing at any call, must not discard it."""
    old, new, _ = STEPS["other entries"]
    begin, number, calls = _counting(old), 0, [""]
    counted, failed = begin.counts(), begin.copy()
    assert _without_memory(failed, new, _calls(begin, new).index(first))[-1] == first
    attached, mended = failed.state().attached, set[Hashable]()
    while calls[-1] != "rmdir v2/interfaces/eth0/next":
        world = failed.copy()
        calls = _without_memory(world, new, number)
        assert world.state().attached == attached, calls
        number += 1
        if world.everything() not in mended:
            mended.add(world.everything())
            converge(world, new)
            assert world.state().attached == attached, calls
            _keeps_counts(world, counted)
    assert number > 10


@pytest.mark.slow
@pytest.mark.parametrize("row", ["from nothing", "members in place", "other entries", "another mode", "to nothing"])
def test_wherever_it_is_killed_the_next_pass_mends_it(row: str) -> None:
    """After each call that changes something; between two such calls nothing changes. What it had open is closed."""
    old, new, whole = STEPS[row]
    mending = _Mending(_counting(old), new, whole)
    world = mending.begin.copy()
    states, left = [world.state()], list[XdpWorld]()

    def killed(_: str) -> None:
        states.append(world.state())
        left.append(world.copy())

    world.calls.observe = killed
    world.apply(new)
    assert len(left) > 1
    for at, each in enumerate(left):
        mending.check(each, [*states[at : at + 2], each.state()])


@pytest.mark.slow
def test_whatever_is_refused_the_next_pass_mends_it() -> None:
    """Each call except reading an open object, which fails in the same way as opening it."""
    old, new, whole = STEPS["other entries"]
    mending = _Mending(_counting(old), new, whole)
    names = _calls(mending.begin, new)
    numbers = [number for number, name in enumerate(names) if name not in ("info", "look up")]
    assert len(numbers) > 50
    for number in numbers:
        mending.fails(number, "refused")
