"""From text to tree: a tokenizer that tracks what may follow a label, and a parser with its own stack.

Calico has no limit on nesting (its API allows 1024 characters), so the parser does not use the interpreter's stack.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from enforcer.policy.selector_tree import All, Among, Any, Compare, Constant, Has, Node, Not

LABEL_MAX = 512
# Evaluation is recursive. 1024 characters, the limit of the API, can nest "!(" at most 341 deep.
DEPTH_MAX = 400

_NO_CHARACTER = re.compile("[\ud800-\udfff]")  # surrogates: from bytes that are not UTF-8, or from JSON escapes
_SPACE = re.compile(r"[ \t]*")
_LABEL = re.compile(r"[a-zA-Z0-9_./-]+")
_CALL = re.compile(r"(has|all|global)\(")
_SYMBOLS = ("==", "!=", "&&", "||", "{", "}", ",", "!", "(", ")")
# Word operators, recognised only after a label. White space between the words of an operator is optional.
_WORDS = (
    ("not in", re.compile(r"not[ \t]*in")),
    ("starts with", re.compile(r"starts[ \t]*with")),
    ("ends with", re.compile(r"ends[ \t]*with")),
    ("contains", re.compile(r"contains")),
    ("in", re.compile(r"in")),
)
_END = "end of input"


class SelectorError(ValueError):
    """The text is not a selector. ``column`` counts from 1."""

    def __init__(self, text: str, offset: int, message: str) -> None:
        self.text = text
        self.column = offset + 1
        self.message = message
        super().__init__(f"column {self.column}: {message}")

    def caret(self) -> str:
        """The text, with a caret below the fault."""
        shown = self.text.replace("\n", "␊").replace("\r", "␍").replace("\t", " ")
        return f"{shown}\n{' ' * (self.column - 1)}^"


@dataclass(frozen=True)
class _Token:
    kind: str  # label, string, has, all, global, an operator, or end of input
    value: str
    offset: int

    def __str__(self) -> str:
        if self.kind in ("label", "string"):
            return f"{self.kind} {self.value!r}"
        return self.kind if self.kind == _END else f"{self.kind!r}"


def parse_tree(text: str) -> Node:
    """The tree of a selector; blank means all(). Raises SelectorError."""
    if wrong := _NO_CHARACTER.search(text):
        raise SelectorError(text, wrong.start(), f"found {wrong[0]!r}, which is no character: not UTF-8")
    tokens = _Tokenizer(text).tokens()
    if len(tokens) == 1:
        return Constant("all")
    return _Parser(text, tokens).parse()


class _Tokenizer:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def tokens(self) -> list[_Token]:
        found: list[_Token] = []
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match
            self._at = match.end()
            token = self._next(after_label=bool(found) and found[-1].kind == "label")
            found.append(token)
            if token.kind == _END:
                return found

    def _next(self, *, after_label: bool) -> _Token:
        text, start = self._text, self._at
        if start == len(text):
            return _Token(_END, "", start)
        if text[start] in "\"'":
            return self._string()
        for symbol in _SYMBOLS:
            if text.startswith(symbol, start):
                self._at += len(symbol)
                return _Token(symbol, symbol, start)
        token = self._word() if after_label else self._call()
        return token or self._label()

    def _string(self) -> _Token:
        start = self._at
        end = self._text.find(self._text[start], start + 1)
        if end < 0:
            raise SelectorError(self._text, start, f"the string that begins here has no closing {self._text[start]}")
        self._at = end + 1
        return _Token("string", self._text[start + 1 : end], start)

    def _word(self) -> _Token | None:
        """A word operator without a following label character."""
        for word, pattern in _WORDS:
            match = pattern.match(self._text, self._at)
            if not match:
                continue
            end = match.end()
            if " " in word:  # skip white space before checking the boundary, as Calico's tokenizer does
                space = _SPACE.match(self._text, end)
                assert space
                boundary = space.end()
            else:
                boundary = end
            if not _LABEL.match(self._text, boundary):
                token = _Token(word, word, self._at)
                self._at = end
                return token
        return None

    def _call(self) -> _Token | None:
        match = _CALL.match(self._text, self._at)
        if not match:
            return None
        start, kind = self._at, match[1]
        self._at = self._skip(match.end())
        label = ""
        if kind == "has":
            found = _LABEL.match(self._text, self._at)
            if not found:
                raise SelectorError(self._text, self._at, "expected a label inside has()")
            label = self._checked(found[0], self._at)
            self._at = self._skip(found.end())
        if not self._text.startswith(")", self._at):
            raise SelectorError(self._text, self._at, f"expected ')' to close {kind}(, found {self._found()}")
        self._at += 1
        return _Token(kind, label, start)

    def _label(self) -> _Token:
        start = self._at
        match = _LABEL.match(self._text, start)
        if not match:
            raise SelectorError(self._text, start, _unexpected(self._text[start]))
        self._at = match.end()
        return _Token("label", self._checked(match[0], start), start)

    def _checked(self, label: str, offset: int) -> str:
        if len(label) > LABEL_MAX:
            raise SelectorError(
                self._text, offset, f"a label of {len(label)} characters; at most {LABEL_MAX} are allowed"
            )
        return label

    def _skip(self, at: int) -> int:
        match = _SPACE.match(self._text, at)
        assert match
        return match.end()

    def _found(self) -> str:
        return repr(self._text[self._at]) if self._at < len(self._text) else _END


def _unexpected(character: str) -> str:
    hints = {
        "=": "found '='; equality is '=='",
        "&": "found '&'; conjunction is '&&'",
        "|": "found '|'; disjunction is '||'",
        "\n": "found a newline; only spaces and tabs may separate words",
        "\r": "found a carriage return; only spaces and tabs may separate words",
    }
    return hints.get(character, f"found {character!r}, which no selector contains outside a string")


@dataclass
class _Group:
    """What has been parsed of one pair of parentheses, or of the whole text."""

    alternatives: list[Node] = field(default_factory=list)
    conjuncts: list[Node] = field(default_factory=list)
    negated: bool = False
    depth: int = 0  # of the deepest operand

    def take(self, operand: Node, depth: int = 1) -> None:
        self.conjuncts.append(Not(operand) if self.negated else operand)
        self.depth = max(self.depth, depth + self.negated)
        self.negated = False

    def end_conjunction(self) -> None:
        one = len(self.conjuncts) == 1
        self.alternatives.append(self.conjuncts[0] if one else All(tuple(self.conjuncts)))
        self.conjuncts = []

    def close(self) -> Node:
        self.end_conjunction()
        return self.alternatives[0] if len(self.alternatives) == 1 else Any(tuple(self.alternatives))


class _Parser:
    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self._text = text
        self._tokens = tokens
        self._at = 0

    @property
    def _token(self) -> _Token:
        return self._tokens[self._at]

    def expect(self, kind: str, wanted: str) -> _Token:
        """Consume a token of this kind. Raises SelectorError with what was expected."""
        token = self._token
        if token.kind != kind:
            raise SelectorError(self._text, token.offset, f"expected {wanted}, found {token}")
        self._at += 1
        return token

    def parse(self) -> Node:
        groups = [_Group()]
        while True:
            self._operand(groups)
            while self._token.kind == ")" and len(groups) > 1:
                self._at += 1
                self._close(groups)
            match self._token.kind:
                case "&&":
                    pass
                case "||":
                    groups[-1].end_conjunction()
                case _ if len(groups) > 1:
                    self.expect(")", "'&&', '||' or ')'")
                case _:
                    self.expect(_END, "'&&', '||' or the end")
                    return groups[0].close()
            self._at += 1

    def _close(self, groups: list[_Group]) -> None:
        """Close the innermost pair of parentheses: it becomes an operand of the enclosing one."""
        inner = groups.pop()
        operand = inner.close()
        grown = isinstance(operand, (All, Any))
        groups[-1].take(operand, inner.depth + 2 * grown)
        if groups[-1].depth > DEPTH_MAX:
            offset = self._tokens[self._at - 1].offset
            raise SelectorError(self._text, offset, f"nested deeper than {DEPTH_MAX} levels")

    def _operand(self, groups: list[_Group]) -> None:
        """Negations and opening parentheses, then one primary."""
        while True:
            match self._token.kind:
                case "!":
                    groups[-1].negated = not groups[-1].negated
                case "(":
                    groups.append(_Group())
                case _:
                    groups[-1].take(self._primary())
                    return
            self._at += 1

    def _primary(self) -> Node:
        token = self._token
        match token.kind:
            case "has":
                self._at += 1
                return Has(token.value)
            case "all" | "global":
                self._at += 1
                return Constant(token.kind)
            case "label":
                return self._comparison()
        raise SelectorError(self._text, token.offset, f"expected a label, has(), all() or '(', found {token}")

    def _comparison(self) -> Node:
        label = self.expect("label", "a label").value
        token = self._token
        self._at += 1
        match token.kind:
            case "==" | "!=" | "contains" | "starts with" | "ends with":
                return Compare(label, token.kind, self.expect("string", f"a string after '{token.kind}'").value)
            case "in" | "not in":
                return Among(label, self._set(token.kind), token.kind == "not in")
        wanted = "an operator after the label (==, !=, in, not in, contains, starts with, ends with)"
        raise SelectorError(self._text, token.offset, f"expected {wanted}, found {token}")

    def _set(self, operator: str) -> tuple[str, ...]:
        self.expect("{", f"'{{' after '{operator}'")
        values: set[str] = set()
        while self._token.kind != "}":
            values.add(self.expect("string", "a string or '}'").value)
            if self._token.kind != "}":
                self.expect(",", "',' or '}'")
        self._at += 1
        return tuple(sorted(values))
