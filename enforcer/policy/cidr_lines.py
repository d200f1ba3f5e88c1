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
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from enforcer.model.cidr_text import I64, LONGEST, U8, U32, Bool, parse4
from enforcer.model.nets import U64, Nets

RUN_MIN = 16  # lines; shorter runs are left to the parser
_BLOCK_BYTES = 1 << 18  # of text at a time, so that the columns fit the cache
_INDENT_MAX = 64
_NEWLINE, _SPACE, _DASH = (np.uint8(ord(character)) for character in "\n -")
_QUOTES = np.frombuffer(b"\"'", np.uint8)
# Of the lines that are no IPv4 CIDR. Unquoted, a colon at the end would make it the key of a mapping. IPv4-mapped
# addresses are left out: they have notes.
_SIX = re.compile(rb" *- (?:([\"'])([0-9a-fA-F:/]+)\1|([0-9a-fA-F:/]*[0-9a-fA-F]))(?: +(?:#[ -~]*)?)?\n")
_REST = re.compile(rb" +(?:#[ -~]*)?\n")
_MAPPED = bytes(10) + b"\xff\xff"
_ALL64 = np.uint64((1 << 64) - 1)
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
    buffer = np.frombuffer(text + b"\0" * (LONGEST + _INDENT_MAX), np.uint8)
    blocks = [_lines(text, buffer, begin, end) for begin, end in _blocks(text)]
    start, indent, version, net4, len4 = (np.concatenate(column) for column in zip(*blocks, strict=True))
    nets6 = _find6(text, start, version)
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


def _find6(text: bytes, start: I64, version: U8) -> Nets:
    """The CIDRs of the items with 6, a row for each. Those that are no IPv6 CIDR get 0 instead: other lines."""
    ends = np.append(start[1:], text.rfind(b"\n") + 1).tolist()
    begins = start.tolist()
    addresses: list[bytes] = []
    lengths = bytearray()
    for at in np.flatnonzero(version == 6).tolist():
        found = _SIX.fullmatch(text, begins[at], ends[at])
        parsed = _parsed6((found[2] or found[3]).decode()) if found else None
        if parsed is None:
            version[at] = 0
        else:
            addresses.append(parsed[0])
            lengths.append(parsed[1])
    halves = np.frombuffer(b"".join(addresses), ">u8").reshape(-1, 2).astype(np.uint64)
    length = np.frombuffer(bytes(lengths), np.uint8)
    return Nets(net6=halves & _masks6(length), len6=length)


def _parsed6(text: str) -> tuple[bytes, int] | None:
    """The address, with host bits, and the prefix length."""
    address, slash, length = text.partition("/")
    if slash and (not length.isdigit() or len(length) > 3 or int(length) > 128):
        return None
    try:
        packed = socket.inet_pton(socket.AF_INET6, address)
    except OSError:
        return None
    return None if packed.startswith(_MAPPED) else (packed, int(length) if slash else 128)


def _masks6(length: U8) -> U64:
    """Both halves of the masks."""
    columns = [np.clip(length.astype(np.int64) - first, 0, 64).astype(np.uint64) for first in (0, 64)]
    masks = [np.where(bits == 0, np.uint64(0), _ALL64 << (np.uint64(64) - np.maximum(bits, 1))) for bits in columns]
    return np.column_stack(masks)
