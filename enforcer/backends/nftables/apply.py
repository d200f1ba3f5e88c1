"""Brings our tables to a rendered state by the smallest change.

What is there is read back from the kernel every time, but for members of sets that nobody can have changed. Only rules
that differ are written, so all others keep their counters; of a set only the members that differ.

All rules change in one transaction. Members cannot change in the same: a packet goes through the rules of the
generation it met, but a set is looked up in the generation of that instant, and what is new in one is found there only
some time after the rules are (net/netfilter/nf_tables_api.c: nf_tables_commit). So, as with ipsets, sets get *stricter*
in a transaction before that of the rules and *more lenient* in one after it, and no packet is under way from one to
the next. What the old and the new plan both drop stays dropped.

A table that holds what none of ours can (another program made a map in it, or another kind of base chain) is made anew,
in the transaction of the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from enforcer.backends.nftables import blob
from enforcer.backends.nftables.blob import ReadRule
from enforcer.backends.nftables.members import between, difference, pack
from enforcer.backends.nftables.read import ReadTable, read_members, read_table
from enforcer.backends.nftables.rules import TABLE, Chain, Members, Rule, SetSpec, Table
from enforcer.kernel.netlink import be64, text
from enforcer.kernel.nfnetlink import Connect, Family, Message, NfTablesConn, RulesetChangedError, nftables

_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _DELETE_CHAIN = 0, 2, 3, 5
_NEW_RULE, _DELETE_RULE, _NEW_SET, _DELETE_SET, _NEW_ELEMENTS, _DELETE_ELEMENTS = 6, 8, 9, 11, 12, 14
_CREATE, _APPEND = 0x400, 0x800
_ATTEMPTS = 10

# The transactions of an edit, in their order.
_STRICTER, _RULES, _LENIENT = range(3)

SetId = tuple[Family, str]
Rules = Mapping[str, Sequence[Rule | None]]


@dataclass
class Edit:
    """Transactions in the making: their commands, and a sentence for each change.

    ``known`` members need not be read; ``seen`` are those there will be, for who comes next. Families that are not
    ``touched`` keep the members that are known of them.
    """

    conn: NfTablesConn
    stages: tuple[list[Message], ...] = field(default_factory=lambda: ([], [], []))
    changes: list[str] = field(default_factory=list)
    known: Mapping[SetId, Members] = field(default_factory=dict)
    seen: dict[SetId, Members] = field(default_factory=dict)
    touched: set[Family] = field(default_factory=set)

    @property
    def remembered(self) -> dict[SetId, Members]:
        """What is known of sets when all of this is done."""
        return {about: found for about, found in self.known.items() if about[0] not in self.touched} | self.seen

    def to_table(self, wanted: Table) -> None:
        """Our table of a family becomes this one, or goes."""
        actual = read_table(self.conn, wanted.family)
        first = _STRICTER
        if not wanted.wanted:
            self.remove(actual)
            return
        if actual.present and (why := actual.strange or _misfit(actual, wanted)):
            self._say(wanted.family, f"table {TABLE}: made anew, because {why}")
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
        """The chains that are to be have these rules; the others go, and the sets that are not to be kept."""
        self.touched.add(actual.family)
        for name, rules in wanted.items():
            self._rules(actual.family, name, actual.rules.get(name, ()), rules, created=name not in actual.chains)
        gone = [name for name in actual.chains if name not in wanted]
        for name in gone:  # emptied first, all of them: they jump to each other
            self._send(actual.family, _DELETE_RULE, _in_chain(name), f"empty chain {name}")
        for name in gone:
            body = text(blob.CHAIN_TABLE, TABLE) + text(blob.CHAIN_NAME, name)
            self._send(actual.family, _DELETE_CHAIN, body, f"delete chain {name}")
            self._say(actual.family, f"chain {name}: deleted")
        for name in sorted(actual.sets.keys() - set(keep_sets)):
            self._send(actual.family, _DELETE_SET, _of_set(name), f"delete set {name}", stage=_LENIENT)
            self._say(actual.family, f"set {name}: deleted")

    def remove(self, actual: ReadTable) -> None:
        """The whole table goes, if it is there."""
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
        """Turns the rules of a chain into the wanted ones, those in common untouched."""
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
        """A rule before the one with a handle, at the end for 0."""
        assert rule is not None, "a rule we cannot say is only ever kept, never written"
        body = _in_chain(chain) + blob.encode_rule(rule)
        body += be64(blob.RULE_POSITION, before) if before else b""
        what = f"add a rule to chain {chain}" + (f" ({rule.comment})" if rule.comment else "")
        self._send(family, _NEW_RULE, body, what, _CREATE | (0 if before else _APPEND))

    def _set(self, family: Family, number: int, spec: SetSpec, actual: ReadTable, first: int) -> None:
        """A set that is there gets and loses what differs; one with members we never write is filled anew."""
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
        for members, verb in (
            (difference(present, spec.members), "deleted"),
            (difference(spec.members, present), "added"),
        ):
            if len(members):
                self._say(family, f"set {spec.name}: {len(members)} members {verb}")

    def _members(self, family: Family, spec: SetSpec, old: Members, new: Members, stage: int) -> None:
        """Deleted before added: an interval may grow into what another leaves."""
        self._elements(family, _DELETE_ELEMENTS, spec, difference(old, new), stage)
        self._elements(family, _NEW_ELEMENTS, spec, difference(new, old), stage)

    def _elements(self, family: Family, command: int, spec: SetSpec, members: Members, stage: int) -> None:
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
    """The members of our sets as they are as long as the ruleset is of the generation they were read or written in.

    Not needed, but it spares reading them at every resync: the kernel lists a set in pieces, and for each piece counts
    from the beginning, so that the time grows with the square of the size (docs/nftables.md).
    """

    def __init__(self) -> None:
        self._state: tuple[int, int, Mapping[SetId, Members]] = (0, 0, {})

    def recall(self, namespace: int, generation: int) -> Mapping[SetId, Members]:
        """None without a namespace's number (Linux 5.14): another namespace could be of the same generation."""
        return self._state[2] if namespace and (namespace, generation) == self._state[:2] else {}

    def keep(self, namespace: int, generation: int, members: Mapping[SetId, Members]) -> None:
        self._state = (namespace, generation, members)


_MEMBERS = _MemberCache()


def transact(edit: Callable[[Edit], None], *, dry_run: bool = False, connect: Connect = nftables) -> list[str]:
    """What ``edit`` puts into its transactions, one after the other; returns what changed. Read again, and what is left
    of the change made again, when another program changed the ruleset meanwhile.
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
    """Commit them in turn, each when no packet is on its way through what was before; how many there were."""
    for number, messages in enumerate(stages):
        if number:
            conn.wait_for_packets()
        # Its generation is the previous one plus one, unless another program made a change in between.
        conn.commit(messages, generation + number)
    return len(stages)


def _misfit(actual: ReadTable, wanted: Table) -> str:
    """Why a table cannot be mended in place; "" when it can."""
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
