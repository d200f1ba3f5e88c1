"""What docs/ names exists: files, and the tests that check the claims of docs/reliability.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::([\w:]+))?")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_PATH = re.compile(
    r"`((?:dossim|enforcer|bpf|engine|tests|scenarios|bench|packaging)/[\w./-]+\.(?:py|c|h|md|yaml|service|json))`"
)
# Short forms of paths: `policy/load.py` within a package, `rows.py` within the folder in question. Only Python files
# are ours.
_BRIEF = re.compile(r"`((?:[\w-]+/)*[\w-]+\.py)`")
_SOURCES = [
    path.relative_to(ROOT)
    for top in ("enforcer", "dossim", "tests", "bench", "tools")
    for path in ROOT.glob(f"{top}/**/*.py")
]


def names_in(path: Path) -> set[str]:
    """Every function and class of a test file, methods as ``Class::method``."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return found


def claims() -> list[tuple[str, str]]:
    """(test file, test) of every row of the reliability tables."""
    rows = [line for line in (ROOT / "docs" / "reliability.md").read_text().splitlines() if line.startswith("| ")]
    return [(path, name) for line in rows for path, name in _TEST.findall(line)]


def test_every_row_of_the_reliability_page_names_a_test_that_is_there() -> None:
    missing = []
    for path, name in claims():
        if not (ROOT / path).is_file() or (name and name not in names_in(ROOT / path)):
            missing.append(f"{path}::{name}" if name else path)
    assert not missing


def slugs_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_anchor_a_page_links_to_is_there(page: Path) -> None:
    anchors = re.findall(r"\]\(([^)#:]*)#([^)]*)\)", page.read_text())
    missing = [
        (name, anchor) for name, anchor in anchors if anchor not in slugs_of(page.parent / name if name else page)
    ]
    assert not missing


def test_every_page_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert [
        page.name for page in PAGES if page.name != "README.md" and f"]({page.relative_to(ROOT)})" not in text
    ] == []


def test_every_verb_of_run_is_documented() -> None:
    verbs = re.findall(r"^(\w+)\) ", (ROOT / "run").read_text(), re.MULTILINE)
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert len(verbs) >= 10
    assert [verb for verb in verbs if f"./run {verb}" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    linked = [target for target in _LINK.findall(text) if not (page.parent / target).exists()]
    named = [target for target in _PATH.findall(text) if not (ROOT / target).exists()]
    brief = [target for target in _BRIEF.findall(text) if not any(_ends_so(path, target) for path in _SOURCES)]
    assert not linked + named + brief


def _ends_so(path: Path, target: str) -> bool:
    return path.parts[-target.count("/") - 1 :] == Path(target).parts
