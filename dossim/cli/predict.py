"""``dossim predict``: where every packet of a capture would end. Needs no privilege."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dossim.cli.options import (
    CAPTURE,
    EXISTING,
    HostOptions,
    PolicyCommand,
    capture_options,
    host_options,
    open_capture,
    output_file,
    rate_option,
    takes_stdout,
    write,
    write_bytes,
)
from enforcer.cli.options import mode_option
from enforcer.cli.support import emit, output_option, verbose_option
from enforcer.model.errors import HostError

if TYPE_CHECKING:
    from dossim.drill.results import PredictResult
    from dossim.exhaustion.outlook import Outlook
    from dossim.model.disposition import Disposition
    from dossim.packet.capture import Reading
    from enforcer.model.facts import HostFacts

_END = ("fate", "stage", "entry", "reason", "others", "depends")
RESETS = "no untracked egress Deny drops the host's RSTs: else the entry of a SYN to a closed port stays as SYN_SENT"
COLUMNS = ("packet", *_END, *(f"calico_{name}" for name in _END))


@click.command(cls=PolicyCommand)
@click.argument("capture", type=CAPTURE)
@host_options
@capture_options
@mode_option
@click.option(
    "--host",
    "facts_file",
    type=EXISTING,
    metavar="FACTS",
    help="Facts of the real host: the output of 'enforcer probe -o yaml'.",
)
@rate_option
@output_file("json", "Write the totals as JSON")
@output_file("csv", "Write one row for each packet")
@output_file("parquet", "The same as Parquet (needs pyarrow)")
@output_option
@verbose_option
def predict(
    capture: Path,
    host: HostOptions,
    reading: Reading,
    mode: str,
    facts_file: Path | None,
    rate: int | None,
    json_file: str | None,
    csv_file: str | None,
    parquet_file: str | None,
    output: str,
) -> None:
    """Predict where each packet of CAPTURE ends, and by which entry, and whether it fills the connection tracking
    table. CAPTURE is pcap or pcapng, also compressed; - is stdin.

    Without --host the interface is assumed to have native and generic XDP and no offload, and Linux's default
    connection tracking table.

    \b
    Example:
      dossim predict attack.pcap -p policies/
      dossim predict attack.pcap -p policies/ --mode raw --csv packets.csv
      tcpdump -r attack.pcap -w - 'dst host 192.0.2.1' | dossim predict - -p policies/
    """
    from dossim.cli.facts import read_facts
    from dossim.drill.judged import every
    from dossim.drill.run import predict_capture
    from dossim.report.json import as_dict, dumps
    from dossim.report.terminal import print_view
    from dossim.report.view import view_of

    alone = takes_stdout([json_file, csv_file, parquet_file])
    if parquet_file:
        _require_pyarrow()
    read = open_capture(capture, reading, host)
    situation = host.situation(host.resources(), capture=read, mode=mode)
    facts = read_facts(facts_file) if facts_file else None
    result = predict_capture(read, situation, facts=facts, recorded=every(read))
    view = replace(view_of(result), outlook=_outlook(result, facts, rate))
    if json_file:
        write(json_file, dumps(as_dict(view)))
    if csv_file:
        write(csv_file, as_csv(result))
    if parquet_file:
        write_parquet(result, parquet_file)
    if not alone:
        emit(as_dict(view), output, lambda console: print_view(view, console))


def _outlook(result: PredictResult, facts: HostFacts | None, rate: int | None) -> Outlook | str:
    """What the capture does to the connection tracking table; or why nothing can be said."""
    from dossim.exhaustion.flows import new_flows
    from dossim.exhaustion.outlook import outlook
    from dossim.exhaustion.table import assumed_table, table_of
    from enforcer.model.vocabulary import Action

    table = assumed_table() if facts is None else table_of(facts.conntrack)
    if isinstance(table, str):
        return table
    if any(entry.action is Action.DENY for entry in result.plan.table.egress):
        table = replace(table, assumed=(*table.assumed, RESETS))
    found = new_flows(result.capture, result.prediction, result.situation.host, table)
    return outlook(table, found, per_s=rate)


def rows(result: PredictResult) -> Iterator[tuple[int | str, ...]]:
    """One row of COLUMNS for each packet, with its number in the file; fields that do not apply are empty. ``others``:
    the further possible ends of a packet with several, and ``depends`` what decides. ``calico_...``: the end with
    tracked policy that is not enforced; empty if there is none, or nothing is known of it.
    """
    calico = result.modelled.prediction if result.modelled else None
    for packet in range(len(result.capture)):
        with_calico = _cells(calico.disposition(packet)) if calico else ("",) * len(_END)
        yield (int(result.capture.record[packet]), *_cells(result.prediction.disposition(packet)), *with_calico)


def _cells(ended: Disposition) -> tuple[str, ...]:
    return (
        str(ended.fate),
        str(ended.stage or ""),
        ended.entry or "",
        ended.reason,
        " or ".join(str(other) for other in ended.others),
        ended.depends,
    )


def as_csv(result: PredictResult) -> str:
    """All rows as CSV with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows(result))
    return text.getvalue()


def write_parquet(result: PredictResult, path: str) -> None:
    """All rows as a Parquet file. Raises HostError without pyarrow."""
    _require_pyarrow()
    pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    columns = list(zip(*rows(result), strict=True)) or [()] * len(COLUMNS)
    table = pyarrow.table(dict(zip(COLUMNS, columns, strict=True)))
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    write_bytes(path, buffer.getvalue())


def _require_pyarrow() -> None:
    if find_spec("pyarrow") is None:
        raise HostError(
            "--parquet needs the package pyarrow, which is not installed; pip install pyarrow, or use --csv"
        )
