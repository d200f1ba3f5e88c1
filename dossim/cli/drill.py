"""``dossim drill``: a capture replayed against the real enforcer, every packet verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dossim.cli.options import (
    CAPTURE,
    HostOptions,
    PolicyCommand,
    capture_options,
    host_options,
    open_capture,
    output_file,
)
from dossim.cli.outputs import takes_stdout, write
from dossim.cli.progress import progress
from enforcer.cli.options import mode_option
from enforcer.cli.support import emit, output_option, verbose_option

if TYPE_CHECKING:
    from dossim.packet.capture import Reading

FINDINGS, LACKING = 1, 3


@click.command(cls=PolicyCommand)
@click.argument("capture", type=CAPTURE)
@host_options
@capture_options
@mode_option
@output_file("json", "Write the result as JSON")
@output_file("junit", "Write the result as JUnit XML")
@output_file("html", "Write a report for a browser")
@output_option
@verbose_option
def drill(
    capture: Path,
    host: HostOptions,
    reading: Reading,
    mode: str,
    json_file: str | None,
    junit_file: str | None,
    html_file: str | None,
    output: str,
) -> int:
    """Replay CAPTURE against the real enforcer in a namespace, and compare each packet's fate with the prediction.

    CAPTURE is pcap or pcapng, also compressed; - is stdin.

    Needs root. Changes nothing outside its own namespaces, and leaves nothing behind. Exits with 1 if the kernel
    contradicts the prediction, and with 3 if the machine was too busy to observe every packet.

    \b
    Example:
      sudo dossim drill attack.pcap -p policies/ --mode native --html report.html
    """
    from dossim.drill.judged import every
    from dossim.drill.run import drill_capture
    from dossim.report.html import html
    from dossim.report.json import as_dict, dumps
    from dossim.report.junit import junit
    from dossim.report.terminal import print_view
    from dossim.report.view import view_of

    alone = takes_stdout([json_file, junit_file, html_file], [capture, *host.policy])
    read = open_capture(capture, reading, host)
    name = Path(read.path).name
    situation = host.situation(host.resources(), capture=read, mode=mode)
    with progress(name) as tell:
        result = drill_capture(read, situation, progress=tell, recorded=every(read))
    view = view_of(result)
    if not alone:
        emit(as_dict(view), output, lambda console: print_view(view, console))
    if json_file:
        write(json_file, dumps(as_dict(view)))
    if junit_file:
        write(junit_file, junit([(read.path, view)]))
    if html_file:
        write(html_file, html([view], title=f"Drill of {name}"))
    if view.is_lack_of_time:
        return LACKING
    return 0 if view.holds else FINDINGS
