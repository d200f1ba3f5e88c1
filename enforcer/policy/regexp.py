"""Regular expressions as in Felix: the language and limits of RE2, in linear time, using RE2 itself.

Felix uses Go's ``regexp``, which is RE2 without ``\\C``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import re2

# An escape, or a literal part, in which \C has no special meaning.
_ESCAPES = re.compile(r"\\Q.*?(?:\\E|$)|\\(.)", re.DOTALL)

_NO_CHARACTER = re.compile("[\ud800-\udfff]")


class NoExpression(ValueError):
    """Why a text is not a regular expression."""


def check(pattern: str) -> None:
    """Raises NoExpression unless Felix can compile the expression."""
    _compiled(pattern)


def found_in(pattern: str, text: str) -> bool:
    """Whether the expression matches anywhere in the text. Raises NoExpression.

    A byte of an interface name that is not UTF-8 is treated as U+FFFD, as in Go.
    """
    return _compiled(pattern).search(_NO_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", text)) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    if any(escape == "C" for escape in _ESCAPES.findall(pattern)):
        raise NoExpression("Go has no '\\C'")
    options = re2.Options()
    options.log_errors = False  # else RE2 writes to stderr
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        what = error.args[0] if error.args else "RE2 refuses it"
        raise NoExpression(what.decode(errors="replace") if isinstance(what, bytes) else str(what)) from error
    except UnicodeEncodeError as error:
        raise NoExpression("it has characters that cannot be encoded") from error
