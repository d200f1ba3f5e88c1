"""The contract of the fakes in ``tests/support/fakes``: the same tests run on each fake and on the kernel.

Where they differ, the kernel is right.
"""

from __future__ import annotations

import pytest

EACH = ["fake", pytest.param("kernel", marks=pytest.mark.needs_root)]
