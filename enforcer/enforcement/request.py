"""What one pass is to enforce: the tables of this host's interfaces, and all that decides where each is enforced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.facts import HostFacts
from enforcer.model.vocabulary import Mode
from enforcer.planning.plan import Plan, make_plan
from enforcer.planning.xdp_run import XdpRun
from enforcer.policy.resources import FelixConfiguration
from enforcer.policy.ruletable import RuleTable


@dataclass(frozen=True)
class ApplyRequest:
    """What is to be enforced, on what host. ``facts`` are those known so far.

    ``enforced`` are the interfaces that XDP enforces already, with their mode. ``absent`` are not there: raw is made
    ready for them, whatever mode was asked for, so that they are protected from their first packet on. ``runs``:
    what XDP holds of each table.
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

    def plan(
        self,
        choice: ModeChoice,
        *,
        tables: Sequence[RuleTable] | None = None,
        facts: HostFacts | None = None,
    ) -> Plan:
        """The plan that this choice makes of these tables (None: all) on a host of these facts (None: as known)."""
        return make_plan(
            self.tables if tables is None else tables,
            facts or self.facts,
            felix=self.felix,
            choice=choice,
            raw=self.raw,
            netdev=self.netdev,
            runs=self.runs,
        )
