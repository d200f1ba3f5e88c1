"""Shared by both commands: exit codes, errors as one line each, output as table, JSON or YAML, with or without colour.

Results go to stdout; errors and progress go to stderr. All output passes through this module (``echo``, ``emit``,
``console_for``), which escapes what a terminal would interpret.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import IO, Any, TypeVar, cast

import click
import yaml
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.text import Text

from enforcer.model.errors import EnforcerError, KernelError, PrivilegeError
from enforcer.model.printable import printable, printable_json, printable_lines
from enforcer.model.vocabulary import Word
from enforcer.system import streams

INTERRUPTED = 130  # 128 + SIGINT, as in shells
BUG = 4
DEBUG_VARIABLES = ("ENFORCER_DEBUG", "DOSSIM_DEBUG")
_YAML_COMMAND = re.compile(r"#(?=#[A-Za-z]*\[)")  # see printable
_WIDE = 4096  # columns where stdout is no terminal: programs read the lines, so they must not be wrapped

# linux/capability.h. Netlink, XDP and netfilter's socket options need the first; libiptc's raw socket the second.
_NETWORK = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
# For loading programs that use pointer arithmetic. Kernels before 5.8 require CAP_SYS_ADMIN instead.
_BPF = {"CAP_BPF": 39, "CAP_PERFMON": 38}
_SYS_ADMIN = 21

Command = TypeVar("Command", bound=Callable[..., Any])


class OutputFormat(Word):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class CommandGroup(click.Group):
    """A command group with the project's exit codes, which prints errors without a traceback.

    With ``-v`` anywhere on the command line, or one of ``DEBUG_VARIABLES``, it also prints the traceback of a bug and
    the kernel's whole log of a rejected operation.
    """

    def main(self, args: Sequence[str] | None = None, *rest: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """As click's, but always ends with SystemExit in stand-alone mode."""
        streams.prepare()
        words = list(sys.argv[1:] if args is None else args)
        run = partial(super().main, words, *rest, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        try:
            result: object = run()
            with streams.writing():
                sys.stdout.flush()
        except BaseException as error:  # every exception becomes an exit code here
            sys.exit(_report(error, verbose=_is_verbose(words)))
        sys.exit(result if isinstance(result, int) else 0)


def output_option(command: Command) -> Command:
    """``-o/--output table|json|yaml``."""
    return click.option(
        "-o", "--output", type=click.Choice([str(item) for item in OutputFormat]), default="table", show_default=True,
        help="How to print the result.",
    )(command)  # fmt: skip


def verbose_option(command: Command) -> Command:
    """``-v/--verbose``; :class:`CommandGroup` reads it from the command line."""
    return click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, help="Show details of errors: tracebacks, verifier logs."
    )(command)


