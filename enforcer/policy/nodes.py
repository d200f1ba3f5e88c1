"""Documents as trees of nodes with positions, from YAML text or plain data.

Scalars are resolved as in Calico's YAML library (``sigs.k8s.io/yaml``): ``yes`` and ``on`` are booleans, ``0644`` is
octal, ``1:30`` is a string, and so is what looks like a number but is not one of 64 bits (``0x_``, 400 digits). The
composer has its own stack and accepts an alias only if its anchor is complete, so no document can exhaust the
interpreter's stack. Every size has a limit with its own message.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import overload

import yaml

from enforcer.policy.cidr_lines import Run, runs_of, shortened

DEPTH_MAX = 100
TEXT_MAX = 256 * 1024 * 1024  # characters; ten million CIDRs take fewer
NODES_MAX = 10_000_000  # of a text, aliases followed
DOCUMENTS_MAX = 100_000
SCALAR_MAX = 1024 * 1024  # characters; an annotation may have 256 KiB

_NO_TEXT = "not text: it has characters that cannot be encoded"
_TOO_DEEP = f"nested deeper than {DEPTH_MAX} levels"

# libyaml if the wheel has it: ten times as fast, same events.
_Loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class DocumentFault(Exception):
    """Text that is not YAML, or data that YAML cannot represent. Line and column count from 1; 0 if unknown."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


@dataclass(slots=True)
class Scalar:
    """``written``: the source text of a value that is not a string."""

    value: str | int | float | bool | None
    line: int = 0
    column: int = 0
    written: str = ""

    def __str__(self) -> str:
        match self.value:
            case None:
                return "nothing"
            case bool():
                return f"the boolean {str(self.value).lower()}"
            case str():
                return f"the string {shown(self.value)}"
        return f"the number {self.value}"


