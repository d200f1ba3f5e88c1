"""Options that several commands share, and the values made from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from enforcer.cli.options import netdev_ingress_option, raw_backend_option, tracked_option
from enforcer.cli.support import NonEmptyPath, require_nonempty
from enforcer.model.choices import ModeChoice, RawChoice, TrackedChoice
from enforcer.model.errors import UsageError

if TYPE_CHECKING:
    from dossim.drill.situation import Situation
    from dossim.packet.capture import Capture, Reading
    from dossim.scenario.budget import Limits
    from enforcer.policy.resources import Resources

Command = TypeVar("Command", bound=Callable[..., Any])

STDIN = STDOUT = "-"
EXISTING = NonEmptyPath(exists=True, path_type=Path)
CAPTURE = NonEmptyPath(exists=True, allow_dash=True, path_type=Path)
OUTPUT = NonEmptyPath(allow_dash=True, dir_okay=False)


@dataclass(frozen=True)
class HostOptions:
    """What the command line says about the host; the rest comes from the policy and the capture."""

    policy: tuple[Path, ...]
    node: str | None
    interface: str | None
    address: tuple[str, ...]
    forward: bool
    listen: tuple[str, ...]
    raw_backend: str = str(RawChoice.AUTO)
    netdev_ingress: bool = False
    tracked: str = str(TrackedChoice.MODEL)

    def resources(self) -> Resources:
        """The policy. Raises PolicyError with every finding."""
        from enforcer.policy.load import load

        return load(self.policy)

    def situation(self, resources: Resources, *, capture: Capture | None, mode: str) -> Situation:
        """Raises UsageError when the policy leaves a choice that only the user can make."""
        from ipaddress import ip_interface

        from dossim.drill.situation import situation_for
        from dossim.model.host import listener

        return situation_for(
            resources,
            capture=capture,
            choice=ModeChoice(mode),
            raw=RawChoice(self.raw_backend),
            netdev=self.netdev_ingress,
            tracked=TrackedChoice(self.tracked),
            node=self.node,
            interface=self.interface,
            addresses=_each("--address", self.address, ip_interface),
            forward=self.forward,
            listen=_each("--listen", self.listen, listener),
        )


def size_of_option(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    """A number of bytes, with K, M, G or T for powers of 1024."""
    if text is None:
        return None
    from dossim.packet.source import size

    try:
        return size(text)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


_MOST_IN_MEMORY = "The largest unpacked size of a capture, such as 500M or 4G. Default: 2G, at most half of the memory."
_MOST_STREAMED = (
    "The largest unpacked size of a capture, such as 500M or 4G. Default: no limit; for compressed "
    "ones, a thousand times their size."
)


def capture_options(command: Command) -> Command:
    """How a CAPTURE is read; the command gets it as one :class:`~dossim.packet.capture.Reading` named ``reading``."""
    return _reading_options(command, _MOST_IN_MEMORY)


def stream_options(command: Command) -> Command:
    """As :func:`capture_options`, for captures that are not kept in memory."""
    return _reading_options(command, _MOST_STREAMED)


def _reading_options(command: Command, about_size: str) -> Command:
    options = (
        click.option(
            "--skip-unknown-link-types",
            is_flag=True,
            help="Skip packets of unsupported link types instead of rejecting the capture.",
        ),
        click.option(
            "--max-size",
            callback=size_of_option,
            metavar="SIZE",
            help=about_size,
        ),
    )

    def wrapped(skip_unknown_link_types: bool, max_size: int | None, **given: Any) -> Any:
        from dossim.packet.capture import Reading

        reading = Reading(max_size=max_size, any_file=True, skip_unknown=skip_unknown_link_types)
        return command(reading=reading, **given)

    return _decorated(command, wrapped, options)


def open_capture(path: Path | str, reading: Reading, host: HostOptions) -> Capture:
    """Read the CAPTURE of a command line. Raises CaptureError, and UsageError when stdin is wanted twice."""
    from dossim.packet.capture import read_capture

    require_one_stdin([path], host)
    return read_capture(path, reading)


def require_one_stdin(paths: Sequence[Path | str], host: HostOptions) -> None:
    """Raises UsageError when stdin is wanted twice."""
    wanted = [str(path) for path in paths].count(STDIN)
    if wanted and Path(STDIN) in host.policy:
        raise UsageError("the policy and the capture cannot both come from stdin (-)")
    if wanted > 1:
        raise UsageError("stdin (-) can be read once")


class PolicyCommand(click.Command):
    """A command whose ``-p`` takes several paths at once, as a shell's globs give them: ``-p policies/*.yaml CAPTURE``.

    Words after ``-p PATH`` are policy paths as long as there are more words than the command has arguments. Where it
    takes any number of captures: but for files that begin as captures do, and the last word if nothing else is one.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._with_repeated_option(args))

    def _with_repeated_option(self, args: list[str]) -> list[str]:
        takes_value = {
            name: not option.is_flag
            for option in self.params
            if isinstance(option, click.Option)
            for name in option.opts
        }
        words = [at for at, _ in _words(args, takes_value)]
        behind = [at for at, behind_policy in _words(args, takes_value) if behind_policy]
        arguments = [parameter for parameter in self.params if isinstance(parameter, click.Argument)]
        if any(argument.nargs == -1 for argument in arguments):
            extra = [at for at in behind if not _begins_as_capture(args[at])]
            if extra and len(extra) == len(words):
                extra.pop()
        else:
            extra = behind[: max(len(words) - len(arguments), 0)]
        return [part for at, arg in enumerate(args) for part in (("-p", arg) if at in extra else (arg,))]


