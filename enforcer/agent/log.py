"""What an agent tells people: each thing once, on the log and to systemd."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace

from enforcer.agent.systemd import notify
from enforcer.enforcement.apply import Applied
from enforcer.model.errors import EnforcerError, Finding, PolicyError
from enforcer.model.vocabulary import Stage
from enforcer.policy.tolerant import Fault, Loaded
from enforcer.system.log import event


class AgentLog:
    """Remembers what was said since everything last was well."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._faults: frozenset[Fault] = frozenset()  # what was wrong with what was read last

    def complain(self, message: str, error: BaseException) -> None:
        """An error, once; the traceback of one that nobody raised on purpose at level debug. Raises nothing."""
        with suppress(Exception):  # there may be no memory for the words
            problem = _one_line(error)
            notify(f"STATUS={message}: {problem}")
            if (said := f"{message}: {problem}") not in self._said:
                self._said.add(said)
                event(logging.ERROR, message, problem=problem)
                self._trace(error)

    def say(self, level: int, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            event(level, message)

    def recovered(self) -> None:
        event(logging.INFO, "recovered: everything is enforced again")
        self.forget()

    def forget(self) -> None:
        """All is well: what happens from now on is said anew."""
        self._said.clear()

    def tell_faults(self, loaded: Loaded) -> None:
        """Say what is newly wrong, and when nothing is any more."""
        if self._faults and not loaded.faults:
            event(logging.INFO, "healthy again: everything in the policy is accepted")
        for fault in loaded.faults:
            if fault not in self._faults:
                event(logging.ERROR, "policy not accepted", problem=_first_line(fault.finding), outcome=fault.outcome)
        for crash in loaded.crashes:
            if (problem := _one_line(crash)) not in self._said:
                self._said.add(problem)
                self._trace(crash)
        self._faults = frozenset(loaded.faults)
        if loaded.faults:
            notify(f"STATUS={self._ailing()}")

    def tell(self, applied: Applied) -> None:
        """A line for each interface, and one of all together."""
        plans = applied.plan.interfaces
        for change in applied.changes:
            event(logging.DEBUG, change)
        for item in plans:
            event(
                logging.INFO,
                "enforced",
                interface=item.interface,
                endpoint=item.table.endpoint,
                stage=item.early or Stage.RAW,
                entries=len(item.entries),
                entries_in_xdp=len(item.xdp_entries),
                not_earlier="; ".join(f"{mode}: {reason}" for mode, reason in item.mode_reasons) or "-",
            )
        event(logging.INFO, "policy is in the kernel", interfaces=len(plans), changes=len(applied.changes))
        doing = f"enforcing on {len(plans)} interfaces"
        notify("STATUS=" + "; ".join(filter(None, [doing, self._ailing()])))

    def _ailing(self) -> str:
        return f"{len(self._faults)} faults in the policy, see the log" if self._faults else ""

    def _trace(self, error: BaseException) -> None:
        if not isinstance(error, EnforcerError):
            event(logging.DEBUG, "where it was raised", error=error)


def _one_line(error: BaseException) -> str:
    if isinstance(error, PolicyError):
        return "; ".join(_first_line(finding) for finding in error.findings)
    text = "; ".join(str(error).splitlines())
    return text if isinstance(error, EnforcerError) else f"{type(error).__name__}: {text}"


def _first_line(finding: Finding) -> str:
    return str(replace(finding, context=""))