class Listed(Sequence["Node"]):
    """The items of a list, some of them in runs, whose nodes are made when they are asked for.

    ``parts``: nodes, and runs with the line of their first item.
    """

    def __init__(self, parts: Sequence[Node | tuple[Run, int]]) -> None:
        self.parts = parts
        self._ends = list(accumulate(len(part[0]) if isinstance(part, tuple) else 1 for part in parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Node]:
        for part in self.parts:
            if isinstance(part, tuple):
                yield from _scalars(*part)
            else:
                yield part

    @overload
    def __getitem__(self, at: int) -> Node: ...
    @overload
    def __getitem__(self, at: slice) -> list[Node]: ...
    def __getitem__(self, at: int | slice) -> Node | list[Node]:
        if isinstance(at, slice):
            return list(self)[at]
        at = range(len(self))[at]
        found = bisect_right(self._ends, at)
        part = self.parts[found]
        if not isinstance(part, tuple):
            return part
        run, line = part
        inside = at - (self._ends[found] - len(run))
        return next(_scalars(run, line, [inside]))

    def texts(self) -> list[str | None]:
        """Each item that is a string; None for others."""
        found: list[str | None] = []
        for part in self.parts:
            if isinstance(part, tuple):
                found += part[0].values()
            else:
                found.append(_text_of(part))
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # like a list


def _text_of(node: Node) -> str | None:
    return node.value if isinstance(node, Scalar) and isinstance(node.value, str) else None


def _scalars(run: Run, line: int, wanted: Sequence[int] | None = None) -> Iterator[Scalar]:
    """The items of a run: all, or those with these numbers."""
    numbers = range(len(run)) if wanted is None else wanted
    texts = run.values()
    for at in numbers:
        yield Scalar(texts[at], line + at, run.column)


@dataclass(slots=True)
class Items:
    items: Sequence[Node]
    line: int = 0
    column: int = 0

    def texts(self) -> list[str | None]:
        """Each item that is a string; None for others."""
        if isinstance(self.items, Listed):
            return self.items.texts()
        return [_text_of(item) for item in self.items]

    def __str__(self) -> str:
        return "a list"


@dataclass(slots=True)
class Fieldset:
    """A mapping. ``keys`` has the key nodes; ``repeated`` each key written again, with its first occurrence."""

    fields: dict[str, Node]
    keys: dict[str, Scalar]
    repeated: list[tuple[Scalar, Scalar]]
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return "a mapping"


Node = Scalar | Items | Fieldset


def shown(text: str, most: int = 60) -> str:
    """A text quoted for a message, cut after ``most`` characters."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}…"


# --- plain data ---------------------------------------------------------------------------------------------------


def from_data(data: object, depth: int = 0) -> Node:
    """The tree of JSON-like data, without positions. Raises DocumentFault for what JSON cannot represent."""
    if depth > DEPTH_MAX:
        raise DocumentFault(_TOO_DEEP)
    if isinstance(data, int) and not _INT_MIN <= data <= _INT_MAX:
        raise DocumentFault("a number that 64 bits do not hold")
    if isinstance(data, str):
        return Scalar(_encodable(data))
    if data is None or isinstance(data, (int, float, bool)):
        return Scalar(data)
    if isinstance(data, Mapping):
        if not all(
            isinstance(key, str) or key is None or isinstance(key, (bool, float)) or _is_word(key) for key in data
        ):
            raise DocumentFault("found a field name that is no string")
        keys = {_encodable(str(key)): Scalar(str(key)) for key in data}
        return Fieldset({str(key): from_data(value, depth + 1) for key, value in data.items()}, keys, [])
    if isinstance(data, Sequence) and not isinstance(data, (bytes, bytearray)):
        return Items([from_data(item, depth + 1) for item in data])
    raise DocumentFault(f"found a {type(data).__name__}; expected what JSON can hold")


def _encodable(text: str) -> str:
    r"""The text; DocumentFault for half a surrogate pair: JSON can write it (``"\ud800"``), and no encoding has it."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DocumentFault(_NO_TEXT) from error
    return text


# --- YAML text ----------------------------------------------------------------------------------------------------


def from_text(text: str) -> Iterator[Node]:
    """The documents of a YAML text (JSON is YAML), in order, without empty ones.

    Raises DocumentFault at the first fault, after yielding the documents before it.
    """
    if len(text) > TEXT_MAX:
        raise DocumentFault(f"a text of {len(text):,} characters; at most {TEXT_MAX:,} are read")
    if (quick := _quick(text)) is not None:
        yield from quick
        return
    try:
        yield from _documents(text, _Composer())
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        found = error.character if isinstance(error.character, int) else -1
        character = f"the character {chr(found)!r}" if 0 <= found <= 0x10FFFF else "a character"
        raise DocumentFault(f"found {character}, which YAML does not allow", line, column) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if "maximum nesting depth" in str(error.problem):  # libyaml 0.2.6 looks further ahead than we count
            raise DocumentFault(_TOO_DEEP, *((mark.line + 1, mark.column + 1) if mark else (0, 0))) from error
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise DocumentFault(f"not YAML: {what}", *((mark.line + 1, mark.column + 1) if mark else (0, 0))) from error
    except yaml.YAMLError as error:
        raise DocumentFault(f"not YAML: {error}") from error
    except UnicodeEncodeError as error:
        raise DocumentFault(_NO_TEXT) from error


def _quick(text: str) -> list[Node] | None:
    """The documents of a text with long runs of CIDRs (``cidr_lines``); None if it has none, or any fault: then the
    whole text has to be parsed, which says where the fault is.
    """
    if (ends := text.count("\r")) and ends == text.count("\r\n"):
        text = text.replace("\r\n", "\n")  # the parser takes them for one line break too, everywhere
    try:
        whole = text.encode()
    except UnicodeEncodeError:
        return None
    runs = runs_of(whole)
    if not runs:
        return None
    name = "run-"
    while name in text:
        name = f"x{name}"
    composer = _Composer(runs, name)
    try:
        found = list(_documents(shortened(whole, runs, name).decode(), composer))
    except (yaml.YAMLError, DocumentFault, UnicodeError):
        return None
    return None if composer.runs else found


def _documents(text: str, composer: _Composer) -> Iterator[Node]:
    for event in yaml.parse(text, Loader=_Loader):
        root = composer.take(event)
        if root is not None and not (isinstance(root, Scalar) and root.value is None):
            yield root


@dataclass(slots=True)
class _Open:
    """A collection that has not ended yet. For a mapping, ``parts`` alternates keys and values."""

    event: yaml.CollectionStartEvent
    line: int
    column: int
    parts: list[Node] = field(default_factory=list)
    runs: list[tuple[int, Run, int]] = field(default_factory=list)  # after how many parts; the line
    weight: int = 1


class _Composer:
    """``runs``: those that one item each stands for, which has the name and the number of the run."""

    def __init__(self, runs: Sequence[Run] = (), name: str = "") -> None:
        self.runs = deque(runs)
        self._name, self._met = name, 0
        self._shift = 0  # lines of the runs so far
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int]] = {}  # with the number of nodes of each
        self._documents = 0
        self._before = 0  # nodes of the documents before this one
        self._nodes = 0  # of this document, aliases followed
        self._aliased = 0  # those of them that come from aliases

    def take(self, event: yaml.Event) -> Node | None:
        """Process one event. Returns the root node if it completes a document."""
        if isinstance(event, yaml.ScalarEvent):
            if self.runs and self._name in event.value:
                self._take_run(event)
                return None
            self._count(event)
            if len(event.value) > SCALAR_MAX:
                raise _fault(event, f"a text of {len(event.value):,} characters; at most {SCALAR_MAX:,} are allowed")
            return self._done(_scalar(event, self._shift), event.anchor, 1)
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            self._count(event)
            line, column = _place(event)
            self._open.append(_Open(event, line + self._shift if line else 0, column))
            if len(self._open) > DEPTH_MAX:
                raise _fault(event, _TOO_DEEP)
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            closed = self._open.pop()
            node = _mapping(closed) if isinstance(event, yaml.MappingEndEvent) else _sequence(closed)
            return self._done(node, closed.event.anchor, closed.weight)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _fault(event, f"the alias *{event.anchor} names nothing that is complete before it")
            named, weight = self._anchors[event.anchor]
            self._count_alias(event, weight)
            return self._done(named, None, weight)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > DOCUMENTS_MAX:
                raise _fault(event, f"more than {DOCUMENTS_MAX:,} documents in one text")
            self._before += self._nodes
            self._anchors, self._nodes, self._aliased = {}, 0, 0
        return None

    def _take_run(self, event: yaml.ScalarEvent) -> None:
        """Put the next run where the parser found its item. Raises DocumentFault if that is not an item alone."""
        run, (line, column) = self.runs.popleft(), _place(event)
        within = self._open[-1] if self._open else None
        is_alone = event.value == f"{self._name}{self._met}" and not (event.style or event.anchor or event.tag)
        if not (is_alone and column == run.column and within and isinstance(within.event, yaml.SequenceStartEvent)):
            raise _fault(event, "not the item of a list")
        if within.event.flow_style:
            raise _fault(event, "within brackets")
        self._count(event, len(run))
        within.runs.append((len(within.parts), run, line + self._shift))
        within.weight += len(run)
        self._met += 1
        self._shift += len(run) - 1

    def _count(self, event: yaml.Event, weight: int = 1) -> None:
        self._nodes += weight
        if self._before + self._nodes > NODES_MAX:
            raise _fault(event, f"more than {NODES_MAX:,} values in one text")

    def _done(self, node: Node, anchor: str | None, weight: int) -> Node | None:
        if anchor is not None:
            self._anchors[anchor] = node, weight
        if not self._open:
            return node
        self._open[-1].parts.append(node)
        self._open[-1].weight += weight
        return None

    def _count_alias(self, event: yaml.AliasEvent, weight: int) -> None:
        """Refuse a document that aliases expand too much, before anything walks it."""
        self._count(event, weight)
        self._aliased += weight
        if self._aliased > _ALIASED_FREE and self._aliased > _aliased_share(self._nodes) * self._nodes:
            raise _fault(event, f"aliases make {self._nodes} values of {self._nodes - self._aliased} written ones")


