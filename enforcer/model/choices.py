"""ModeChoice and RawChoice: what a user may ask for, and the XDP modes it leaves to consider. Pure."""

from __future__ import annotations

from enforcer.model.vocabulary import Mode, Word


class ModeChoice(Word):
    """AUTO takes the earliest mode an interface has; the others are that mode or an error; RAW is no XDP at all."""

    AUTO = "auto"
    OFFLOAD = "offload"
    NATIVE = "native"
    GENERIC = "generic"
    RAW = "raw"

    @property
    def mode(self) -> Mode | None:
        """The one XDP mode asked for; None for AUTO and RAW."""
        return None if self in (ModeChoice.AUTO, ModeChoice.RAW) else Mode(self.value)

    @classmethod
    def of(cls, mode: Mode | None) -> ModeChoice:
        """The choice that leads to this mode; RAW for none."""
        return cls.RAW if mode is None else cls(mode.value)


class RawChoice(Word):
    """What holds the raw part. AUTO asks the FelixConfiguration, then the host; the others are that or an error."""

    AUTO = "auto"
    IPTABLES = "iptables"
    NFTABLES = "nftables"
