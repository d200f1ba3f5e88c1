"""How many of something, in words: ``1 packet``, ``2,000 packets``, ``1 entry``."""

from __future__ import annotations


def counted(count: int, noun: str = "packet", plural: str = "") -> str:
    """The number with its noun, as English has it; ``plural`` where an s is not enough."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
