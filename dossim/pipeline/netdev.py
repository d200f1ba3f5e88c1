"""What the chains of netdev ingress do with a packet (``enforcer/backends/nftables/netdev/render.py``), from the
resources.

The law is that of XDP (:mod:`dossim.pipeline.xdp`): the first rule or failsafe that does not say no decides, and only a
Deny that is sure drops. What is known of a packet is less.
"""

from __future__ import annotations

from dossim.model.disposition import Fate
from dossim.pipeline.matching import Seen
from dossim.pipeline.netdev_headers import known_behind, sound_ip
from dossim.pipeline.stages import Flight, Step, World
from dossim.pipeline.xdp import decide, describe, passed
from enforcer.model.vocabulary import Stage


def check(flight: Flight, world: World) -> Step:
    here, following = Stage.NETDEV_INGRESS, Stage.IP_INPUT
    if not world.netdev or world.mode is not None:
        return Step(following, flight, "the interface", "no chain of ours here")
    if not world.held.rules:
        note = f"it would hold no rule: {world.held.why or 'none denies anything'}"
        return Step(following, flight, "the interface", "no chain of ours here", note=note)
    ip = sound_ip(flight.packet.link)
    if ip is None:
        return passed(here, following, flight, "the packet", "tagged, or no IP header that can be decided on")
    known = known_behind(ip)
    seen = Seen(ip.version, ip.source, ip.destination, known.transport)
    denied_by, why = decide(seen, known, world)
    if denied_by is None:
        return passed(here, following, flight, describe(seen, known), why)
    return Step(Fate.DROPPED, flight, describe(seen, known), why, denied_by.name, denied_by.rule)
