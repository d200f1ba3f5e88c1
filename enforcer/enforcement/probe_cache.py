"""A cache of probe answers between passes.

Probing briefly attaches a program, and a driver that rebuilds its rings for that loses packets: too expensive for every
resync. Without the cache a rejected mode would also be tried again in every pass, detaching the working mode each time.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from enforcer.kernel.netns import current_inode
from enforcer.kernel.probe import probe_host
from enforcer.kernel.rtnetlink import InterfaceState
from enforcer.model.facts import HostFacts, InterfaceFacts, Probe
from enforcer.model.vocabulary import Answer, Mode
from enforcer.policy.resources import Resources

_FORGET_AFTER_S = 600.0  # the obstacle may have disappeared by then


class ProbeCache:
    """Valid in one network namespace for a limited time. Call :meth:`begin` in each pass."""

    def __init__(self) -> None:
        self._inode = 0
        self._since_s = 0.0
        self._resources: Resources | None = None
        self._probed: dict[InterfaceState, InterfaceFacts] = {}
        self._refused: dict[tuple[str, int], dict[Mode, str]] = {}

    def begin(self, resources: Resources) -> None:
        """Drop old answers, those of another namespace, and rejections for other resources: a smaller set may fit."""
        inode, now_s = current_inode(), time.monotonic()
        if inode != self._inode or now_s - self._since_s > _FORGET_AFTER_S:
            self._inode, self._since_s = inode, now_s
            self._probed.clear()
            self._refused.clear()
        if resources is not self._resources:
            self._resources = resources
            self._refused.clear()

    def facts(self, node: str, states: Sequence[InterfaceState], ours: Collection[int] = ()) -> HostFacts:
        """Facts of these interfaces. An interface is probed again if its state has changed, or if the host had run
        out of resources.

        ``ours``: the ids of our own programs.
        """
        unknown = [state.name for state in states if state not in self._probed]
        found = probe_host(node, unknown, ours=ours)
        by_name = {item.name: item for item in found.interfaces}
        fresh = {state: by_name[state.name] for state in states if state.name in by_name}
        known = {state: self._probed[state] for state in states if state in self._probed}
        both = known | fresh
        self._probed = {state: item for state, item in both.items() if not _is_temporary(item)}
        return replace(found, interfaces=tuple(both.values()))

    def refuse(self, interface: InterfaceFacts, mode: Mode, reason: str) -> None:
        """Record that the kernel rejected this mode."""
        self._refused.setdefault((interface.name, interface.index), {})[mode] = reason

    def with_refusals(self, facts: HostFacts) -> HostFacts:
        """The facts, with a NO for each rejected mode."""
        return replace(facts, interfaces=tuple(map(self._corrected, facts.interfaces)))

    def _corrected(self, interface: InterfaceFacts) -> InterfaceFacts:
        refused = self._refused.get((interface.name, interface.index), {})
        answers = {mode: Probe(Answer.NO, f"rejected when attaching: {reason}") for mode, reason in refused.items()}
        return replace(interface, modes={**interface.modes, **answers})


def _is_temporary(interface: InterfaceFacts) -> bool:
    return any(probe.temporary for probe in interface.modes.values())
