"""``enforcer feed``: address lists of others as network sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from enforcer.cli.acts import policy_option
from enforcer.cli.options import node_option, which_datastore
from enforcer.cli.support import NonEmptyPath, echo, emit, output_option, verbose_option, warn
from enforcer.model.errors import EnforcerError, UsageError

if TYPE_CHECKING:
    from enforcer.cli.feed_view import Outcome
    from enforcer.feeds.config import Feed
    from enforcer.feeds.sync import Syncer

FAILED = 1  # the exit code

Command = TypeVar("Command", bound=Callable[..., Any])

config_option = click.option(
    "-f",
    "--file",
    "config",
    type=NonEmptyPath(dir_okay=False, path_type=Path),
    required=True,
    metavar="FEEDS.YAML",
    help="The feeds: docs/feeds.md.",
)
state_option = click.option(
    "--state-dir",
    type=NonEmptyPath(file_okay=False, path_type=Path),
    help="Where fetched lists are stored. Default: feeds/ below $STATE_DIRECTORY, else below /var/lib/enforcer.",
)


into_option = click.option(
    "--into",
    type=NonEmptyPath(file_okay=False, path_type=Path),
    envvar="ENFORCER_FEEDS_DIR",
    metavar="DIR",
    help="Where the sets are written with --datastore files: a directory that the agent follows. Default: feeds/ in "
    "the first --policy.",
)


def place_options(command: Command) -> Command:
    """Where the sets are written, and where the policy is whose addresses are protected."""
    return policy_option(which_datastore(into_option(node_option(command))))


@click.group()
@verbose_option
def feed() -> None:
    """Fetch address lists (DROP, FireHOL, ipset save, CSV, CrowdSec, ...) and store them as GlobalNetworkSets.

    Runs on one host; the agents of all others follow the datastore. A list does not replace a good one if it is empty,
    truncated, mostly not addresses, much larger or smaller than before, or denies a large part of the Internet: the
    current sets stay.

    \b
    Example:
      enforcer feed sync -f feeds.yaml --policy /etc/enforcer
      enforcer feed list -f feeds.yaml
    """


@feed.command()
@config_option
@click.option("--only", multiple=True, metavar="NAME", help="Only this feed. May be repeated.")
@click.option("--accept", multiple=True, metavar="NAME", help="Accept the list of this feed that is held.")
@click.option(
    "--despite-faults", is_flag=True, help="Fetch even if what a faulty object of the policy protects is unknown."
)
@click.option("--dry-run", is_flag=True, help="Fetch, print what would change, and store nothing.")
@click.option(
    "--metrics-textfile",
    type=NonEmptyPath(dir_okay=False, path_type=Path),
    envvar="ENFORCER_FEEDS_TEXTFILE",
    help="Write age and size of each feed to this file (.prom) for node_exporter.",
)
@place_options
@state_option
@output_option
@verbose_option
def sync(
    config: Path,
    only: tuple[str, ...],
    accept: tuple[str, ...],
    despite_faults: bool,
    dry_run: bool,
    metrics_textfile: Path | None,
    files: tuple[Path, ...],
    datastore: str,
    datastore_config: Path | None,
    into: Path | None,
    node: str,
    state_dir: Path | None,
    output: str,
) -> int:
    """Fetch each feed that is due, and write what has changed. For a timer: packaging/enforcer-feed.timer.

    Exit code 0: every feed is up to date, or not due; 1: a feed failed or is held, or the policy has a
    fault, and the current sets stay; 2: feeds.yaml is wrong; 3: the datastore does not answer.

    \b
    Example:
      enforcer feed sync -f feeds.yaml --policy /etc/enforcer
      enforcer feed sync -f feeds.yaml --datastore etcd --accept spamhaus-drop
    """
    from enforcer.cli.feed_input import feeds_place, syncer_of
    from enforcer.cli.feed_view import print_results, results_as_dict
    from enforcer.feeds.config import load_config
    from enforcer.feeds.metrics import exposition
    from enforcer.monitor.textfile import check_textfile, write_textfile

    found = load_config(config)
    chosen = _chosen(found.feeds, (*only, *accept)) if only or accept else found.feeds
    if metrics_textfile is not None:
        check_textfile(metrics_textfile)
    place = feeds_place(datastore, files, datastore_config, into)
    with syncer_of(place, node, state_dir, found.protected, dry_run=dry_run, despite_faults=despite_faults) as syncer:
        results = [_sync_one(syncer, item, accept=item.name in accept) for item in chosen]
        known = {item.name for item in found.feeds}
        for name in syncer.states.names():
            if name not in known:
                warn(f"feed {name} is not in {config} any more, and its sets stay: 'enforcer feed remove {name}'")
        if metrics_textfile is not None and not dry_run:
            states = {item.name: syncer.states.read(item.name) for item in found.feeds}
            try:
                write_textfile(metrics_textfile, exposition(states))
            except OSError as error:
                warn(f"{metrics_textfile}: {error.strerror or error}")
    emit(results_as_dict(results), output, lambda console: print_results(results, console))
    return max(item.code for item in results)


def _chosen(feeds: Sequence[Feed], names: Sequence[str]) -> list[Feed]:
    """Raises UsageError for a name that is none."""
    known = {item.name: item for item in feeds}
    for name in names:
        if name not in known:
            raise UsageError(f"feeds.yaml has no feed {name!r}; it has: {', '.join(known)}")
    return [item for item in feeds if item.name in names]


def _sync_one(syncer: Syncer, item: Feed, *, accept: bool) -> Outcome:
    """The failure of one feed does not keep others from being fetched."""
    from enforcer.cli.feed_view import Outcome

    try:
        result = syncer.accept(item) if accept else syncer.sync(item)
    except EnforcerError as error:
        if isinstance(error, UsageError):
            raise
        return Outcome(item.name, None, error.exit_code, str(error))
    return Outcome(item.name, result, 0 if result.good else FAILED, result.problem)


@feed.command("list")
@config_option
@state_option
@output_option
@verbose_option
def list_feeds(config: Path, state_dir: Path | None, output: str) -> None:
    """Show for each feed on this host when it was fetched, its size, and what failed.

    \b
    Example:
      enforcer feed list -f feeds.yaml
    """
    from enforcer.cli.feed_view import print_states, states_as_dict
    from enforcer.feeds.config import load_config
    from enforcer.feeds.state import StateStore, feeds_directory

    states = StateStore(feeds_directory() if state_dir is None else state_dir)
    feeds = load_config(config).feeds
    found = [(item, states.read(item.name)) for item in feeds]
    gone = sorted({*states.names()} - {item.name for item in feeds})
    emit(states_as_dict(found, gone), output, lambda console: print_states(found, gone, console))


@feed.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Print what would be deleted, and delete nothing.")
@place_options
@state_option
@verbose_option
def remove(
    name: str,
    dry_run: bool,
    files: tuple[Path, ...],
    datastore: str,
    datastore_config: Path | None,
    into: Path | None,
    node: str,
    state_dir: Path | None,
) -> int:
    """Delete the network sets of a feed: what they denied gets through. Remove the feed from feeds.yaml too.

    \b
    Example:
      enforcer feed remove spamhaus-drop --policy /etc/enforcer
    """
    from enforcer.cli.feed_input import feeds_place, syncer_of
    from enforcer.feeds import sync as feeds_sync

    place = feeds_place(datastore, files, datastore_config, into)
    with syncer_of(place, node, state_dir, (), dry_run=dry_run, despite_faults=True) as syncer:
        names = feeds_sync.remove(syncer.states, syncer.writer, syncer.resources, name)
    for each in names:
        echo(f"GlobalNetworkSet {each} {'would be deleted' if dry_run else 'deleted'}")
    if not names:
        echo(f"feed {name} has no network sets", err=True)
    return 0 if names else FAILED
