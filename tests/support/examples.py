"""How many examples a property draws: in ``./run check`` a tenth, in ``./run test`` all, at night many more.

``HYPOTHESIS_PROFILE`` names the run: ``quick``, ``default`` or ``nightly``. Deadlines measure the machine, not the
code; the machine is shared. A run answers the same for the same tree, because it draws the same examples each time.
Only the nightly one looks for new ones.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")

_EACH = {"quick": 10, "default": 100, "nightly": 100_000}  # of a property that says no number


def load_profile() -> None:
    settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    default = settings.get_profile("default")
    for name, number in _EACH.items():
        settings.register_profile(name, parent=default, derandomize=name != "nightly", max_examples=number)
    settings.load_profile(PROFILE)


def examples(usual: int, *, nightly: int) -> int:
    """So many examples, or whatever of them is counted, in this run; ``usual`` is what ``./run test`` does."""
    return {"quick": -(-usual // 10), "default": usual, "nightly": nightly}[PROFILE]
