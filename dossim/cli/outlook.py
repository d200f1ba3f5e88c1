"""What a capture does to the connection tracking table, as ``dossim predict`` reports it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from enforcer.model.vocabulary import Action

if TYPE_CHECKING:
    from dossim.exhaustion.flows import NewFlows
    from dossim.exhaustion.outlook import Outlook
    from dossim.exhaustion.table import Table
    from enforcer.model.facts import HostFacts
    from enforcer.planning.plan import InterfacePlan

RESETS = "no untracked egress Deny drops the host's RSTs: else the entry of a SYN to a closed port stays as SYN_SENT"


def known_table(facts: HostFacts | None) -> Table | str:
    """That of the real host, if its facts are known, else Linux's default; a string: why nothing is known of it."""
    from dossim.exhaustion.table import assumed_table, table_of

    return assumed_table() if facts is None else table_of(facts.conntrack)


def outlook_of(plan: InterfacePlan, table: Table, flows: NewFlows, rate: int | None) -> Outlook:
    """``rate``: new flows per second, if not those of the capture."""
    from dossim.exhaustion.outlook import outlook

    if any(entry.action is Action.DENY for entry in plan.table.egress):
        table = replace(table, assumed=(*table.assumed, RESETS))
    return outlook(table, flows, per_s=rate)
