"""An emergency act as a value: a GlobalNetworkSet of its own, with the labels of the list that it stands beside.

So every policy that selects the list selects it too, Felix obeys it as well, and two acts never write the same object
unless they deny the same CIDRs. Who, why and until when is in annotations. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from enforcer.emergency.times import read, written
from enforcer.model.nets import IPNetwork, Nets
from enforcer.model.vocabulary import Word
from enforcer.policy.resources import GlobalNetworkSet
from enforcer.policy.schema import EXPIRES, OWN_PREFIX

PLURAL = "globalnetworksets"
LABEL = f"{OWN_PREFIX}emergency"
PROTECTED_LABEL = f"{OWN_PREFIX}protected"  # on a set of an operator: never deny these
CREATED, BY, REASON = f"{OWN_PREFIX}created", f"{OWN_PREFIX}by", f"{OWN_PREFIX}reason"
BESIDE, ACT, HISTORY = f"{OWN_PREFIX}beside", f"{OWN_PREFIX}act", f"{OWN_PREFIX}history"
OWN = (EXPIRES, CREATED, BY, REASON, BESIDE, ACT, HISTORY)

OBJECT_MAX = 2000  # CIDRs in one object
DEEDS_MAX = 20  # that an object remembers
_REASON_MAX = 500  # characters


class Kind(Word):
    """What the list does that an act stands beside. The value is that of its label."""

    DENY = "true"
    EXEMPT = "exempt"


_KINDS = frozenset(str(kind) for kind in Kind)


@dataclass(frozen=True)
class Deed:
    """What one person did. ``until_s``: Unix time, None: for ever."""

    at_s: int
    by: str
    reason: str
    until_s: int | None

    @property
    def rank(self) -> tuple[int, str, str, float]:
        return (self.at_s, self.by, self.reason, later(self.until_s))


def later(until_s: int | None) -> float:
    """A point in time that can be compared: for ever is after all others."""
    return float("inf") if until_s is None else float(until_s)


@dataclass(frozen=True)
class Act:
    """One object. ``id``: of the act, which may have several. ``beside``: the name of the list. ``until_s``: Unix time
    of its end, None: for ever. ``deeds``: in order of time, at least one.
    """

    name: str
    id: str
    kind: Kind
    beside: str
    labels: Mapping[str, str]
    nets: tuple[IPNetwork, ...]
    until_s: int | None
    deeds: tuple[Deed, ...] = field(default=())

    @property
    def created_s(self) -> int:
        """When it was first written, by the clock of who wrote it; 0 if unknown."""
        return self.deeds[0].at_s if self.deeds else 0

    @property
    def reason(self) -> str:
        return "; ".join(dict.fromkeys(item.reason for item in self.deeds if item.reason))

    @property
    def by(self) -> str:
        return self.deeds[0].by if self.deeds else ""


def canonical(nets: Iterable[IPNetwork]) -> tuple[IPNetwork, ...]:
    """Each network once, in order."""
    return tuple(Nets.of(nets))


def acts_of(
    nets: Sequence[IPNetwork], *, beside: str, labels: Mapping[str, str], deed: Deed, kind: Kind = Kind.DENY
) -> list[Act]:
    """The objects of one act, of at most :data:`OBJECT_MAX` CIDRs each. The same CIDRs beside the same list have the
    same names, whoever writes them.
    """
    nets = canonical(nets)
    identity = _digest(beside, nets)
    parts = [nets[first : first + OBJECT_MAX] for first in range(0, len(nets), OBJECT_MAX)]
    stem = f"enforcer-{'deny' if kind is Kind.DENY else 'exempt'}-{identity}"
    own = {key: value for key, value in labels.items() if not key.startswith(OWN_PREFIX)} | {LABEL: str(kind)}
    return [
        Act(
            stem if len(parts) == 1 else f"{stem}-{number}",
            identity,
            kind,
            beside,
            own,
            part,
            deed.until_s,
            (replace(deed, reason=deed.reason[:_REASON_MAX]),),
        )
        for number, part in enumerate(parts, 1)
    ]


def _digest(beside: str, nets: Iterable[IPNetwork]) -> str:
    return hashlib.sha256("\n".join([beside, *map(str, nets)]).encode()).hexdigest()[:12]


# -- as a resource ---------------------------------------------------------------------------------------------------


def is_act(item: GlobalNetworkSet) -> bool:
    return item.labels.get(LABEL) in _KINDS


def until_of(item: GlobalNetworkSet) -> int | None:
    """When the set ends; None: never, as for every set that is no act."""
    return _time(item.annotations.get(EXPIRES, "")) if is_act(item) else None


def created_of(item: GlobalNetworkSet) -> int | None:
    return _time(item.annotations.get(CREATED, ""))


def act_of(item: GlobalNetworkSet) -> Act:
    """The act that a resource is. Annotations that cannot be read count as absent."""
    noted, until_s = item.annotations, until_of(item)
    deeds = _deeds(noted.get(HISTORY, ""))
    if not deeds:
        deeds = (Deed(created_of(item) or 0, noted.get(BY, ""), noted.get(REASON, ""), until_s),)
    return Act(
        name=item.name,
        id=noted.get(ACT, ""),
        kind=Kind(item.labels[LABEL]),
        beside=noted.get(BESIDE, ""),
        labels=item.labels,
        nets=tuple(item.nets),
        until_s=until_s,
        deeds=deeds,
    )


def object_of(act: Act, held: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The object as the datastore has it. ``held``: the present one, of which what is not ours stays."""
    metadata = dict((held or {}).get("metadata") or {})
    others = {key: value for key, value in (metadata.get("annotations") or {}).items() if key not in OWN}
    noted = {
        CREATED: written(act.created_s),
        BY: act.by,
        REASON: act.reason,
        BESIDE: act.beside,
        ACT: act.id,
    }
    if act.until_s is not None:
        noted[EXPIRES] = written(act.until_s)
    if len(act.deeds) > 1:
        noted[HISTORY] = json.dumps([_as_data(item) for item in act.deeds], ensure_ascii=False)
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkSet",
        "metadata": {**metadata, "name": act.name, "labels": dict(act.labels), "annotations": {**others, **noted}},
        "spec": {"nets": [str(net) for net in act.nets]},
    }


def _as_data(item: Deed) -> list[str | None]:
    return [written(item.at_s), item.by, None if item.until_s is None else written(item.until_s), item.reason]


def _deeds(text: str) -> tuple[Deed, ...]:
    """() for a text that is no history."""
    try:
        found = [
            Deed(read(at), by, reason, None if until is None else read(until))
            for at, by, until, reason in json.loads(text)
            if isinstance(by, str) and isinstance(reason, str)
        ]
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return ()
    return tuple(sorted(found, key=lambda item: item.rank))


def _time(text: str) -> int | None:
    try:
        return read(text)
    except (ValueError, OverflowError):
        return None
