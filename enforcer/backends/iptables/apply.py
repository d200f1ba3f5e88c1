"""Brings the raw tables of both families to a rendered state, by the smallest change, in one commit each.

What is there is read back from the kernel every time; nothing is remembered. Only rules that differ are written, so all
others keep their counters, and so does everything that is not ours. Applying a state that is there changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from enforcer.backends.iptables.blob import SetIndex, encode
from enforcer.backends.iptables.names import is_our_chain
from enforcer.backends.iptables.read import read_chain, read_chains
from enforcer.backends.iptables.render import HOOKS, Settings
from enforcer.backends.iptables.rules import FAMILIES, Chain, Jump, OpaqueRule, Rule
from enforcer.backends.iptables.table import RawTable, TableChangedError, exists, raw_table, xtables_lock

_ATTEMPTS = 5

# What a family's chains are to become, given what they are.
Wish = Callable[[int, tuple[Chain, ...]], tuple[Chain, ...]]


def apply_chains(wish: Wish, sets: SetIndex, settings: Settings, *, dry_run: bool) -> list[str]:
    """Makes our chains what ``wish`` says, in both families; returns what changed."""
    changes: list[str] = []
    for version in FAMILIES:
        if exists(version) or wish(version, ()):
            changes += _apply_family(version, wish, sets, settings, dry_run)
    return changes


def _apply_family(version: int, wish: Wish, sets: SetIndex, settings: Settings, dry_run: bool) -> list[str]:
    for attempt in range(_ATTEMPTS):
        try:
            with xtables_lock(), raw_table(version) as table:
                edit = _Edit(table, sets, settings)
                changes = edit.run(wish)
                if changes and not dry_run:
                    table.commit()
                return changes
        except TableChangedError:  # by a program that does not take the lock
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


class _Edit:
    """Changes one snapshot of a table, in memory."""

    def __init__(self, table: RawTable, sets: SetIndex, settings: Settings) -> None:
        self.table = table
        self.sets = sets
        self.settings = settings

    def run(self, wish: Wish) -> list[str]:
        """Returns a sentence for each change made."""
        actual = {chain.name: chain for chain in read_chains(self.table, self.sets)}
        wanted = {chain.name: chain for chain in wish(self.table.version, tuple(actual.values()))}
        changes: list[str] = []
        for name in wanted.keys() - actual.keys():
            self.table.create_chain(name)  # all of them before the rules that jump to them
        for name, chain in wanted.items():
            present = actual[name].rules if name in actual else ()
            changes += self._rules(name, present, chain.rules, created=name not in actual)
        for builtin, base in HOOKS.items():
            changes += self._hook(builtin, base if base in wanted else None)
        changes += self._remove([chain for name, chain in actual.items() if name not in wanted])
        return [f"raw IPv{self.table.version}: {change}" for change in changes]

    def _rules(
        self, chain: str, present: Sequence[Rule | OpaqueRule], wanted: Sequence[Rule | OpaqueRule], *, created: bool
    ) -> list[str]:
        """Turns the rules of a chain into the wanted ones, those in common untouched."""
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
        assert isinstance(rule, Rule), "a rule we cannot say is only ever kept, never written"
        return encode(rule, self.table.version, self.sets)

    def _hook(self, builtin: str, base: str | None) -> list[str]:
        """Makes ``base`` the only chain of ours the built-in one leads to, first or last of its rules."""
        rules = [item.rule for item in read_chain(self.table, builtin, self.sets)]
        ours = [position for position, rule in enumerate(rules) if _leads_to_us(rule)]
        others = len(rules) - len(ours)
        position = 0 if self.settings.insert_mode == "insert" else others
        wanted = None if base is None else Rule(Jump(base))
        if [rules[at] for at in ours] == ([wanted] if wanted else []) and (not ours or ours == [position]):
            return []
        for at in reversed(ours):
            self.table.delete(builtin, at)
        if wanted is None:
            return [f"chain {builtin}: unhooked"]
        self.table.insert(builtin, position, self._encoded(wanted))
        return [f"chain {builtin}: hooked to {base}"]

    def _remove(self, chains: Sequence[Chain]) -> list[str]:
        """Empties and deletes chains. One that a foreign rule jumps to stays, empty: that rule then does nothing."""
        for chain in chains:  # emptied first, all of them: they jump to each other
            for _ in chain.rules:
                self.table.delete(chain.name, 0)
        deleted = {chain.name: self.table.delete_chain(chain.name) for chain in chains}
        changes = [f"chain {name}: deleted" for name, gone in deleted.items() if gone]
        return changes + [f"chain {chain.name}: emptied" for chain in chains if not deleted[chain.name] and chain.rules]


def _leads_to_us(rule: Rule | OpaqueRule) -> bool:
    target = rule.target.chain if isinstance(rule, Rule) and isinstance(rule.target, Jump) else rule.target
    return is_our_chain(str(target))
