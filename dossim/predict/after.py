"""The policy after conntrack, compiled for the engine. Evaluation and names: :mod:`enforcer.policy.tracked`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dossim.engine.rules import After, Chain
from dossim.predict.compiled import chain_of
from enforcer.model.vocabulary import Action, Stage
from enforcer.policy.ruletable import Entry
from enforcer.policy.tracked import Hook, TrackedTable

# The chains of the interfaces that received packets meet, as the engine calls them.
_OUTSIDE = {
    Hook.PRE_DNAT: "pre_dnat",
    Hook.INPUT: "input",
    Hook.FORWARD_IN: "forward_in",
    Hook.FORWARD_OUT: "forward_out",
}
_INSIDE = {Hook.FORWARD_OUT: "forward_inside"}


@dataclass(frozen=True)
class Tables:
    """The policy after conntrack of the host's two interfaces; None where no HostEndpoint governs one."""

    outside: TrackedTable | None = None
    inside: TrackedTable | None = None

    @property
    def governs(self) -> bool:
        return self.outside is not None or self.inside is not None

    def entries(self) -> tuple[Entry, ...]:
        """Everything that can drop, as entries: those of the tables, and one for each default; each name once."""
        found: dict[str, Entry] = {}
        for table in filter(None, (self.outside, self.inside)):
            for chain in table.chains:
                known = {entry.name: entry for entry in chain.entries()}
                direction = chain.hook.direction
                for name in chain.names():
                    found.setdefault(name, known.get(name) or Entry(name, Action.DENY, "", direction=direction))
        return tuple(found.values())

    def stages(self) -> dict[str, tuple[Stage, ...]]:
        """The stages at which each of them can drop a received packet. What acts only on what the host sends has none
        and is omitted.
        """
        found: dict[str, set[Stage]] = {}
        for table in filter(None, (self.outside, self.inside)):
            for chain in table.chains:
                if chain.hook is not Hook.OUTPUT:
                    for name in chain.names():
                        found.setdefault(name, set()).add(chain.hook.stage)
        return {name: tuple(stage for stage in Stage if stage in stages) for name, stages in found.items()}


def compiled(tables: Tables, index: Mapping[str, int]) -> After:
    """The policy of the tables; ``index`` has the number of each entry by name."""
    chains: dict[str, Chain] = {}
    for table, fields in ((tables.outside, _OUTSIDE), (tables.inside, _INSIDE)):
        if table is not None:
            held = {chain.hook: chain for chain in table.chains}
            chains |= {name: chain_of(table, held[hook], index) for hook, name in fields.items() if hook in held}
    return After(chains)
