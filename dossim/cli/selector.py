"""``dossim selector``: evaluates a selector against labels."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console

from enforcer.cli.console import line
from enforcer.cli.support import echo_bytes, emit, output_option, verbose_option
from enforcer.model.errors import UsageError
from enforcer.model.printable import printable_json


@click.command()
@click.argument("expression", required=False, metavar="EXPR")
@click.argument("labels", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--batch", is_flag=True, help='Read {"selector": ..., "labels": {...}} lines from stdin; print one line for each.'
)
@output_option
@verbose_option
def selector(expression: str | None, labels: tuple[str, ...], batch: bool, output: str) -> None:
    """Evaluate a selector for these labels: print true or false, and the selector's canonical text and UID.

    With --batch each JSON line yields one line: {"match": true, "canonical": ..., "uid": ...} or {"error": ...,
    "column": n}.

    \b
    Example:
      dossim selector "dos-deny-list == 'true' && !has(retired)" dos-deny-list=true
    """
    if batch:
        _require(expression is None, "--batch reads selectors from stdin; leave EXPR out")
        answer_lines()
        return
    if expression is None:
        raise UsageError("EXPR is missing; give a selector, or --batch")
    answer = _answer_or_raise(expression, _labels(labels))
    emit(answer, output, lambda console: _print(answer, console))


def answer_lines() -> None:
    """One line out for each line in, at once: the other end may wait for it. JSON is UTF-8, whatever the locale."""
    if sys.stdin is None:
        raise UsageError("stdin is closed; --batch reads selectors from there")
    for question in sys.stdin.buffer:
        if question.strip():
            answer = json.dumps(_answer_line(question.decode("utf-8", "surrogateescape")), ensure_ascii=False)
            echo_bytes(f"{printable_json(answer)}\n".encode())


def _answer_line(line: str) -> dict[str, Any]:
    from enforcer.policy.selector import SelectorError

    try:
        question = json.loads(line)
    except ValueError as error:
        return {"error": f"not JSON: {error}", "column": getattr(error, "colno", 1)}
    except RecursionError:
        return {"error": "nested too deeply for a selector with labels", "column": 1}
    if not isinstance(question, dict) or not isinstance(question.get("selector"), str):
        return {"error": 'expected {"selector": "...", "labels": {...}}', "column": 1}
    labels = question.get("labels") or {}
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        return {"error": "labels: expected strings by name", "column": 1}
    try:
        return _answer(question["selector"], labels)
    except SelectorError as error:
        return {"error": error.message, "column": error.column}


def _answer(expression: str, labels: Mapping[str, str]) -> dict[str, Any]:
    from enforcer.policy.selector import parse

    parsed = parse(expression)
    return {"match": parsed.evaluate(labels), "canonical": parsed.canonical, "uid": parsed.uid}


def _answer_or_raise(expression: str, labels: Mapping[str, str]) -> dict[str, Any]:
    from enforcer.policy.selector import SelectorError

    try:
        return _answer(expression, labels)
    except SelectorError as error:
        raise SelectorFault(error) from None


class SelectorFault(UsageError):
    """The selector on the command line is invalid; printed with a caret below the error."""

    def __init__(self, error: Any) -> None:
        self.findings = (f"selector: column {error.column}: {error.message}\n{error.caret()}",)
        super().__init__(self.findings[0])


def _labels(texts: Sequence[str]) -> dict[str, str]:
    for text in texts:
        _require("=" in text, f"expected KEY=VALUE, found {text!r}")
    return dict(text.split("=", 1) for text in texts)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)


def _print(answer: Mapping[str, Any], console: Console) -> None:
    console.print(line(str(answer["match"]).lower()), soft_wrap=True)
    console.print(line(f"canonical: {answer['canonical']}"), soft_wrap=True)
    console.print(line(f"uid: {answer['uid']}"), soft_wrap=True)
