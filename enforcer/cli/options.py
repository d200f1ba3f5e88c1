"""Options of several commands, including those of ``dossim``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from enforcer.cli.support import NonEmptyPath, require_nonempty
from enforcer.model.choices import ModeChoice, RawChoice, TrackedChoice
from enforcer.model.errors import UsageError
from enforcer.model.vocabulary import Toolchain, Word

Command = TypeVar("Command", bound=Callable[..., Any])


def node_option(command: Command) -> Command:
    return click.option(
        "--node",
        default=lambda: os.uname().nodename,
        show_default="the host name",
        callback=require_nonempty,
        help="The node whose HostEndpoints are enforced.",
    )(command)


def choice_option(name: str, default: Word, help_text: str) -> Callable[[Command], Command]:
    """An option whose value is a member of the enum of ``default``."""
    words = [str(word) for word in type(default)]
    return click.option(name, type=click.Choice(words), default=str(default), show_default=True, help=help_text)


mode_option = choice_option(
    "--mode",
    ModeChoice.AUTO,
    "XDP mode. auto: the earliest that works; a named mode: an error if it does not work; raw: no XDP.",
)
raw_backend_option = choice_option(
    "--raw-backend",
    RawChoice.AUTO,
    "Backend for the raw table. auto: as the FelixConfiguration says, else where the host's own rules are.",
)


tracked_option = choice_option(
    "--tracked",
    TrackedChoice.MODEL,
    "Normal, preDNAT and forward policy of HostEndpoints. model: not enforced, only predicted; enforce: as Felix does.",
)


def netdev_ingress_option(command: Command) -> Command:
    return click.option(
        "--netdev-ingress",
        is_flag=True,
        help="On interfaces without XDP, drop at netdev ingress, right after the driver. Requires nf_tables.",
    )(command)


def cut_established_option(command: Command) -> Command:
    return click.option(
        "--cut-established",
        is_flag=True,
        help="Switch on normal policy even if that cuts established connections that conntrack does not know.",
    )(command)


class _Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in new versions of click
    """``60s``, ``2m``, or a number of seconds; 5 s to 1 h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d{1,4})(s|m|)", str(value))
        seconds = int(found[1]) * (60 if found[2] == "m" else 1) if found else 0
        if not 5 <= seconds <= 3600:
            self.fail(f"expected 5s to 60m, found {value!r}", param, ctx)
        return float(seconds)


def require_enforce(confirm_within: float | None, tracked: str) -> None:
    """Raises UsageError for a trial of nothing."""
    if confirm_within is not None and tracked != TrackedChoice.ENFORCE:
        raise UsageError("--confirm-within is for --tracked enforce")


confirm_within_option = click.option(
    "--confirm-within",
    type=_Duration(),
    default=None,
    metavar="DURATION",
    help="Roll normal policy back unless 'enforcer confirm' is run within this time, such as 60s or 2m.",
)

toolchain_option = choice_option(
    "--toolchain",
    Toolchain.LIBBPF,
    "libbpf loads the XDP program compiled ahead of time; bcc compiles it on this host.",
)


DATASTORES = ("files", "etcd", "kubernetes")


def datastore_options(command: Command) -> Command:
    """``--datastore``, ``--datastore-config`` and ``--emergency-dir``."""
    return which_datastore(emergency_dir_option(command))


def which_datastore(command: Command) -> Command:
    """``--datastore`` and ``--datastore-config``."""
    for option in (
        click.option(
            "--datastore-config",
            type=NonEmptyPath(dir_okay=False, path_type=Path),
            envvar="ENFORCER_DATASTORE_CONFIG",
            help="How to reach a datastore other than files: a file in calicoctl's format. Default: "
            "/etc/calico/calicoctl.cfg if it exists, else the environment (ETCD_ENDPOINTS, KUBECONFIG, ...).",
        ),
        click.option(
            "--datastore",
            type=click.Choice(DATASTORES),
            default="files",
            envvar="ENFORCER_DATASTORE",
            show_default=True,
            help="Kind of datastore.",
        ),
    ):
        command = option(command)
    return command


def emergency_dir_option(command: Command) -> Command:
    return click.option(
        "--emergency-dir",
        type=NonEmptyPath(file_okay=False, path_type=Path),
        envvar="ENFORCER_EMERGENCY_DIR",
        help="Where 'enforcer deny' keeps its acts with --datastore files. Default: emergency/ below the agent's "
        "state directory (/var/lib/enforcer).",
    )(command)


def pin_root_option(command: Command) -> Command:
    return click.option(
        "--pin-root",
        type=NonEmptyPath(path_type=Path),
        envvar="ENFORCER_PIN_ROOT",
        default=None,
        help="Directory of the BPF file system for pins. Default: one for each network namespace.",
    )(command)


def files_option(*, help_text: str, must_exist: bool = True, required: bool = True) -> Callable[[Command], Command]:
    kind = NonEmptyPath(exists=must_exist, path_type=Path)
    return click.option(
        "-f", "--file", "files", type=kind, multiple=True, required=required, metavar="PATH", help=help_text
    )
