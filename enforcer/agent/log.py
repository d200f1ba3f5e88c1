"""What an agent reports, each thing once: to the log and to systemd."""

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
    """Remembers what was logged since the last recovery."""

    def __init__(self) -> None:
        self._logged: set[str] = set()
        self._faults: frozenset[Fault] = frozenset()  # of the last read

    def error_once(self, message: str, error: BaseException) -> None:
        """Log an error once; an unexpected one with its traceback at level debug. Raises nothing."""
        with suppress(Exception):  # there may be no memory for the message
            problem = one_line(error)
            notify(f"STATUS={message}: {problem}")
            if (text := f"{message}: {problem}") not in self._logged:
                self._logged.add(text)
                event(logging.ERROR, message, problem=problem)
                self._trace(error)

    def log_once(self, level: int, message: str) -> None:
        """A message, once."""
        if message not in self._logged:
            self._logged.add(message)
            event(level, message)

    def recovered(self) -> None:
        event(logging.INFO, "recovered: everything is enforced again")
        self.forget()

    def forget(self) -> None:
        """Log every message again when it next occurs."""
        self._logged.clear()

    def log_faults(self, loaded: Loaded) -> None:
        """Log new faults, and that the last fault is gone."""
        if self._faults and not loaded.faults:
            event(logging.INFO, "recovered: the whole policy is accepted")
        for fault in loaded.faults:
            if fault not in self._faults:
                event(logging.ERROR, "policy not accepted", problem=_first_line(fault.finding), outcome=fault.outcome)
        for crash in loaded.crashes:
            if (problem := one_line(crash)) not in self._logged:
                self._logged.add(problem)
                self._trace(crash)
        self._faults = frozenset(loaded.faults)
        if loaded.faults:
            notify(f"STATUS={self._fault_summary()}")

    def applied(self, applied: Applied) -> None:
        """Log a line for each interface, and a summary."""
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
        for tracked in applied.plan.tracked:
            if tracked.enforced:
                event(
                    logging.INFO,
                    "enforced after conntrack",
                    interface=tracked.interface,
                    endpoint=tracked.table.endpoint,
                    stages=",".join(dict.fromkeys(str(chain.hook.stage) for chain in tracked.table.chains)),
                )
        event(logging.INFO, "policy applied", interfaces=len(plans), changes=len(applied.changes))
        doing = f"enforcing on {len(plans)} interfaces"
        notify("STATUS=" + "; ".join(filter(None, [doing, self._fault_summary()])))

    def _fault_summary(self) -> str:
        return f"{len(self._faults)} faults in the policy, see the log" if self._faults else ""

    def _trace(self, error: BaseException) -> None:
        if not isinstance(error, EnforcerError):
            event(logging.DEBUG, "traceback", error=error)


def one_line(error: BaseException) -> str:
    """The error on one line, without source lines."""
    if isinstance(error, PolicyError):
        return "; ".join(_first_line(finding) for finding in error.findings)
    text = "; ".join(str(error).splitlines())
    return text if isinstance(error, EnforcerError) else f"{type(error).__name__}: {text}"


def _first_line(finding: Finding) -> str:
    return str(replace(finding, context=""))
