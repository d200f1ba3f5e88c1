"""not-early: entries that only the raw table enforces, and why. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from dossim.lint.finding import Finding, Level, RuleId
from dossim.lint.tables import Governed
from enforcer.facts import HostFacts, Probe
from enforcer.plan import make_plan
from enforcer.policy.ruletable import Entry
from enforcer.words import Answer, Backend, Mode, Stage


def not_early(governed: Governed, dead: Collection[Entry]) -> Iterator[Finding]:
    """An interface that nobody probed is taken to be capable of everything: what is late then is so by its policy.

    Of ``dead`` entries, which never act, nothing is said.
    """
    interface = governed.interface
    if not interface.modes:
        interface = replace(interface, modes={mode: Probe(Answer.YES) for mode in Mode})
    facts = HostFacts(governed.node, interfaces=(interface,), backends={Backend.IPTABLES: Probe(Answer.YES)})
    for planned in make_plan([governed.table], facts, felix=governed.felix).interfaces:
        for item in planned.entries:
            if item.stage is Stage.RAW and item.entry not in dead:
                message = f"{item.entry.name} is enforced in raw, not by XDP: {item.reason}"
                yield Finding(RuleId.NOT_EARLY, Level.NOTE, item.entry.position, message)
