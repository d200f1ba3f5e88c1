"""Brings the tables of both families to a rendered state with the smallest change, one commit for each table.

The present state is read from the kernel every time; nothing is remembered. Only rules that differ are written, so all
others keep their counters, and so do foreign rules. Applying the present state changes nothing.

The chains that accept marked packets are created before raw sets the mark, and removed after raw no longer sets it.
preDNAT policy in mangle sets the mark as well, for the denies of filter: mangle comes before filter, and where it no
longer sets the mark, after filter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from enforcer.backends.iptables.accept import HOOKS
from enforcer.backends.iptables.blob import SetIndex, encode
from enforcer.backends.iptables.read import read_chain, read_chains
from enforcer.backends.iptables.rules import TABLES, Chain, Jump, OpaqueRule, Rule, TableId, TableName
from enforcer.backends.iptables.table import LEGACY, KernelTable, TableChangedError, Tables
from enforcer.backends.netfilter.names import is_our_chain

_ATTEMPTS = 5

# Maps our present chains of a table to the desired ones.
DesiredChains = Callable[[TableId, tuple[Chain, ...]], tuple[Chain, ...]]


def apply_chains(
    desired: DesiredChains,
    sets: SetIndex,
    *,
    insert_mode: str | None,
    dry_run: bool = False,
    tables: Tables = LEGACY,
) -> list[str]:
    """Makes our chains in all tables equal to the result of ``desired``. Returns one sentence for each change.

    ``insert_mode``: whether the jumps to our chains come before ("insert") or after ("append") all foreign rules; None
    leaves existing jumps where they are. A table that this namespace does not have yet is created only if it will have
    chains.
    """
    changes: list[str] = []
    for table in sorted(TABLES, key=lambda table: _turn(table, desired)):
        if tables.exists(table) or (not dry_run and desired(table, ())):
            changes += _apply_table(tables, table, desired, sets, insert_mode, dry_run)
        elif wanted := desired(table, ()):
            changes += _announce(table, wanted)
    return changes


def _turn(table: TableId, desired: DesiredChains) -> tuple[int, int, bool]:
    """Before raw comes what is to be there, after raw what is to go. Mangle without preDNAT policy is after filter."""
    if table.name is TableName.RAW:
        return 1, table.version, False
    wanted = desired(table, ())
    is_last = table.name is TableName.MANGLE and not any(_leads_below(chain) for chain in wanted)
    return (0 if wanted else 2), table.version, is_last


def _announce(table: TableId, wanted: Sequence[Chain]) -> list[str]:
    """The changes in a table that does not exist yet, without opening it: that would create it."""
    names = {chain.name for chain in wanted}
    changes = [f"chain {chain.name}: created with {len(chain.rules)} rules" for chain in wanted]
    changes += [_hooked(builtin, base) for builtin, base in HOOKS[table.name].items() if base in names]
    return [f"{table}: {change}" for change in changes]


def _hooked(builtin: str, base: str) -> str:
    return f"chain {builtin}: hooked to {base}"


def _apply_table(
    tables: Tables, table: TableId, desired: DesiredChains, sets: SetIndex, insert_mode: str | None, dry_run: bool
) -> list[str]:
    for attempt in range(_ATTEMPTS):
        try:
            with tables.lock(), tables.open(table) as snapshot:
                changes = _Edit(snapshot, sets, insert_mode).run(desired)
                if changes and not dry_run:
                    snapshot.commit()
                return changes
        except TableChangedError:  # by a program that does not take the lock
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


class _Edit:
    """Changes one snapshot of a table, in memory."""

    def __init__(self, table: KernelTable, sets: SetIndex, insert_mode: str | None) -> None:
        self.table = table
        self.sets = sets
        self.insert_mode = insert_mode

    def run(self, desired: DesiredChains) -> list[str]:
        """Returns a sentence for each change made."""
        actual = {chain.name: chain for chain in read_chains(self.table, self.sets)}
        wanted = {chain.name: chain for chain in desired(self.table.id, tuple(actual.values()))}
        changes: list[str] = []
        for name in wanted.keys() - actual.keys():
            self.table.create_chain(name)  # all chains before the rules that jump to them
        for name, chain in wanted.items():
            present = actual[name].rules if name in actual else ()
            changes += self._rules(name, present, chain.rules, created=name not in actual)
        for builtin, base in HOOKS[self.table.id.name].items():
            changes += self._hook(builtin, base if base in wanted else None)
        changes += self._remove([chain for name, chain in actual.items() if name not in wanted])
        return [f"{self.table.id}: {change}" for change in changes]

    def _rules(
        self, chain: str, present: Sequence[Rule | OpaqueRule], wanted: Sequence[Rule | OpaqueRule], *, created: bool
    ) -> list[str]:
        """Changes the rules of a chain to the wanted ones without touching those in common."""
        added = removed = 0
        steps = SequenceMatcher(None, present, wanted, autojunk=False).get_opcodes()
        for _, start, stop, new_start, new_stop in reversed([step for step in steps if step[0] != "equal"]):
            for _ in range(start, stop):
                self.table.delete(chain, start)
            for offset, rule in enumerate(wanted[new_start:new_stop]):
                self.table.insert(chain, start + offset, self._encoded(rule))
            removed += stop - start
            added += new_stop - new_start
        if created:
            return [f"chain {chain}: created with {added} rules"]
        return [f"chain {chain}: {added} rules added, {removed} removed"] if added or removed else []

    def _encoded(self, rule: Rule | OpaqueRule) -> bytes:
        assert isinstance(rule, Rule), "an opaque rule is only ever kept, never written"
        return encode(rule, self.table.version, self.sets)

    def _hook(self, builtin: str, base: str | None) -> list[str]:
        """Makes ``base`` our only chain that the built-in chain jumps to, at the position of the insert mode."""
        if base is not None and self.insert_mode is None:
            return []
        rules = [item.rule for item in read_chain(self.table, builtin, self.sets)]
        ours = [position for position, rule in enumerate(rules) if leads_to_us(rule)]
        others = len(rules) - len(ours)
        position = 0 if self.insert_mode == "insert" else others
        wanted = [] if base is None else [Rule(Jump(base))]
        if [rules[at] for at in ours] == wanted and (not ours or ours == [position]):
            return []
        for at in reversed(ours):
            self.table.delete(builtin, at)
        if base is None:
            return [f"chain {builtin}: unhooked"]
        self.table.insert(builtin, position, self._encoded(Rule(Jump(base))))
        return [_hooked(builtin, base)]

    def _remove(self, chains: Sequence[Chain]) -> list[str]:
        """Empties and deletes chains. A chain that a foreign rule jumps to stays, empty, so that rule has no effect."""
        for chain in chains:  # all are emptied first, because they jump to each other
            for _ in chain.rules:
                self.table.delete(chain.name, 0)
        deleted = {chain.name: self.table.delete_chain(chain.name) for chain in chains}
        changes = [f"chain {name}: deleted" for name, gone in deleted.items() if gone]
        return changes + [f"chain {chain.name}: emptied" for chain in chains if not deleted[chain.name] and chain.rules]


def _leads_below(chain: Chain) -> bool:
    """Whether a rule of the chain leads to another one."""
    return any(isinstance(rule, Rule) and isinstance(rule.target, Jump) for rule in chain.rules)


def leads_to_us(rule: Rule | OpaqueRule) -> bool:
    target = rule.target.chain if isinstance(rule, Rule) and isinstance(rule.target, Jump) else rule.target
    return is_our_chain(str(target))
