"""The skip policy shared by all tests.

A test skips only for missing privileges or missing captures, and names which. In CI (root, on a kernel with every
feature) a test marked ``needs_root`` never skips.
"""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import find, settings
from hypothesis import strategies as st
from scapy.config import conf as scapy
from scapy.layers import inet, inet6

from enforcer.model.errors import HostError
from enforcer.system import startup
from tests.support.examples import load_profile
from tests.support.workers import run_in_workers

startup.prepare()  # numpy without threads: the workers are forked
gc.disable()  # until all tests are imported: what they load stays

ROOT = Path(__file__).parent.parent
CAPTURES = ROOT.parent / "shared" / "pcaps"

load_profile()
assert inet, inet6  # they register how Scapy asks the network for the MAC addresses of packets that are only built
scapy.neighbor.resolvers.clear()


def pytest_addoption(parser: pytest.Parser) -> None:
    # As of pytest-xdist; what is public leaves lower-case letters to pytest.
    parser.getgroup("general")._addoption(
        "-n", dest="workers", metavar="NUMBER", type=_number, help="run the tests in so many processes; auto: 4 a CPU"
    )


def _number(word: str) -> int:
    """Eight for two CPUs: kernel tests wait for half of their time. With six, the CPUs were busy for 86 % of it."""
    return 4 * len(os.sched_getaffinity(0)) if word == "auto" else int(word)


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    number, option = session.config.option.workers, session.config.option
    if not number or option.collectonly or option.usepdb or session.testsfailed:
        return None
    _prepare()
    run_in_workers(session, number)
    return True


def _prepare() -> None:
    """What each worker would do once, which costs most of a second: Hypothesis reads the constants of all modules and
    sorts all characters, numpy imports what it needs for np.unique, and a drill reads the names of the kernel's
    functions.
    """
    import numpy as np  # after startup.prepare()

    from dossim.observe.symbols import drop_reasons, resolve

    find(st.text(), lambda _: True, settings=settings(database=None, max_examples=1))
    np.unique([0])
    with suppress(HostError):
        resolve([])
        drop_reasons()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, so that none is still running when all others have ended."""
    items.sort(key=lambda item: not item.get_closest_marker("long"))


def pytest_collection_finish() -> None:
    """What is loaded now stays: the garbage collector need not look at it again and again. Nor after each 700 objects:
    a tenth of the time of the property tests was that.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_root") and os.geteuid() != 0:
        pytest.skip("needs root: CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_BPF")


@pytest.fixture(scope="session")
def captures() -> Path:
    """The folder of real attack captures, which is not part of the repository."""
    if not CAPTURES.is_dir():
        pytest.skip(f"no captures in {CAPTURES}")
    return CAPTURES
