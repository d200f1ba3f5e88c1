"""Runs tests in several processes, forked when all tests are collected.

What was imported and collected is so the same memory in all of them, as it is not in interpreters that are started for
this. The session's own process runs no test: it hands them out one by one, and reports to pytest what it is told.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, NamedTuple, NoReturn

import pytest

AHEAD = 2  # tests that a worker knows of: the one it runs, and the next, which decides what fixtures end between them


def run_in_workers(session: pytest.Session, number: int) -> None:
    """Run the tests of a session in ``number`` processes; after all others, in one, those marked ``alone``.

    Raises what pytest's own loop does to end early.
    """
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, "fork(2) copies one thread: what starts others must be imported where it is used"
    session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # one for all of them
    if reporter := session.config.pluginmanager.get_plugin("terminalreporter"):
        reporter.showfspath = False  # each test is of another file than the one before
    alone = [at for at, item in enumerate(session.items) if item.get_closest_marker("alone")]
    others = sorted({*range(len(session.items))}.difference(alone))
    _Pool(session, deque(others)).run(number)
    _Pool(session, deque(alone)).run(1)


class _Warned(NamedTuple):
    """A warning, in types that any process has."""

    category: str
    text: str
    filename: str
    line: int
    when: str
    nodeid: str
    location: tuple[str, int, str] | None


@dataclass
class _Told:
    """What a worker says of one test. ``reports``: as pytest serialises them."""

    reports: list[dict[str, Any]] = field(default_factory=list)
    warned: list[_Warned] = field(default_factory=list)


@dataclass(eq=False)
class _Worker:
    """``given``: the numbers of the tests that it has not finished. ``last``: of the one that it finished last."""

    pid: int
    given: deque[int] = field(default_factory=deque)
    last: int = 0


class _Pool:
    def __init__(self, session: pytest.Session, queue: deque[int]) -> None:
        self._session, self._queue = session, queue
        self._workers: dict[Connection, _Worker] = {}

    def run(self, number: int) -> None:
        try:
            for _ in range(min(number, len(self._queue))):
                self._fork()
            while self._workers:
                for pipe in wait(self._workers):
                    self._hear(pipe)
        finally:
            for pipe, worker in self._workers.items():  # each ends after the test that it runs
                pipe.close()
                os.waitpid(worker.pid, 0)
        if self._session.shouldfail:
            raise self._session.Failed(self._session.shouldfail)
        if self._session.shouldstop:
            raise self._session.Interrupted(self._session.shouldstop)

    def _fork(self) -> None:
        ours, theirs = Pipe()
        self._session.config.get_terminal_writer().flush()  # else each process writes what waits there
        pid = os.fork()
        if not pid:
            for pipe in (ours, *self._workers):
                pipe.close()
            _work(self._session, theirs)
        theirs.close()
        self._workers[ours] = _Worker(pid)
        for _ in range(AHEAD):
            self._give(ours)

    def _give(self, pipe: Connection) -> None:
        """The next test, or None: there is none."""
        stops = self._session.shouldfail or self._session.shouldstop
        at = self._queue.popleft() if self._queue and not stops else None
        if at is not None:
            self._workers[pipe].given.append(at)
        with suppress(ConnectionError):  # it has died, as is heard next
            pipe.send(at)

    def _hear(self, pipe: Connection) -> None:
        """Report what a worker says of a test, and give it another one."""
        told = _received(pipe)
        if told is None:
            self._bury(pipe)
            return
        worker = self._workers[pipe]
        worker.last = worker.given.popleft()
        self._report(worker.last, told)
        self._give(pipe)

    def _bury(self, pipe: Connection) -> None:
        """A worker has ended: after its last test, or it died, which is a failure of the test that it ran."""
        worker = self._workers.pop(pipe)
        pipe.close()
        code = os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])
        if not code and not worker.given:
            return
        at = worker.given.popleft() if worker.given else worker.last
        item, hook = self._session.items[at], self._session.config.hook
        said = f"the process of this test ended with {code} (-N: by signal N)"
        report = pytest.TestReport(item.nodeid, item.location, {}, "failed", said, "call")
        self._report(at, _Told([hook.pytest_report_to_serializable(config=self._session.config, report=report)]))
        self._queue.extendleft(reversed(worker.given))
        if self._queue:
            self._fork()

    def _report(self, at: int, told: _Told) -> None:
        config, item = self._session.config, self._session.items[at]
        for each in told.warned:
            category = type(each.category, (Warning,), {})
            message = warnings.WarningMessage(category(each.text), category, each.filename, each.line)
            more = {"when": each.when, "nodeid": each.nodeid, "location": each.location}
            config.hook.pytest_warning_recorded.call_historic(kwargs={"warning_message": message, **more})
        config.hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for data in told.reports:
            report = config.hook.pytest_report_from_serializable(config=config, data=data)
            config.hook.pytest_runtest_logreport(report=report)
        config.hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _received(pipe: Connection) -> _Told | None:
    """None if the other end is closed."""
    with suppress(EOFError, ConnectionError):
        return pipe.recv()  # type: ignore[no-any-return]  # that of _run
    return None


class _Recorder:
    """In a worker, in the place of what writes to the terminal."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._told = _Told()

    def take(self) -> _Told:
        told, self._told = self._told, _Told()
        return told

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._told.reports.append(self._config.hook.pytest_report_to_serializable(config=self._config, report=report))

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: str, nodeid: str, location: tuple[str, int, str] | None
    ) -> None:
        category, text = warning_message.category.__name__, str(warning_message.message)
        self._told.warned.append(
            _Warned(category, text, warning_message.filename, warning_message.lineno, when, nodeid, location)
        )


def _work(session: pytest.Session, pipe: Connection) -> NoReturn:
    """The whole life of a worker."""
    code = 1
    try:
        _run(session, pipe)
        code = 0
    except (EOFError, ConnectionError, KeyboardInterrupt):
        pass  # the session has ended early
    except BaseException:
        session.config.pluginmanager.get_plugin("capturemanager").suspend_global_capture()
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _run(session: pytest.Session, pipe: Connection) -> None:
    plugins, recorder = session.config.pluginmanager, _Recorder(session.config)
    capturing = plugins.get_plugin("capturemanager")
    capturing.stop_global_capturing()
    capturing.start_global_capturing()  # into files of its own
    plugins.unregister(name="terminalreporter")
    plugins.register(recorder)
    recorder.take()  # warnings of collection: what registers is told what has been
    try:
        at, following = pipe.recv(), pipe.recv()
        while at is not None:
            after = None if following is None else session.items[following]
            session.config.hook.pytest_runtest_protocol(item=session.items[at], nextitem=after)
            pipe.send(recorder.take())
            at, following = following, None if following is None else pipe.recv()
    finally:
        session._setupstate.teardown_exact(None)  # of what still lives, because the session has ended early
