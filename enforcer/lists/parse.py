"""Address lists as text: each format to networks, with the position of each line that is no entry. Pure.

Nothing is guessed: a line that is not wholly understood is bad, and how many of them are too many is its reader's
decision. Feeds are read with this, and :mod:`enforcer.lists.recognise` tries the same parsers on what it finds.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from enforcer.lists.entry import Network, networks_of
from enforcer.model.vocabulary import Word

MOST = 2_000_000  # networks of a list that are kept: some 400 MB
BAD_KEPT = 20  # bad lines that are remembered; all are counted
_SHOWN = 80  # characters of a bad line

_COMMENT = re.compile(r"\s*(?:[#;].*|//.*)?", re.DOTALL)
_MARK = re.compile(r"[#;]|//")  # no \s* before it: that would take quadratic time in a line of spaces
_HEADER = re.compile(r"[#;/\s]*(Expires|Last-Modified)\s*:\s*(\S.*)", re.IGNORECASE)
_IPSET = re.compile(r'(?:(create|-N)|(add|-A))\s+(?:-exist\s+|-!\s+)?("[^"]*"|\S+)\s+(\S+)(.*)')
_IPSET_TYPES = ("hash:ip", "hash:net", "bitmap:ip", "iphash", "nethash", "ipmap")


class Format(Word):
    LINES = "lines"  # one entry a line, with comments: DROP text, .netset, .ipset of FireHOL, ranges, masks
    NDJSON = "ndjson"  # a JSON object a line: DROP as JSON
    IPSET = "ipset"  # what "ipset save" prints
    CSV = "csv"  # a table with a column of entries


@dataclass(frozen=True)
class Shape:
    """A format with its settings. ``column``: of CSV, its number from 1 or its name. ``key``: of each JSON object.
    ``set``: the ipset, "" for the only one.
    """

    format: Format = Format.LINES
    column: int | str = 1
    delimiter: str = ","
    key: str = "cidr"
    set: str = ""


@dataclass(frozen=True)
class Bad:
    """A line that is no entry, from 1."""

    line: int
    text: str
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}" + ("" if repr(self.text) in self.why else f": {self.text!r}")


@dataclass
class Parsed:
    """``good``, ``bad``: how many lines. ``expires_s``, ``modified_s``: Unix times of the list's own header.
    ``problem``: why the list as a whole is not what its author published, "" if nothing says so. ``most``: networks
    that are kept; ``more``: whether there were more.
    """

    most: int = MOST
    networks: list[Network] = field(default_factory=list)
    good: int = 0
    bad: int = 0
    first_bad: list[Bad] = field(default_factory=list)
    expires_s: int | None = None
    modified_s: int | None = None
    problem: str = ""
    more: bool = False

    def take(self, line: int, entry: str, text: str) -> None:
        try:
            found = networks_of(entry)
        except ValueError as error:
            self.refuse(line, text, str(error))
            return
        self.good += 1
        if len(self.networks) < self.most:
            self.networks += found
        else:
            self.more = True

    def refuse(self, line: int, text: str, why: str) -> None:
        self.bad += 1
        if len(self.first_bad) < BAD_KEPT:
            shown = text.strip() if len(text) <= _SHOWN else f"{text.strip()[:_SHOWN]}..."
            self.first_bad.append(Bad(line, shown, why if len(why) <= 2 * _SHOWN else f"{why[: 2 * _SHOWN]}..."))


def parse(text: str, shape: Shape, most: int = MOST) -> Parsed:
    """What a list holds. Never raises for what is in the text, and keeps at most about this many networks."""
    found = Parsed(most)
    _READERS[shape.format](found, text, shape)
    return found


def without_comment(line: str) -> str:
    """What is before a comment, without spaces around it."""
    mark = _MARK.search(line)
    return (line[: mark.start()] if mark else line).strip()


def _lines(found: Parsed, text: str, _: Shape) -> None:
    for number, line in _content(found, text):
        found.take(number, without_comment(line), line)


def _content(found: Parsed, text: str) -> Iterator[tuple[int, str]]:
    """The lines that are no comments; those say when the list expires."""
    for number, line in enumerate(text.split("\n"), 1):
        if _COMMENT.fullmatch(line):
            _note_header(found, line)
        else:
            yield number, line


def _note_header(found: Parsed, line: str) -> None:
    if (header := _HEADER.fullmatch(line.strip())) is None:
        return
    from email.utils import parsedate_to_datetime  # in no list of policy: not at the start of each command

    try:
        at_s = int(parsedate_to_datetime(header[2]).timestamp())
    except (ValueError, TypeError, IndexError, OverflowError):
        return  # people write "never" there
    if header[1].lower() == "expires":
        found.expires_s = at_s
    else:
        found.modified_s = at_s


def _ndjson(found: Parsed, text: str, shape: Shape) -> None:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            found.refuse(number, line, "not JSON")
            continue
        if isinstance(record, dict) and record.get("type") == "metadata" and shape.key not in record:
            _note_metadata(found, record)
            continue
        entry = record.get(shape.key) if isinstance(record, dict) else None
        if isinstance(entry, str):
            found.take(number, entry.strip(), line)
        else:
            found.refuse(number, line, f"no object with a text named {shape.key!r}")


def _note_metadata(found: Parsed, record: dict[str, Any]) -> None:
    """Spamhaus's last line says how many records there are: one that is cut off has fewer."""
    stamp, records = record.get("timestamp"), record.get("records")
    if isinstance(stamp, int) and 0 < stamp < 1 << 40:
        found.modified_s = stamp
    seen = found.good + found.bad
    if isinstance(records, int) and not isinstance(records, bool) and records != seen:
        found.problem = f"its metadata says {records:,} records, but there are {seen:,}: it is not complete"


