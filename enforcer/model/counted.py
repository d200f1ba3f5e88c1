"""A number with its noun: ``1 packet``, ``2,000 packets``, ``1 entry``."""

from __future__ import annotations


def counted(count: int, noun: str = "packet", plural: str = "") -> str:
    """The number with its noun, in the singular for 1; ``plural`` if appending an s is wrong."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
