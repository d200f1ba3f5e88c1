"""JUnit XML for CI: one test case for each drill or (scenario, mode); a failure lists what did not hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from xml.etree import ElementTree

from dossim.report.text import failure_lines
from dossim.report.view import View

# What XML 1.0 cannot hold, however it is escaped.
_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")


def junit(items: Sequence[tuple[str, View]], *, suite: str = "dossim") -> str:
    """The XML of (path, view) items. What was only predicted counts as skipped when it holds, never as passed."""
    root = ElementTree.Element("testsuites")
    element = ElementTree.SubElement(root, "testsuite", name=suite)
    for path, view in items:
        _case(element, path, view)
    _count(element, items)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, path: str, view: View) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=_clean(PurePath(path).with_suffix("").as_posix().replace("/", ".")),
        name=_clean(f"{view.title} [{view.choice}]"),
        file=_clean(path),
        time=f"{sum(view.timings_s.values()):.3f}",
    )
    properties = ElementTree.SubElement(case, "properties")
    for name in ("packets", "matched", "mismatched", "unobserved", "mode"):
        ElementTree.SubElement(properties, "property", name=name, value=str(getattr(view, name)))
    if not view.holds:
        failure = ElementTree.SubElement(case, "failure", message=_clean(view.verdict))
        failure.text = _clean("\n".join(failure_lines(view)))
    elif not view.drilled:
        ElementTree.SubElement(case, "skipped", message=view.verdict)


def _count(suite: ElementTree.Element, items: Sequence[tuple[str, View]]) -> None:
    views = [view for _, view in items]
    suite.set("tests", str(len(views)))
    suite.set("failures", str(sum(not view.holds for view in views)))
    suite.set("errors", "0")
    suite.set("skipped", str(sum(view.holds and not view.drilled for view in views)))
    suite.set("time", f"{sum(sum(view.timings_s.values()) for view in views):.3f}")


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
