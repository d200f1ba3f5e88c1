"""The agent ends emergency acts: its waking, its restart, its state directory, its log. Clocks are given."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from enforcer.agent import expiry as module
from enforcer.agent.agent import Agent
from enforcer.agent.event_loop import Events
from enforcer.agent.expiry import LOOK_EVERY_S, Expiry
from enforcer.agent.state import AgentState
from enforcer.datastore.base import StoreState
from enforcer.emergency.act import Act
from enforcer.emergency.expiry import Clock
from enforcer.enforcement.apply import Applied, Enforcer
from enforcer.monitor.report import report_of
from enforcer.planning.plan import Plan
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Loaded
from enforcer.system import clock as system_clock
from tests.support.stores import GivenStore
from tests.unit.enforcer.emergency.world import HOUR, NOW, act, resources, with_acts

BASE = resources()


@dataclass
class Host:
    """Clocks, a state directory, and the resources that are given to passes."""

    state: Path
    wall_s: float = NOW
    boot_s: float = 1000.0
    mono_s: float = 500.0
    synchronized: bool = True
    applied: list[Resources] = field(default_factory=list)

    def clock(self) -> Clock:
        return Clock(self.wall_s, self.boot_s, self.synchronized)

    def passes(self, seconds: float) -> None:
        self.wall_s += seconds
        self.boot_s += seconds
        self.mono_s += seconds

    def expiry(self) -> Expiry:
        return Expiry(self.state, self.clock)

    def names(self) -> list[str]:
        """The sets that are enforced."""
        return [item.name for item in self.applied[-1].global_network_sets]


class Recording(Enforcer):
    def __init__(self, host: Host) -> None:
        super().__init__("jasper")
        self.host = host

    def apply(self, resources: Resources, *, dry_run: bool = False) -> Applied:
        self.host.applied.append(resources)
        return Applied(Plan("jasper", ()))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path / "state")
    monkeypatch.setattr(module.time, "monotonic", lambda: made.mono_s)
    return made


def started(host: Host, *acts: Act) -> tuple[Agent, GivenStore]:
    store = GivenStore(Loaded(with_acts(BASE, *acts)), StoreState("etcd", "x", True, 1.0, 1.0))
    enforcer = Recording(host)
    agent = Agent(store, enforcer, state=AgentState("jasper", store), expiry=host.expiry())
    agent._start()
    agent._started = True
    return agent, store


def test_an_act_leaves_what_is_enforced_at_its_end_without_the_datastore(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = act("192.0.2.1/32", hours=1)
    agent, _ = started(host, made)
    assert host.names() == ["bots", made.name]
    host.passes(HOUR)
    agent._react(Events())
    assert host.names() == ["bots"]
    assert caplog.text.count("an emergency act has ended") == 1
    agent._react(Events(policy=True))
    assert host.names() == ["bots"], "although the datastore has it still"


def test_it_wakes_at_the_next_end_and_looks_now_and_then(host: Host) -> None:
    agent, _ = started(host, act("192.0.2.1/32", hours=1), act("192.0.2.2/32", hours=None))
    assert agent._expiry.due_s == host.mono_s + LOOK_EVERY_S
    passes = len(host.applied)
    host.passes(HOUR - 10)
    agent._react(Events(links=True))
    agent._due_s = host.mono_s + HOUR
    assert agent._expiry.changes(agent._wanted or Resources()) is False
    assert agent._expiry.due_s == pytest.approx(host.mono_s + 10)
    host.passes(5)
    due_s = agent._due_s
    host.mono_s += 5  # it wakes, and nothing has ended
    agent._react(Events())
    assert len(host.applied) == passes, "to look costs no pass"
    assert agent._due_s == due_s, "and does not put the next one off"
    host.passes(5)
    agent._expiry.due_s = host.mono_s
    agent._react(Events())
    assert len(host.applied) == passes + 1


def test_without_an_end_it_does_not_wake(host: Host) -> None:
    agent, _ = started(host, act("192.0.2.2/32", hours=None))
    assert agent._expiry.due_s is None


def test_the_same_resources_are_the_same_object(host: Host) -> None:
    """Compiler and enforcer recognise what has not changed by it."""
    expiry, made = host.expiry(), act("192.0.2.1/32", hours=1)
    given = with_acts(BASE, made)
    assert expiry.live(given) is given
    host.passes(HOUR)
    assert expiry.live(given) is expiry.live(given) is not given


def test_an_act_ends_while_reading_hangs(host: Host) -> None:
    made = act("192.0.2.1/32", hours=1)
    agent, _ = started(host, made)
    agent._reading_since_s = host.mono_s
    host.passes(HOUR)
    agent._repair_while_reading()
    assert host.names() == ["bots"]


def test_a_restart_neither_ends_early_nor_begins_the_wait_anew(host: Host) -> None:
    made = act("192.0.2.1/32", hours=4)
    started(host, made)
    host.passes(HOUR)
    host.wall_s += 50 * HOUR
    agent, _ = started(host, made)
    assert host.names() == ["bots", made.name], "the clock jumped while no agent ran"
    host.passes(3 * HOUR)
    agent._react(Events())
    assert host.names() == ["bots"]


def test_a_boot_begins_anew(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    started(host, act("192.0.2.1/32", hours=4))
    (file,) = host.state.iterdir()
    assert json.loads(file.read_text())["boot_id"] == system_clock.boot_id() != ""
    monkeypatch.setattr(system_clock, "boot_id", lambda: "another")
    assert host.expiry()._read() == {}


SPOILED = [
    *("", "{", "[]", "{}", '{"boot_id": "%s"}', '{"boot_id": "%s", "seen": []}', '{"boot_id": "%s", "seen": {"a": 1}}'),
    '{"boot_id": "%s", "seen": {"a": {"wall_s": "x", "boot_s": 1, "created_s": null}}}',
]


@pytest.mark.parametrize("text", SPOILED)
def test_a_file_that_is_spoiled_counts_as_absent(host: Host, text: str) -> None:
    made = act("192.0.2.1/32", hours=4)
    started(host, made)
    (file,) = host.state.iterdir()
    file.write_text(text % system_clock.boot_id() if "%s" in text else text)
    started(host, made)
    assert host.names() == ["bots", made.name]


def test_a_state_directory_that_cannot_be_written_is_a_warning(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.state.write_text("a file")
    made = act("192.0.2.1/32", hours=1)
    agent, _ = started(host, made)
    assert host.names() == ["bots", made.name]
    agent._react(Events(policy=True))
    assert caplog.text.count("cannot store when emergency acts were first seen") == 1


def test_what_it_says_of_acts_and_clocks(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.synchronized = False
    made, other = act("192.0.2.1/32", hours=1), act("192.0.2.2/32", "192.0.2.3/32", hours=None)
    agent, _ = started(host, made, other)
    assert caplog.text.count("emergency acts end only when their whole duration has passed here") == 1
    report = report_of(agent._state.view(), None)["emergency"]
    assert report == {
        "cidrs": 3,
        "next_end": "2027-01-15T09:00:00Z",
        "clock": "unsynchronized",
        "ended": [],
        "objects": {
            made.name: {"until": "2027-01-15T09:00:00Z", "cidrs": 1},
            other.name: {"until": None, "cidrs": 2},
        },
    }
    host.passes(HOUR)
    agent._react(Events(policy=True))
    report = report_of(agent._state.view(), None)["emergency"]
    assert (report["cidrs"], report["next_end"], report["ended"]) == (2, None, [made.name])
    assert [*report["objects"]] == [other.name]


def test_an_act_counts_again_when_the_clock_goes_back(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    made = act("192.0.2.1/32", hours=4)
    host.passes(3 * HOUR)
    agent, _ = started(host, made)
    host.passes(HOUR)
    agent._react(Events(policy=True))
    assert host.names() == ["bots"]
    host.wall_s -= HOUR
    agent._react(Events(policy=True))
    assert host.names() == ["bots", made.name], "it errs towards denying"
    assert "an emergency act that had ended counts again" in caplog.text
