"""Flows as a table: whatever creates one fills every column, and whatever selects rows selects them in every column."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace

import numpy as np
import pytest

from dossim.packet.columns import ByteReader
from dossim.predict.flows import Addresses, Flows

ROWS = 4


def flows() -> Flows:
    """Four flows; no two columns have the same values."""
    values: dict[str, object] = {"version": 4, "buf": ByteReader(np.zeros(16, np.uint8))}
    for at, item in enumerate(fields(Flows)):
        numbers = np.arange(ROWS) + 10 * at
        if item.name in ("source", "destination"):
            values[item.name] = Addresses(4, numbers.astype(np.uint32))
        elif item.type == "Bool":
            values[item.name] = numbers % 2 == 0
        else:
            values.setdefault(item.name, numbers)
    return Flows(**values)  # type: ignore[arg-type]


def column(found: Flows, name: str) -> list[int]:
    value = getattr(found, name)
    return (value.low if isinstance(value, Addresses) else value).tolist()


@pytest.mark.parametrize("rows", [np.array([3, 1]), np.array([False, True, False, True])], ids=["numbers", "mask"])
def test_rows_are_taken_of_every_column(rows: np.ndarray) -> None:  # type: ignore[type-arg]
    found, all_rows = flows().take(rows), flows()
    assert len(found) == 2
    per_row = [item.name for item in fields(Flows) if item.name not in ("version", "buf")]
    for name in per_row:
        assert column(found, name) == np.array(column(all_rows, name))[rows].tolist(), name


def test_what_is_no_column_is_refused() -> None:
    with pytest.raises(TypeError, match="list is not a column of flows"):
        replace(flows(), sport=[1, 2, 3, 4]).take(np.array([1]))  # type: ignore[arg-type]


def test_no_column_has_a_default() -> None:
    """So that mypy names both places that create flows when a column is added."""
    assert [item.name for item in fields(Flows) if (item.default, item.default_factory) != (MISSING, MISSING)] == []
