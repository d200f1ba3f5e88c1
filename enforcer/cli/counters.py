"""``enforcer counters``: what each entry matched."""

from __future__ import annotations

from pathlib import Path

import click

from enforcer.cli.driver import enforcer_of
from enforcer.cli.options import (
    pin_root_option,
)
from enforcer.cli.support import emit, output_option, require_privilege, verbose_option


@click.command()
@pin_root_option
@output_option
@click.option("--per-cpu", is_flag=True, help="Show the packets of each CPU.")
@verbose_option
def counters(pin_root: Path | None, output: str, per_cpu: bool) -> None:
    """Show the packets and bytes that each entry matched, at each stage where it is enforced.

    Counters survive policy changes and restarts. XDP counts for each CPU separately; JSON and YAML always list the
    CPUs.

    \b
    Example:
      enforcer counters --per-cpu
    """
    from enforcer.cli.status_view import counters_as_dict, print_counters

    require_privilege("reading BPF maps and the raw table", xdp=False)
    found = enforcer_of("", pin_root).counters()
    emit(counters_as_dict(found), output, lambda console: print_counters(found, console, per_cpu=per_cpu))
