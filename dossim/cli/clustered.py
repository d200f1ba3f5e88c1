"""``dossim predict --scheduler``: its options, and its work on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dossim.cli.options import STDOUT, size_of_option
from dossim.cli.outlook import known_table, outlook_of
from enforcer.cli.support import NonEmptyPath, require_nonempty
from enforcer.model.errors import HostError, UsageError

if TYPE_CHECKING:
    from dossim.cli.options import HostOptions
    from dossim.cli.packet_rows import Rows
    from dossim.cluster.run import Packets
    from dossim.packet.capture import Reading
    from dossim.report.view import View
    from enforcer.model.facts import HostFacts

Command = TypeVar("Command", bound=Callable[..., Any])

_OF_DASK = ("distributed", "dask", "fsspec")


class CaptureName(NonEmptyPath):
    """A CAPTURE: a path of this machine; with --scheduler one of its workers, or a URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if ctx is not None and ctx.params.get("scheduler") and value:
            return str(value)
        if "://" in str(value):
            self.fail(f"{value}: URLs are read with --scheduler; expected a file", param, ctx)
        return super().convert(value, param, ctx)


@dataclass(frozen=True)
class ClusterOptions:
    """``shard_size``: in bytes, None: the usual one."""

    scheduler: str
    shard_size: int | None


def cluster_options(command: Command) -> Command:
    """--scheduler and --shard-size."""
    shards = click.option(
        "--shard-size",
        callback=size_of_option,
        metavar="SIZE",
        help="The minimum size of a shard, with --scheduler. Default: 1G.",
    )
    scheduler = click.option(
        "--scheduler",
        is_eager=True,
        callback=require_nonempty,
        metavar="ADDRESS",
        help="Predict in shards on the Dask cluster of this scheduler, such as tcp://host:8786. CAPTUREs are then "
        "paths that all workers can read, or URLs that fsspec knows. Needs dossim[dask].",
    )
    return scheduler(shards(command))


def predict_on_cluster(
    names: Sequence[str],
    host: HostOptions,
    reading: Reading,
    mode: str,
    facts: HostFacts | None,
    *,
    cluster: ClusterOptions,
    rate: int | None,
    rows: Sequence[Rows],
    report: Callable[[View], None],
) -> None:
    """Raises HostError for what is missing here or there, CaptureError, and UsageError."""
    try:
        from dossim.cluster.dask import cluster_at
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _OF_DASK:
            raise
        raise HostError(f"--scheduler needs Dask ({error.name} is missing): pip install 'dossim[dask]'") from error
    from dossim.cluster.beginning import beginning_of
    from dossim.cluster.predict import Asked, predict_on
    from dossim.cluster.split import LEAST
    from dossim.packet.source import streamed
    from dossim.report.view import view_of

    if STDOUT in names:
        raise UsageError("-: the workers cannot read the standard input of this command; expected a path or a URL")
    resources = host.resources()
    situation = host.situation(resources, capture=None, mode=mode)
    table = known_table(facts)
    asked = Asked(
        cluster.shard_size or LEAST,
        None if isinstance(table, str) else table,
        keeps_packets=bool(rows),
        skip_unknown=reading.skip_unknown,
        most=streamed(reading),
    )
    with ExitStack() as stack:
        for each in rows:
            stack.callback(each.discard)
        workers = stack.enter_context(cluster_at(cluster.scheduler))
        workers.require_ready()
        if not situation.host.addresses:
            (first,) = workers.gather([workers.submit(beginning_of, names[0], reading.skip_unknown)])
            situation = host.situation(resources, capture=first, mode=mode)
        for each in rows:
            each.start()  # before the work: perhaps they cannot be written
        result, sharded = predict_on(workers, names, situation, asked, facts)
        if asked.keeps_packets:
            _write(sharded.packets(), rows)
    outlook = table if isinstance(table, str) else outlook_of(result.plan, table, sharded.flows, rate)
    report(replace(view_of(result), outlook=outlook))


def _write(packets: Iterator[Packets], rows: Sequence[Rows]) -> None:
    """One row for each, as the packets come; the files are there when all of it is."""
    for part in packets:
        for each in rows:
            each.add(part.numbers, part.prediction, part.later)
    for each in rows:
        each.finish()
