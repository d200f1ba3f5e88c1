"""The resources of a scenario: those of the files it names and those written in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from dossim.scenario.confine import Confinement, Outside, read_text
from dossim.scenario.findings import Marks
from dossim.scenario.inline import text_of
from enforcer.model.errors import Finding, PolicyError, Position
from enforcer.policy.load import load, load_text
from enforcer.policy.nodes import Fieldset, Items, Node, Scalar
from enforcer.policy.resources import NetworkSet, Resource, Resources
from enforcer.system.files import UnreadableError

_KIND = re.compile(r"^[ \t-]*[\"']?kind[\"']?[ \t]*:|[{,]\s*[\"']?kind[\"']?\s*:", re.MULTILINE)
_KIND_WITHIN = 64 << 20


def read_policy(
    path: Path, root: Node, marks: Marks, confined: Confinement
) -> tuple[Resources, tuple[str, ...], list[Finding]]:
    """The resources, the files they came from, and the findings; all empty if the document lists none."""
    listed = root.fields.get("policy") if isinstance(root, Fieldset) else None
    items = listed.items if isinstance(listed, Items) else []
    files, refused = _files(path, items, marks, confined)
    inline = [item for item in items if isinstance(item, Fieldset)]
    parts, findings = _load_all(path, files, inline)
    findings += refused
    resources = merge(parts)
    findings += [marks.finding(("policy",), message) for message in _repeated(resources)]
    return resources, (*files, *([str(path)] if inline else [])), findings


def _files(path: Path, items: Sequence[Node], marks: Marks, confined: Confinement) -> tuple[list[str], list[Finding]]:
    """The files and folders that the scenario names and may name, and the reasons against the others."""
    files: list[str] = []
    findings: list[Finding] = []
    for number, item in enumerate(items):
        if not isinstance(item, Scalar) or not isinstance(item.value, str):
            continue  # an inline resource, or reported by the schema
        file = path.parent / item.value
        try:
            confined.require_resources(file)
        except (Outside, OSError, ValueError) as error:
            findings.append(marks.finding(("policy", number), str(error)))
        else:
            files.append(str(file))
    return files, findings


def _load_all(path: Path, files: Sequence[str], inline: Sequence[Node]) -> tuple[list[Resources], list[Finding]]:
    """All that can be loaded, and why the rest cannot. Files are loaded together: the loader must see repetitions."""
    parts: list[Resources] = []
    findings: list[Finding] = []
    try:
        parts.append(load(files))
    except PolicyError as error:
        findings.extend(_quoting_little(error.findings))
    for node in inline:
        try:
            parts.append(load_text(text_of(node), str(path)))
        except PolicyError as error:
            findings.extend(error.findings)
    return parts, findings


def _quoting_little(findings: Sequence[Finding]) -> list[Finding]:
    """For a file without any resource, only a finding that says so: it may be any file, and other findings quote its
    content.
    """
    holding = {path: _holds_resources(Path(path)) for path in {finding.position.path for finding in findings}}
    message = "holds no Calico resource; expected YAML or JSON documents with apiVersion and kind"
    kept = [
        finding if holding[finding.position.path] else Finding(Position(finding.position.path), "", message)
        for finding in findings
    ]
    return list(dict.fromkeys(kept))


def _holds_resources(file: Path) -> bool:
    """Whether a file may be meant as resources; True for a file that cannot be read, which has nothing to quote."""
    try:
        return _KIND.search(read_text(file, _KIND_WITHIN)) is not None
    except UnreadableError:
        return True


def merge(parts: Iterable[Resources]) -> Resources:
    """All resources of all parts, in order."""
    listed = list(parts)
    names = [field.name for field in fields(Resources)]
    return Resources(**{name: tuple(item for part in listed for item in getattr(part, name)) for name in names})


def _repeated(resources: Resources) -> Iterator[str]:
    """Resources that occur twice: in a file and inline, or twice inline."""
    every: list[Resource] = [item for field in fields(Resources) if field.name not in ("skipped", "notes")
                             for item in getattr(resources, field.name)]  # fmt: skip
    count = Counter(_key(item) for item in every)
    yield from (f"two resources are {key}" for key, times in count.items() if times > 1)


def _key(item: Resource) -> str:
    namespace = f"{item.namespace}/" if isinstance(item, NetworkSet) else ""
    return f"{type(item).__name__} {namespace}{item.name}"
