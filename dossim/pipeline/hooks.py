"""Stages between the first hook and routing: defrag (-400), raw (-300), and those that never drop here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dossim.model.disposition import Fate
from dossim.packet.cut import CutError
from dossim.packet.fields import PROTOCOL_NAMES, Transport
from dossim.pipeline.match_key import MatchKey, match_key_in_raw
from dossim.pipeline.policy import Verdict
from dossim.pipeline.reassembly import Lost, Open, Whole
from dossim.pipeline.stages import Context, Node, PacketState, Step
from enforcer.model.vocabulary import Stage


def check_defrag(state: PacketState, context: Context) -> Step:
    match state.reassembly:
        case Lost(reason):
            return Step(Fate.DROPPED, state, "fragment", reason)
        case Whole(datagram=datagram, parts=parts):
            what = _listed(parts)
            whole = replace(state, ip=datagram)
            return Step(Stage.RAW, whole, "fragment", f"reassembled of {what}", note="one datagram from here on")
        case Open(reason):
            return Step(Fate.UNDETERMINED, state, "fragment", reason)
        case _:
            return Step(Stage.RAW, state, "fragment fields", "nothing to reassemble")


_LISTED = 20  # numbers shown of a datagram's fragments: there can be thousands


def _listed(parts: tuple[int, ...]) -> str:
    if len(parts) == 1:
        return f"part {parts[0]}"
    more = f" and {len(parts) - _LISTED} more" if len(parts) > _LISTED else ""
    return "parts " + ", ".join(map(str, parts[:_LISTED])) + more


def check_raw(state: PacketState, context: Context) -> Step:
    assert state.ip is not None, "only IP packets get here"
    key = match_key_in_raw(state.ip, context.raw_backend)
    decision = context.policy.decide(key)
    logged = f"logged by {', '.join(decision.logged)}; " if decision.logged else ""
    note = logged + state.passed
    if decision.decided_by is None:
        target: Node = Fate.DROPPED if decision.verdict is Verdict.HOTDROP else Stage.CONNTRACK
        return Step(target, state, describe(key), decision.why, note=note.rstrip("; "))
    target = Fate.DROPPED if decision.verdict is Verdict.DENY else Stage.CONNTRACK
    rule = decision.decided_by
    allowed = decision.verdict is Verdict.ALLOW
    state = replace(state, untracked=allowed, marked=allowed)
    return Step(target, state, describe(key), decision.why, rule.name, rule.rule, note.rstrip("; "))


def describe(key: MatchKey) -> str:
    """The packet in one line: ``203.0.113.9 > 10.10.10.10 TCP 1024 > 80``."""
    addresses = f"{key.source} > {key.destination}"
    try:
        return f"{addresses} {_describe_transport(key.transport)}"
    except CutError:
        return f"{addresses}, cut by the capture"


def _describe_transport(transport: Transport | None) -> str:
    if transport is None:
        return "of unknown protocol"
    name = PROTOCOL_NAMES.get(transport.protocol, f"protocol {transport.protocol}")
    return f"{name} {transport.ports[0]} > {transport.ports[1]}" if transport.ports else name


def passing(following: Node, what: str, *, untracked: str = "") -> Callable[[PacketState, Context], Step]:
    """The check of a stage that passes every packet; ``untracked``: its result for an allowed packet."""

    def check(state: PacketState, context: Context) -> Step:
        if state.untracked and untracked:
            return Step(following, state, what, untracked)
        return Step(following, state, what, "passes")

    return check
