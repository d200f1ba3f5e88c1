"""Long runs of CIDRs in a YAML text, one list item a line, read without the YAML parser.

A deny list of a million CIDRs is a million lines like ``  - 203.0.113.0/24``. libyaml takes twenty times as long for
them as this module. Whether such a line is an item of a list depends on what is around it (it could be within a block
of text), so the parser has to say: it reads the text with each run replaced by one line of the same shape
(:func:`shortened`). If it finds an item of a list there, then all lines of the run are items of that list: after each
of them the parser is in the state in which it was before. ``nodes`` does that, and reads the whole text if it finds
anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from enforcer.model.cidr_text import I64, LONGEST, LONGEST6, U8, U32, U64, Bool, parse4, parse6
from enforcer.model.nets import Nets

RUN_MIN = 16  # lines; shorter runs are left to the parser
_BLOCK_BYTES = 1 << 18  # of text at a time, so that the columns fit the cache
_INDENT_MAX = 64
_ROWS = 1 << 13  # IPv6 CIDRs at a time, for the same reason
_NEWLINE, _SPACE, _DASH, _COLON = (np.uint8(ord(character)) for character in "\n -:")
_QUOTES = np.frombuffer(b"\"'", np.uint8)
_REST = re.compile(rb" +(?:#[ -~]*)?\n")
_ITEM = re.compile(r"^ *- [\"']?([0-9a-fA-F.:/]+)", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """Consecutive lines with one CIDR each, of one family and with one indentation.

    ``nets``: a row for each line, in their order; not a canonical set. ``column``: of the items, counted from 1.
    """

    begin: int  # of the text, in bytes
    text: bytes
    column: int
    nets: Nets

    def __len__(self) -> int:
        return len(self.nets)

    def values(self) -> list[str]:
        """The CIDRs as written."""
        return _ITEM.findall(self.text.decode("ascii"))


def runs_of(text: bytes) -> list[Run]:
    """The runs of a text in UTF-8, in order."""
    if text.count(b"\n") < RUN_MIN:
        return []
    buffer = np.frombuffer(text + b"\0" * (max(LONGEST, LONGEST6) + _INDENT_MAX), np.uint8)
    blocks = [_lines(text, buffer, begin, end) for begin, end in _blocks(text)]
    start, indent, version, net4, len4 = (np.concatenate(column) for column in zip(*blocks, strict=True))
    nets6 = _find6(text, buffer, start + indent + 2, version)
    rows6 = np.concatenate([[0], np.cumsum(version == 6)]).tolist()
    edge = np.flatnonzero((version[1:] != version[:-1]) | (indent[1:] != indent[:-1])) + 1
    firsts = np.concatenate([[0], edge])
    lasts = np.concatenate([edge, [len(version)]])
    long = (lasts - firsts >= RUN_MIN) & (version[firsts] > 0)
    ends = np.concatenate([start, [text.rfind(b"\n") + 1]])
    found = []
    for first, last in zip(firsts[long].tolist(), lasts[long].tolist(), strict=True):
        lines = text[ends[first] : ends[last]]
        six = slice(rows6[first], rows6[last])
        nets = (
            Nets(net4[first:last], len4[first:last])
            if version[first] == 4
            else Nets(net6=nets6.net6[six], len6=nets6.len6[six])
        )
        found.append(Run(int(start[first]), lines, int(indent[first]) + 3, nets))
    return found


def shortened(text: bytes, runs: Sequence[Run], name: str) -> bytes:
    """The text with one line instead of each run: an item with the name and the number of the run."""
    parts, end = [], 0
    for number, run in enumerate(runs):
        parts += [text[end : run.begin], b" " * (run.column - 3), f"- {name}{number}\n".encode()]
        end = run.begin + len(run.text)
    return b"".join([*parts, text[end:]])


def _blocks(text: bytes) -> Iterator[tuple[int, int]]:
    """Pieces of whole lines. What follows the last line break is in none."""
    begin, stop = 0, text.rfind(b"\n") + 1
    while begin < stop:
        end = stop if stop - begin <= _BLOCK_BYTES else text.find(b"\n", begin + _BLOCK_BYTES) + 1
        yield begin, end
        begin = end


def _lines(text: bytes, buffer: U8, begin: int, end: int) -> tuple[I64, I64, U8, U32, U8]:
    """The lines of a block: where they begin, their indentation, 4 for an item that is an IPv4 CIDR (6: an item of
    something else; 0: another line), and the CIDR.
    """
    breaks = np.flatnonzero(buffer[begin:end] == _NEWLINE) + begin
    start = np.concatenate([[begin], breaks[:-1] + 1])
    indent = np.zeros(len(start), np.int64)
    more = buffer[start] == _SPACE
    while more.any() and len(indent):
        indent += more
        more &= (buffer[start + indent] == _SPACE) & (indent < _INDENT_MAX)
    at = start + indent
    item = (buffer[at] == _DASH) & (buffer[at + 1] == _SPACE)
    at = at + 2
    mark = buffer[at]
    quoted = (mark == _QUOTES[0]) | (mark == _QUOTES[1])
    good, network, length, behind = parse4(buffer, np.minimum(at + quoted, end))
    good &= ~quoted | (buffer[behind] == mark)
    good &= item & _ends(text, buffer, behind + quoted, good & item)
    version = np.where(item, np.where(good, 4, 6), 0).astype(np.uint8)
    return start, indent, version, network, length


def _ends(text: bytes, buffer: U8, behind: I64, good: Bool) -> Bool:
    """Whether nothing but a comment follows on the line."""
    ended = buffer[behind] == _NEWLINE
    spaced = np.flatnonzero(good & (buffer[behind] == _SPACE))
    ended[spaced] = [_REST.match(text, at) is not None for at in behind[spaced].tolist()]
    return np.asarray(ended, np.bool_)


def _find6(text: bytes, buffer: U8, at: I64, version: U8) -> Nets:
    """The CIDRs of the items with 6, a row for each; ``at``: where their text begins. Those that are no IPv6 CIDR get 0
    instead: other lines.
    """
    rows = np.flatnonzero(version == 6)
    if len(rows) < RUN_MIN:
        version[rows] = 0
        return Nets()
    parts = [_items6(text, buffer, at[part]) for part in np.array_split(rows, len(rows) // _ROWS + 1)]
    good, network, length = (np.concatenate(column) for column in zip(*parts, strict=True))
    version[rows[~good]] = 0
    return Nets(net6=network[good], len6=length[good])


def _items6(text: bytes, buffer: U8, at: I64) -> tuple[Bool, U64, U8]:
    mark = buffer[at]
    quoted = (mark == _QUOTES[0]) | (mark == _QUOTES[1])
    good, network, length, behind = parse6(buffer, at + quoted)
    # Unquoted, a colon at the end would make it the key of a mapping.
    good &= np.where(quoted, buffer[behind] == mark, buffer[behind - 1] != _COLON)
    return good & _ends(text, buffer, behind + quoted, good), network, length
