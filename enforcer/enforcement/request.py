"""The input of one pass: the tables of this host's interfaces, and everything that decides where each is enforced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from enforcer.model.choices import ModeChoice, RawChoice, TrackedChoice
from enforcer.model.facts import HostFacts
from enforcer.model.vocabulary import Mode
from enforcer.planning.plan import Plan, make_plan
from enforcer.planning.xdp_run import XdpRun
from enforcer.policy.resources import FelixConfiguration
from enforcer.policy.ruletable import RuleTable
from enforcer.policy.tracked import TrackedTable


@dataclass(frozen=True)
class ApplyRequest:
    """What to enforce, and on what host. ``facts``: those known so far.

    ``enforced``: the interfaces that XDP already enforces, with their mode. ``absent``: interfaces that do not exist.
    Raw is prepared for them, whatever mode was requested, so that they are protected from their first packet on.
    ``runs``: what XDP holds of each table. ``tracked``: the tables of policy after conntrack.
    """

    tables: Sequence[RuleTable]
    facts: HostFacts
    felix: FelixConfiguration
    choice: ModeChoice = ModeChoice.AUTO
    enforced: Mapping[str, Mode] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    raw: RawChoice = RawChoice.AUTO
    netdev: bool = False
    runs: Mapping[str, XdpRun] = field(default_factory=dict)
    tracked: Sequence[TrackedTable] = ()
    tracked_choice: TrackedChoice = TrackedChoice.MODEL

    def plan(
        self,
        choice: ModeChoice,
        *,
        tables: Sequence[RuleTable] | None = None,
        facts: HostFacts | None = None,
    ) -> Plan:
        """The plan for this choice, these tables (None: all) and these facts (None: those known)."""
        return make_plan(
            self.tables if tables is None else tables,
            facts or self.facts,
            felix=self.felix,
            choice=choice,
            raw=self.raw,
            netdev=self.netdev,
            runs=self.runs,
            tracked=self.tracked,
            tracked_choice=self.tracked_choice,
        )
