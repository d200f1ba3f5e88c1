"""Objects of a datastore: one resource in JSON for each, under a name that says its kind (``globalnetworksets/bots``).

The name of the object decides which resource it is. Calico's client leaves an object that it cannot read out of a list
and keeps it in a watch (``libcalico-go/lib/backend/watchersyncer``); here such an object keeps its last good version in
both cases, as a faulty file does (``tolerant``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from enforcer.model.errors import Position
from enforcer.policy.collect import Document, Key, Source
from enforcer.policy.crd import restored
from enforcer.policy.nodes import DocumentFault, from_data, shown
from enforcer.policy.reading import Cursor, Refused
from enforcer.policy.tolerant import TolerantCollector
from enforcer.policy.validate import KINDS, kind_of, resource

# As in Calico's keys and in the URLs of the Kubernetes API (libcalico-go/lib/backend/model/resource.go).
PLURALS = {f"{kind.lower().removesuffix('y')}{'ies' if kind.endswith('y') else 's'}": kind for kind in KINDS}

OBJECT_MAX_BYTES = 3 << 19  # 1.5 MiB: what etcd accepts by default, also behind the Kubernetes API

_TOO_LARGE = f"larger than 1.5 MiB, the limit of etcd; split it into several objects of at most {2000:,} CIDRs"


@dataclass(frozen=True)
class StoredObject:
    """One object: the name of its kind as in :data:`PLURALS`, its own, and its JSON text. ``namespace``: "" without.

    ``revision``: which version this is. Of one object, versions with the same revision have the same text.
    """

    plural: str
    namespace: str
    name: str
    text: bytes
    revision: str

    @property
    def path(self) -> str:
        """The unique name within a datastore: ``globalnetworksets/bots``, ``networksets/shop/partners``."""
        return path_of(self.plural, self.namespace, self.name)


def path_of(plural: str, namespace: str, name: str) -> str:
    return "/".join(filter(None, (plural, namespace, name)))


def read_object(item: StoredObject, store: str) -> Source:
    """The object as a source with at most one document; what is wrong with it is in its report. ``store``: "etcd".

    Nothing is raised, and an unexpected exception is a fault of this object alone.
    """
    where = f"{store}: {item.path}"
    collector = TolerantCollector()
    source = collector.source(where)
    source.what = "object"
    try:
        _read(item, source)
        return source
    except DocumentFault as fault:
        source.fault(Position(where), fault.message)
    except Refused as refused:
        refused.report()
    except Exception as error:
        source.fault(Position(where), f"cannot be read: {type(error).__name__}: {error}")
    source.unreadable = True
    source.around = list(source.report.findings)
    return source


def _read(item: StoredObject, source: Source) -> None:
    kind = PLURALS[item.plural]
    data, name = restored(_parsed(item.text), item.name)
    at = Cursor(source.report, from_data(data))
    if (found := kind_of(at)) != kind:
        raise Refused(at.down("kind"), f"expected {kind}, as its name says, found {shown(found)}")
    made = resource(at, kind)
    namespace = item.namespace if KINDS[kind].namespaced else ""
    own = getattr(made, "namespace", "") if KINDS[kind].namespaced else ""
    if made.name and (own, made.name) != (namespace, name):
        named = "/".join(filter(None, (own, made.name)))
        wanted = "/".join(filter(None, (namespace, name)))
        raise Refused(at.down("metadata", "name"), f"expected {shown(wanted)}, as its name says, found {shown(named)}")
    key = Key(kind, namespace, name)
    source.documents.append(Document(key, made, tuple(source.report.findings)))


def _parsed(text: bytes) -> dict[str, Any]:
    """The data of a JSON text. Raises DocumentFault."""
    if len(text) > OBJECT_MAX_BYTES:
        raise DocumentFault(_TOO_LARGE)
    try:
        data: Any = json.loads(
            text.decode(), object_pairs_hook=_once, parse_constant=_refuse_constant, parse_int=_whole
        )
    except UnicodeDecodeError as error:
        raise DocumentFault(f"not text: byte {error.object[error.start]:#04x} at {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise DocumentFault(f"not JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise DocumentFault("not a resource: nested too deeply") from error
    if not isinstance(data, dict):
        raise DocumentFault(f"expected a JSON object with apiVersion, kind, metadata and spec, found {_word(data)}")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no field is written twice: which of the two counts differs from parser to parser."""
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DocumentFault(f"the field {shown(twice)} is written twice")
    return made


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else float(digits)


def _refuse_constant(word: str) -> NoReturn:
    raise DocumentFault(f"not JSON: {word} is not a JSON number")


def _word(data: object) -> str:
    if data is None:
        return "null"
    words = {list: "a list", str: "a string", bool: "a boolean"}
    return words.get(type(data), "a number")


def collected(sources: Iterable[Source]) -> TolerantCollector:
    """The sources as a collector. Of two documents with the same key only the first counts."""
    collector = TolerantCollector()
    first: dict[Key, Source] = {}
    for source in sources:
        seconds = [item for item in source.documents if item.known and first.setdefault(item.key, source) is not source]
        collector.sources.append(_without(source, seconds, first) if seconds else source)
    return collector


def _without(source: Source, seconds: list[Document], first: dict[Key, Source]) -> Source:
    report = replace(source.report, findings=list(source.report.findings))
    kept = [item for item in source.documents if item not in seconds]
    made = replace(source, report=report, documents=kept, seconds=list(source.seconds))
    for item in seconds:
        message = f"a second {item.key.kind} named {item.key.name!r}; the first is {first[item.key].path}"
        report.add(Position(source.path), "metadata.name", message)
        made.seconds += (*item.findings, report.findings[-1])
    return made