# In Calico's YAML library up to 99 of 100 values of a small document may come from aliases, 10 of 100 of a large one
# (``gopkg.in/yaml.v2``, ``allowedAliasRatio``).
_ALIASED_FREE = 1000
_SMALL, _LARGE = 400_000, 4_000_000


def _aliased_share(nodes: int) -> float:
    return 0.99 - 0.89 * min(max(nodes - _SMALL, 0) / (_LARGE - _SMALL), 1.0)


def _fault(event: yaml.Event | yaml.CollectionStartEvent, message: str) -> DocumentFault:
    return DocumentFault(message, *_place(event))


def _place(event: yaml.Event | yaml.CollectionStartEvent) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (0, 0)


def _sequence(closed: _Open) -> Items:
    if not closed.runs:
        return Items(closed.parts, closed.line, closed.column)
    parts: list[Node | tuple[Run, int]] = []
    before = 0
    for behind, run, line in closed.runs:
        parts += [*closed.parts[before:behind], (run, line)]
        before = behind
    return Items(Listed([*parts, *closed.parts[before:]]), closed.line, closed.column)


def _mapping(closed: _Open) -> Fieldset:
    node = Fieldset({}, {}, [], closed.line, closed.column)
    merged: list[Node] = []
    for key, value in zip(closed.parts[::2], closed.parts[1::2], strict=True):
        if not isinstance(key, Scalar):
            raise DocumentFault(f"a field name must be a string, found {key}", key.line, key.column)
        if key.value == "<<":
            merged += value.items if isinstance(value, Items) else [value]
            continue
        name = _key(key)
        if name in node.fields:
            node.repeated.append((key, node.keys[name]))
            continue
        node.fields[name], node.keys[name] = value, key
    for other in merged:
        _merge(node, other)
    return node


