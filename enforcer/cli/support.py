"""Shared by both commands: exit codes, errors as one line each, output as table, JSON or YAML, with or without colour.

Results go to stdout; errors and progress go to stderr. All output passes through this module (``echo``, ``emit``)
and ``console``, which escape what a terminal would interpret.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import click

from enforcer.model.errors import EnforcerError, HostError, KernelError, PrivilegeError
from enforcer.model.printable import printable, printable_json, printable_lines
from enforcer.model.vocabulary import Word
from enforcer.system import startup, streams

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130  # 128 + SIGINT, as in shells
BUG = 4
DEBUG_VARIABLES = ("ENFORCER_DEBUG", "DOSSIM_DEBUG")

# linux/capability.h. Netlink, XDP and netfilter's socket options need the first; libiptc's raw socket the second.
_NETWORK = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
# For loading programs that use pointer arithmetic. Kernels before 5.8 require CAP_SYS_ADMIN instead.
_BPF = {"CAP_BPF": 39, "CAP_PERFMON": 38}
_SYS_ADMIN = 21

OUT_OF_MEMORY = (
    "the memory limit of this process is too low; raise it (ulimit -v, the limit of its control group), or "
    "give it less to read"
)
# What glibc's loader says of a library, and CPython of a thread.
_NO_MEMORY = ("failed to map segment", "Cannot allocate memory", "cannot allocate memory", "can't start new thread")

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
        startup.prepare()
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


class LazyGroup(CommandGroup):
    """A group that imports the module of a command only when the command is used.

    ``modules`` names them; each has the command as an attribute of its own last name.
    """

    def __init__(self, *given: Any, modules: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*given, **more)
        self._modules: Mapping[str, str] = {module.rpartition(".")[2]: module for module in modules}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *self._modules]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = self._modules.get(cmd_name)
        if module is None:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(module), cmd_name)
        return command


def output_option(command: Command) -> Command:
    """``-o/--output table|json|yaml``."""
    return click.option(
        "-o", "--output", type=click.Choice([str(item) for item in OutputFormat]), default="table", show_default=True,
        help="Output format.",
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
        from enforcer.cli.yaml_output import as_yaml

        with streams.writing():
            click.echo(as_yaml(data), nl=False)
    else:
        from enforcer.cli.console import console_for

        as_table(console_for(sys.stdout))


def warn(message: str) -> None:
    """Print a warning to stderr."""
    echo(f"warning: {printable(message)}", err=True)


INSTEAD = "or use 'dossim plan', which needs no privilege, to see what would be enforced where"


def require_privilege(doing: str, *, xdp: bool, instead: str = "") -> None:
    """Raises PrivilegeError unless the process may change netfilter and, with ``xdp``, load BPF programs. ``instead``:
    what does much of the same without privilege.
    """
    held = _effective_capabilities()
    wanted = _NETWORK | _BPF if xdp and not held >> _SYS_ADMIN & 1 else _NETWORK
    missing = [name for name, number in wanted.items() if not held >> number & 1]
    if missing:
        way_out = ", ".join(filter(None, ("run as root (sudo)", instead)))
        raise PrivilegeError(f"{doing} needs {_enumerated(missing)}; {way_out}")


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
    """Print the error and return the exit code, even if stderr is full or has no reader."""
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
    if _ran_out_of_memory(error):
        echo(f"error: {OUT_OF_MEMORY}", err=True)
        if verbose:
            echo("".join(traceback.format_exception(error)), err=True, nl=False)
        return HostError.exit_code
    _report_bug(error, verbose=verbose)
    return BUG


def _ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether that is the cause: of a library that cannot be loaded, or a thread that does not start, too."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if isinstance(error, (ImportError, RuntimeError)) and any(text in str(error) for text in _NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


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
