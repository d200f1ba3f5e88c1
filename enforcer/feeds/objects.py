"""The network sets of a feed as objects, and what has to be written so that they are there. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from enforcer.feeds.chunks import Part, chunks, name_of, part_of
from enforcer.feeds.config import Feed
from enforcer.lists.entry import Network, written
from enforcer.policy.resources import GlobalNetworkSet, Resources
from enforcer.policy.schema import FEED, OWN_PREFIX

SOURCE, FETCHED, SHA256, LICENCE = (f"{OWN_PREFIX}{name}" for name in ("source", "fetched", "sha256", "licence"))
OWN = (SOURCE, FETCHED, SHA256, LICENCE)
_STAMPS = (FETCHED, SHA256)  # of the fetch that last changed the set; else each fetch would change each set


@dataclass(frozen=True)
class Wanted:
    """A network set as it is to be."""

    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    nets: Sequence[str]


@dataclass(frozen=True)
class Changes:
    """``delete``: names. What is written comes first, so that no address is let through meanwhile. ``foreign``: names
    of sets that somebody else has where one of the feed would be.
    """

    create: Sequence[Wanted] = ()
    replace: Sequence[Wanted] = ()
    delete: Sequence[str] = ()
    foreign: Sequence[str] = ()
    unchanged: int = 0

    @property
    def count(self) -> int:
        return len(self.create) + len(self.replace) + len(self.delete)

    @property
    def sets(self) -> int:
        """How many the feed has afterwards."""
        return len(self.create) + len(self.replace) + self.unchanged


@dataclass(frozen=True)
class Present:
    """The sets of one feed that are in the datastore, and the names of all others."""

    sets: Mapping[str, GlobalNetworkSet] = field(default_factory=dict)
    others: frozenset[str] = frozenset()


def present(resources: Resources, feed: str) -> Present:
    own = {item.name: item for item in resources.global_network_sets if is_of(item, feed)}
    return Present(own, frozenset(item.name for item in resources.global_network_sets if item.name not in own))


def is_of(item: GlobalNetworkSet, feed: str) -> bool:
    """Whether a set is of this feed. Its name alone could be a coincidence, its label a copy."""
    return item.labels.get(FEED) == feed and part_of(feed, item.name) is not None


def changes(feed: Feed, networks: Sequence[Network], held: Present, *, fetched: str, sha256: str) -> Changes:
    """What turns the sets that are held into those of the networks."""
    parts = [part for name in held.sets if (part := part_of(feed.name, name)) is not None]
    wanted = {
        item.name: item
        for part, some in chunks(networks, parts).items()
        for item in [_wanted(feed, part, some, fetched, sha256)]
    }
    foreign = sorted(wanted.keys() & held.others)
    create = [item for name, item in wanted.items() if name not in held.sets]
    both = [(item, held.sets[name]) for name, item in wanted.items() if name in held.sets]
    replace = [item for item, now in both if not _is_as(now, item)]
    return Changes(create, replace, sorted(held.sets.keys() - wanted.keys()), foreign, len(both) - len(replace))


def _wanted(feed: Feed, part: Part, networks: Sequence[Network], fetched: str, sha256: str) -> Wanted:
    noted = {SOURCE: feed.shown_source, FETCHED: fetched, SHA256: sha256, LICENCE: feed.licence}
    return Wanted(
        name_of(feed.name, part),
        {**feed.labels, FEED: feed.name},
        {key: text for key, text in noted.items() if text},
        [written(network) for network in networks],
    )


def _is_as(now: GlobalNetworkSet, wanted: Wanted) -> bool:
    """Whether a set need not be written again."""
    noted = {key: text for key, text in wanted.annotations.items() if key not in _STAMPS}
    has = {key: text for key, text in now.annotations.items() if key in OWN and key not in _STAMPS}
    return (
        dict(now.labels) == dict(wanted.labels) and noted == has and [str(net) for net in now.nets] == list(wanted.nets)
    )


def object_of(wanted: Wanted, held: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The object as the datastore has it. ``held``: the present one, of which others' annotations stay."""
    metadata = dict((held or {}).get("metadata") or {})
    others = {key: value for key, value in (metadata.get("annotations") or {}).items() if key not in OWN}
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkSet",
        "metadata": {
            **metadata,
            "name": wanted.name,
            "labels": dict(wanted.labels),
            "annotations": {**others, **wanted.annotations},
        },
        "spec": {"nets": list(wanted.nets)},
    }


def is_object_of(item: Mapping[str, Any], feed: str) -> bool:
    """As :func:`is_of`, for an object of the datastore."""
    metadata = item.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return isinstance(labels, dict) and labels.get(FEED) == feed
