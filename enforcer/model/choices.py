"""ModeChoice, RawChoice and TrackedChoice: what a user can request, and which XDP modes remain. Pure."""

from __future__ import annotations

from enforcer.model.vocabulary import Mode, Word


class ModeChoice(Word):
    """AUTO takes the earliest mode that an interface supports; a mode by name is required; RAW means no XDP."""

    AUTO = "auto"
    OFFLOAD = "offload"
    NATIVE = "native"
    GENERIC = "generic"
    RAW = "raw"

    @property
    def mode(self) -> Mode | None:
        """The requested XDP mode; None for AUTO and RAW."""
        return None if self in (ModeChoice.AUTO, ModeChoice.RAW) else Mode(self.value)

    @classmethod
    def of(cls, mode: Mode | None) -> ModeChoice:
        """The choice that leads to this mode; RAW for none."""
        return cls.RAW if mode is None else cls(mode.value)


class RawChoice(Word):
    """The raw backend. AUTO follows the FelixConfiguration, then the host; a backend by name is required."""

    AUTO = "auto"
    IPTABLES = "iptables"
    NFTABLES = "nftables"


class TrackedChoice(Word):
    """What happens to policy after conntrack. MODEL predicts what Calico would do with it; nothing enforces it."""

    MODEL = "model"
    ENFORCE = "enforce"
