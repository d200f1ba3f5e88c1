"""Operations on the members of kernel sets: sorted arrays of byte strings of one width, without duplicates. Pure.

numpy's own (``np.unique``, ``np.setdiff1d``) hash or compare strings, which takes ten times as long for 100,000 members
as sorting them as numbers.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Members = npt.NDArray[np.bytes_]
_Keys = npt.NDArray[Any]  # of strings, or of words

_WORD = 8
_FEW = 64  # differences: beyond, merging both is as fast as looking for each
_FIRST_BYTES = 1 << 12


def ordered(members: Members, *, kind: Literal["stable"] | None = None) -> Members:
    """The distinct members, sorted. ``kind``: stable (a merge sort) is faster for what consists of sorted runs."""
    if members.itemsize > _WORD:
        strings = np.sort(members, kind="stable")
        return strings[_first_of_equals(strings)]
    keys = np.sort(_keys(members), kind=kind)
    keys = keys[_first_of_equals(keys)]
    rows = keys.astype(">u8").view(np.uint8).reshape(-1, _WORD)[:, : members.itemsize]
    return np.ascontiguousarray(rows).view(members.dtype).ravel()


def differences(one: Members, other: Members) -> tuple[Members, Members]:
    """The members that are only in the one, and only in the other."""
    if one is other:
        return one[:0], other[:0]
    if (few := _few_differences(one, other)) is not None:
        return few
    keys = np.concatenate([_keys(one), _keys(other)])
    order = np.argsort(keys, kind="stable")  # merges two sorted runs; of equal keys, that of the one comes first
    pair = np.flatnonzero(~_first_of_equals(keys[order]))
    alone = np.ones(len(keys), np.bool_)
    alone[order[pair]] = alone[order[pair - 1]] = False
    return one[alone[: len(one)]], other[alone[len(one) :]]


def _few_differences(one: Members, other: Members) -> tuple[Members, Members] | None:
    """The same for a few differences, from one to the next; None if there are more."""
    if abs(len(one) - len(other)) > _FEW:
        return None
    width = one.itemsize
    first, second = (np.ascontiguousarray(members).view(np.uint8) for members in (one, other))
    at = other_at = 0
    only: tuple[list[int], list[int]] = ([], [])
    while at < len(one) and other_at < len(other):
        same = _equal_bytes(first[at * width :], second[other_at * width :]) // width
        at, other_at = at + same, other_at + same
        if at == len(one) or other_at == len(other):
            break
        if one[at] < other[other_at]:
            only[0].append(at)
            at += 1
        else:
            only[1].append(other_at)
            other_at += 1
        if len(only[0]) + len(only[1]) > _FEW:
            return None
    only[0].extend(range(at, len(one)))
    only[1].extend(range(other_at, len(other)))
    return one[only[0]], other[only[1]]


def _equal_bytes(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> int:
    """How many bytes at the beginning of both are equal."""
    at, step, size = 0, _FIRST_BYTES, min(len(one), len(other))
    while at < size:
        step = min(step, size - at)
        differs = one[at : at + step] != other[at : at + step]
        if differs.any():
            return at + int(differs.argmax())
        at, step = at + step, 4 * step
    return size


def difference(left: Members, right: Members) -> Members:
    """The members of ``left`` that are not in ``right``."""
    if len(right) > _FEW:
        return differences(left, right)[0]
    places, is_there = _places(left, right)
    return np.delete(left, places[is_there]) if is_there.any() else left


def intersection(left: Members, right: Members) -> Members:
    return difference(left, difference(left, right))


def union(left: Members, right: Members) -> Members:
    few, many = sorted((left, right), key=len)
    few = difference(few, many)
    if len(few) > _FEW:
        return ordered(np.concatenate([few, many]), kind="stable")
    places, _ = _places(many, few)
    return np.insert(many, places, few) if len(few) else many


def _places(members: Members, few: Members) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Where each of a few members is, or would be inserted; and whether it is there."""
    places = np.searchsorted(members, few)
    found = np.zeros(len(few), np.bool_)
    inside = places < len(members)
    found[inside] = members[places[inside]] == few[inside]
    return places, found


def _keys(members: Members) -> _Keys:
    """Keys that sort as the members do: numbers, if a member is no wider than a word."""
    if members.itemsize > _WORD:
        return members
    rows = np.zeros((len(members), _WORD), np.uint8)
    rows[:, : members.itemsize] = np.ascontiguousarray(members).view(np.uint8).reshape(-1, members.itemsize)
    return rows.view(">u8").ravel().astype(np.uint64)


def _first_of_equals(keys: _Keys) -> npt.NDArray[np.bool_]:
    first = np.ones(len(keys), np.bool_)
    first[1:] = keys[1:] != keys[:-1]
    return first
