"""Brings our tables to a rendered state with the smallest change.

The present state is read from the kernel every time, except set members that cannot have changed. Only rules that
differ are written, so all others keep their counters. Of a set, only the members that differ are written.

All rules change in one transaction. Set members cannot change in the same one: a packet is evaluated by the rules of
the generation in which it arrived, but a set lookup uses the generation of that instant, and new members become visible
some time after the new rules (net/netfilter/nf_tables_api.c: nf_tables_commit). So, as with ipsets, sets get *stricter*
in a transaction before that of the rules and *more lenient* in one after it, and between two transactions we wait until
no packet is in flight. A packet that both the old and the new plan drop is dropped at every moment.

A table that contains what ours never does (for example a map or another kind of base chain, created by another program)
is created anew, in the transaction of the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from enforcer.backends.netfilter.members import differences
from enforcer.backends.nftables import blob
from enforcer.backends.nftables.blob import ReadRule
from enforcer.backends.nftables.members import between, pack
from enforcer.backends.nftables.read import ReadTable, read_members, read_table
from enforcer.backends.nftables.rules import TABLE, Chain, Members, Rule, SetSpec, Table
from enforcer.kernel.netlink import be64, text
from enforcer.kernel.nfnetlink import Connect, Family, Message, NfTablesConn, RulesetChangedError, nftables

_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _DELETE_CHAIN = 0, 2, 3, 5
_NEW_RULE, _DELETE_RULE, _NEW_SET, _DELETE_SET, _NEW_ELEMENTS, _DELETE_ELEMENTS = 6, 8, 9, 11, 12, 14
_CREATE, _APPEND = 0x400, 0x800
_ATTEMPTS = 10

# The transactions of an edit, in order.
_STRICTER, _RULES, _LENIENT = range(3)

SetId = tuple[Family, str]
Rules = Mapping[str, Sequence[Rule | None]]


@dataclass
class Edit:
    """Transactions under construction: their commands, and one sentence for each change.

    ``known``: set members that need not be read. ``seen``: the members after the transactions, for the next pass.
    Families that are not ``touched`` keep their known members.
    """

    conn: NfTablesConn
    stages: tuple[list[Message], ...] = field(default_factory=lambda: ([], [], []))
    changes: list[str] = field(default_factory=list)
    known: Mapping[SetId, Members] = field(default_factory=dict)
    seen: dict[SetId, Members] = field(default_factory=dict)
    touched: set[Family] = field(default_factory=set)

    @property
    def remembered(self) -> dict[SetId, Members]:
        """The set members that are known after the transactions."""
        return {about: found for about, found in self.known.items() if about[0] not in self.touched} | self.seen

    def to_table(self, wanted: Table) -> None:
        """Change our table of a family to this one. An empty table is deleted."""
        actual = read_table(self.conn, wanted.family)
        first = _STRICTER
        if not wanted.wanted:
            self.remove(actual)
            return
        if actual.present and (why := actual.strange or _misfit(actual, wanted)):
            self._say(wanted.family, f"table {TABLE}: created anew, because {why}")
            self._send(wanted.family, _DELETE_TABLE, text(blob.TABLE_NAME, TABLE), f"delete table {TABLE}")
            actual = ReadTable(wanted.family)
            first = _RULES
        if not actual.present:
            body = text(blob.TABLE_NAME, TABLE)
            self._send(wanted.family, _NEW_TABLE, body, f"create table {TABLE}", _CREATE, stage=first)
        for number, spec in enumerate(wanted.sets):
            self._set(wanted.family, number + 1, spec, actual, first)
        for chain in wanted.chains:
            if chain.name not in actual.chains:
                self._create(wanted.family, chain)
        rules = {chain.name: chain.rules for chain in wanted.chains}
        self.to_rules(actual, rules, keep_sets={spec.name for spec in wanted.sets})

    def to_rules(self, actual: ReadTable, wanted: Rules, keep_sets: Iterable[str]) -> None:
        """Give these chains these rules. Delete all other chains, and the sets that are not in ``keep_sets``."""
        self.touched.add(actual.family)
        for name, rules in wanted.items():
            self._rules(actual.family, name, actual.rules.get(name, ()), rules, created=name not in actual.chains)
        gone = [name for name in actual.chains if name not in wanted]
        for name in gone:  # all are emptied first, because they jump to each other
            self._send(actual.family, _DELETE_RULE, _in_chain(name), f"empty chain {name}")
        for name in gone:
            body = text(blob.CHAIN_TABLE, TABLE) + text(blob.CHAIN_NAME, name)
            self._send(actual.family, _DELETE_CHAIN, body, f"delete chain {name}")
            self._say(actual.family, f"chain {name}: deleted")
        for name in sorted(actual.sets.keys() - set(keep_sets)):
            self._send(actual.family, _DELETE_SET, _of_set(name), f"delete set {name}", stage=_LENIENT)
            self._say(actual.family, f"set {name}: deleted")

    def remove(self, actual: ReadTable) -> None:
        """Delete the whole table, if it exists."""
        self.touched.add(actual.family)
        if actual.present:
            self._send(actual.family, _DELETE_TABLE, text(blob.TABLE_NAME, TABLE), f"delete table {TABLE}")
            self._say(actual.family, f"table {TABLE}: deleted")

    # --- parts --------------------------------------------------------------------------------------------------------

    def _create(self, family: Family, chain: Chain) -> None:
        body = text(blob.CHAIN_TABLE, TABLE) + text(blob.CHAIN_NAME, chain.name)
        body += blob.encode_hook(chain.hook) if chain.hook else b""
        self._send(family, _NEW_CHAIN, body, f"create chain {chain.name}", _CREATE)

    def _rules(
        self,
        family: Family,
        chain: str,
        present: Sequence[ReadRule],
        wanted: Sequence[Rule | None],
        *,
        created: bool,
    ) -> None:
        """Changes the rules of a chain to the wanted ones without touching those in common."""
        added = removed = 0
        steps = SequenceMatcher(None, [item.rule for item in present], wanted, autojunk=False).get_opcodes()
        for at, (step, start, stop, new_start, new_stop) in enumerate(steps):
            if step == "equal":
                continue
            following = present[steps[at + 1][1]].handle if at + 1 < len(steps) else 0
            for item in present[start:stop]:
                body = _in_chain(chain) + be64(blob.RULE_HANDLE, item.handle)
                self._send(family, _DELETE_RULE, body, f"delete a rule of chain {chain}")
            for rule in wanted[new_start:new_stop]:
                self._insert(family, chain, rule, before=following)
            removed += stop - start
            added += new_stop - new_start
        if created:
            self._say(family, f"chain {chain}: created with {added} rules")
        elif added or removed:
            self._say(family, f"chain {chain}: {added} rules added, {removed} removed")

    def _insert(self, family: Family, chain: str, rule: Rule | None, *, before: int) -> None:
        """Insert a rule before the rule with handle ``before``; 0 appends."""
        assert rule is not None, "a rule that we cannot express is only ever kept, never written"
        body = _in_chain(chain) + blob.encode_rule(rule)
        body += be64(blob.RULE_POSITION, before) if before else b""
        what = f"add a rule to chain {chain}" + (f" ({rule.comment})" if rule.comment else "")
        self._send(family, _NEW_RULE, body, what, _CREATE | (0 if before else _APPEND))

    def _set(self, family: Family, number: int, spec: SetSpec, actual: ReadTable, first: int) -> None:
        """Create a set, or change the members that differ. A set with members that we never write is emptied first."""
        self.seen[family, spec.name] = spec.members
        if spec.name not in actual.sets:
            body = _of_set(spec.name) + blob.encode_set(spec.type, number)
            self._send(family, _NEW_SET, body, f"create set {spec.name}", _CREATE, stage=first)
            self._elements(family, _NEW_ELEMENTS, spec, spec.members, first)
            self._say(family, f"set {spec.name}: created with {len(spec.members)} members")
            return
        present = self.known.get((family, spec.name))
        if present is None:
            present = read_members(self.conn, family, spec.name, spec.type)
        if present is None:
            body = text(blob.ELEMENTS_TABLE, TABLE) + text(blob.ELEMENTS_SET, spec.name)
            self._send(family, _DELETE_ELEMENTS, body, f"empty set {spec.name}", stage=first)
            self._elements(family, _NEW_ELEMENTS, spec, spec.members, first)
            self._say(family, f"set {spec.name}: filled anew with {len(spec.members)} members")
            return
        stricter = between(present, spec.members, spec.type, lenient=spec.lenient)
        self._members(family, spec, present, stricter, _STRICTER)
        self._members(family, spec, stricter, spec.members, _LENIENT)
        gone, came = differences(present, spec.members)
        for members, verb in ((gone, "deleted"), (came, "added")):
            if len(members):
                self._say(family, f"set {spec.name}: {len(members)} members {verb}")

    def _members(self, family: Family, spec: SetSpec, old: Members, new: Members, stage: int) -> None:
        """Delete before adding, because an interval may grow into the range that another one leaves."""
        gone, came = differences(old, new)
        self._elements(family, _DELETE_ELEMENTS, spec, gone, stage)
        self._elements(family, _NEW_ELEMENTS, spec, came, stage)

    def _elements(self, family: Family, command: int, spec: SetSpec, members: Members, stage: int) -> None:
        if not len(members):
            return
        fixed = text(blob.ELEMENTS_TABLE, TABLE) + text(blob.ELEMENTS_SET, spec.name)
        for piece in pack(members, spec.type):
            body = fixed + blob.elements(piece)
            self._send(family, command, body, f"change the members of set {spec.name}", _CREATE, stage=stage)

    def _send(
        self, family: Family, command: int, body: bytes, what: str, flags: int = 0, *, stage: int = _RULES
    ) -> None:
        self.stages[stage].append(Message(command, family, body, f"nftables {family}: {what}", flags))

    def _say(self, family: Family, change: str) -> None:
        self.changes.append(f"nftables {family}: {change}")


class _MemberCache:
    """The members of our sets. Valid while the ruleset's generation is the one in which they were read or written.

    It saves reading them at every resync. The kernel lists a set in pieces and starts each piece by counting from the
    beginning, so the time grows with the square of the size (docs/nftables.md).
    """

    def __init__(self) -> None:
        self._state: tuple[int, int, Mapping[SetId, Members]] = (0, 0, {})

    def recall(self, namespace: int, generation: int) -> Mapping[SetId, Members]:
        """The cached members. Empty if the namespace has no number (before Linux 5.14), because another namespace could
        have the same generation.
        """
        return self._state[2] if namespace and (namespace, generation) == self._state[:2] else {}

    def keep(self, namespace: int, generation: int, members: Mapping[SetId, Members]) -> None:
        self._state = (namespace, generation, members)


_MEMBERS = _MemberCache()


def transact(edit: Callable[[Edit], None], *, dry_run: bool = False, connect: Connect = nftables) -> list[str]:
    """Commit the transactions that ``edit`` creates, in order. Returns one sentence for each change.

    If another program changes the ruleset meanwhile, everything is read again and the rest of the change is retried.
    Raises RulesetChangedError after the last attempt.
    """
    with connect() as conn:
        for attempt in range(_ATTEMPTS):
            try:
                generation = conn.generation()
                draft = Edit(conn, known=_MEMBERS.recall(conn.namespace, generation))
                edit(draft)
                stages = [messages for messages in draft.stages if messages]
                if not dry_run:
                    generation += _commit(conn, stages, generation)
                if not (stages and dry_run):
                    _MEMBERS.keep(conn.namespace, generation, draft.remembered)
                return draft.changes
            except RulesetChangedError:
                if attempt == _ATTEMPTS - 1:
                    raise
    raise AssertionError("unreachable")


def _commit(conn: NfTablesConn, stages: Sequence[Sequence[Message]], generation: int) -> int:
    """Commit the transactions in order, waiting for packets in flight between two of them. Returns how many."""
    for number, messages in enumerate(stages):
        if number:
            conn.wait_for_packets()
        # Each transaction increments the generation by one; more means that another program made a change.
        conn.commit(messages, generation + number)
    return len(stages)


def _misfit(actual: ReadTable, wanted: Table) -> str:
    """Why a table cannot be changed in place; "" if it can."""
    for chain in wanted.chains:
        if chain.name in actual.chains and actual.chains[chain.name].hook != chain.hook:
            return f"chain {chain.name} is hooked elsewhere"
    for spec in wanted.sets:
        if spec.name in actual.sets and not actual.sets[spec.name].is_of(spec.type):
            return f"set {spec.name} is of another type"
    return ""


def _in_chain(name: str) -> bytes:
    return text(blob.RULE_TABLE, TABLE) + text(blob.RULE_CHAIN, name)


def _of_set(name: str) -> bytes:
    return text(blob.SET_TABLE, TABLE) + text(blob.SET_NAME, name)
