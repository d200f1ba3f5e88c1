"""Many agents in few processes: the agent's own reading of etcd (``EtcdSource``), one thread each, without the rest.

What is measured is the time (CLOCK_MONOTONIC, the same in all processes) at which each agent has what it reads.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from bench.fleet_etcd import cpu_s
from enforcer.datastore.etcd.config import Endpoint, EtcdConfig
from enforcer.datastore.etcd.source import EtcdSource
from enforcer.datastore.pem import Pem
from enforcer.datastore.updates import Changed, Contact, Listed, Lost, Resynced, Update

_DEADLINE_S = 300.0
_NONE = Pem("")


@dataclass(frozen=True)
class Said:
    """What one agent had from its source. ``what``: Began, then Listed, Changed, Contact or Lost. ``revision``: up to
    which it knows everything; 0 where it does not say.
    """

    agent: int
    what: str
    at_s: float
    revision: int = 0
    problem: str = ""


class Fleet:
    """The running agents."""

    def __init__(self, pipes: Sequence[Connection], pids: Sequence[int], agents: int) -> None:
        self._pipes, self._pids, self.agents = pipes, pids, agents

    def cpu_s(self) -> float:
        """The CPU time of all processes so far."""
        return sum(map(cpu_s, self._pids))

    def begin(self, within_s: float) -> None:
        """Let the agents connect, one after the other within this time."""
        for pipe in self._pipes:
            pipe.send(within_s)

    def until(self, holds: Callable[[Said], bool], deadline_s: float = _DEADLINE_S) -> list[Said]:
        """The first word of each agent for which this holds, in the order of time."""
        found: dict[int, Said] = {}
        until_s = time.monotonic() + deadline_s
        while len(found) < self.agents:
            left_s = until_s - time.monotonic()
            if left_s < 0:
                raise RuntimeError(f"only {len(found)} of {self.agents} agents within {deadline_s:.0f} s")
            for said in self._heard(left_s):
                if holds(said):
                    found.setdefault(said.agent, said)
        return sorted(found.values(), key=lambda said: said.at_s)

    def during(self, seconds: float) -> list[Said]:
        """All that is said in this time."""
        found: list[Said] = []
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            found += self._heard(left_s)
        return found

    def _heard(self, within_s: float) -> Iterator[Said]:
        for pipe in wait(self._pipes, within_s):
            assert isinstance(pipe, Connection)
            yield pipe.recv()


@contextmanager
def fleet(agents: int, processes: int, port: int) -> Iterator[Fleet]:
    """This many agents, ready to connect to etcd on a port of 127.0.0.1."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    children = []
    for number in range(processes):
        mine, its = context.Pipe()
        numbers = range(number, agents, processes)
        child = context.Process(target=_run, args=(its, numbers, port), daemon=True)
        child.start()
        its.close()
        pipes.append(mine)
        children.append(child)
    try:
        for pipe in pipes:
            pipe.recv()  # it has imported everything
        yield Fleet(pipes, [child.pid or 0 for child in children], agents)
    finally:
        for child in children:
            child.kill()
            child.join()


def local(port: int) -> EtcdConfig:
    """The configuration of an agent whose etcd is at a port of 127.0.0.1."""
    return EtcdConfig((Endpoint(f"127.0.0.1:{port}", False),), _NONE, _NONE, _NONE)


def _run(pipe: Connection, numbers: Sequence[int], port: int) -> None:
    """A process with these agents, until the other end of its pipe is closed."""
    config = local(port)
    sending = threading.Lock()

    def say(said: Said) -> None:
        with sending:
            pipe.send(said)

    pipe.send(None)
    step_s = pipe.recv() / len(numbers)
    for number in numbers:
        threading.Thread(target=_follow, args=(number, config, say), daemon=True).start()
        time.sleep(step_s)
    with suppress(EOFError):
        pipe.recv()
    os._exit(0)  # without waiting for the threads


def _follow(number: int, config: EtcdConfig, say: Callable[[Said], None]) -> None:
    say(Said(number, "Began", time.monotonic()))
    for update in EtcdSource(config, f"host-{number}").follow(threading.Event()):
        say(_said(number, update))
        del update  # the list of an agent is held by nobody here


def _said(number: int, update: Update) -> Said:
    at_s, what = time.monotonic(), type(update).__name__
    match update:
        case Listed(revision=revision) | Changed(revision=revision):
            return Said(number, what, at_s, int(revision))
        case Lost(problem=problem):
            return Said(number, what, at_s, problem=problem)
        case Contact() | Resynced():
            return Said(number, what, at_s)