def _begins_as_capture(path: str) -> bool:
    """Whether it is a regular file with a capture, perhaps compressed."""
    from dossim.packet.capture import begins_as_capture

    if not Path(path).is_file():
        return False
    try:
        with Path(path).open("rb") as file:
            return begins_as_capture(file.read(8))
    except OSError:
        return False  # who opens it says why


def _words(args: Sequence[str], takes_value: Mapping[str, bool]) -> Iterator[tuple[int, bool]]:
    """Where the arguments that belong to no option are, and whether they follow ``-p PATH`` without a gap."""
    at, behind_policy = 0, False
    while at < len(args):
        if args[at] == "--":
            yield from ((rest, False) for rest in range(at + 1, len(args)))
            return
        if args[at].startswith("-") and args[at] != STDOUT:
            behind_policy = args[at] in ("-p", "--policy")
            at += 1 + takes_value.get(args[at], False)
            continue
        yield at, behind_policy
        at += 1


def policy_option(command: Command) -> Command:
    return click.option(
        "-p",
        "--policy",
        type=NonEmptyPath(exists=True, allow_dash=True, path_type=Path),
        multiple=True,
        required=True,
        metavar="PATH...",
        help="Files and directories of Calico resources; - is stdin.",
    )(command)


def host_options(command: Command) -> Command:
    """--policy and everything about the host; the command gets them as one :class:`HostOptions` named ``host``."""
    options = (
        policy_option,
        click.option(
            "--node", callback=require_nonempty, help="The node, if the policy has HostEndpoints of several nodes."
        ),
        click.option(
            "--interface",
            callback=require_nonempty,
            help="The receiving interface. Default: that of the HostEndpoint.",
        ),
        click.option(
            "--address",
            multiple=True,
            metavar="CIDR",
            help="An address of the host. May be repeated. Default: the HostEndpoint's expectedIPs, else the most "
            "frequent "
            "destination.",
        ),
        click.option("--forward", is_flag=True, help="The host forwards packets to other destinations."),
        click.option(
            "--listen", multiple=True, metavar="udp/PORT", help="A port the host listens on. May be repeated."
        ),
        raw_backend_option,
        netdev_ingress_option,
        tracked_option,
    )

    def wrapped(**given: Any) -> Any:
        names = HostOptions.__dataclass_fields__
        host = HostOptions(**{name: given.pop(name) for name in names})
        return command(host=host, **given)

    return _decorated(command, wrapped, options)


def _decorated(command: Command, wrapped: Callable[..., Any], options: Sequence[Callable[[Any], Any]]) -> Command:
    """``wrapped`` in place of the command, with these options before the command's own."""
    wrapped.__doc__, wrapped.__name__ = command.__doc__, command.__name__
    # Parameters that decorators below have put on the command so far must not be lost.
    wrapped.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]  # click's own
    result: Any = wrapped
    for option in reversed(options):
        result = option(result)
    return result  # type: ignore[no-any-return]  # decorated: still a command


@dataclass(frozen=True)
class UntrustedOptions:
    """What these scenario files may do beyond the limits for untrusted ones."""

    allow_path: tuple[Path, ...]
    allow_large: bool

    @property
    def limits(self) -> Limits:
        from dossim.scenario.budget import DEFAULT, LARGE

        return LARGE if self.allow_large else DEFAULT


def untrusted_options(command: Command) -> Command:
    """--allow-path and --allow-large; the command gets them as one :class:`UntrustedOptions` named ``untrusted``."""

    def wrapped(*, allow_path: tuple[Path, ...], allow_large: bool, **given: Any) -> Any:
        return command(untrusted=UntrustedOptions(allow_path, allow_large), **given)

    wrapped.__doc__, wrapped.__name__ = command.__doc__, command.__name__
    # As in host_options.
    wrapped.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]  # click's own
    large = click.option("--allow-large", is_flag=True, help="Allow scenarios with as many packets as fit into memory.")
    result: Any = allow_path_option(large(wrapped))
    return result  # type: ignore[no-any-return]  # decorated: still a command


def allow_path_option(command: Command) -> Command:
    return click.option(
        "--allow-path",
        type=NonEmptyPath(exists=True, file_okay=False, path_type=Path),
        multiple=True,
        metavar="DIR",
        help="Also allow files below this directory, named by a scenario or reached by a symbolic link. May be "
        "repeated.",
    )(command)


def require_below(path: Path, folders: Sequence[Path]) -> None:
    """Refuse resource files that symbolic links lead out of the directory they were found in. Raises UsageError."""
    from dossim.scenario.confine import Confinement, Outside

    try:
        Confinement.below(folders).require_resources(path)
    except Outside as error:
        raise UsageError(str(error)) from error


def unknown_node(resources: Resources, node: str, named: str = "") -> str:
    """A sentence if the policy has no HostEndpoint of the node, else "". ``named``: where the name comes from, if not
    from --node.
    """
    nodes = sorted({item.node for item in resources.host_endpoints})
    if node in nodes:
        return ""
    known = f"only of {', '.join(nodes)}" if nodes else "nor of any other"
    return f"{named or f'--node {node}'}: the policy has no HostEndpoint of that node, {known}"


def rate_option(command: Command) -> Command:
    return click.option(
        "--rate",
        type=click.IntRange(1, 10**9),
        metavar="N",
        help="New flows per second, for the connection tracking table. Default: as in the capture, if there is one.",
    )(command)


def output_file(name: str, what: str) -> Callable[[Command], Command]:
    """``--NAME FILE``."""
    return click.option(
        f"--{name}",
        f"{name}_file",
        type=OUTPUT,
        metavar="FILE",
        help=f"{what}; - is stdout.",
    )


T = TypeVar("T")


def _each(option: str, texts: Sequence[str], read: Callable[[str], T]) -> tuple[T, ...]:
    try:
        return tuple(read(text) for text in texts)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
