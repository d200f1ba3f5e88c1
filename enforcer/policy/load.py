"""Resources from files, text or plain data: all that Calico would accept, or a PolicyError with every finding.

All or nothing. The agent, which must continue with faulty files, uses ``tolerant``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from enforcer.model.errors import PolicyError, Position
from enforcer.policy.collect import SCENARIO_SUFFIXES, STDIN, SUFFIXES, Collector
from enforcer.policy.nodes import DocumentFault, Node, from_data
from enforcer.policy.reading import Cursor
from enforcer.policy.resources import Resources

__all__ = ["SCENARIO_SUFFIXES", "STDIN", "SUFFIXES", "load", "load_documents", "load_node", "load_text"]


def load(paths: Sequence[str | os.PathLike[str]]) -> Resources:
    """The resources of files and directories; ``-`` is standard input.

    Of a directory, the *.yaml, *.yml and *.json files at any depth are read, except hidden files and scenario files.
    Raises PolicyError with every finding of every file.
    """
    collector = Collector()
    collector.read_paths(paths)
    return _all_or_nothing(collector)


def load_text(text: str, path: str = "<inline>") -> Resources:
    """The resources of a YAML or JSON text. Raises PolicyError with every finding."""
    collector = Collector()
    collector.read_text(text, path)
    return _all_or_nothing(collector)


def load_documents(docs: Sequence[Mapping[str, object]], path: str = "<inline>") -> Resources:
    """The resources in plain data. Findings have the path and the field, but no line. Raises PolicyError."""
    collector = Collector()
    source = collector.source(path)
    for document in docs:
        try:
            collector.read_document(source, Cursor(source.report, from_data(document)))
        except DocumentFault as fault:
            source.fault(Position(path), fault.message)
    return _all_or_nothing(collector)


def load_node(node: Node, path: str = "<inline>", lines: Sequence[str] = ()) -> Resources:
    """The resources of one parsed node of a larger document: a resource, a List, or a sequence of resources.

    ``lines``: the source lines of the whole document, for the caret below a faulty selector. Raises PolicyError.
    """
    collector = Collector()
    source = collector.source(path, lines)
    collector.read_document(source, Cursor(source.report, node))
    return _all_or_nothing(collector)


def _all_or_nothing(collector: Collector) -> Resources:
    if findings := collector.findings:
        raise PolicyError(findings)
    return collector.resources(document.resource for source in collector.sources for document in source.documents)
