"""Evidence: what the kernel reported of one packet, and whose rule a mark shows to have dropped it. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from enforcer.model.vocabulary import CtState, Stage, Word

# Where rules of tracked policy drop, and those of anybody else. Raw needs no mark: its counters are per entry.
FILTER_STAGES = (Stage.MANGLE, Stage.FILTER_INPUT, Stage.FILTER_FORWARD)


class DroppedBy(Word):
    """Whose rule dropped a packet at one of FILTER_STAGES."""

    OURS = "ours"
    OTHERS = "others"


@dataclass(frozen=True)
class Evidence:
    """Prints as one sentence.

    ``end`` is where the packet was freed, and the last checkpoint it passed. ``state`` is None when it did not get past
    conntrack; ``is_reply``: it went the other way than the first packet of its connection. ``mark`` is ``skb->mark``
    when this host was done with the packet.
    """

    end: str
    state: CtState | None = None
    is_reply: bool = False
    mark: int = 0

    def __str__(self) -> str:
        reply = " in the reply direction" if self.is_reply else ""
        state = f", ctstate {self.state}{reply}" if self.state else ""
        return f"{self.end}{state}" + (f", mark {self.mark:#x}" if self.mark else "")
