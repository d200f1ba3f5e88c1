"""The rules of one entry, in whichever table. Pure."""

from __future__ import annotations

from enforcer.backends.iptables.match import EntryMatch, PortTest, SetRegistry, match_of
from enforcer.backends.iptables.rules import COMMENT_LENGTH, Comment, Limit, Match, Rule, Target
from enforcer.backends.netfilter.entries import name_parts
from enforcer.model.vocabulary import Action, Side
from enforcer.policy.ruletable import Entry, NamedSets


def entry_rules(
    entry: Entry, table: NamedSets, version: int, sets: SetRegistry, target: Target, log_limit: Limit | None
) -> list[Rule]:
    """The entry's rules in this family; none where it is for the other or can match no packet.

    ``log_limit``: how much it may log, if it is a Log.
    """
    if version not in entry.families:
        return []
    # Last of all: only what would be logged is to use up what may be.
    last = (*([log_limit] if log_limit is not None and entry.action is Action.LOG else []), *comments(entry.name))
    found = match_of(entry, table, version, sets)
    return [_rule(target, found, ports, last) for ports in found.ports]


def _rule(target: Target, found: EntryMatch, ports: PortTest, last: tuple[Match, ...]) -> Rule:
    source, not_source = found.literal(Side.SOURCE)
    destination, not_destination = found.literal(Side.DESTINATION)
    return Rule(
        target,
        source=source,
        not_source=not_source,
        destination=destination,
        not_destination=not_destination,
        protocol=found.protocol.number if found.protocol else None,
        not_protocol=found.protocol.negated if found.protocol else False,
        # Addresses before port numbers: multiport drops a packet too short to have ports, so it sees as few as can
        # be. Names after numbers: what multiport drops does not depend on them.
        matches=(*found.sets, *ports.numbers, *ports.names, *found.icmp, *last),
    )


def comments(text: str) -> list[Match]:
    """A text of any length as comment matches."""
    return [Comment(part) for part in name_parts(text, COMMENT_LENGTH)]
