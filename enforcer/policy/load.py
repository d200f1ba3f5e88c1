"""Resources from files, text or plain data: all that Calico would accept, or a PolicyError with every finding."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from enforcer.errors import Finding, PolicyError, Position
from enforcer.policy import schema
from enforcer.policy.nodes import DocumentFault, Items, Node, from_data, from_text
from enforcer.policy.reading import Cursor, Fields, Refused, Report
from enforcer.policy.resources import (
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    NetworkSet,
    Resource,
    Resources,
    Tier,
)
from enforcer.policy.validate import KINDS, is_list, kind_of, resource

SUFFIXES = (".yaml", ".yml", ".json")
SCENARIO_SUFFIXES = (".scenario.yaml", ".scenario.yml")
STDIN = "-"

R = TypeVar("R", bound=Resource)


def load(paths: Sequence[str | os.PathLike[str]]) -> Resources:
    """The resources of files and directories; ``-`` is standard input.

    A directory stands for its *.yaml, *.yml and *.json files, at any depth, without hidden ones and scenario files.
    Raises PolicyError with every finding of every file.
    """
    loader = _Loader()
    for path in _files(paths, loader):
        loader.read_file(path)
    return loader.finish()


def load_text(text: str, path: str = "<inline>") -> Resources:
    """The resources of a YAML or JSON text. Raises PolicyError with every finding."""
    loader = _Loader()
    loader.read_text(text, path)
    return loader.finish()


def load_documents(docs: Sequence[Mapping[str, object]], path: str = "<inline>") -> Resources:
    """The resources given as plain data; findings name the path and the field, without line. Raises PolicyError."""
    loader = _Loader()
    report = loader.report(path)
    for document in docs:
        try:
            loader.read_document(Cursor(report, from_data(document)))
        except DocumentFault as fault:
            report.add(Position(path), "", fault.message)
    return loader.finish()


def load_node(node: Node, path: str = "<inline>", lines: Sequence[str] = ()) -> Resources:
    """The resources of one parsed document: a resource, a List, or a sequence of resources, within a larger document.

    ``lines`` are the source lines of the whole, for the caret below a faulty selector. Raises PolicyError.
    """
    loader = _Loader()
    loader.read_document(Cursor(loader.report(path, lines), node))
    return loader.finish()


def _files(paths: Sequence[str | os.PathLike[str]], loader: _Loader) -> Iterator[str]:
    """The files the paths stand for, each once however often it is named."""
    seen: set[str] = set()
    for given in [os.fspath(path) for path in paths]:
        files = [given]
        if given != STDIN and os.path.isdir(given):
            files = list(_within(given))
            if not files:
                loader.report(given).add(Position(given), "", f"no file here ends in {', '.join(SUFFIXES)}")
        for path in files:
            identity = path if path == STDIN else os.path.realpath(path)
            if identity not in seen:
                seen.add(identity)
                yield path


def _within(directory: str) -> Iterator[str]:
    # Hidden names are skipped because a mounted ConfigMap holds its files twice, once below "..data".
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(SUFFIXES) and not name.startswith(".") and not name.endswith(SCENARIO_SUFFIXES):
                yield os.path.join(folder, name)


@dataclass
class _Loader:
    """Collects resources and findings over all sources of one load."""

    resources: list[Resource] = field(default_factory=list)
    skipped: dict[str, None] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    first: dict[tuple[str, str, str], Position] = field(default_factory=dict)

    def report(self, path: str, lines: Sequence[str] = ()) -> Report:
        self.reports.append(Report(path, lines))
        return self.reports[-1]

    def read_file(self, path: str) -> None:
        shown = "<stdin>" if path == STDIN else path
        try:
            content = sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
            text = content.decode("utf-8-sig")
        except OSError as error:
            self.report(shown).add(Position(shown), "", f"cannot be read: {error.strerror or error}")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            column = error.start - error.object.rfind(b"\n", 0, error.start)
            message = f"not text: byte {error.object[error.start]:#04x} is not UTF-8"
            self.report(shown).add(Position(shown, line, column), "", message)
        else:
            self.read_text(text, shown)

    def read_text(self, text: str, path: str) -> None:
        report = self.report(path, text.split("\n"))
        empty = True
        try:
            for root in from_text(text):
                empty = False
                self.read_document(Cursor(report, root))
        except DocumentFault as fault:
            report.add(Position(path, fault.line, fault.column), "", fault.message, _pointed(report, fault))
        else:
            if empty:
                report.add(
                    Position(path), "", "holds no resource; expected YAML or JSON documents with apiVersion and kind"
                )

    def read_document(self, at: Cursor, implied: str = "", *, within_list: bool = False) -> None:
        """A resource, a List of them, or a plain sequence of them."""
        try:
            if isinstance(at.node, Items) and not within_list:
                for item in at.items():
                    self.read_document(item, within_list=True)
                return
            kind = kind_of(at, implied)
            if is_list(kind):
                self._read_list(at, kind, within_list=within_list)
            elif kind in KINDS:
                self._keep(at, kind, resource(at, kind))
            else:
                self.skipped[kind] = None
        except Refused as refused:
            refused.report()

    def _read_list(self, at: Cursor, kind: str, *, within_list: bool) -> None:
        if within_list:
            raise Refused(at.down("kind"), "a list within a list")
        document = Fields(at, schema.LIST)
        if "items" not in document:
            return
        for item in document.cursor("items").items():
            self.read_document(item, kind.removesuffix("List"), within_list=True)

    def _keep(self, at: Cursor, kind: str, found: Resource) -> None:
        self.resources.append(found)
        namespace = found.namespace if isinstance(found, NetworkSet) else ""
        key = kind, namespace, found.name
        if found.name and key in self.first:
            message = f"a second {kind} named {found.name!r}; the first is at {self.first[key]}"
            at.down("metadata", "name").fault(message)
        self.first.setdefault(key, at.position)

    def finish(self) -> Resources:
        findings = [finding for report in self.reports for finding in _in_order(report)]
        if findings:
            raise PolicyError(findings)
        return Resources(
            host_endpoints=self._all(HostEndpoint),
            global_network_sets=self._all(GlobalNetworkSet),
            network_sets=self._all(NetworkSet),
            policies=self._all(GlobalNetworkPolicy),
            tiers=self._all(Tier),
            felix_configurations=self._all(FelixConfiguration),
            skipped=tuple(self.skipped),
        )

    def _all(self, kind: type[R]) -> tuple[R, ...]:
        return tuple(item for item in self.resources if isinstance(item, kind))


def _in_order(report: Report) -> list[Finding]:
    return sorted(report.findings, key=lambda finding: finding.position)


def _pointed(report: Report, fault: DocumentFault) -> str:
    line = report.lines[fault.line - 1].expandtabs(1).rstrip() if 0 < fault.line <= len(report.lines) else ""
    return f"{line}\n{' ' * (fault.column - 1)}^" if line else ""
