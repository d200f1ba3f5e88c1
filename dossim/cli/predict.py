"""``dossim predict``: where every packet of a capture would end. Needs no privilege."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dossim.cli.clustered import CaptureName, ClusterOptions, cluster_options, predict_on_cluster
from dossim.cli.options import (
    EXISTING,
    HostOptions,
    PolicyCommand,
    host_options,
    output_file,
    rate_option,
    require_one_stdin,
    stream_options,
)
from dossim.cli.outlook import known_table, outlook_of
from dossim.cli.outputs import takes_stdout, write
from enforcer.cli.options import mode_option
from enforcer.cli.support import OutputFormat, emit, output_option, verbose_option
from enforcer.model.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dossim.cli.packet_rows import Rows
    from dossim.drill.results import CountedResult
    from dossim.drill.streamed import Watcher
    from dossim.exhaustion.outlook import Outlook
    from dossim.exhaustion.table import Table
    from dossim.packet.capture import Reading
    from dossim.report.view import View
    from enforcer.model.facts import HostFacts


@click.command(cls=PolicyCommand)
@click.argument(
    "captures", metavar="CAPTURE...", type=CaptureName(exists=True, allow_dash=True), nargs=-1, required=True
)
@host_options
@stream_options
@cluster_options
@mode_option
@click.option(
    "--host",
    "facts_file",
    type=EXISTING,
    metavar="FACTS",
    help="Facts of the real host: the output of 'enforcer probe -o yaml'.",
)
@rate_option
@click.option(
    "--sample",
    type=click.IntRange(1, 50_000),
    metavar="N",
    help="Predict only N packets, drawn at random from all, each by itself.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of --sample.")
@click.option(
    "--progress/--no-progress",
    default=None,
    help="Show on stderr how much has been read. Default: if stderr is a terminal.",
)
@output_file("json", "Write the totals as JSON")
@output_file("csv", "Write one row for each packet")
@output_file("parquet", "The same as Parquet (needs pyarrow)")
@output_option
@verbose_option
def predict(
    captures: tuple[Path | str, ...],
    host: HostOptions,
    reading: Reading,
    scheduler: str | None,
    shard_size: int | None,
    mode: str,
    facts_file: Path | None,
    rate: int | None,
    sample: int | None,
    seed: int,
    progress: bool | None,
    json_file: str | None,
    csv_file: str | None,
    parquet_file: str | None,
    output: str,
) -> None:
    """Predict where each packet of CAPTURE ends, and by which entry, and whether they fill the connection tracking
    table. CAPTURE is pcap or pcapng of any size, also compressed; - is stdin. Several files, such as rotated ones of
    tcpdump, count as one capture; their packets arrive in the given order.

    Without --host, predict assumes an interface with native and generic XDP but no offload, and Linux's default
    connection tracking table.

    \b
    Example:
      dossim predict attack.pcap -p policies/
      dossim predict attack.pcap00 attack.pcap01 attack.pcap02 -p policies/
      dossim predict attack.pcap -p policies/ --mode raw --csv packets.csv
      dossim predict s3://captures/attack.pcap -p policies/ --scheduler tcp://10.0.0.7:8786
      tcpdump -r attack.pcap -w - 'dst host 192.0.2.1' | dossim predict - -p policies/
    """
    from dossim.cli.facts import read_facts
    from dossim.report.json import as_dict, dumps
    from dossim.report.terminal import print_view

    alone = takes_stdout([json_file, csv_file, parquet_file], [*captures, *host.policy, *filter(None, [facts_file])])
    rows = _rows(csv_file, parquet_file)
    facts = read_facts(facts_file) if facts_file else None

    def report(view: View) -> None:
        if json_file:
            write(json_file, dumps(as_dict(view)))
        if not alone:
            emit(as_dict(view), output, lambda console: print_view(view, console))

    if scheduler is not None:
        if sample is not None:
            raise UsageError("--sample: not with --scheduler")
        if progress:
            raise UsageError("--progress: not with --scheduler; Dask's dashboard shows what the workers do")
        cluster = ClusterOptions(scheduler, shard_size)
        names = [str(name) for name in captures]
        predict_on_cluster(names, host, reading, mode, facts, cluster=cluster, rate=rate, rows=rows, report=report)
        return
    shows_hash = bool(json_file) or (not alone and output != OutputFormat.TABLE)
    report(
        _streamed(
            captures, host, reading, mode, facts, rows, rate=rate, sample=sample, seed=seed, progress=progress,
            is_hashed=shows_hash,
        )
    )  # fmt: skip


def _streamed(
    captures: Sequence[Path | str],
    host: HostOptions,
    reading: Reading,
    mode: str,
    facts: HostFacts | None,
    rows: Sequence[Rows],
    *,
    rate: int | None,
    sample: int | None,
    seed: int,
    progress: bool | None,
    is_hashed: bool,
) -> View:
    from dossim.cli.bytes_read import BytesRead
    from dossim.drill.streamed import predict_sample, predict_stream
    from dossim.packet.stream import Stream
    from dossim.report.view import view_of

    require_one_stdin(captures, host)
    stream = Stream(captures, reading, is_hashed=is_hashed)
    first = stream.first()
    situation = host.situation(host.resources(), capture=first, mode=mode)
    table = known_table(facts)
    with ExitStack() as stack:
        for each in rows:
            stack.callback(each.discard)
        watchers: list[Watcher] = [*rows, stack.enter_context(BytesRead.on(stream.name, progress))]
        if sample is None:
            known = None if isinstance(table, str) else table
            result = predict_stream(stream, situation, facts=facts, watchers=watchers, table=known)
        else:
            result = predict_sample(stream, situation, sample, seed=seed, facts=facts, watchers=watchers)
        for each in rows:
            each.finish()
    return replace(view_of(result), outlook=_outlook(result, table, rate))


def _rows(csv_file: str | None, parquet_file: str | None) -> Sequence[Rows]:
    from dossim.cli.packet_rows import CsvRows, ParquetRows

    return [*([CsvRows(csv_file)] if csv_file else []), *([ParquetRows(parquet_file)] if parquet_file else [])]


def _outlook(result: CountedResult, table: Table | str, rate: int | None) -> Outlook | str:
    """What the capture does to the connection tracking table; or why nothing can be said."""
    if isinstance(table, str):
        return table
    if result.flows is None:
        return "a sample does not show which flows are new"
    return outlook_of(result.plan, table, result.flows, rate)
