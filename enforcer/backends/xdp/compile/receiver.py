"""The settings by which a program recognises the frames that its interface receives for itself. Pure."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from enforcer.kernel.rtnetlink import InterfaceState


@dataclass(frozen=True)
class Receiver:
    """``address``: the interface's MAC address, 6 bytes. ``index``: the interface that the program checks for devices
    that take its packets, if the kernel supports that; 0: none. ``tags_in_frame``: as in InterfaceState.
    """

    address: bytes
    index: int = 0
    tags_in_frame: bool = False

    @classmethod
    def of(cls, state: InterfaceState) -> Receiver:
        return cls(state.address[:6].ljust(6, b"\0"), state.index, state.tags_in_frame)

    @property
    def address_settings(self) -> dict[str, int]:
        """The address as two settings, in memory order."""
        parts = {"own_address_first": self.address[:4], "own_address_last": self.address[4:]}
        return {name: int.from_bytes(part, sys.byteorder) for name, part in parts.items()}

    @property
    def settings(self) -> dict[str, int]:
        """The settings of the program, by name."""
        return {**self.address_settings, "own_device": self.index, "tags_in_frame": int(self.tags_in_frame)}

    def __str__(self) -> str:
        """The form kept in a manifest, to detect a change."""
        return f"{self.address.hex(':')} {self.index} {int(self.tags_in_frame)}"
