"""docs/conformance.md names every test of this folder, and no other."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_the_table_names_every_test_and_no_other() -> None:
    documented = set(re.findall(r"`(test_\w+)`", (HERE.parents[1] / "docs" / "conformance.md").read_text()))
    others = sorted(path for path in HERE.glob("test_*.py") if path.name != Path(__file__).name)
    defined = {name for path in others for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}
    assert documented == defined
