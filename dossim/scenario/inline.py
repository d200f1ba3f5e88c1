"""Resources written inside a scenario file, as a separate text in which every value keeps its line.

The policy loader reads text and reports lines, and the lines it reports for this text are those of the scenario file.
Columns are approximate.
"""

from __future__ import annotations

import json

from enforcer.policy.nodes import Fieldset, Items, Node, Scalar


def text_of(node: Node) -> str:
    """One document in YAML's flow style, each value on its original line."""
    writer = _Writer()
    writer.write(node)
    return "".join(writer.parts) + "\n"


class _Writer:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self._line = 1
        self._column = 1

    def write(self, node: Node) -> None:
        if isinstance(node, Scalar):
            self._put(json.dumps(node.value), node)
        elif isinstance(node, Items):
            self._put("[", node)
            for item in node.items:
                self.write(item)
                self._put(", ")
            self._put("]")
        else:
            self._write_fields(node)

    def _write_fields(self, node: Fieldset) -> None:
        self._put("{", node)
        for name, value in node.fields.items():
            self._put(f"{json.dumps(name)}: ", node.keys[name])
            self.write(value)
            self._put(", ")
        for again, _ in node.repeated:  # keep repeated keys: the loader must see and refuse them
            self._put(f"{json.dumps(str(again.value))}: null, ", again)
        self._put("}")

    def _put(self, text: str, at: Node | None = None) -> None:
        if at is not None and at.line > self._line:
            self._append("\n" * (at.line - self._line), at.line, 1)
        if at is not None and at.line == self._line and at.column > self._column:
            self._append(" " * (at.column - self._column), at.line, at.column)
        self._append(text, self._line, self._column + len(text))

    def _append(self, text: str, line: int, column: int) -> None:
        self.parts.append(text)
        self._line, self._column = line, column
