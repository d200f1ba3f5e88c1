"""Classes of ``enforcer.model.dataclass`` do what those of the standard library do."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import FrozenInstanceError, asdict, astuple, field, fields, is_dataclass, replace
from functools import cached_property
from inspect import signature
from typing import Any

import pytest

from enforcer.model.dataclass import dataclass


def made(decorate: Any) -> dict[str, Any]:
    """The same classes, made by one decorator."""

    @decorate(frozen=True)
    class Point:
        """A class with a docstring."""

        x: int
        y: int = 2
        tags: tuple[str, ...] = field(default=(), repr=False)
        notes: list[int] = field(default_factory=list, compare=False)
        length: int = field(init=False, default=7)
        name: str = field(default="n", kw_only=True)

        @cached_property
        def total(self) -> int:
            return self.x + self.y

    @decorate(frozen=True)
    class Derived(Point):
        z: int = 3
        y: int = 5

    @decorate(frozen=True)
    class One:
        value: object

    @decorate(frozen=True)
    class Empty:
        pass

    @decorate(frozen=True)
    class Custom:
        value: int
        twice: int = field(init=False)
        unhashed: list[int] = field(default_factory=list, hash=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "twice", 2 * self.value)

        def __repr__(self) -> str:
            return "custom"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Custom) and self.value % 10 == other.value % 10

        def __hash__(self) -> int:
            return self.value % 10

    return {each.__name__: each for each in (Point, Derived, One, Empty, Custom)}


OURS, THEIRS = made(dataclass), made(dataclasses.dataclass)
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("Point", (1,), {}),
    ("Point", (1, 2), {"tags": ("a",), "notes": [1]}),
    ("Point", (1, 3), {"name": "m"}),
    ("Derived", (1,), {}),
    ("Derived", (1, 5, (), [9], 3), {}),
    ("One", ("text",), {}),
    ("One", ((1, 2),), {}),
    ("Empty", (), {}),
    ("Custom", (13,), {}),
    ("Custom", (23, [1]), {}),
]


def instances(classes: dict[str, Any]) -> list[Any]:
    return [classes[name](*positional, **named) for name, positional, named in CALLS]


def test_fields_text_and_hash() -> None:
    for mine, other in zip(instances(OURS), instances(THEIRS), strict=True):
        assert is_dataclass(mine)
        assert repr(mine) == repr(other)
        assert hash(mine) == hash(other)
        assert asdict(mine) == asdict(other)
        assert astuple(mine) == astuple(other)
        assert [item.name for item in fields(mine)] == [item.name for item in fields(other)]
        assert type(mine).__match_args__ == type(other).__match_args__
        assert list(signature(type(mine)).parameters) == list(signature(type(other)).parameters)
        assert vars(mine) == vars(other)


def test_equality() -> None:
    mine, other = instances(OURS), instances(THEIRS)
    assert [[a == b for b in mine] for a in mine] == [[a == b for b in other] for a in other]
    assert mine[0] != other[0]


def test_nothing_can_be_set_or_deleted() -> None:
    class Free(OURS["Point"]):  # type: ignore[misc]
        """No dataclass: may have attributes beside the fields."""

    free = Free(1)
    free.other = 1
    del free.other
    for item in [*instances(OURS), free]:
        name = next((each.name for each in fields(item)), "other")
        with pytest.raises(FrozenInstanceError):
            setattr(item, name, 1)
        with pytest.raises(FrozenInstanceError):
            delattr(item, name)
    with pytest.raises(FrozenInstanceError):
        OURS["Point"](1).other = 1


def test_replace_copy_and_properties() -> None:
    point = OURS["Point"](1)
    assert point.total == 3
    assert replace(point, x=4).total == 6
    assert copy.copy(point) == point == copy.deepcopy(point)
    assert OURS["Point"](1).notes is not OURS["Point"](1).notes
    match point:
        case object(x=1, y=2):
            pass
        case _:
            pytest.fail("a pattern does not match")


@dataclass(frozen=True)
class Sent:
    value: int
    others: tuple[Sent, ...] = ()


def test_pickle() -> None:
    sent = Sent(1, (Sent(2),))
    received = pickle.loads(pickle.dumps(sent))
    assert received == sent
    assert hash(received) == hash(sent)
    assert {sent: 1}[received] == 1


def test_wrong_arguments_are_refused() -> None:
    for positional, named in [((), {}), ((1, 2, (), [], "n", 6), {}), ((1,), {"length": 3}), ((1,), {"q": 3})]:
        for classes in (OURS, THEIRS):
            with pytest.raises(TypeError):
                classes["Point"](*positional, **named)


def test_other_kinds_are_those_of_the_standard_library() -> None:
    @dataclass(frozen=True, order=True)
    class Ordered:
        value: int

    @dataclass
    class Mutable:
        value: int

    assert Ordered(1) < Ordered(2)
    changed = Mutable(1)
    changed.value = 2
    assert changed == Mutable(2)
