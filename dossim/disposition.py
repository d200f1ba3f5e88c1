"""Disposition: what becomes of one packet, predicted or observed.

Two dispositions agree when fate and stage are the same. ``reason`` is for people: the entry's name when an entry
dropped it, otherwise a short phrase of why the kernel did.
"""

from __future__ import annotations

from dataclasses import dataclass

from enforcer.words import Stage, Word


class Fate(Word):
    """How a packet ends.

    DELIVERED: reached a transport socket, or would have but none listens (also ARP and ICMP handled by the host).
    FORWARDED: left the POSTROUTING hook towards another interface.
    """

    DELIVERED = "delivered"
    FORWARDED = "forwarded"
    DROPPED = "dropped"


@dataclass(frozen=True)
class Disposition:
    """``stage`` is set exactly when the packet was dropped; ``entry`` when a policy entry dropped it."""

    fate: Fate
    stage: Stage | None = None
    entry: str | None = None
    reason: str = ""

    @property
    def column(self) -> str:
        """The word that counts it in totals: the stage it was dropped at, else its fate."""
        return str(self.stage) if self.fate is Fate.DROPPED else str(self.fate)

    def agrees(self, other: Disposition) -> bool:
        return self.fate is other.fate and self.stage is other.stage

    def __str__(self) -> str:
        if self.fate is not Fate.DROPPED:
            return str(self.fate)
        by = f" by {self.entry}" if self.entry else f" ({self.reason})" if self.reason else ""
        return f"dropped at {self.stage}{by}"