def _key(key: Scalar) -> str:
    """A key as in JSON."""
    if isinstance(key.value, str):
        return key.value
    return "null" if key.value is None else str(key.value).lower()


def _merge(node: Fieldset, other: Node) -> None:
    """``<<``: the fields of another mapping that the mapping itself does not have."""
    if not isinstance(other, Fieldset):
        raise DocumentFault(f"'<<' merges a mapping, found {other}", other.line, other.column)
    for name, value in other.fields.items():
        if name not in node.fields:
            node.fields[name], node.keys[name] = value, other.keys[name]


_CORE = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_CORE + name for name in ("int", "float", "bool", "null")}
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_FLOATS = {
    f"{sign}.{word}": f"{sign}{word}" for sign in ("", "+", "-") for word in ("inf", "Inf", "INF")
} | dict.fromkeys((".nan", ".NaN", ".NAN"), "nan")
_INTEGER = re.compile(r"[-+]?(0[xX]_*[0-9a-fA-F][0-9a-fA-F_]*|0[oO]_*[0-7][0-7_]*|0[bB]_*[01][01_]*|[0-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NUMERIC_START = frozenset("0123456789+-.")
_DIGITS_MAX = 400  # no number of a resource is longer; Python refuses to convert far longer ones
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1


def _scalar(event: yaml.ScalarEvent, shift: int) -> Scalar:
    line, column = _place(event)
    line += shift if line else 0
    text, tag = event.value, event.tag
    value: str | int | float | bool | None = text
    if tag is None or tag == "!":
        if tag is None and not event.style:
            value = resolve(text)
    elif tag in _PLAIN_TAGS:
        value = resolve(text)
    elif tag != _CORE + "str":
        raise _fault(event, f"the tag {shown(tag)} is not valid in a resource")
    return Scalar(value, line, column, text if value is not text else "")


def resolve(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC_START or "/" in text or len(text) > _DIGITS_MAX:
        return text  # a CIDR, most of the time
    if _INTEGER.fullmatch(text):
        whole = _integer(text.replace("_", ""))
        return text if whole is None else whole
    if _FLOAT.fullmatch(text):
        value = float(text)
        return value if math.isfinite(value) else text
    return float(_FLOATS[text]) if text in _FLOATS else text


def _integer(digits: str) -> int | float | None:
    """A whole number, parsed like in Go: 64 bits, else the nearest float, else None."""
    unsigned = digits.lstrip("+-")
    is_octal = unsigned.isdigit() and unsigned[0] == "0" and len(unsigned) > 1 and not set(unsigned) & set("89")
    try:
        value = int(digits, 8 if is_octal else 10 if unsigned.isdigit() else 0)
    except ValueError:  # "0x" without digits
        return None
    if _INT_MIN <= value <= _INT_MAX and (is_octal or unsigned[0] != "0" or not unsigned.isdigit() or value == 0):
        return value
    number = float(digits) if unsigned.isdigit() else math.inf
    return number if math.isfinite(number) else None


def _is_word(key: object) -> bool:
    return isinstance(key, int) and _INT_MIN <= key <= _INT_MAX
