"""What the commands of feeds work on: the datastore, what is protected, and what is remembered."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from enforcer.cli.acts import GuardError, loaded_of
from enforcer.cli.acts_input import facts_of
from enforcer.datastore.open import FILES, Place, open_writer
from enforcer.emergency.effect import tables_of
from enforcer.emergency.protection import protection
from enforcer.feeds.canonical import Protected
from enforcer.feeds.state import StateStore, feeds_directory
from enforcer.feeds.sync import Syncer
from enforcer.lists.entry import Network
from enforcer.model.errors import UsageError
from enforcer.model.nets import IPNetwork
from enforcer.policy.resources import Resources


def feeds_place(kind: str, policy: Sequence[Path], config: Path | None, into: Path | None) -> Place:
    """Raises UsageError."""
    if kind == FILES and into is None and policy:
        if not os.path.isdir(policy[0]):  # Path.is_dir() raises where root alone may look
            raise UsageError(f"{policy[0]}: no directory, so --into must say where the sets are written")
        into = policy[0] / "feeds"
    if kind != FILES and into is not None:
        raise UsageError("--into is for --datastore files")
    return Place(kind, policy, config, into, option="--policy")


@contextmanager
def syncer_of(
    place: Place,
    node: str,
    state_dir: Path | None,
    protected: Sequence[Network],
    *,
    dry_run: bool,
    despite_faults: bool,
) -> Iterator[Syncer]:
    """``protected``: those of feeds.yaml. One process at a time. Raises as ``open_writer``, HostError, and GuardError
    where an object has no good version, so that what it protects is unknown.
    """
    states = StateStore(feeds_directory() if state_dir is None else state_dir)
    loaded = loaded_of(place, node)
    if loaded.left_out and not despite_faults:
        unknown = ", ".join(loaded.left_out)
        raise GuardError(
            f"no list is fetched while it is unknown what {unknown} protects: correct it, or insist with "
            "--despite-faults; the current sets stay"
        )
    resources = loaded.resources
    kept = [Protected(item, "protected in feeds.yaml") for item in protected]
    with ExitStack() as stack:
        writer = None
        if not dry_run:
            stack.enter_context(states.locked())
            writer = stack.enter_context(open_writer(place))
        yield Syncer(states, resources, [*kept, *_protected(resources, place)], writer)


def _protected(resources: Resources, place: Place) -> Iterator[Protected]:
    """What no emergency act may deny, a feed may not deny either."""
    tables, _ = tables_of(resources)
    found = protection(resources, tables, facts_of(place))
    for item in found.single:
        yield Protected(_network(item.network), item.what)
    for what, nets in found.sets.items():
        yield from (Protected(_network(net), what) for net in nets)


def _network(net: IPNetwork) -> Network:
    return net.version, int(net.network_address), net.prefixlen
