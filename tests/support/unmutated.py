"""Examples that are all drawn anew: for tests that do much with each one.

Hypothesis tries mutations of every example that it draws: one of its values in two places. Where a test does not want
what it has seen already, that draws three examples for each that is used.
"""

from __future__ import annotations

from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider

UNMUTATED = "unmutated"  # settings(backend=UNMUTATED)


class _Unmutated(HypothesisProvider):
    """Draws what Hypothesis itself would, reproducibly; it mutates only what its own provider drew."""


AVAILABLE_PROVIDERS[UNMUTATED] = _Unmutated
