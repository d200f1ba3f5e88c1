"""Where in the resources an entry or a default comes from. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from dossim.predict import Tables
from enforcer.model.errors import Position
from enforcer.policy.resources import NOWHERE, Resources


def source_of(position: Position) -> str:
    """``file:line``; "" for NOWHERE."""
    if position == NOWHERE:
        return ""
    return f"{position.path}:{position.line}" if position.line else position.path


def sources_of_defaults(resources: Resources, tables: Tables) -> Mapping[str, Position]:
    """The resource behind each default: the Tier, or the HostEndpoint that no profile opens. A tier of Calico's own and
    the check of INVALID packets have none.
    """
    endpoints = {item.name: item.position for item in resources.host_endpoints}
    tiers = {item.name: item.position for item in resources.tiers}
    found: dict[str, Position] = {}
    for table in filter(None, (tables.outside, tables.inside)):
        for chain in table.chains:
            found.setdefault(chain.no_profile, endpoints.get(table.endpoint, NOWHERE))
            for tier in chain.tiers:
                found.setdefault(tier.end(chain.hook.direction), tiers.get(tier.name, NOWHERE))
    return found
