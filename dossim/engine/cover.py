"""``engine/cover.c``: the cheapest ways to cover sources with prefixes, for every number of prefixes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dossim.engine.library import function

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

NEVER = 1 << 52  # COVER_NEVER
BUDGET_MAX = 65534  # COVER_BUDGET_MAX
EVERYTHING = 255  # COVER_EVERYTHING


@dataclass(frozen=True)
class Group:
    """Sources that are covered apart from those of other groups. ``keys``: distinct, ascending, their ``bits`` bits are
    the upper ones. ``attack``, ``collateral``: what each costs while it is not covered, and once it is; NEVER: it must
    not be. ``space``: collateral of all possible keys together, spread evenly. ``widest``: no prefix is shorter.
    ``most``: no prefix has more collateral. ``everything``: what it costs to cover the group as a whole, once, other
    than by a prefix; NEVER: impossible.
    """

    keys: U64
    attack: I64
    collateral: I64
    bits: int
    space: int = 0
    widest: int = 0
    most: int = NEVER
    everything: int = NEVER


@dataclass(frozen=True)
class Prefix:
    """``key`` is one that has the prefix; a length of EVERYTHING means the group as a whole."""

    group: int
    key: int
    length: int


class _Group(ctypes.Structure):
    _fields_ = (
        ("keys", ctypes.c_void_p),
        ("attack", ctypes.c_void_p),
        ("collateral", ctypes.c_void_p),
        ("most", ctypes.c_int64),
        ("everything", ctypes.c_int64),
        ("space", ctypes.c_int64),
        ("count", ctypes.c_uint32),
        ("bits", ctypes.c_uint32),
        ("widest", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    )


class _Prefix(ctypes.Structure):
    _fields_ = (("key", ctypes.c_uint64), ("group", ctypes.c_uint32), ("length", ctypes.c_uint32))


class Cover:
    """The solution for every budget up to one. To be closed, or used in a ``with`` statement."""

    def __init__(self, groups: Sequence[Group], budget: int) -> None:
        """Raises HostError where there is no engine, MemoryError."""
        assert 0 <= budget <= BUDGET_MAX
        assert sum(int(group.attack.sum()) for group in groups) < NEVER
        kept = [_columns(group) for group in groups]
        given = (_Group * len(groups))(
            *(
                _Group(
                    *(column.ctypes.data for column in columns),
                    group.most,
                    group.everything,
                    group.space,
                    len(columns[0]),
                    group.bits,
                    group.widest,
                )
                for group, columns in zip(groups, kept, strict=True)
            )
        )
        solve = function("cover_solve", [ctypes.POINTER(_Group), ctypes.c_uint32, ctypes.c_uint32], ctypes.c_void_p)
        self._handle: int | None = solve(given, len(groups), budget)
        if self._handle is None:
            raise MemoryError("the best list of sources does not fit into memory")

    def __enter__(self) -> Cover:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._handle is not None:
            function("cover_free", [ctypes.c_void_p], None)(self._handle)
            self._handle = None

    def curve(self) -> I64:
        """The least cost with at most 0, 1, 2, ... prefixes; more prefixes than the curve is long improve nothing."""
        length = ctypes.c_uint32()
        get = function("cover_curve", [ctypes.c_void_p, ctypes.c_void_p], ctypes.POINTER(ctypes.c_int64))
        values = np.ctypeslib.as_array(get(self._handle, ctypes.byref(length)), (length.value,))
        return np.array(values, np.int64)

    def prefixes(self, budget: int) -> list[Prefix]:
        """Those of the cheapest cover with at most this many, by group and key."""
        found = (_Prefix * max(budget, 1))()
        pick = function("cover_prefixes", [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p], ctypes.c_uint32)
        number = pick(self._handle, budget, found)
        return [Prefix(item.group, item.key, item.length) for item in found[:number]]


def _columns(group: Group) -> tuple[U64, I64, I64]:
    """As the engine reads them."""
    keys = np.ascontiguousarray(group.keys, np.uint64)
    assert (keys[1:] > keys[:-1]).all()
    attack, collateral = (np.ascontiguousarray(each, np.int64) for each in (group.attack, group.collateral))
    assert len(attack) == len(collateral) == len(keys)
    return keys, attack, np.minimum(collateral, NEVER)
