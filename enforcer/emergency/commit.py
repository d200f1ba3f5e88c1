"""Writes acts to a datastore so that of several operators at the same time none is lost.

Each attempt begins with what is there now, and is repeated when somebody else was faster. A write that reached the
datastore although its answer was lost is found there, and counts.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from enforcer.datastore.writer import ConflictError, Held, StoreError, Writer
from enforcer.emergency.act import PLURAL, Act, act_of, is_act, object_of
from enforcer.emergency.merge import adds, merged, shortened
from enforcer.model.vocabulary import Word
from enforcer.policy.objects import StoredObject, read_object
from enforcer.policy.resources import GlobalNetworkSet

ATTEMPTS = 20  # of ten operators on one object the last has nine before it, each of whom may collide once more
_PAUSE_S = (0.05, 0.5)
_COLLECT_AFTER_S = 600  # etcd deletes an act so long after its end


class Outcome(Word):
    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    DELETED = "deleted"
    ABSENT = "absent"


@dataclass(frozen=True)
class Done:
    """What became of an object. ``act``: as it is stored now, or was before it was deleted; None if there was none."""

    name: str
    outcome: Outcome
    act: Act | None = None


def put(writer: Writer, wanted: Act, *, shorten: bool = False) -> Done:
    """Store an act, with what others have stored under its name. Raises StoreError, RefusedError, ConflictError."""

    def once() -> Done:
        held = writer.read(wanted.name)
        if held is None:
            writer.create(wanted.name, object_of(wanted), keep_s=_keep_s(wanted))
            return Done(wanted.name, Outcome.CREATED, wanted)
        present = parsed(wanted.name, held)
        changes = shorten and present.until_s != wanted.until_s
        if not changes and not adds(present, wanted):
            return Done(wanted.name, Outcome.UNCHANGED, present)
        made = shortened(present, wanted) if shorten else merged(present, wanted)
        writer.replace(wanted.name, object_of(made, held.object), held.revision, keep_s=_keep_s(made))
        return Done(wanted.name, Outcome.CHANGED, made)

    return _repeated(once)


def edit(writer: Writer, name: str, change: Callable[[Act], Act]) -> Done:
    """Change an act that is there; without CIDRs it is deleted. Raises as :func:`put`."""

    def once() -> Done:
        held = writer.read(name)
        if held is None:
            return Done(name, Outcome.ABSENT)
        present = parsed(name, held)
        made = change(present)
        if made is present:
            return Done(name, Outcome.UNCHANGED, present)
        if not made.nets:
            writer.delete(name, held.revision)
            return Done(name, Outcome.DELETED, present)
        writer.replace(name, object_of(made, held.object), held.revision, keep_s=_keep_s(made))
        return Done(name, Outcome.CHANGED, made)

    return _repeated(once)


def remove(writer: Writer, name: str, only_if: Callable[[Act], bool]) -> Done:
    """Delete an act if it is still as expected. Raises as :func:`put`."""

    def once() -> Done:
        held = writer.read(name)
        if held is None:
            return Done(name, Outcome.ABSENT)
        present = parsed(name, held)
        if not only_if(present):
            return Done(name, Outcome.UNCHANGED, present)
        writer.delete(name, held.revision)
        return Done(name, Outcome.DELETED, present)

    return _repeated(once)


def parsed(name: str, held: Held) -> Act:
    """The act of a stored object. Raises StoreError for one that somebody else has spoiled."""
    text = json.dumps({**held.object, "apiVersion": "projectcalico.org/v3"}).encode()
    source = read_object(StoredObject(PLURAL, "", name, text, held.revision), "datastore")
    item = source.documents[0].resource if source.documents and not source.report.findings else None
    if not isinstance(item, GlobalNetworkSet) or not is_act(item):
        problem = str(source.report.findings[0]) if source.report.findings else "it is no emergency object"
        raise StoreError(f"globalnetworksets/{name} was changed by somebody else: {problem}; delete it")
    return act_of(item)


def _repeated(once: Callable[[], Done]) -> Done:
    for attempt in range(ATTEMPTS):
        try:
            return once()
        except ConflictError:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(*_PAUSE_S))
    raise AssertionError("unreachable")


def _keep_s(act: Act) -> float | None:
    return None if act.until_s is None else max(0.0, act.until_s - time.time()) + _COLLECT_AFTER_S
