"""What ``./run package`` builds, installed into fresh systems. Run by ``./run package --test``, which names what it has
built in $PACKAGES; without it, nothing here is collected.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from enforcer import __version__
from enforcer.enforcement.apply import Enforcer
from enforcer.kernel.bpf.bpffs import ensure_bpffs
from tests.kernel.conftest import NODE, NetnsPair, netns_pair
from tests.kernel.enforcer_support import Traffic, traffic
from tools.package.base import Tree, in_memory, unpack, writable_copy
from tools.package.deb import build_of
from tools.package.releases import Release

__all__ = ["netns_pair"]

PACKAGES = os.environ.get("PACKAGES")
collect_ignore_glob = [] if PACKAGES else ["test_*.py"]
BUILT = Path(PACKAGES or ".")

MEASURED = "measured"  # a property of a test: a figure to print

pytest.register_assert_rewrite("tests.package.checks", "tests.package.pod", "tests.package.service")


@pytest.fixture(scope="module")
def release(request: pytest.FixtureRequest) -> Release:
    """That of the module."""
    found = request.module.RELEASE
    assert isinstance(found, Release)
    return found


@pytest.fixture(scope="module")
def package(release: Release) -> Path:
    return BUILT / build_of(release).file_name


@pytest.fixture(scope="session")
def wheel() -> Path:
    return max(BUILT.glob(f"dossim-{__version__}-*.whl"), key=lambda path: path.stat().st_mtime)


@dataclass(frozen=True)
class Installed:
    """A fresh system with the package; it is not to be changed. ``said``: by apt. ``took_s``: to install it."""

    tree: Tree
    said: str
    took_s: float


@pytest.fixture(scope="module")
def installed(release: Release, package: Path) -> Iterator[Installed]:
    with in_memory() as scratch:
        tree = unpack(release, package, scratch / release.name)
        (tree.path / "root/enforcer.deb").write_bytes(package.read_bytes())
        begin = time.monotonic()
        said = tree.install("/root/enforcer.deb")
        yield Installed(tree, said, time.monotonic() - begin)


@pytest.fixture
def tree(installed: Installed) -> Iterator[Tree]:
    """A system of the test's own with the package."""
    with writable_copy(installed.tree) as made:
        yield made


@pytest.fixture
def network(netns_pair: NetnsPair) -> Iterator[NetnsPair]:
    """A host's network and its peer's; afterwards nothing of the enforcer is left in it."""
    ensure_bpffs()
    yield netns_pair
    with netns_pair.host():
        Enforcer(NODE).detach()


@pytest.fixture
def wire(network: NetnsPair) -> Iterator[Traffic]:
    with traffic(network) as found:
        yield found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for found in terminalreporter.stats.values() for report in found]
    for report in reports:
        for name, value in getattr(report, "user_properties", []):
            if name == MEASURED and report.when == "call":
                terminalreporter.write_line(str(value))
