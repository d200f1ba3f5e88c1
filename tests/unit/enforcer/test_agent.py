"""The agent's passes: whatever exception a pass raises, the agent continues and enforces the last enforced policy."""

from __future__ import annotations

import errno
import gc
import logging
import time
import weakref
from collections.abc import Iterator

import pytest

from enforcer.agent.agent import Agent
from enforcer.agent.backoff import BackOff
from enforcer.agent.event_loop import Events
from enforcer.datastore.base import StoreState
from enforcer.enforcement.apply import Applied, Enforcer
from enforcer.model.errors import InternalError, KernelError, PrivilegeError, UnsupportedRuleError
from enforcer.planning.plan import Plan
from enforcer.policy.load import load_text
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Loaded
from enforcer.system.stop import Stop

SET = "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: %s}, spec: {nets: [192.0.2.0/24]}}"
FIRST, SECOND, KEPT = (load_text(SET % name) for name in ("first", "second", "kept"))
CHANGE = Events(policy=True)


@pytest.fixture(autouse=True, scope="module")
def _little_garbage() -> None:
    """After each pass an agent searches for garbage: only in what these tests make, not in what others have left."""
    gc.collect()
    gc.freeze()


class Store:
    """A source that returns or raises what the test sets."""

    def __init__(self, now: Resources | BaseException = FIRST, kept: Resources | None = None) -> None:
        self.now = now
        self.kept = kept or Resources()
        self.keeps: list[Resources | BaseException] = []

    def snapshot(self, last_good: Resources) -> Loaded:
        if isinstance(self.now, BaseException):
            raise self.now
        return Loaded(self.now)

    def refresh(self) -> None:
        pass

    def keep(self) -> None:
        self.keeps.append(self.now)

    def last_good(self) -> Resources:
        return self.kept

    def changes(self, stop: Stop) -> Iterator[None]:
        yield from ()

    def state(self) -> StoreState:
        return StoreState("memory", self.describe(), True, 0.0, 0.0)

    def describe(self) -> str:
        return "a list"


class FailingEnforcer(Enforcer):
    """Records what it should enforce, and fails for some of it: no policy is known for which the real one fails so."""

    def __init__(self, **fails: BaseException) -> None:
        super().__init__("jasper")
        self.fails = fails
        self.applied: list[str] = []

    def apply(self, resources: Resources, *, dry_run: bool = False) -> Applied:
        (name,) = (item.name for item in resources.global_network_sets)
        if name in self.fails:
            raise self.fails[name]
        self.applied.append(name)
        return Applied(Plan("jasper", ()))


UNEXPECTED = [
    ValueError("invalid literal for int() with base 0: '0x_'"),
    OverflowError("int too large to convert to float"),
    RecursionError("maximum recursion depth exceeded"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    RuntimeError("can't start new thread"),
    InternalError("a disagreement"),
]
SURROUNDINGS = [
    MemoryError(),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.EIO, "Input/output error"),
    PrivilegeError("not any more"),
    KernelError("attaching", number=errno.EBUSY),
    SystemExit(1),
    KeyboardInterrupt(),
]


def started(store: Store, enforcer: Enforcer) -> Agent:
    agent = Agent(store, enforcer)
    agent._start()
    agent._started = True
    return agent


@pytest.mark.parametrize("error", [*UNEXPECTED, *SURROUNDINGS], ids=lambda error: type(error).__name__)
def test_nothing_that_is_raised_when_reading_ends_it(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    enforcer, store = FailingEnforcer(), Store()
    agent = started(store, enforcer)
    store.now = error
    for _ in range(3):
        agent._react(CHANGE)
    assert enforcer.applied == ["first"] * 4, "what was read last is enforced again"
    assert caplog.text.count("cannot read the policy; the enforced policy stays") == 1
    store.now = SECOND
    agent._react(Events())
    assert enforcer.applied[-1] == "second", "reading was due again without a change"


@pytest.mark.parametrize("error", UNEXPECTED, ids=lambda error: type(error).__name__)
def test_what_no_pass_should_raise_leaves_the_last_good_policy(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    enforcer, store = FailingEnforcer(second=error), Store()
    agent = started(store, enforcer)
    store.now = SECOND
    agent._react(CHANGE)
    agent._react(Events())
    assert enforcer.applied == ["first", "first", "first"]
    assert caplog.text.count("not everything is enforced; trying again") == 1
    assert caplog.text.count("Traceback") == (not isinstance(error, InternalError))
    assert store.keeps == [FIRST], "what is not enforced is not kept"
    enforcer.fails.clear()
    agent._react(Events())
    assert enforcer.applied[-1] == "second"
    assert "recovered: everything is enforced again" in caplog.text
    assert store.keeps == [FIRST, SECOND]


@pytest.mark.parametrize("error", SURROUNDINGS, ids=lambda error: type(error).__name__)
def test_what_the_host_lacks_is_waited_for(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    enforcer, store = FailingEnforcer(), Store()
    agent = started(store, enforcer)
    enforcer.fails["first"] = error
    for _ in range(3):
        agent._react(CHANGE)
    enforcer.fails.clear()
    agent._react(Events())
    assert enforcer.applied == ["first", "first"]
    assert caplog.text.count("not everything is enforced; trying again") == 1


def test_a_repair_that_fails_is_not_tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a pause the loop would spin: the next iteration lacks the descriptor for the interfaces as well."""

    def none_left() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    agent = started(Store(), FailingEnforcer())
    monkeypatch.setattr(agent, "_links_now", none_left)
    begun_s = time.monotonic()
    agent._react(Events(losses=True))
    assert agent._repairs.due_s is None
    assert agent._due_s is not None
    assert agent._due_s > begun_s + 0.5


def test_without_privilege_at_the_start_it_ends() -> None:
    with pytest.raises(PrivilegeError):
        Agent(Store(), FailingEnforcer(first=PrivilegeError("run as root")))._start()


@pytest.mark.parametrize(
    "error", [UnsupportedRuleError("services"), *UNEXPECTED], ids=lambda error: type(error).__name__
)
def test_at_the_start_the_last_good_policy_of_an_earlier_run_stands_in(error: BaseException) -> None:
    enforcer, store = FailingEnforcer(first=error), Store(kept=KEPT)
    agent = started(store, enforcer)
    agent._react(Events())
    assert enforcer.applied == ["kept", "kept"]
    assert store.keeps == []
    store.now = SECOND
    agent._react(CHANGE)
    assert enforcer.applied[-1] == "second"
    assert store.keeps == [SECOND]


def test_attempts_become_seldom_but_never_stop() -> None:
    back_off = BackOff()
    waits = []
    for _ in range(9):
        back_off.failed()
        waits.append(back_off.wait_s)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    back_off.succeeded()
    assert back_off.wait_s == 0


class Cycle:
    def __init__(self) -> None:
        self.itself = self


class LeavingEnforcer(FailingEnforcer):
    """Each pass leaves something that only the garbage collector frees, as exceptions with their frames do."""

    left: weakref.ref[Cycle] | None = None

    def apply(self, resources: Resources, *, dry_run: bool = False) -> Applied:
        self.left = weakref.ref(Cycle())
        return super().apply(resources, dry_run=dry_run)


def test_what_a_pass_leaves_in_cycles_is_freed_after_it() -> None:
    enforcer = LeavingEnforcer()
    gc.disable()
    try:
        Agent(Store(), enforcer)._react(CHANGE)
    finally:
        gc.enable()
    assert enforcer.left is not None
    assert enforcer.left() is None
