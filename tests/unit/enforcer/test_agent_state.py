"""AgentState: what the agent says of itself, from the same calls that its passes make."""

from __future__ import annotations

import pytest

from enforcer.agent import state as module
from enforcer.agent.agent import Agent
from enforcer.agent.event_loop import Events
from enforcer.agent.state import APPLY_BOUNDS_S, AgentState, Histogram
from enforcer.datastore.base import StoreState
from enforcer.datastore.report import StoreCounts
from enforcer.enforcement.apply import Applied, Enforcer
from enforcer.model.errors import KernelError, UnsupportedRuleError
from enforcer.monitor.health import health_of
from enforcer.planning.plan import Plan
from enforcer.policy.load import load_text
from enforcer.policy.resources import FelixConfiguration, Resources
from enforcer.policy.tolerant import Loaded
from tests.support.stores import GivenStore

SET = "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: %s}, spec: {nets: [192.0.2.0/24]}}"
FIRST, SECOND = (load_text(SET % name) for name in ("first", "second"))


class Clock:
    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.now_s + 1e9


class Scripted(Enforcer):
    """Its passes take the time, and raise the error, that the test sets."""

    def __init__(self, clock: Clock) -> None:
        super().__init__("jasper")
        self.clock, self.takes_s, self.changes = clock, 0.0, ("attach",)
        self.error: Exception | None = None
        self.refuses = ""
        self.applied: list[str] = []

    def apply(self, resources: Resources, *, dry_run: bool = False) -> Applied:
        self.clock.now_s += self.takes_s
        name = next((item.name for item in resources.global_network_sets), "")
        if name and name == self.refuses:
            raise UnsupportedRuleError("services: none known here")
        if self.error:
            raise self.error
        self.applied.append(name)
        return Applied(Plan("jasper", ()), self.changes)


class Fixture:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.store = GivenStore(Loaded(FIRST), StoreState("etcd", "a list", True, 5.0, 9.0, revision="7"))
        self.enforcer = Scripted(clock)
        self.state = AgentState("jasper", self.store)
        self.agent = Agent(self.store, self.enforcer, state=self.state)

    def read_and_enforce(self) -> None:
        self.agent._start()
        self.agent._started = True


@pytest.fixture
def it(monkeypatch: pytest.MonkeyPatch) -> Fixture:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return Fixture(clock)


def test_before_the_first_pass_nothing_is_passed_and_the_age_grows(it: Fixture) -> None:
    it.clock.now_s += 7
    view = it.state.view()
    assert (view.passed, view.enforced_at_s, view.out_of_date_s) == (False, None, 7)


def test_a_pass_is_counted_with_its_time_and_what_it_did(it: Fixture) -> None:
    it.enforcer.takes_s = 0.2
    it.read_and_enforce()
    it.enforcer.changes = ()
    it.read_and_enforce()
    view = it.state.view()
    assert view.passed
    assert view.applies == {"changed": 1, "unchanged": 1, "failed": 0}
    assert view.apply_s.counts[APPLY_BOUNDS_S.index(0.3)] == 2
    assert view.apply_s.total_s == pytest.approx(0.4)
    assert (view.out_of_date_s, view.enforced_at_s) == (0, it.clock.time())
    assert sum(view.propagation_s.counts) == 0, "a start is no change"


def test_a_change_is_out_of_date_until_it_is_enforced(it: Fixture) -> None:
    it.read_and_enforce()
    it.state.change_seen()
    it.clock.now_s += 2
    it.state.change_seen()  # later: the oldest counts
    assert it.state.view().out_of_date_s == 2
    it.enforcer.takes_s = 0.5
    it.read_and_enforce()
    view = it.state.view()
    assert view.out_of_date_s == 0
    assert view.propagation_s.total_s == pytest.approx(2.5)


def test_a_change_during_the_pass_is_not_taken_for_enforced(it: Fixture) -> None:
    it.read_and_enforce()
    it.state.read_begins()
    it.state.change_seen()
    it.agent._enforce()
    it.clock.now_s += 1
    assert it.state.view().out_of_date_s == 1


