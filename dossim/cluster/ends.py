"""Where packets end, of parts of a capture, put together. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dossim.model.disposition import Disposition
from dossim.predict import Prediction

_COLUMNS = ("fate", "stage", "entry", "untracked")


def joined(parts: Sequence[Prediction]) -> Prediction:
    """One after the other, one or more; without conntrack states. The entries of each are the first of the longest
    list.
    """
    codes: dict[str, int] = {}
    reasons, sets, before = [], dict[int, Disposition](), 0
    for part in parts:
        mine = np.array([codes.setdefault(text, len(codes)) for text in part.reasons], np.uint32)
        reasons.append(mine[part.reason])
        sets |= {before + row: end for row, end in part.sets.items()}
        before += len(part)
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
    columns |= {"reason": np.concatenate(reasons), "reasons": tuple(codes), "sets": sets}
    longest = max(parts, key=lambda part: len(part.entries))
    return replace(longest.only(np.zeros(0, np.int64)), **columns)


def with_rows(found: Prediction, rows: npt.NDArray[np.int64], others: Prediction) -> Prediction:
    """The same, but these packets end as the others do."""
    take = np.arange(len(found), dtype=np.int64)
    take[rows] = len(found) + np.arange(len(others))
    return joined([found, others]).only(take)
