"""Stages between the first hook and routing: defrag (-400), raw (-300), and those that never drop here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dossim.model.disposition import Fate
from dossim.packet.cut import CutError
from dossim.packet.fields import IP, PROTOCOL_NAMES, Transport
from dossim.packet.parse import seen_transport
from dossim.pipeline.matching import Seen
from dossim.pipeline.policy import Verdict
from dossim.pipeline.reassembly import Lost, Open, Whole
from dossim.pipeline.stages import Flight, Node, Step, World
from enforcer.model.vocabulary import Backend, Stage


def check_defrag(flight: Flight, world: World) -> Step:
    match flight.reassembly:
        case Lost(reason):
            return Step(Fate.DROPPED, flight, "fragment", reason)
        case Whole(datagram=datagram, parts=parts):
            what = _listed(parts)
            whole = replace(flight, ip=datagram)
            return Step(Stage.RAW, whole, "fragment", f"reassembled of {what}", note="one datagram from here on")
        case Open(reason):
            return Step(Fate.UNDETERMINED, flight, "fragment", reason)
        case _:
            return Step(Stage.RAW, flight, "fragment fields", "nothing to reassemble")


_LISTED = 20  # parts of a datagram; it can have thousands, and each of them is told


def _listed(parts: tuple[int, ...]) -> str:
    if len(parts) == 1:
        return f"part {parts[0]}"
    more = f" and {len(parts) - _LISTED} more" if len(parts) > _LISTED else ""
    return "parts " + ", ".join(map(str, parts[:_LISTED])) + more


def check_raw(flight: Flight, world: World) -> Step:
    assert flight.ip is not None, "only IP packets get here"
    seen = seen_by_raw(flight.ip, world.raw_backend)
    decision = world.policy.decide(seen)
    logged = f"logged by {', '.join(decision.logged)}; " if decision.logged else ""
    note = logged + flight.passed
    if decision.decided_by is None:
        target: Node = Fate.DROPPED if decision.verdict is Verdict.UNREADABLE else Stage.CONNTRACK
        return Step(target, flight, describe(seen), decision.why, note=note.rstrip("; "))
    target = Fate.DROPPED if decision.verdict is Verdict.DENY else Stage.CONNTRACK
    rule = decision.decided_by
    flight = replace(flight, untracked=decision.verdict is Verdict.ALLOW)
    return Step(target, flight, describe(seen), decision.why, rule.name, rule.rule, note.rstrip("; "))


def seen_by_raw(ip: IP, backend: Backend) -> Seen:
    """What rules see of a packet; of all questions they ask, only this answer differs between the raw backends."""
    transport = seen_transport(ip, behind_authentication=backend is not Backend.NFTABLES)
    return Seen(ip.version, ip.source, ip.destination, transport)


def describe(seen: Seen) -> str:
    """The packet in one line: ``203.0.113.9 > 10.10.10.10 TCP 1024 > 80``."""
    addresses = f"{seen.source} > {seen.destination}"
    try:
        return f"{addresses} {_describe_transport(seen.transport)}"
    except CutError:
        return f"{addresses}, cut by the capture"


def _describe_transport(transport: Transport | None) -> str:
    if transport is None:
        return "of unknown protocol"
    name = PROTOCOL_NAMES.get(transport.protocol, f"protocol {transport.protocol}")
    return f"{name} {transport.ports[0]} > {transport.ports[1]}" if transport.ports else name


def passing(stage: Stage, following: Node, what: str, *, untracked: str = "") -> Callable[[Flight, World], Step]:
    """The check of a stage that lets every packet through; ``untracked`` says what it does with one that was allowed.

    Calico's tracked policy, which it asks at some of these stages, is not modelled: a note names what would be asked.
    """

    def check(flight: Flight, world: World) -> Step:
        if flight.untracked and untracked:
            return Step(following, flight, what, untracked)
        asked = ", ".join(world.policy.tracked.get(stage, ()))
        note = f"Calico would ask {asked} here: tracked policy, not modelled" if asked else ""
        return Step(following, flight, what, "passes", note=note)

    return check
