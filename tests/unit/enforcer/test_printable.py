"""Untrusted text on a terminal, in a log and in CI: nothing interprets it, and nothing of it is lost."""

from __future__ import annotations

import io
import json
import logging
import re
import unicodedata
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from enforcer.cli.console import console_for, line
from enforcer.cli.support import CommandGroup, echo, emit
from enforcer.model.errors import Finding, Position, UsageError
from enforcer.model.printable import printable, printable_json, printable_lines
from enforcer.system.log import LineFormatter

HOSTILE = {
    "colours": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "c1": "\x9b31m",
    "backspace": "good\b\b\b\bevil",
    "return": "FAILED\rheld",
    "newline": "a\n::set-output name=x::y",
    "next line": "a\x85b",
    "separator": "a\u2028b",
    "override": "\u202eexe.\u2066a\u2069",
    "mark": "\u200f\u061c",
    "zero width": "a\u200bb\ufeff",
    "surrogate": "\udc9b31m",
    "non-character": "\ufffe",
    "command": "::error file=x::y",
    "indented command": "  ::stop-commands::token",
    "group": "x ##[group]y",
    "azure": "##vso[task.setvariable variable=x]y",
    "teamcity": "##teamcity[testFailed name='x']",
}
ACTED_ON = re.compile(r"^\s*::[A-Za-z][^\n]*::|##[A-Za-z]*\[", re.MULTILINE)


def harmless(text: str) -> bool:
    """Whether it has nothing that a terminal or a CI system interprets, except our line feeds and tabs."""
    categories = {unicodedata.category(char) for char in text if char not in "\n\t"}
    return not categories & {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"} and not ACTED_ON.search(text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_line_is_harmless_and_one_line(text: str) -> None:
    shown = printable(text)
    assert harmless(shown)
    assert "\n" not in shown
    assert shown.encode("utf-8")


@pytest.mark.parametrize("text", ["", "plain", "Zürich 中文 «é»", "fd00::1", "::1", "::ffff:1.2.3.4", "a: :b", "# [x]"])
def test_harmless_text_stays(text: str) -> None:
    assert printable(text) == printable_lines(text) == text


def test_of_several_lines_the_breaks_stay() -> None:
    assert printable_lines("a\n\tb\x1b") == "a\n\tb\\x1b"


@given(st.text())
def test_any_text_is_harmless(text: str) -> None:
    assert harmless(printable(text))
    assert harmless(printable_lines(text))


@given(st.dictionaries(st.text() | st.sampled_from(list(HOSTILE.values())), st.text() | st.integers()))
def test_json_keeps_its_meaning(data: dict[str, object]) -> None:
    shown = printable_json(json.dumps(data, ensure_ascii=False, indent=1))
    assert harmless(shown)
    assert json.loads(shown) == data


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_documents_keep_their_meaning(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"names": list(HOSTILE.values()), "n": 5, "plain": "é"}
    emit(data, output, lambda console: None)
    shown = capsys.readouterr().out
    assert harmless(shown)
    assert (json.loads(shown) if output == "json" else yaml.safe_load(shown)) == data


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_console_escapes_whatever_is_printed_on_it(text: str) -> None:
    out = io.StringIO()
    console = console_for(out)
    table = Table("[bold]head", box=None)
    table.add_row(text)
    table.add_row(Text(text))
    for item in (text, Text(text), line(text), table):
        console.print(item, soft_wrap=True)
    assert harmless(out.getvalue())


def test_names_are_no_markup() -> None:
    out = io.StringIO()
    console_for(out).print("[bold]node[/bold] [link=http://x]y[/link] :bomb:")
    assert out.getvalue() == "[bold]node[/bold] [link=http://x]y[/link] :bomb:\n"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_an_error_is_one_harmless_line(text: str) -> None:
    group = CommandGroup("x")

    @group.command()
    def fail() -> None:
        raise UsageError(text)

    shown = CliRunner().invoke(group, ["fail"]).stderr
    assert harmless(shown)
    assert all(item.startswith("error: ") for item in shown.splitlines())


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_click_says_of_the_command_line_is_harmless(text: str) -> None:
    for words in ([text], [f"--{text}"], [f"-{text}"]):
        assert harmless(CliRunner().invoke(CommandGroup("x"), words).output)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_finding_keeps_to_its_line(text: str) -> None:
    shown = str(Finding(Position(text, 3, 1), text, text))
    assert harmless(shown)
    assert "\n" not in shown


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_an_event_keeps_to_its_line(text: str) -> None:
    record = logging.LogRecord("enforcer", logging.INFO, "", 0, "%s", (text,), None)
    record.fields = {"path": text}
    shown = LineFormatter(with_time=False).format(record)
    assert harmless(shown)
    assert "\n" not in shown


def test_nothing_is_printed_except_by_the_functions_that_escape() -> None:
    """The functions of cli_support escape; nothing else writes to a terminal."""
    root = Path(__file__).parents[3]
    doors = {
        root / "enforcer/cli/support.py",
        root / "dossim/cli/selector.py",  # one line of JSON for each line of stdin
        root / "enforcer/kernel/netns.py",  # a child process's answer to its parent
        root / "dossim/lab/restore_max.py",  # likewise
    }
    wrong = [
        f"{path.relative_to(root)}: {found[0]}"
        for top in ("enforcer", "dossim")
        for path in sorted((root / top).rglob("*.py"))
        if path not in doors
        for found in re.finditer(r"\bclick\.(echo|secho)\(|\bprint\(|sys\.std(out|err)\.write", path.read_text())
        if path.read_text()[found.start() - 1] != "."
    ]
    assert not wrong


def test_echo_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    for text in HOSTILE.values():
        echo(text)
        echo(text, err=True)
    shown = capsys.readouterr()
    assert harmless(shown.out)
    assert harmless(shown.err)
