"""Reads nodes into values and collects all findings: what all readers of resources share.

A reader is a function from a Cursor (a node, its field path, the report) to a value. It raises Refused if there is no
valid value. The caller reports that and continues with a default, so one pass finds all faults of a document.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar, overload

from enforcer.model.errors import Finding, Note, Position
from enforcer.policy import schema
from enforcer.policy.nodes import Fieldset, Items, Node, Scalar, shown
from enforcer.policy.resources import NOWHERE

T = TypeVar("T")
D = TypeVar("D")


SOME = 20  # notes of one kind that are reported for the items of a document


_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # as in YAML


class SourceLines(Sequence[str]):
    """The lines of a text, split when one is asked for: only faults need them."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _lines(self) -> list[str]:
        return _LINE_BREAK.split(self._text)

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        return self._lines[at]


@dataclass
class Report:
    """The findings of one source of documents. ``lines``: its source lines, empty for plain data."""

    path: str
    lines: Sequence[str] = ()
    findings: list[Finding] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)  # accepted input that deserves mention

    def position(self, node: Node) -> Position:
        return Position(self.path, node.line, node.column)

    def add(self, position: Position, where: str, message: str, context: str = "") -> None:
        self.findings.append(Finding(position, where, message, context))


class Refused(Exception):
    """There is no valid value. Its message becomes a finding."""

    def __init__(self, at: Cursor, message: str, *, position: Position | None = None, context: str = "") -> None:
        super().__init__(message)
        self.at, self.message, self.context = at, message, context
        self.position = position or at.position

    def report(self) -> None:
        self.at.report.add(self.position, self.at.field, self.message, self.context)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A node in its document, with its position and field path (``spec.ingress[0].action``)."""

    report: Report
    node: Node
    field: str = ""

    @property
    def position(self) -> Position:
        return self.report.position(self.node)

    def fault(self, message: str) -> None:
        """Report a fault here and continue."""
        Refused(self, message).report()

    def note(self, message: str, kind: str = "") -> None:
        """Report accepted input that deserves mention."""
        self.report.notes.append(Note(self.position, self.field, message, kind=kind))

    def note_some(self, message: str, kind: str) -> None:
        """Like :meth:`note`, but only for the first :data:`SOME` of a document: a list may have a million items."""
        before = sum(note.kind == kind for note in self.report.notes) if len(self.report.notes) < 10 * SOME else SOME
        if before < SOME:
            self.note(message + ("; more of these are not named" if before == SOME - 1 else ""), kind)

    def child(self, name: str, node: Node) -> Cursor:
        return Cursor(self.report, node, f"{self.field}.{name}" if self.field else name)

    def down(self, *path: str) -> Cursor:
        """The cursor of a field inside this one. If the field is absent: that of the innermost mapping that exists."""
        at = self
        for name in path:
            inner = at.node.fields.get(name) if isinstance(at.node, Fieldset) else None
            at = at.child(name, at.node if inner is None else inner)
        return at

    def items(self) -> Iterator[Cursor]:
        """The items of a list."""
        if not isinstance(self.node, Items):
            raise Refused(self, f"expected a list, found {self.node}")
        for index, item in enumerate(self.node.items):
            yield Cursor(self.report, item, f"{self.field}[{index}]")


Reader = Callable[[Cursor], T]

UNKNOWN_MAX = 50  # unknown fields of one mapping that are reported one by one: finding a similar name takes time
NAME_MAX = 100  # longer than any known name
ABSENT = "this field is required and absent"


@dataclass(frozen=True)
class Identity:
    """The metadata of a resource of any kind."""

    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    position: Position = NOWHERE
    namespace: str = "default"
    annotations: Mapping[str, Cursor] = field(default_factory=dict)
    created: str = ""


def attempt(read: Reader[T], at: Cursor, default: D) -> T | D:
    """The value of the reader; if it refuses, the default, after reporting why."""
    try:
        return read(at)
    except Refused as refused:
        refused.report()
        return default


class Fields:
    """The fields of a mapping. Unknown and repeated ones are reported at once; null counts as absent."""

    def __init__(self, at: Cursor, known: Collection[str]) -> None:
        if not isinstance(at.node, Fieldset):
            raise Refused(at, f"expected a mapping, found {at.node}")
        self.at = at
        self._node = at.node
        report_repeated(at)
        unknown = sorted(self._node.fields.keys() - set(known))
        for name in unknown[:UNKNOWN_MAX]:
            where = at.child(name, self._node.keys[name])
            if name in schema.ENTERPRISE_FIELDS:
                where.fault("a field of Calico Enterprise; Calico itself has none of this name")
            else:
                where.fault(f"unknown field{hint(name, known)}")
        if len(unknown) > UNKNOWN_MAX:
            at.fault(f"{len(unknown)} unknown fields; these are the first {UNKNOWN_MAX}")

    def __contains__(self, name: str) -> bool:
        node = self._node.fields.get(name)
        return node is not None and not (isinstance(node, Scalar) and node.value is None)

    def cursor(self, *path: str) -> Cursor:
        """The cursor of a field, or of one inside it."""
        return self.at.down(*path)

    def has_value(self, name: str) -> bool:
        """Whether the field is present and not an empty list or string. A faulty value counts."""
        node = self._node.fields.get(name)
        return bool(node.items) if isinstance(node, Items) else name in self and getattr(node, "value", None) != ""

    def get(self, name: str, read: Reader[T], default: D) -> T | D:
        """The field's value; the default if it is absent, or if it is refused, which is reported."""
        return attempt(read, self.cursor(name), default) if name in self else default

    def need(self, name: str, read: Reader[T], default: D) -> T | D:
        """Like :meth:`get` for a required field."""
        if name not in self:
            self.cursor(name).fault(ABSENT)
        return self.get(name, read, default)


