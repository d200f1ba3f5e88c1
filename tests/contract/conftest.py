"""What the fakes of ``tests/support/fakes`` promise, checked on each fake and on the kernel by the same tests.

Where they differ, the kernel is right.
"""

from __future__ import annotations

import pytest

EACH = ["fake", pytest.param("kernel", marks=pytest.mark.needs_root)]