def test_a_failed_pass_counts_and_ages_until_one_succeeds(it: Fixture) -> None:
    it.read_and_enforce()
    it.enforcer.error = KernelError("attaching", number=16)
    it.read_and_enforce()
    it.clock.now_s += 5
    view = it.state.view()
    assert view.passed, "what an earlier pass wrote is still enforced"
    assert (view.applies["failed"], view.out_of_date_s) == (1, 5)
    assert view.problem.startswith("attaching: EBUSY")
    it.enforcer.error = None
    it.read_and_enforce()
    assert (it.state.view().problem, it.state.view().out_of_date_s) == ("", 0)


def test_policy_that_cannot_be_enforced_is_out_of_date_although_passes_succeed(it: Fixture) -> None:
    """The last good policy is enforced again and again; what the author wrote is not."""
    it.read_and_enforce()
    it.store.now = Loaded(SECOND)
    it.state.change_seen()
    it.enforcer.refuses = "second"
    it.read_and_enforce()
    it.clock.now_s += 40
    it.agent._react(Events())
    view = it.state.view()
    assert it.enforcer.applied[-2:] == ["first", "first"]
    assert (view.passed, view.out_of_date_s, view.problem) == (True, 40, "services: none known here")
    it.enforcer.refuses = ""
    it.agent._react(Events(policy=True))
    assert (it.state.view().out_of_date_s, it.state.view().problem) == (0, "")


def test_a_change_that_could_not_be_read_is_not_enforced_by_a_pass_of_what_there_was(it: Fixture) -> None:
    it.read_and_enforce()
    it.state.change_seen()
    it.store.now = OSError(5, "Input/output error")
    it.agent._react(Events(policy=True))
    it.clock.now_s += 3
    assert it.enforcer.applied[-2:] == ["first", "first"]
    assert it.state.view().out_of_date_s == 3


def test_reads_that_fail_are_counted_and_the_policy_stays(it: Fixture) -> None:
    it.read_and_enforce()
    it.store.now = OSError(5, "Input/output error")
    it.read_and_enforce()
    it.store.now = Loaded(SECOND, again=True)  # some file cannot be opened
    it.read_and_enforce()
    it.store.now = Loaded(SECOND)
    it.read_and_enforce()
    view = it.state.view()
    assert view.passed
    assert view.counts.errors == {"unreadable": 2}


def test_the_store_says_how_current_it_is_and_what_it_counts(it: Fixture) -> None:
    it.store.counts = lambda: StoreCounts(errors={"unreachable": 2})  # type: ignore[attr-defined]  # a double
    view = it.state.view()
    assert view.store is it.store.said
    assert view.counts.errors == {"unreadable": 0, "unreachable": 2}


def test_the_configuration_is_followed_and_a_reader_that_fails_stops_nothing(it: Fixture) -> None:
    heard: list[FelixConfiguration] = []

    def hear() -> None:
        heard.append(it.state.view().felix)
        raise RuntimeError("a reader's fault")

    it.state.on_felix = hear
    text = "{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: default}, spec: {%s}}"
    it.store.now = Loaded(load_text(text % "healthEnabled: true"))
    it.read_and_enforce()
    it.read_and_enforce()
    assert [item.health_enabled for item in heard] == [True]


def test_an_agent_that_removes_its_policy_is_not_ready(it: Fixture) -> None:
    it.read_and_enforce()
    it.state.withdrawn()
    assert not health_of(it.state.view(), {}, now_s=it.clock.time()).ready


def test_losses_are_counted_by_part(it: Fixture) -> None:
    it.state.watched(["XDP", "nf_tables"])
    it.state.lost("XDP", 2)
    it.state.lost("XDP", 1)
    assert it.state.view().losses == {"XDP": 3, "nf_tables": 0}


@pytest.mark.parametrize(("value_s", "at"), [(0.0, 0), (0.01, 0), (0.011, 1), (30.0, 7), (31.0, 8)])
def test_where_a_value_belongs(value_s: float, at: int) -> None:
    assert Histogram().with_value(value_s).counts.index(1) == at