def require_nonempty(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Option callback: rejects an empty value. It comes from an unset variable of a script, and does not mean the
    default.
    """
    values = value if isinstance(value, tuple) else (value,)
    if "" in values:
        raise click.BadParameter("empty value; omit the option to use its default", ctx, param)
    return value


class NonEmptyPath(click.Path):
    """A path that is not empty: Python takes an empty path as the current directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("empty value; expected a path", param, ctx)
        return super().convert(value, param, ctx)


def echo(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Print text of one or more lines."""
    with streams.writing():
        click.echo(printable_lines(text), err=err, nl=nl)


def echo_json(data: Any) -> None:
    with streams.writing():
        click.echo(printable_json(json.dumps(data, indent=2)))


def echo_bytes(content: bytes) -> None:
    """A report to stdout that declares its own encoding."""
    with streams.writing():
        click.echo(content, nl=False)


def emit(data: Any, output: str, as_table: Callable[[Console], None]) -> None:
    """Print ``data`` as JSON or YAML, or let ``as_table`` print it for people."""
    if output == OutputFormat.JSON:
        echo_json(data)
    elif output == OutputFormat.YAML:
        with streams.writing():
            click.echo(_yaml(data), nl=False)
    else:
        as_table(console_for(sys.stdout))


def console_for(stream: IO[str]) -> Console:
    """A console, without colours and wrapping where the stream is no terminal. rich itself honours NO_COLOR.

    Markup is off: the text may come from anybody.
    """
    terminal = stream.isatty()
    console = Console(
        file=cast("IO[str]", streams.Output(stream)),
        highlight=False,
        markup=False,
        force_terminal=terminal,
        width=None if terminal else _WIDE,
        emoji=False,
    )
    console.push_render_hook(_Printable())
    return console


def line(text: object, style: str = "") -> Text:
    """Text that stays on one line, for a console or a cell of its tables."""
    return Text(printable(text), style=style)


class _Printable(RenderHook):
    """A render hook that escapes all text, in case the caller did not."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_PrintableRenderable(item) for item in renderables]


class _PrintableRenderable:
    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(printable_lines(segment.text), segment.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._inner)


def warn(message: str) -> None:
    """Print a warning to stderr."""
    echo(f"warning: {printable(message)}", err=True)


def require_privilege(doing: str, *, xdp: bool) -> None:
    """Raises PrivilegeError unless the process may change netfilter and, with ``xdp``, load BPF programs."""
    held = _effective_capabilities()
    wanted = _NETWORK | _BPF if xdp and not held >> _SYS_ADMIN & 1 else _NETWORK
    missing = [name for name, number in wanted.items() if not held >> number & 1]
    if missing:
        raise PrivilegeError(
            f"{doing} needs {_enumerated(missing)}; run as root (sudo), "
            "or use 'dossim plan', which needs no privilege, to see what would be enforced where"
        )


def _enumerated(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _effective_capabilities() -> int:
    with open("/proc/self/status") as status:
        for line in status:
            name, _, value = line.partition(":")
            if name == "CapEff":
                return int(value, 16)
    return 0


def _is_verbose(words: Sequence[str]) -> bool:
    return "-v" in words or "--verbose" in words or any(os.environ.get(name) for name in DEBUG_VARIABLES)


def _report(error: BaseException, *, verbose: bool) -> int:
    """Print the error and return the exit code, even where stderr is full or has no reader."""
    if isinstance(error, (BrokenPipeError, streams.OutputError)):
        streams.discard(streams.STDOUT)
    try:
        return _print_error(error, verbose=verbose)
    except (BrokenPipeError, streams.OutputError):
        streams.discard(streams.STDERR)
        return getattr(error, "exit_code", BUG)


def _print_error(error: BaseException, *, verbose: bool) -> int:
    match error:
        case SystemExit():
            return error.code if isinstance(error.code, int) else 1
        case KeyboardInterrupt() | click.Abort():
            click.echo("interrupted", err=True)
            return INTERRUPTED
        case click.ClickException():
            shown = io.StringIO()
            error.show(file=shown)
            echo(shown.getvalue(), err=True, nl=False)
            return error.exit_code
        case EnforcerError():
            _report_known(error, verbose=verbose)
            return error.exit_code
        case BrokenPipeError():  # the reader of our output ended, e.g. head(1)
            return 1
    _report_bug(error, verbose=verbose)
    return BUG


def _report_known(error: EnforcerError, *, verbose: bool) -> None:
    """Print each finding after ``error:``, followed by its unchanged source lines."""
    findings = getattr(error, "findings", ())
    lines = [str(finding) for finding in findings] or str(error).splitlines() or [type(error).__name__]
    for each in lines:
        echo(f"error: {each}", err=True)
    log = error.log if isinstance(error, KernelError) else ""
    if verbose and log:
        echo(log, err=True)


def _report_bug(error: BaseException, *, verbose: bool) -> None:
    where = traceback.extract_tb(error.__traceback__)
    place = f" ({where[-1].filename}:{where[-1].lineno})" if where else ""
    echo(f"error: {type(error).__name__}: {error}{place}: this is a bug; please report it", err=True)
    if verbose:
        echo("".join(traceback.format_exception(error)), err=True, nl=False)
    else:
        echo("run again with -v for the traceback", err=True)


class _YamlDumper(yaml.SafeDumper):
    """PyYAML treats bidirectional control characters as printable; in double quotes they can be escaped."""


def _represent_text(dumper: _YamlDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if printable(text) == text else '"')


_YamlDumper.add_representer(str, _represent_text)


def _yaml(data: Any) -> str:
    # Our enums are str enums: JSON turns them into plain strings, which YAML shall print too.
    plain = json.loads(json.dumps(data))
    text = str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    if printable_lines(text) == text:
        return text
    escaped = yaml.dump(plain, Dumper=_YamlDumper, sort_keys=False, allow_unicode=False, width=sys.maxsize)
    return _YAML_COMMAND.sub(r"\\x23", escaped)
