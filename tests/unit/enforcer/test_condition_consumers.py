"""mypy names every consumer of the closed union of conditions when it gets a member."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from enforcer.policy.conditions import Condition

ROOT = Path(__file__).parents[3]
CONDITIONS = "enforcer/policy/conditions.py"
NAMES = [member.__name__ for member in get_args(Condition)]
UNION = f"Condition = {' | '.join(NAMES)}\n"
ONE_MORE = f"""@dataclass(frozen=True)
class OneMore:
    value: int


Condition = {" | ".join(NAMES)} | OneMore
"""
# Who decides something by the kind of condition. To add one to the union, each of these has to say what it does.
CONSUMERS = {
    CONDITIONS,  # of which families it is
    "enforcer/policy/evaluate.py",  # whether it holds for one flow
    "enforcer/planning/xdp_capability.py",  # whether XDP, netdev ingress and a device hold it
    "enforcer/backends/netfilter/entries.py",  # whether raw can express it
    "enforcer/backends/iptables/match.py",
    "enforcer/backends/nftables/match.py",  # netdev ingress as well
    "enforcer/backends/xdp/compile/bits.py",
    "enforcer/backends/xdp/offload.py",
    "dossim/predict/phases.py",
    "dossim/lint/boxes.py",
    "tests/support/entries.py",
}


@pytest.mark.slow
def test_mypy_names_all_that_do_not_know_a_new_condition(tmp_path: Path) -> None:
    text = (ROOT / CONDITIONS).read_text()
    assert UNION in text
    more = tmp_path / "conditions.py"
    more.write_text(text.replace(UNION, ONE_MORE))
    shadow = ["--shadow-file", CONDITIONS, str(more), "--cache-dir", str(tmp_path / "cache")]
    command = [sys.executable, "-m", "mypy", *shadow, *sorted(CONSUMERS)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    refused = r'^(\S+?):\d+: error: Argument 1 .* has incompatible type "OneMore"'
    named = set(re.findall(refused, found.stdout, re.MULTILINE))
    assert named == CONSUMERS, found.stdout + found.stderr


def test_there_are_no_other_consumers() -> None:
    """Whoever tells kinds of conditions apart by a ``match`` is one, so that it ends with what mypy checks."""
    case = re.compile(rf"^ +case .*\b({'|'.join(NAMES)})\(", re.MULTILINE)
    files = [path for top in ("enforcer", "dossim", "tests/support") for path in (ROOT / top).rglob("*.py")]
    assert {str(path.relative_to(ROOT)) for path in files if case.search(path.read_text())} == CONSUMERS
