"""Escapes untrusted text for output: names, labels, paths and messages contain what the author of a file wrote.

A terminal acts on control characters (ECMA-48), and shows text with bidirectional overrides in another order than it
has (UAX #9). A CI system acts on lines of the log: ``::name::`` at the start of one (GitHub Actions), ``##[name]``,
``##vso[...]`` and ``##teamcity[...]`` anywhere in it. None of this comes out of here: each such character is written
as Python would write it in a string, ``\\x1b`` or ``\\u202e``. Everything else stays as it is.
"""

from __future__ import annotations

import json
import re

_COMMAND = re.compile(r"^([^\S\n]*):(?=:[A-Za-z][^\n]*::)|#(?=#[A-Za-z]*\[)", re.MULTILINE)
_JSON_COMMAND = re.compile(r"#(?=#[A-Za-z]*\[)")
_BREAKS = "\n\t"


def printable(text: object) -> str:
    """One line without anything that a terminal or a CI system interprets; a line break becomes ``\\n``."""
    return _without_command(_escaped(str(text), keep=""))


def printable_lines(text: object) -> str:
    """The same for text of several lines: line feeds and tabs stay."""
    return _without_command(_escaped(str(text), keep=_BREAKS))


def printable_json(text: str) -> str:
    """JSON text of the same meaning without anything that is interpreted."""
    if _plain(text, _BREAKS) and "##" not in text:
        return text
    escaped = "".join(char if char.isprintable() or char in _BREAKS else json.dumps(char)[1:-1] for char in text)
    return _JSON_COMMAND.sub(r"\\u0023", escaped)


def _plain(text: str, keep: str) -> bool:
    for char in keep:
        text = text.replace(char, "")
    return text.isprintable()


def _escaped(text: str, keep: str) -> str:
    if _plain(text, keep):
        return text
    return "".join(char if char.isprintable() or char in keep else _spelt(char) for char in text)


def _spelt(char: str) -> str:
    return repr(char)[1:-1]


def _without_command(text: str) -> str:
    if "::" not in text and "##" not in text:
        return text
    return _COMMAND.sub(lambda found: f"{found[1] or ''}\\x{ord(found[0][-1]):02x}", text)
