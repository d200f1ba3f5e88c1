"""JUnit XML for CI: one test case for each drill or (scenario, mode); a failure lists what did not hold.

XML 1.0 cannot contain some characters, even as references. None of them is printable, so they are escaped like all
other unprintable ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from xml.etree import ElementTree

from dossim.report.text import failure_lines
from dossim.report.view import View
from enforcer.model.printable import printable


def junit(items: Sequence[tuple[str, View]], *, suite: str = "dossim") -> str:
    """The XML of (path, view) items. A scenario that holds but was only predicted counts as skipped, not as passed."""
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
        classname=printable(PurePath(path).with_suffix("").as_posix().replace("/", ".")),
        name=printable(f"{view.title} [{view.choice}]"),
        file=printable(path),
        time=f"{sum(view.timings_s.values()):.3f}",
    )
    properties = ElementTree.SubElement(case, "properties")
    for name in ("packets", "matched", "mismatched", "unobserved", "undetermined", "not_sendable", "mode"):
        ElementTree.SubElement(properties, "property", name=name, value=str(getattr(view, name)))
    if view.several_ends:
        ElementTree.SubElement(properties, "property", name="several_ends", value=str(view.several_ends))
    if view.calico:
        ElementTree.SubElement(properties, "property", name="calico", value=printable(view.calico.sentence))
    for sentence in view.about:
        ElementTree.SubElement(properties, "property", name="about", value=printable(sentence))
    for what, count in view.skipped.items():
        ElementTree.SubElement(properties, "property", name=f"skipped: {printable(what)}", value=str(count))
    if not view.holds:
        failure = ElementTree.SubElement(case, "failure", message=printable(view.summary))
        failure.text = "\n".join(failure_lines(view))
    elif not view.drilled:
        ElementTree.SubElement(case, "skipped", message=printable(view.verdict))


def _count(suite: ElementTree.Element, items: Sequence[tuple[str, View]]) -> None:
    views = [view for _, view in items]
    suite.set("tests", str(len(views)))
    suite.set("failures", str(sum(not view.holds for view in views)))
    suite.set("errors", "0")
    suite.set("skipped", str(sum(view.holds and not view.drilled for view in views)))
    suite.set("time", f"{sum(sum(view.timings_s.values()) for view in views):.3f}")
