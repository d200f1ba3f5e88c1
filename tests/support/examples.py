"""How many examples a property test generates: a tenth in ``./run check``, all in ``./run test``, many more at night.

``HYPOTHESIS_PROFILE`` names the run: ``quick``, ``default`` or ``nightly``. There are no deadlines: they would measure
the shared machine, not the code. Runs are reproducible, because each generates the same examples for the same tree.
Only the nightly profile generates new ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

T = TypeVar("T")

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")

_EACH = {"quick": 10, "default": 100, "nightly": 100_000}  # of a property without a number


def load_profile() -> None:
    settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    default = settings.get_profile("default")
    for name, number in _EACH.items():
        settings.register_profile(name, parent=default, derandomize=name != "nightly", max_examples=number)
    settings.load_profile(PROFILE)


def examples(usual: int, *, nightly: int) -> int:
    """The number of examples (or of what is counted) in this run; ``usual`` is that of ``./run test``."""
    return {"quick": -(-usual // 10), "default": usual, "nightly": nightly}[PROFILE]


def draw_until(is_enough: Callable[[T], bool], strategy: st.SearchStrategy[T], *, most: int) -> None:
    """Calls it with examples until it is true, or with ``most``: nothing more is drawn, which takes longer than most
    that is done with what is drawn.
    """
    each = settings(
        max_examples=most,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with suppress(NoSuchExample):
        find(strategy, is_enough, settings=each)
