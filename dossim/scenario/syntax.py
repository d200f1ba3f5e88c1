"""The text of a packet expression as Python's syntax tree, after a check of its tokens.

Python's parser fails on deep nesting in different ways (SyntaxError, RecursionError, MemoryError), and some versions
crash. So size and depth are limited before it gets the text; the reader of the tree checks which syntax is allowed.
"""

from __future__ import annotations

import ast
import io
import keyword
import tokenize
import warnings
from collections.abc import Iterator

TEXT_MAX = 1 << 18
TOKENS_MAX = 20_000
BRACKETS_MAX = 32
LAYERS_MAX = 64
DIGITS_MAX = 40  # 2**128 has 39 digits
_OPERATORS_MAX = 500

ONLY = "only layers, '/', numbers, strings, lists and tuples may be used"
_FLAT = frozenset("()[],=")
_SPACE = frozenset({tokenize.NEWLINE, tokenize.NL, tokenize.COMMENT, tokenize.ENDMARKER, tokenize.INDENT})


class SyntaxFault(Exception):
    """Text that is not an expression, or exceeds the limits. ``column`` counts characters from 0; None means the whole
    text.
    """

    def __init__(self, message: str, column: int | None = None) -> None:
        super().__init__(message)
        self.column = column


def tree_of(text: str) -> ast.expr:
    """The tree of an expression. Raises SyntaxFault."""
    if len(text) > TEXT_MAX:
        raise SyntaxFault(f"{len(text):,} characters; at most {TEXT_MAX:,} are read")
    _check(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about escapes such as "\d"
            return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise SyntaxFault(f"not a packet: {error.msg}", max((error.offset or 1) - 1, 0)) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxFault(f"not a packet: {error}") from None


def _check(text: str) -> None:
    """Count the nesting before anything recurses into it."""
    depth = stacked = operators = 0
    for number, token in enumerate(_tokens(text), 1):
        column = token.start[1] if token.start[0] == 1 else None
        if number > TOKENS_MAX:
            raise SyntaxFault(f"more than {TOKENS_MAX:,} words and signs", column)
        if token.type == tokenize.NUMBER and len(token.string) > DIGITS_MAX:
            raise SyntaxFault(f"a number of {len(token.string):,} digits; at most {DIGITS_MAX} are read", column)
        if token.type == tokenize.STRING and "f" in token.string.lower().partition("'")[0].partition('"')[0]:
            raise SyntaxFault(ONLY, column)  # its contents are code again
        depth += (token.string in ("(", "[", "{")) - (token.string in (")", "]", "}"))
        if depth > BRACKETS_MAX:
            raise SyntaxFault(f"brackets nested deeper than {BRACKETS_MAX}", column)
        stacked += token.type == tokenize.OP and token.string == "/"
        if stacked >= LAYERS_MAX:
            raise SyntaxFault(f"more than {LAYERS_MAX} layers and payloads", column)
        operators += _nests(token)
        if operators > _OPERATORS_MAX:
            raise SyntaxFault(ONLY, column)


def _nests(token: tokenize.TokenInfo) -> bool:
    if token.type == tokenize.NAME:
        return keyword.iskeyword(token.string) and token.string not in ("None", "True", "False")
    return token.type not in (tokenize.NUMBER, tokenize.STRING) and token.string not in _FLAT


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type not in _SPACE:
                yield token
    except tokenize.TokenError as error:
        raise SyntaxFault(f"not a packet: {error.args[0]}") from None
    except SyntaxError as error:
        raise SyntaxFault(f"not a packet: {error.msg}", max((error.offset or 1) - 1, 0)) from None
    except ValueError as error:  # characters that cannot be encoded
        raise SyntaxFault(f"not a packet: {error}") from None
