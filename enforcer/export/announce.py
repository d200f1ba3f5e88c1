"""Which flows are announced to routers, and when they are withdrawn. Pure: what time it is is an argument.

A flow that is not denied any more is withdrawn after a hold-down, so that a list that flaps is not a flood of BGP
updates; one whose act has ended, at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from enforcer.export.select import Flow, Rule

HOLD_S = 60.0
ANNOUNCE, WITHDRAW = "announce", "withdraw"

Step = tuple[str, Flow]


@dataclass
class Announcer:
    """``seen``: when each flow that is announced was last wanted, and the end of its act."""

    hold_s: float = HOLD_S
    seen: dict[Flow, tuple[float, int | None]] = field(default_factory=dict)

    def step(self, rules: Iterable[Rule], now_s: float) -> list[Step]:
        """What to say, given what is wanted now."""
        wanted = {rule.flow: rule.until_s for rule in rules if rule.until_s is None or rule.until_s > now_s}
        steps = [(ANNOUNCE, flow) for flow in wanted if flow not in self.seen]
        self.seen |= {flow: (now_s, until_s) for flow, until_s in wanted.items()}
        over = [
            flow
            for flow, (last_s, until_s) in self.seen.items()
            if flow not in wanted and self._is_over(last_s, until_s, now_s)
        ]
        for flow in over:
            del self.seen[flow]
        return [*((WITHDRAW, flow) for flow in over), *steps]

    def end(self) -> list[Step]:
        """What to say before nobody says anything any more."""
        steps = [(WITHDRAW, flow) for flow in self.seen]
        self.seen = {}
        return steps

    def _is_over(self, last_s: float, until_s: int | None, now_s: float) -> bool:
        return now_s - last_s >= self.hold_s or (until_s is not None and until_s <= now_s)
