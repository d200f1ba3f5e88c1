"""One row for each packet, as CSV and Parquet files have them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import numpy as np
import numpy.typing as npt

from dossim.model.disposition import Disposition
from dossim.predict import Prediction

_END = ("fate", "stage", "entry", "reason", "others", "depends")
COLUMNS = ("packet", *_END, *(f"calico_{name}" for name in _END))

_NOTHING = ("",) * len(_END)

Cells = tuple[str, ...]


def rows_of(
    numbers: npt.NDArray[np.int64], prediction: Prediction, calico: Prediction | None
) -> Iterator[tuple[int, Cells]]:
    """A row of COLUMNS for each packet: its number in the capture, and the other cells; fields that do not apply are
    empty. ``others``: the further possible ends of a packet with several, and ``depends`` what decides. ``calico_...``:
    the end with tracked policy that is not enforced; empty if there is none, or nothing is known of it.
    """
    mine = _cells_of(prediction)
    theirs = repeat(_NOTHING) if calico is None else _cells_of(calico)
    for number, cells, others in zip(numbers.tolist(), mine, theirs, strict=False):
        yield number, cells + others


def _cells_of(found: Prediction) -> Iterator[Cells]:
    known: dict[tuple[int, ...], Cells] = {}
    several = set(found.sets)
    columns = (found.fate, found.stage, found.entry, found.reason)
    for packet, key in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        if packet in several:
            yield _cells(found.disposition(packet))
            continue
        cells = known.get(key)
        if cells is None:
            cells = known[key] = _cells(found.disposition(packet))
        yield cells


def _cells(ended: Disposition) -> Cells:
    return (
        str(ended.fate),
        str(ended.stage or ""),
        ended.entry or "",
        ended.reason,
        " or ".join(str(other) for other in ended.others),
        ended.depends,
    )
