"""Writes the sets of a feed to the datastore, one by one, so that no address is let through meanwhile."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial

from enforcer.datastore.writer import ConflictError, RefusedError, Writer
from enforcer.feeds.objects import Changes, Wanted, is_object_of, object_of

_ATTEMPTS = 5
_PAUSE_S = (0.05, 0.5)


def write(writer: Writer, feed: str, changes: Changes) -> None:
    """Raises StoreError, RefusedError, ConflictError. What was written until then stays; another run does the rest."""
    if changes.foreign:
        named = ", ".join(changes.foreign)
        raise RefusedError(f"GlobalNetworkSet {named}: is there already, and is not of feed {feed}: rename the feed")
    for item in (*changes.create, *changes.replace):
        _repeated(partial(_put, writer, feed, item))
    for name in changes.delete:
        _repeated(partial(_delete, writer, feed, name))


def _put(writer: Writer, feed: str, wanted: Wanted) -> None:
    held = writer.read(wanted.name)
    if held is None:
        writer.create(wanted.name, object_of(wanted), keep_s=None)
        return
    if not is_object_of(held.object, feed):
        raise RefusedError(f"GlobalNetworkSet {wanted.name}: is there already, and is not of feed {feed}")
    writer.replace(wanted.name, object_of(wanted, held.object), held.revision, keep_s=None)


def _delete(writer: Writer, feed: str, name: str) -> None:
    held = writer.read(name)
    if held is not None and is_object_of(held.object, feed):
        writer.delete(name, held.revision)


def _repeated(once: Callable[[], None]) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            return once()
        except ConflictError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(*_PAUSE_S))
    raise AssertionError("unreachable")
