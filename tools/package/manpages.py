"""Man pages and bash completion of a click command: what ``--help`` says, in roff (groff_man(7))."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import BashComplete

SECTION = 8


def write_pages(command: click.Command, folder: Path, *, version: str, when_s: int) -> list[Path]:
    """One page for the command and one for each command below it, named ``enforcer-feed-sync.8``."""
    date = time.strftime("%Y-%m-%d", time.gmtime(when_s))
    written = []
    for context in contexts(click.Context(command, info_name=command.name, max_content_width=100)):
        path = folder / f"{page_name(context)}.{SECTION}"
        path.write_text(page(context, version=version, date=date), encoding="utf-8")
        written.append(path)
    return written


def contexts(context: click.Context) -> Iterator[click.Context]:
    """The context itself, and those of all commands below it."""
    yield context
    for name, command in commands(context).items():
        yield from contexts(click.Context(command, parent=context, info_name=name))


def commands(context: click.Context) -> dict[str, click.Command]:
    group = context.command
    if not isinstance(group, click.Group):
        return {}
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None and not command.hidden}


def page_name(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def page(context: click.Context, *, version: str, date: str) -> str:
    command = context.command
    name = page_name(context)
    lines = [
        f'.TH "{escaped(name.upper())}" "{SECTION}" "{date}" "enforcer {version}" "System Administration"',
        ".SH NAME",
        f"{escaped(name)} \\- {escaped(command.get_short_help_str(limit=200).rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {escaped(context.command_path)}",
        *(escaped(word) for word in command.collect_usage_pieces(context)),
        ".SH DESCRIPTION",
        *paragraphs(inspect.cleandoc(command.help or "")),
        ".SH OPTIONS",
    ]
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    for usage, text in filter(None, records):
        lines += [".TP", f".B {escaped(usage)}", escaped(text)]
    below = commands(context)
    if below:
        lines.append(".SH COMMANDS")
        for each, sub in below.items():
            lines += [".TP", f".B {escaped(each)}", escaped(sub.get_short_help_str(limit=200))]
    lines += [".SH SEE ALSO", ", ".join(f".BR {escaped(each)} ({SECTION})" for each in see_also(context))]
    return "\n".join(lines).replace(", .BR ", ",\n.BR ") + "\n"


def see_also(context: click.Context) -> list[str]:
    near = [context.parent] if context.parent else []
    children = [f"{page_name(context)}-{name}" for name in commands(context)]
    return [*(page_name(each) for each in near), *children]


def paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of a help text; click marks one whose lines must not be joined with ``\\b``."""
    for number, paragraph in enumerate(text.split("\n\n")):
        kept = paragraph.startswith("\b")
        lines = [escaped(line) for line in paragraph.removeprefix("\b").strip("\n").splitlines()]
        if number:
            yield ".PP"
        yield from ([".nf", *lines, ".fi"] if kept else lines)


def escaped(text: str) -> str:
    """For roff: a backslash, a minus that is one (options), and a control character at the start of a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def bash_completion(command: click.Command, name: str) -> str:
    """The script that click itself prints for ``_ENFORCER_COMPLETE=bash_source``."""
    return BashComplete(command, {}, name, f"_{name.upper()}_COMPLETE").source()
