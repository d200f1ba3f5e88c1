"""The nodes of a parsed selector. Each can be evaluated and printed canonically.

Both are recursive; the parser limits the depth (``DEPTH_MAX``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


class Node(Protocol):
    def evaluate(self, labels: Mapping[str, str]) -> bool:
        """Whether labels match."""

    def text(self) -> str:
        """Canonical text."""

    def with_prefix(self, prefix: str) -> Node:
        """The node with the prefix before every label key."""


def quoted(value: str) -> str:
    """A string literal. The language has no escapes, so a value that contains a double quote gets single quotes."""
    return f"'{value}'" if '"' in value else f'"{value}"'


@dataclass(frozen=True)
class Constant:
    """``all()`` or ``global()``. Both match everything here; ``global()`` is replaced before evaluation."""

    word: str

    def evaluate(self, labels: Mapping[str, str]) -> bool:
        return True

    def text(self) -> str:
        return f"{self.word}()"

    def with_prefix(self, prefix: str) -> Node:
        return self


@dataclass(frozen=True)
class Has:
    label: str

    def evaluate(self, labels: Mapping[str, str]) -> bool:
        return self.label in labels

    def text(self) -> str:
        return f"has({self.label})"

    def with_prefix(self, prefix: str) -> Node:
        return Has(prefix + self.label)


Test = Callable[[str, str], bool]

# operator -> (whether a value passes with an operand, the answer for a missing label)
_TESTS: dict[str, tuple[Test, bool]] = {
    "==": (lambda value, operand: value == operand, False),
    "!=": (lambda value, operand: value != operand, True),
    "contains": (lambda value, operand: operand in value, False),
    "starts with": (lambda value, operand: value.startswith(operand), False),
    "ends with": (lambda value, operand: value.endswith(operand), False),
}


@dataclass(frozen=True)
class Compare:
    label: str
    operator: str
    operand: str

    def evaluate(self, labels: Mapping[str, str]) -> bool:
        test, if_missing = _TESTS[self.operator]
        value = labels.get(self.label)
        return if_missing if value is None else test(value, self.operand)

    def text(self) -> str:
        return f"{self.label} {self.operator} {quoted(self.operand)}"

    def with_prefix(self, prefix: str) -> Node:
        return Compare(prefix + self.label, self.operator, self.operand)


@dataclass(frozen=True)
class Among:
    """``in`` and ``not in``; ``values`` are sorted and free of duplicates."""

    label: str
    values: tuple[str, ...]
    negated: bool

    def evaluate(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.label)
        return (value is not None and value in self.values) != self.negated

    def text(self) -> str:
        operator = "not in" if self.negated else "in"
        return f"{self.label} {operator} {{{', '.join(quoted(value) for value in self.values)}}}"

    def with_prefix(self, prefix: str) -> Node:
        return Among(prefix + self.label, self.values, self.negated)


@dataclass(frozen=True)
class Not:
    operand: Node

    def evaluate(self, labels: Mapping[str, str]) -> bool:
        return not self.operand.evaluate(labels)

    def text(self) -> str:
        return f"!{self.operand.text()}"

    def with_prefix(self, prefix: str) -> Node:
        return Not(self.operand.with_prefix(prefix))


@dataclass(frozen=True)
class All:
    operands: tuple[Node, ...]

    def evaluate(self, labels: Mapping[str, str]) -> bool:
        return all(operand.evaluate(labels) for operand in self.operands)

    def text(self) -> str:
        return f"({' && '.join(operand.text() for operand in self.operands)})"

    def with_prefix(self, prefix: str) -> Node:
        return All(tuple(operand.with_prefix(prefix) for operand in self.operands))


@dataclass(frozen=True)
class Any:
    operands: tuple[Node, ...]

    def evaluate(self, labels: Mapping[str, str]) -> bool:
        return any(operand.evaluate(labels) for operand in self.operands)

    def text(self) -> str:
        return f"({' || '.join(operand.text() for operand in self.operands)})"

    def with_prefix(self, prefix: str) -> Node:
        return Any(tuple(operand.with_prefix(prefix) for operand in self.operands))
