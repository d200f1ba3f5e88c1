"""Resources from files with faults: valid objects as they are, faulty ones in their last good version.

Felix treats an invalid object as deleted (``felix/calc/validation_filter.go``), so a typing error in a deny list lifts
it. Here a faulty object keeps its last good version, an object that never was good is left out, and all others follow
their files, so that a fault in one file does not delay a change in another:

* A faulty document with a readable kind and name keeps the last good version of its object.
* A file that cannot be read or parsed keeps all objects that were last read from it. Nothing of it is used, not even
  what comes before the fault: half a file may be the half without the exceptions.
* A document without a readable name may be any object, so the file keeps the objects it had and no longer has.
* Of two documents with the same name the first counts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from enforcer.model.errors import Finding, Position
from enforcer.policy.collect import Collector, Document, Key, Readings, Source, key_of, sorted_findings
from enforcer.policy.resources import Resource, Resources
from enforcer.system import files as system_files


@dataclass(frozen=True)
class Fault:
    """A problem, and what is enforced nevertheless."""

    finding: Finding
    outcome: str


@dataclass(frozen=True)
class Loaded:
    """``kept``: the objects that keep their last good version. ``left_out``: objects without a good version, and files
    from which something without a name is missing. ``files``: all files that were read.

    ``again``: something could not be opened or read, so a retry may succeed without a change to the files. ``crashes``:
    unexpected exceptions. Each is a bug of ours, and also a fault of its file.
    """

    resources: Resources
    faults: tuple[Fault, ...] = ()
    kept: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    files: tuple[str, ...] = field(default=(), compare=False)
    again: bool = field(default=False, compare=False)
    crashes: tuple[Exception, ...] = field(default=(), compare=False)
    readings: Readings = field(default_factory=dict, compare=False, repr=False)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to enforce or configure."""
        return not any(_items(self.resources))

    @property
    def count(self) -> int:
        """The number of objects."""
        return sum(1 for _ in _items(self.resources))

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(fault.finding for fault in self.faults)


def load_tolerant(
    paths: Sequence[str | os.PathLike[str]],
    last_good: Resources,
    *,
    read: Callable[[str], bytes] = system_files.read,
    lost: Mapping[str, str] | None = None,
    before: Readings | None = None,
    unchanged: Container[str] = (),
) -> Loaded:
    """The resources of files and directories, found like in ``load``; faulty ones are taken from ``last_good``.

    ``read`` returns a file's content or raises like ``files.read``. ``lost``: directory -> why its present content is
    known to be incomplete. ``before``: the ``readings`` of an earlier result: files with the same content are not
    parsed again, with the same result. ``unchanged``: files that are known to have it, which are not even read.
    """
    collector = TolerantCollector(read=read, before=before or {}, unchanged=unchanged)
    collector.read_paths(paths)
    for path, message in (lost or {}).items():
        collector.source(path).fault(Position(path), message)
    return merged(collector, last_good)


def merged(collector: TolerantCollector, last_good: Resources) -> Loaded:
    """What was collected, with what is faulty taken from ``last_good``."""
    merge = _Merge(last_good)
    for source in collector.sources:
        merge.take_documents(source)
    for source in collector.sources:  # only now, because an object may have moved to another file
        merge.keep_the_rest(source)
    return Loaded(
        collector.resources(merge.items.values()),
        tuple(merge.faults_in_order(collector.sources)),
        tuple(merge.kept),
        tuple(merge.left_out),
        tuple(source.path for source in collector.sources),
        any(source.again for source in collector.sources),
        tuple(collector.crashes),
        collector.readings,
    )


