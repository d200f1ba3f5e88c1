"""InvalidScenario, and the line and column of a place in a parsed YAML document."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dossim.model.errors import ScenarioError
from enforcer.model.errors import Finding, Position
from enforcer.policy.nodes import Fieldset, Items, Node, Scalar

Step = str | int

_WORD = 100  # no name is longer, and finding the nearest takes quadratic time
_NAMED = 40


class InvalidScenario(ScenarioError):
    """An invalid scenario file. ``findings`` has everything that is wrong with it, in file order."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))


class Marks:
    """The positions of the nodes of one document."""

    def __init__(self, path: Path | str, root: Node) -> None:
        self._path = str(path)
        self._root = root

    def position(self, steps: Iterable[Step]) -> Position:
        """The position of the value at ``steps``; if a step is not in the document, that of its parent."""
        return self._place(self._walk(steps))

    def key(self, steps: Iterable[Step], name: str) -> Position:
        """The position of the key ``name`` in the mapping at ``steps``; without that key, the mapping's own."""
        node = self._walk(steps)
        return self._place(node.keys.get(name, node) if isinstance(node, Fieldset) else node)

    def finding(self, steps: Sequence[Step], message: str) -> Finding:
        return Finding(self.position(steps), field_of(steps), message)

    def _walk(self, steps: Iterable[Step]) -> Node:
        node = self._root
        for step in steps:
            if isinstance(node, Fieldset) and step in node.fields:
                node = node.fields[str(step)]
            elif isinstance(node, Items) and isinstance(step, int) and step < len(node.items):
                node = node.items[step]
            else:
                break
        return node

    def _place(self, node: Node) -> Position:
        return Position(self._path, node.line or 1, node.column or 1)


def plain(node: Node) -> Any:
    """The document as plain data, for the schema; 5.0 is the whole number 5, as in JSON."""
    if isinstance(node, Scalar) and isinstance(node.value, float) and node.value.is_integer():
        return int(node.value)
    if isinstance(node, Fieldset):
        return {name: plain(value) for name, value in node.fields.items()}
    return [plain(item) for item in node.items] if isinstance(node, Items) else node.value


def repeated_keys(node: Node, marks: Marks, steps: tuple[Step, ...] = ()) -> Iterator[Finding]:
    """A key written twice in one mapping: YAML libraries differ in which one wins."""
    if isinstance(node, Fieldset):
        for again, first in node.repeated:
            place = Position(marks.position(()).path, again.line, again.column)
            yield Finding(
                place, field_of([*steps, str(again.value)]), f"written twice; the first is in line {first.line}"
            )
        for name, value in node.fields.items():
            yield from repeated_keys(value, marks, (*steps, name))
    elif isinstance(node, Items):
        for number, item in enumerate(node.items):
            yield from repeated_keys(item, marks, (*steps, number))


def field_of(steps: Iterable[Step]) -> str:
    """``traffic[0].count`` for the steps ``traffic``, 0, ``count``."""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """``; did you mean 'count'?`` if one of the known words is similar, else all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(word), names, n=1) if len(str(word)) <= _WORD else []
    if near:
        return f"; did you mean {near[0]!r}?"
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"; known: {', '.join(names[:_NAMED])}{more}" if names else ""
