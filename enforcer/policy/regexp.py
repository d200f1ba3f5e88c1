"""Regular expressions that mean the same in Go (Calico's RE2) and in Python: the common part, and why not the rest.

``interfaceExclude`` is written for RE2. Python's ``re`` runs it here, so an expression only one of them knows, or that
they read differently, is refused rather than guessed.
"""

from __future__ import annotations

import re
import warnings

_ESCAPES = frozenset("AbBdDsSwWafnrtv")  # letters both know outside a class
_CLASS_ESCAPES = frozenset("dDsSwWafnrtv")
_GROUP = re.compile(r"\(\?(:|P<[A-Za-z_]\w*>|[ims]+:)", re.ASCII)
_GLOBAL_FLAGS = re.compile(r"\(\?[ims]+\)")
_HEX = re.compile(r"\\x[0-9A-Fa-f]{2}")
_REPEAT = re.compile(r"(?:[*+?]|\{([0-9]+)(?:,([0-9]*))?\})(\??)")
_REPEAT_MAX = 1000  # RE2's


class Unportable(ValueError):
    """Why the expression cannot be used."""


def check(pattern: str) -> None:
    """Raises Unportable unless Go and Python both compile the expression, to the same meaning."""
    at = flags.end() if (flags := _GLOBAL_FLAGS.match(pattern)) else 0
    while at < len(pattern):
        at = _next(pattern, at)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Python warns of what it may read differently one day
        try:
            re.compile(pattern)
        except (re.error, FutureWarning, DeprecationWarning, OverflowError, RecursionError) as error:
            raise Unportable(str(error)) from error


def _next(pattern: str, at: int) -> int:
    """The end of the element that begins here."""
    match pattern[at]:
        case "\\":
            return _escape(pattern, at, _ESCAPES)
        case "[":
            return _class(pattern, at)
        case "(" if pattern.startswith("(?", at):
            found = _GROUP.match(pattern, at)
            if not found:
                raise Unportable(f"{pattern[at : at + 4]!r} is not in both Go's and Python's syntax")
            return found.end()
        case "*" | "+" | "?" | "{":
            return _repeat(pattern, at)
    return at + 1


def _repeat(pattern: str, at: int) -> int:
    found = _REPEAT.match(pattern, at)
    if not found:
        raise Unportable("a '{' that repeats nothing; write '\\{' for the character")
    if any(int(number) > _REPEAT_MAX for number in found.group(1, 2) if number):
        raise Unportable(f"more than {_REPEAT_MAX} repetitions")
    if pattern[found.end() : found.end() + 1] in ("*", "+", "?", "{"):
        raise Unportable("one repetition right behind another")
    return found.end()


def _class(pattern: str, at: int) -> int:
    at += 2 if pattern.startswith("[^", at) else 1
    first = at
    while at < len(pattern) and (pattern[at] != "]" or at == first):
        if pattern[at] == "\\":
            at = _escape(pattern, at, _CLASS_ESCAPES)
            continue
        if pattern.startswith("[:", at):
            raise Unportable("a class such as '[:alpha:]' is Go's alone; write 'a-zA-Z'")
        at += 1
    return at + 1


def _escape(pattern: str, at: int, letters: frozenset[str]) -> int:
    if found := _HEX.match(pattern, at):
        return found.end()
    letter = pattern[at + 1 : at + 2]
    if letter not in letters and (not letter or letter.isalnum() or not letter.isascii()):
        raise Unportable(f"'\\{letter}' is not in both Go's and Python's syntax")
    return at + 2
