"""Disposition: what becomes of one packet, predicted or observed.

Two dispositions agree when fate and stage are the same; of one that has several ends, with any of them. ``reason`` is
for people: the entry's name when an entry dropped it, otherwise a short phrase on why the kernel did, or on why the
fate is undetermined.
"""

from __future__ import annotations

from dataclasses import dataclass

from enforcer.model.vocabulary import Stage, Word


class Fate(Word):
    """How a packet ends.

    DELIVERED: reached a transport socket, or would have but none listens (also ARP and ICMP handled by the host).
    FORWARDED: left the POSTROUTING hook towards another interface. UNDETERMINED: the captured bytes do not decide it
    (predicted only). NOT_SENDABLE: no device sends or receives such a frame (predicted only).
    """

    DELIVERED = "delivered"
    FORWARDED = "forwarded"
    DROPPED = "dropped"
    UNDETERMINED = "undetermined"
    NOT_SENDABLE = "not-sendable"


# Not ends of a packet in a kernel: they count neither as matched nor for an expectation.
OPEN_FATES = (Fate.UNDETERMINED, Fate.NOT_SENDABLE)


@dataclass(frozen=True)
class Disposition:
    """``stage`` is where the packet was dropped or, if undetermined, the first stage whose result is unknown; ``entry``
    is set when policy dropped it: the entry's name, or that of a default.

    ``others``: further ends that are as possible, because of what nobody can know beforehand; ``depends`` says of what.
    """

    fate: Fate
    stage: Stage | None = None
    entry: str | None = None
    reason: str = ""
    others: tuple[Disposition, ...] = ()
    depends: str = ""

    @property
    def column(self) -> str:
        """The name it is counted under in totals: the stage it was dropped at, else its fate. Of several the first."""
        return str(self.stage) if self.fate is Fate.DROPPED else str(self.fate)

    @property
    def ends(self) -> frozenset[tuple[Fate, Stage | None]]:
        """All possible ends."""
        return frozenset((one.fate, one.stage) for one in (self, *self.others))

    def agrees(self, other: Disposition) -> bool:
        """Whether both can be the same end."""
        return not self.ends.isdisjoint(other.ends)

    def __str__(self) -> str:
        if not self.others:
            return self._alone()
        all_of_them = " or ".join(one._alone() for one in (self, *self.others))
        return f"{all_of_them}; it depends on {self.depends}"

    def _alone(self) -> str:
        if self.fate is Fate.UNDETERMINED:
            return f"undetermined from {self.stage} on ({self.reason})"
        if self.fate is Fate.NOT_SENDABLE:
            return f"not sendable ({self.reason})"
        if self.fate is not Fate.DROPPED:
            return str(self.fate)
        by = f" by {self.entry}" if self.entry else f" ({self.reason})" if self.reason else ""
        return f"dropped at {self.stage}{by}"
