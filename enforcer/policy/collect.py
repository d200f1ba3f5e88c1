"""Reads sources into documents, each with its resource and its findings, plus the findings outside of documents.

The collector only reads. Its caller decides what a load with faults results in: nothing at all (``load``), or the last
good version of what is faulty (``tolerant``).
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from enforcer.lists.recognise import FEED, Feed, peek, recognised
from enforcer.model.errors import Finding, Note, Position
from enforcer.policy import schema
from enforcer.policy.nodes import DocumentFault, Fieldset, Items, from_text
from enforcer.policy.reading import Cursor, Fields, Refused, Report, SourceLines
from enforcer.policy.resources import (
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    NetworkSet,
    Node,
    Profile,
    Resource,
    Resources,
    Tier,
)
from enforcer.policy.validate import KINDS, is_list, kind_of, resource
from enforcer.system import files
from enforcer.system.files import SCENARIO_SUFFIXES, SUFFIXES, UnreadableError

__all__ = ["SCENARIO_SUFFIXES", "STDIN", "SUFFIXES", "Collector", "Document", "Key", "Source"]

STDIN = "-"
OTHERS_MAX = 1000  # files with other suffixes that are examined

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True)
class Key:
    """The unique key of an object. ``namespace``: "" for kinds without namespaces."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def _real_path(file: str, folders: dict[str, str]) -> str:
    """os.path.realpath, which looks at every component, with the directories that it has resolved."""
    folder, name = os.path.split(file)
    if os.path.islink(file):
        return os.path.realpath(file)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return os.path.join(folders[folder], name)


def key_of(item: Resource) -> Key:
    return Key(type(item).__name__, item.namespace if isinstance(item, NetworkSet) else "", item.name)


@dataclass(frozen=True)
class Document:
    """A resource as far as it could be read. It is valid if it has no findings, and known if its name could be read.

    ``several``: its fields are repeated, so it is probably two documents without a ``---`` between them.
    """

    key: Key
    resource: Resource
    findings: tuple[Finding, ...]
    several: bool = False

    @property
    def known(self) -> bool:
        return bool(self.key.name)


@dataclass
class Source:
    """A file, or text from elsewhere.

    ``around``: findings that belong to no named document, but to the file, a list or a kind. ``seconds``: findings of
    documents with a name that an earlier document has.
    """

    report: Report
    documents: list[Document] = field(default_factory=list)
    around: list[Finding] = field(default_factory=list)
    seconds: list[Finding] = field(default_factory=list)
    feed: Note | None = None  # it is an address list, not resources
    unreadable: bool = False  # its content is unknown as a whole, even if some of it was read
    again: bool = False  # it could not be opened; a retry may succeed without a change to the file
    what: str = "file"  # what people call it: "file", or "object" of a datastore

    @property
    def path(self) -> str:
        return self.report.path

    def note_feed(self, feed: Feed) -> None:
        """Record that the source is an address list: it is not a fault, and not enforced."""
        self.feed = Note(Position(self.path, feed.line, 1), "", feed.sentence, kind=FEED)
        self.report.notes.append(self.feed)

    def fault(self, position: Position, message: str, context: str = "") -> None:
        """Record a problem of the source as a whole."""
        self.unreadable = True
        self.report.add(position, "", message, context)
        self.around.append(self.report.findings[-1])


@dataclass(frozen=True)
class Reading:
    """What a file with this content was read into, and all else that this depends on.

    ``asked``: the objects in it, each with where an earlier file has it, None if none has. ``skipped``: the kinds in it
    that are ignored.
    """

    digest: bytes
    source: Source
    asked: Mapping[Key, Position | None]
    first: Mapping[Key, Position]
    skipped: Mapping[str, None]


Readings = Mapping[str, Reading]  # by path


