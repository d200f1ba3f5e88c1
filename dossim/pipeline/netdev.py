"""What the chains of netdev ingress do with a packet (``enforcer/backends/nftables/netdev/render.py``), from the
resources.

The rule is that of XDP (:mod:`dossim.pipeline.xdp`): the first rule or failsafe whose match is not *no* decides, and
only a Deny with *yes* drops. Less is known about a packet here.
"""

from __future__ import annotations

from dossim.model.disposition import Fate
from dossim.pipeline.match_key import MatchKey
from dossim.pipeline.netdev_headers import known_transport, sound_ip
from dossim.pipeline.stages import Context, PacketState, Step
from dossim.pipeline.xdp import decide, describe, passed
from enforcer.model.vocabulary import Stage


def check(state: PacketState, context: Context) -> Step:
    here, following = Stage.NETDEV_INGRESS, Stage.IP_INPUT
    if not context.netdev or context.mode is not None:
        return Step(following, state, "the interface", "no chain of ours here")
    if not context.held.rules:
        note = f"it would hold no rule: {context.held.why or 'there is no Deny'}"
        return Step(following, state, "the interface", "no chain of ours here", note=note)
    ip = sound_ip(state.packet.link)
    if ip is None:
        return passed(here, following, state, "the packet", "tagged, or no IP header that can be decided on")
    known = known_transport(ip)
    key = MatchKey(ip.version, ip.source, ip.destination, known.transport)
    denied_by, why = decide(key, known, context)
    if denied_by is None:
        return passed(here, following, state, describe(key, known), why)
    return Step(Fate.DROPPED, state, describe(key, known), why, denied_by.name, denied_by.rule)