@dataclass
class TolerantCollector(Collector):
    """A collector that limits an unexpected exception to the file that raised it."""

    crashes: list[Exception] = field(default_factory=list)

    def read_file(self, path: str) -> None:
        with self._on_its_own(path):
            super().read_file(path)

    def read_text(self, text: str, path: str) -> None:
        with self._on_its_own(path):
            super().read_text(text, path)

    def sound(self) -> Resources:
        """The objects without findings."""
        readable = [source for source in self.sources if not source.unreadable]
        return self.resources(
            document.resource for source in readable for document in source.documents if not document.findings
        )

    @contextmanager
    def _on_its_own(self, path: str) -> Iterator[None]:
        begun = len(self.sources)
        try:
            yield
        except Exception as error:
            source = self.sources[-1] if len(self.sources) > begun else self.source(path)
            source.fault(Position(path), f"cannot be read: {type(error).__name__}: {error}")
            source.again = True  # there may be more memory or descriptors next time
            self.crashes.append(error)


@dataclass
class _Merge:
    last_good: Resources
    items: dict[Key, Resource] = field(default_factory=dict)
    kept: dict[str, None] = field(default_factory=dict)
    left_out: dict[str, None] = field(default_factory=dict)
    _outcomes: dict[Finding, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._good = {key_of(item): item for item in _items(self.last_good)}

    def take_documents(self, source: Source) -> None:
        """Take the objects of the documents of a source."""
        self._outcomes |= dict.fromkeys(source.seconds, "only the first counts")
        if source.unreadable:
            return
        for document in source.documents:
            if document.findings:
                self._replace(document)
            else:
                self.items[document.key] = document.resource

    def _replace(self, document: Document) -> None:
        if not document.known:
            return
        last = self._good.get(document.key)
        if last is None:
            self.left_out[str(document.key)] = None
            outcome = f"{document.key} is skipped: there is no good version of it"
        else:
            self.kept[str(document.key)] = None
            self.items[document.key] = last
            outcome = f"{document.key} keeps its last good version"
        self._outcomes |= dict.fromkeys(document.findings, outcome)

    def keep_the_rest(self, source: Source) -> None:
        """Keep the objects that a source had, if it is unknown whether it still has them."""
        if source.feed is not None and self._good_of(source.path):
            # Resources were overwritten with an address list: a mistake, which must not lift what they denied.
            source.fault(source.feed.position, source.feed.message)
        unnamed = [finding for item in source.documents if not item.known or item.several for finding in item.findings]
        if source.unreadable:
            unnamed += [finding for item in source.documents for finding in item.findings]
        if not (unnamed or source.around):
            return
        named = {document.key for document in source.documents if document.known and not source.unreadable}
        kept = []
        for key, item in self._good.items():
            if _is_from(item, source.path) and key not in self.items and key not in named:
                self.items[key] = item
                self.kept[str(key)] = None
                kept.append(str(key))
        if not kept:
            self.left_out[source.path] = None
        outcome = _outcome(source, kept)
        for finding in (*unnamed, *source.around):
            said = self._outcomes.get(finding)
            self._outcomes[finding] = f"{said}; {outcome}" if said else outcome

    def _good_of(self, path: str) -> bool:
        return any(_is_from(item, path) for item in self._good.values())

    def faults_in_order(self, sources: Iterable[Source]) -> Iterator[Fault]:
        for source in sources:
            for finding in sorted_findings(source.report.findings):
                yield Fault(finding, self._outcomes[finding])


def _outcome(source: Source, kept: Sequence[str]) -> str:
    what = f"this {source.what}" if source.unreadable else "this document"
    if not kept:
        return f"nothing of {what} is enforced"
    version = "its last version" if source.unreadable else f"the last version of the {source.what}"
    return f"of {version} these stay: {', '.join(kept)}"


def _is_from(item: Resource, path: str) -> bool:
    """Whether the item was read from the file, or from one below the directory."""
    return item.position.path == path or item.position.path.startswith(os.path.join(path, ""))


def _items(resources: Resources) -> Iterator[Resource]:
    yield from resources.host_endpoints
    yield from resources.global_network_sets
    yield from resources.network_sets
    yield from resources.policies
    yield from resources.tiers
    yield from resources.profiles
    yield from resources.felix_configurations
    yield from resources.nodes
