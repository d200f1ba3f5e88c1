"""What an Allow in raw requires of the host's own firewall, as text for a warning. Pure."""

from __future__ import annotations

from enforcer.model.vocabulary import Action, Backend
from enforcer.planning.plan import Plan


def interfaces_that_allow(plan: Plan, backend: Backend) -> list[str]:
    """The interfaces for which this backend holds an Allow entry."""
    return [
        item.interface
        for item in plan.interfaces
        if item.raw_backend is backend
        and any(entry.action is Action.ALLOW for entry in (*item.table.ingress, *item.table.egress))
    ]


def mark_match(mark: int) -> str:
    """The nft rule that accepts packets that an Allow has marked."""
    return f"'meta mark & {mark:#x} == {mark:#x} accept'"