@dataclass
class Collector:
    """Reads sources one after another. ``read`` returns the content of a file, like ``files.read``.

    ``before``: the ``readings`` of another collector. A file with the same content among the same objects is not parsed
    again: its source is the same object, which nobody may change. ``unchanged``: files of which the caller knows that
    they have that content.
    """

    sources: list[Source] = field(default_factory=list)
    skipped: dict[str, None] = field(default_factory=dict)
    read: Callable[[str], bytes] = files.read
    before: Readings = field(default_factory=dict)
    unchanged: Container[str] = ()
    readings: dict[str, Reading] = field(default_factory=dict)
    _first: dict[Key, Position] = field(default_factory=dict)
    _asked: dict[Key, Position | None] = field(default_factory=dict)  # by the present file

    def source(self, path: str, lines: Sequence[str] = ()) -> Source:
        self.sources.append(Source(Report(path, lines)))
        return self.sources[-1]

    def read_paths(self, given: Sequence[str | os.PathLike[str]]) -> None:
        """Read files, directories (their *.yaml, *.yml and *.json, at any depth) and ``-``, each file once."""
        seen: set[str] = set()
        folders: dict[str, str] = {}  # where they really are
        for path in [os.fspath(path) for path in given]:
            for file in self._files(path):
                identity = file if file == STDIN else _real_path(file, folders)
                if identity not in seen:
                    seen.add(identity)
                    self.read_file(file)

    def _files(self, given: str) -> list[str]:
        if given == STDIN:
            return [given]
        tree = files.find(given)
        for path, message in tree.faults:
            self._unreadable(path, message)
        named = self._name_feeds(tree.others)
        if not (tree.files or tree.faults):
            self.source(given).fault(
                Position(given), "; ".join([f"no file here ends in {', '.join(SUFFIXES)}", *named])
            )
        return tree.files

    def _name_feeds(self, others: Sequence[str]) -> Sequence[str]:
        """Note address lists among files with other suffixes, which are not read. Returns a sentence on the first."""
        named: list[str] = []
        for path in others[:OTHERS_MAX]:
            if not os.path.basename(path).startswith("_") and (feed := peek(path)):
                self.source(path).note_feed(feed)
                named[:] = named or [f"{path} is {feed.sentence}"]
        return named

    def read_file(self, path: str) -> None:
        shown = "<stdin>" if path == STDIN else path
        if path in self.unchanged and (known := self.before.get(path)) and self._take_reading(path, known.digest):
            return
        try:
            content = _stdin() if path == STDIN else self.read(path)
            digest = hashlib.sha256(content).digest()
            if self._take_reading(shown, digest):
                return
            text = content.decode("utf-8-sig")
            del content  # it may have 64 MB
        except OSError as error:
            self._unreadable(shown, files.cannot_read(error))
        except UnreadableError as error:
            self.source(shown).fault(Position(shown), str(error))
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            column = error.start - error.object.rfind(b"\n", 0, error.start)
            message = f"not text: byte {error.object[error.start]:#04x} is not UTF-8"
            self.source(shown).fault(Position(shown, line, column), message)
        else:
            kinds, self.skipped, self._asked = self.skipped, {}, {}
            try:
                self.read_text(text, shown)
            finally:
                here, self.skipped = self.skipped, kinds | self.skipped
            self._keep_reading(digest, here)

    def _take_reading(self, path: str, digest: bytes) -> bool:
        """Take the source that an earlier collector read from this content; False if it is to be read."""
        known = self.before.get(path)
        if known is None or known.digest != digest:
            return False
        if any(self._first.get(key) != position for key, position in known.asked.items()):
            return False
        self.sources.append(known.source)
        self._first |= known.first
        self.skipped |= known.skipped
        self.readings[path] = known
        return True

    def _keep_reading(self, digest: bytes, skipped: Mapping[str, None]) -> None:
        source = self.sources[-1]
        if source.again or source.feed:
            return  # it may be read differently, or changed, next time
        source.report.lines = ()
        first = {key: self._first[key] for key, position in self._asked.items() if position is None}
        self.readings[source.path] = Reading(digest, source, self._asked, first, skipped)

    def _unreadable(self, path: str, message: str) -> None:
        """Record that the content at or below the path is unknown. It may become readable without a change."""
        source = self.source(path)
        source.fault(Position(path), message)
        source.again = True

    def read_text(self, text: str, path: str) -> None:
        if feed := recognised(text):
            self.source(path).note_feed(feed)
            return
        source = self.source(path, SourceLines(text))
        empty = True
        try:
            for root in from_text(text):
                empty = False
                self.read_document(source, Cursor(source.report, root))
        except DocumentFault as fault:
            source.fault(Position(path, fault.line, fault.column), fault.message, _pointed(source.report, fault))
        else:
            if empty:
                source.fault(
                    Position(path), "holds no resource; expected YAML or JSON documents with apiVersion and kind"
                )

    def read_document(self, source: Source, at: Cursor, implied: str = "", *, within_list: bool = False) -> None:
        """A resource, a List of them, or a plain sequence of them."""
        before = len(source.report.findings)
        try:
            if isinstance(at.node, Items) and not within_list:
                for item in at.items():
                    self.read_document(source, item, within_list=True)
                return
            kind = kind_of(at, implied)
            if is_list(kind):
                self._read_list(source, at, kind, within_list=within_list)
            elif kind in KINDS:
                self._keep(source, at, resource(at, kind), before)
            else:
                self.skipped[kind] = None
                if kind in schema.ENTERPRISE_KINDS:
                    at.down("kind").note(f"{kind} is a kind of Calico Enterprise; it is ignored")
        except Refused as refused:
            refused.report()
            source.around += source.report.findings[-1:]

    def _read_list(self, source: Source, at: Cursor, kind: str, *, within_list: bool) -> None:
        if within_list:
            raise Refused(at.down("kind"), "a list within a list")
        before = len(source.report.findings)
        document = Fields(at, schema.LIST)
        source.around += source.report.findings[before:]
        if "items" not in document:
            if len(source.report.findings) == before:  # the file is cut off; otherwise a misspelt field was reported
                raise Refused(document.cursor("items"), "a list needs items; a list of nothing has items: []")
            return
        for item in document.cursor("items").items():
            self.read_document(source, item, kind.removesuffix("List"), within_list=True)

    def _keep(self, source: Source, at: Cursor, found: Resource, before: int) -> None:
        """Record a document. A second one with the same key only gives a finding."""
        key = key_of(found)
        self._asked.setdefault(key, self._first.get(key))
        if key.name and key in self._first:
            message = f"a second {key.kind} named {key.name!r}; the first is at {self._first[key]}"
            at.down("metadata", "name").fault(message)
            source.seconds += source.report.findings[before:]
            return
        self._first.setdefault(key, at.position)
        several = isinstance(at.node, Fieldset) and bool(at.node.repeated)
        source.documents.append(Document(key, found, tuple(source.report.findings[before:]), several))

    @property
    def findings(self) -> list[Finding]:
        """All findings: the sources in the order in which they were read, each from top to bottom."""
        return [finding for source in self.sources for finding in sorted_findings(source.report.findings)]

    def resources(self, items: Iterable[Resource]) -> Resources:
        """These items by kind, and the skipped kinds."""
        found = list(items)
        return Resources(
            host_endpoints=_all(found, HostEndpoint),
            global_network_sets=_all(found, GlobalNetworkSet),
            network_sets=_all(found, NetworkSet),
            policies=_all(found, GlobalNetworkPolicy),
            tiers=_all(found, Tier),
            profiles=_all(found, Profile),
            felix_configurations=_all(found, FelixConfiguration),
            nodes=_all(found, Node),
            skipped=tuple(self.skipped),
            notes=tuple(note for source in self.sources for note in source.report.notes),
        )


def _stdin() -> bytes:
    if sys.stdin is None:
        raise UnreadableError("closed; resources are read from there for -")
    content = sys.stdin.buffer.read(files.FILE_MAX_BYTES + 1)
    files.require_size(len(content))
    return content


def sorted_findings(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.position)


def _all(items: Sequence[Resource], kind: type[R]) -> tuple[R, ...]:
    return tuple(item for item in items if isinstance(item, kind))


def _pointed(report: Report, fault: DocumentFault) -> str:
    line = report.lines[fault.line - 1].expandtabs(1).rstrip() if 0 < fault.line <= len(report.lines) else ""
    return f"{line}\n{' ' * (fault.column - 1)}^" if line else ""