def report_repeated(at: Cursor) -> None:
    """Report fields that occur twice in a mapping. YAML libraries differ in which one wins."""
    if isinstance(at.node, Fieldset):
        for again, first in at.node.repeated:
            at.child(str(again.value), again).fault(f"written twice; the first is in line {first.line}")


def hint(name: str, known: Collection[str], opening: str = "; did you mean ") -> str:
    """A hint with the most similar known name, as the end of a sentence; "" if none is similar."""
    if len(name) > NAME_MAX:
        return ""
    folded = {item.lower(): item for item in known}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return f"{opening}{folded[near[0]]!r}?" if near else ""


# --- readers of plain values ----------------------------------------------------------------------------------------


def string(at: Cursor) -> str:
    if isinstance(at.node, Scalar) and isinstance(at.node.value, str):
        return at.node.value
    if isinstance(at.node, Scalar) and at.node.value is not None:
        plain = str(at.node.value)
        written = at.node.written or (plain.lower() if isinstance(at.node.value, bool) else plain)
        raise Refused(at, f"expected a string, found {at.node}; put it in quotes: '{written}'")
    raise Refused(at, f"expected a string, found {at.node}")


def boolean(at: Cursor) -> bool:
    if isinstance(at.node, Scalar) and isinstance(at.node.value, bool):
        return at.node.value
    unquoted = "; write it without quotes" if isinstance(at.node, Scalar) and at.node.value in ("true", "false") else ""
    raise Refused(at, f"expected true or false, found {at.node}{unquoted}")


def number(at: Cursor) -> float:
    value = at.node.value if isinstance(at.node, Scalar) else None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf"):
        return float(value)
    raise Refused(at, f"expected a number, found {at.node}")


def integer(first: int, last: int) -> Reader[int]:
    """Reads a whole number of ``first..last``."""

    def read(at: Cursor) -> int:
        value = at.node.value if isinstance(at.node, Scalar) else None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise Refused(at, f"expected a whole number of {first}..{last}, found {at.node}")
        if not first <= value <= last:
            raise Refused(at, f"{value} is outside {first}..{last}")
        return value

    return read


def one_of(*words: str) -> Reader[str]:
    """Reads one of the words, in exactly this case."""

    def read(at: Cursor) -> str:
        text = string(at)
        if text not in words:
            raise Refused(at, f"expected {' or '.join(words)}, found {shown(text)}{hint(text, words)}")
        return text

    return read


DUPLICATE = "duplicate"
DUPLICATES_NAMED = 3


def list_of(
    read: Reader[T], *, most: int | None = None, unique: bool = False, is_set: bool = False
) -> Reader[tuple[T, ...]]:
    """Reads a list. Faulty items are reported and left out; items beyond ``most`` are not read.

    ``is_set``: a list of type set in Calico's definitions. Kubernetes refuses duplicates in it; here they give a note.
    """

    def read_list(at: Cursor) -> tuple[T, ...]:
        values: list[T] = []
        cursors = list(at.items())
        if is_set:
            note_duplicates(at)
        if most is not None and len(cursors) > most:
            at.fault(f"{len(cursors)} items; at most {most} are allowed")
        for item in cursors[:most]:
            try:
                value = read(item)
            except Refused as refused:
                refused.report()
                continue
            if unique and value in values:
                item.fault(f"{value!s} is listed twice")
            values.append(value)
        return tuple(values)

    return read_list


def note_duplicates(at: Cursor) -> None:
    """Report the first items of a list that occur twice in it with the same spelling, and their number."""
    assert isinstance(at.node, Items)
    texts = at.node.texts()
    if len(set(texts)) == len(texts):
        return
    seen: set[str] = set()
    again: list[tuple[int, str]] = []
    for number, text in enumerate(texts):
        if text is not None:
            if text in seen:
                again.append((number, text))
            seen.add(text)
    for number, text in again[:DUPLICATES_NAMED]:
        more = f" (and {len(again) - DUPLICATES_NAMED} more items)" if len(again) > DUPLICATES_NAMED else ""
        message = f"{shown(text)} is listed twice{more}; Kubernetes refuses the whole object, Calico's own API takes it"
        Cursor(at.report, at.node.items[number], f"{at.field}[{number}]").note(message, DUPLICATE)
