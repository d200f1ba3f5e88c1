"""The skip policy shared by all tests.

A skip is a claim: only the missing privilege and the missing captures skip, saying so. In CI (root, on a kernel that
has everything) a test marked ``needs_root`` never skips.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.examples import load_profile
from tests.support.turns import turn

ROOT = Path(__file__).parent.parent
CAPTURES = ROOT.parent / "shared" / "pcaps"

load_profile()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    cache = getattr(item.config, "cache", None)  # -p no:cacheprovider: no place to meet
    if "PYTEST_XDIST_WORKER" not in os.environ or cache is None:
        return (yield)
    with turn(cache.mkdir("turns"), alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers() -> int:
    """Two for each CPU: half of what tests of the kernel take is waiting for it."""
    return 2 * len(os.sched_getaffinity(0))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first, so that no process is left with one when all others have ended; before them who must be
    alone, whom the others would have to wait for.
    """
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in ("alone", "long")])


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_root") and os.geteuid() != 0:
        pytest.skip("needs root: CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_BPF")


@pytest.fixture(scope="session")
def captures() -> Path:
    """The folder of real attack captures, which a user's checkout does not have."""
    if not CAPTURES.is_dir():
        pytest.skip(f"no captures in {CAPTURES}")
    return CAPTURES
