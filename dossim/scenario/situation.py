"""The situation of a scenario in one of its modes, and the destinations of its generators. Pure."""

from __future__ import annotations

from dossim.drill.situation import Situation, situation_for
from dossim.packet.capture import Capture
from dossim.scenario.model import Scenario
from enforcer.model.choices import ModeChoice
from enforcer.model.nets import IPAddress


def situation_of(scenario: Scenario, choice: ModeChoice, capture: Capture | None = None) -> Situation:
    """``capture`` gives the host's addresses if neither the scenario nor its policy does."""
    host = scenario.host
    return situation_for(
        scenario.resources,
        capture=capture,
        choice=choice,
        tracked=scenario.tracked,
        node=host.node,
        interface=host.interface,
        addresses=host.addresses,
        forward=host.forward,
        routes=host.routes,
        listen=host.listen,
        rp_filter=host.rp_filter,
        mtu=host.mtu,
    )


def destinations_of(situation: Situation) -> dict[int, IPAddress]:
    """The host's first address of each IP version."""
    first: dict[int, IPAddress] = {}
    for address in situation.host.addresses:
        first.setdefault(address.version, address.ip)
    return first
