"""Packets drawn from a capture of unknown length: each has the same chance, and the same seed draws the same."""

from __future__ import annotations

import numpy as np

from dossim.packet.capture import Capture, joined


class Sample:
    """At most ``size`` packets of what :meth:`offer` gets: those with the smallest of random keys. ``offered``: how
    many packets there were.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._random = size, np.random.default_rng(seed)
        self._kept: list[Capture] = []
        self._keys: list[np.ndarray[tuple[int], np.dtype[np.float64]]] = []
        self._bound = np.inf  # no packet with a larger key can be drawn
        self.offered = 0

    def offer(self, capture: Capture) -> None:
        """The next packets."""
        keys = self._random.random(len(capture))
        self.offered += len(capture)
        rows = np.flatnonzero(keys < self._bound)
        self._kept.append(capture.only(rows))
        self._keys.append(keys[rows])
        if sum(map(len, self._keys)) > 2 * self._size + len(capture):
            self._prune()

    def _prune(self) -> None:
        kept, keys = joined(self._kept), np.concatenate(self._keys)
        if len(keys) > self._size:
            rows = np.sort(np.argpartition(keys, self._size - 1)[: self._size])
            kept, keys = kept.only(rows), keys[rows]
            self._bound = float(keys.max())
        self._kept, self._keys = [kept], [keys]

    def drawn(self) -> Capture:
        """The packets, in the order of the capture."""
        if not self._kept:
            return Capture.from_frames([])
        self._prune()
        return self._kept[0]
