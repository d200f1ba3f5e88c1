"""The stages of tracked policy: conntrack (-200), mangle (-150), filter (0). Without it, they pass every packet.

What conntrack says of a packet is known before its check: :mod:`dossim.pipeline.following`. Its table is never full
here, and no entry clashes with another; the lab's host is too quiet for either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dossim.model.disposition import Fate
from dossim.pipeline.hooks import describe, passing
from dossim.pipeline.match_key import MatchKey, match_key_in_raw
from dossim.pipeline.route import leads_inside
from dossim.pipeline.stages import Context, Node, PacketState, Step
from dossim.pipeline.tracked_chain import Decision
from enforcer.model.vocabulary import Stage

MARKED = "accepted at once: it has the accept mark"

_pass_conntrack = passing(Stage.MANGLE, "connection table", untracked="not tracked (NOTRACK in raw)")
_pass_mangle = passing(Stage.NAT, "mangle PREROUTING", untracked=MARKED)
_pass_input = passing(Stage.SOCKET, "filter INPUT", untracked=MARKED)
_pass_forward = passing(Stage.EGRESS, "filter FORWARD")


def check_conntrack(state: PacketState, context: Context) -> Step:
    if state.tracking is None:
        return _pass_conntrack(state, context)
    found = state.tracking
    return Step(Stage.MANGLE, state, "connection table", found.why, is_open=found.is_open)


def check_mangle(state: PacketState, context: Context) -> Step:
    if context.tracked is None or state.tracking is None:
        return _pass_mangle(state, context)
    decision = context.tracked.mangle(_key(state, context), state.tracking.state, marked=state.marked)
    return _step(Stage.NAT, replace(state, marked=decision.marked), "mangle PREROUTING", [decision], context)


def check_filter_input(state: PacketState, context: Context) -> Step:
    if context.tracked is None or state.tracking is None:
        return _pass_input(state, context)
    decision = context.tracked.input(_key(state, context), state.tracking.state, marked=state.marked)
    return _step(Stage.SOCKET, state, "filter INPUT", [decision], context)


def check_filter_forward(state: PacketState, context: Context) -> Step:
    if context.tracked is None or state.tracking is None:
        return _pass_forward(state, context)
    assert state.ip is not None, "only IP packets get here"
    to_inside = leads_inside(state.ip.destination, context.host)
    key = _key(state, context)
    decisions = context.tracked.forward(key, state.tracking.state, marked=state.marked, to_inside=to_inside)
    return _step(Stage.EGRESS, state, "filter FORWARD", decisions, context)


def _key(state: PacketState, context: Context) -> MatchKey:
    assert state.ip is not None, "only IP packets get here"
    return match_key_in_raw(state.ip, context.raw_backend)


def _step(following: Node, state: PacketState, where: str, decisions: Sequence[Decision], context: Context) -> Step:
    """The last decision counts. What earlier ones said is a note; the rule is theirs if the last has none."""
    *earlier, last = decisions
    by = last if last.denies else next((one for one in reversed(decisions) if one.rule is not None), last)
    logged = [name for one in decisions for name in one.logged]
    notes = [f"logged by {', '.join(logged)}"] if logged else []
    notes += [str(one) for one in earlier]
    return Step(
        Fate.DROPPED if last.denies else following,
        state,
        f"{where}: {describe(_key(state, context))}",
        str(last),
        by.entry,
        by.rule.rule if by.rule is not None else None,
        "; ".join(notes),
    )