def _ipset(found: Parsed, text: str, shape: Shape) -> None:
    types: dict[str, str] = {}
    kept: list[tuple[int, str, str, str]] = []
    for number, line in _content(found, text):
        command = _IPSET.fullmatch(line.strip())
        if command is None:
            found.refuse(number, line, "neither 'create' nor 'add'")
            continue
        name = command[3].strip('"')
        if command[1]:
            types[name] = command[4]
        else:
            kept.append((number, name, command[4], f" {command[5]} "))
    names = list(dict.fromkeys([*types, *(name for _, name, _, _ in kept)]))
    if not shape.set and len(names) > 1:
        found.problem = f"it has {len(names)} sets: name one of them as 'set': {', '.join(names[:10])}"
        return
    wanted = shape.set or (names[0] if names else "")
    if shape.set and shape.set not in names:
        found.problem = f"it has no set {shape.set!r}, only {', '.join(names[:10]) or 'none at all'}"
        return
    if (kind := types.get(wanted)) and kind not in _IPSET_TYPES:
        found.problem = f"set {wanted!r} is of type {kind}, which holds more than addresses"
        return
    for number, name, entry, rest in kept:
        if name != wanted:
            continue
        line = f"add {name} {entry}{rest}".rstrip()
        if " nomatch " in rest:
            found.refuse(number, line, "an exception (nomatch), which a network set cannot express")
        else:
            found.take(number, entry, line)


def _csv(found: Parsed, text: str, shape: Shape) -> None:
    """Each line is a row: a quote that is not closed must not hide the lines after it."""
    at = shape.column - 1 if isinstance(shape.column, int) else -1
    first = True
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        row = _row(line, shape.delimiter)
        if first and isinstance(shape.column, str):
            names = [name.strip().lower() for name in row]
            if shape.column.lower() not in names:
                found.problem = f"its first line has no column {shape.column!r}: {line.strip()[:_SHOWN]!r}"
                return
            at, first = names.index(shape.column.lower()), False
            continue
        entry = row[at].strip() if at < len(row) else ""
        if first and not _is_entry(entry):
            first = False  # the names of the columns
            continue
        first = False
        if at < len(row):
            found.take(number, entry, line)
        else:
            found.refuse(number, line, f"it has {len(row)} columns")


def _row(line: str, delimiter: str) -> list[str]:
    """[] for a line that is no row."""
    try:
        return next(csv.reader([line.strip("\r").replace("\0", "\ufffd")], delimiter=delimiter, skipinitialspace=True))
    except csv.Error:
        return []


def _is_entry(text: str) -> bool:
    try:
        return bool(networks_of(text))
    except ValueError:
        return False


_READERS = {
    Format.LINES: _lines,
    Format.NDJSON: _ndjson,
    Format.IPSET: _ipset,
    Format.CSV: _csv,
}
