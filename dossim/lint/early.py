"""not-early: Deny entries for received packets that only the raw table enforces, and why. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from dossim.lint.finding import Finding, Level, RuleId
from dossim.lint.tables import Governed
from enforcer.model.facts import HostFacts, Probe
from enforcer.model.vocabulary import Action, Answer, Backend, Direction, Mode, Stage
from enforcer.planning.plan import make_plan
from enforcer.policy.ruletable import Entry

# Assumed for an interface that was not probed: a driver with XDP, without offload.
_USUAL = {mode: Probe(Answer.NO, "not known here") if mode is Mode.OFFLOAD else Probe(Answer.YES) for mode in Mode}


def not_early(governed: Governed, dead: Collection[Entry]) -> Iterator[Finding]:
    """An interface that was not probed is assumed to support XDP, so that only the policy itself causes findings.

    Not reported: Allow, Log and Pass, and all egress entries, because they act in raw by definition; and ``dead``
    entries, which never act.
    """
    interface = governed.interface
    if not interface.modes:
        interface = replace(interface, modes=_USUAL)
    facts = HostFacts(governed.node, interfaces=(interface,), backends={Backend.IPTABLES: Probe(Answer.YES)})
    for planned in make_plan([governed.table], facts, felix=governed.felix).interfaces:
        for item in planned.entries:
            entry = item.entry
            drops = entry.action is Action.DENY and entry.direction is Direction.INGRESS
            if drops and item.stage is Stage.RAW and entry not in dead:
                message = f"{entry.name} is enforced in raw, not by XDP: {item.reason}"
                yield Finding(RuleId.NOT_EARLY, Level.NOTE, entry.position, message)
