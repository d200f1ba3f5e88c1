"""mypy names every consumer of the closed union of conditions when it gets a member."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
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
# The code that distinguishes kinds of conditions. A new member of the union must be handled in each of these.
CONSUMERS = {
    CONDITIONS,  # the families of a condition
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


# The classes into which consumers sort conditions and packets: the last field, and the code that must handle one more.
TABLES = {
    "dossim/predict/phases.py": (
        "    types: list[Icmp]\n",
        {"dossim/predict/phases.py", "dossim/predict/rules.py", "dossim/predict/xdp.py"},
    ),
    "dossim/predict/flows.py": ("    untracked: Bool\n", {"dossim/predict/flows.py", "dossim/predict/odd.py"}),
    "dossim/lint/boxes.py": ("    readability: int\n", {"dossim/lint/boxes.py"}),
}


@pytest.fixture(name="cache", scope="module")
def cache_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


def errors(cache: Path, changed: str, old: str, new: str, files: Iterable[str]) -> list[tuple[str, str]]:
    """(file, error) that mypy reports for the files if the old text is replaced by the new one in the changed file."""
    text = (ROOT / changed).read_text()
    assert text.count(old) == 1
    more = cache / changed.replace("/", "-")
    more.write_text(text.replace(old, new))
    shadow = ["--shadow-file", changed, str(more), "--cache-dir", str(cache / "cache")]
    command = [sys.executable, "-m", "mypy", *shadow, *sorted(files)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return re.findall(r"^(\S+?):\d+: error: (.*)", found.stdout, re.MULTILINE)


@pytest.mark.slow
def test_mypy_names_all_that_do_not_know_a_new_condition(cache: Path) -> None:
    found = errors(cache, CONDITIONS, UNION, ONE_MORE, CONSUMERS)
    named = {file for file, error in found if re.match(r'Argument 1 .* has incompatible type "OneMore"', error)}
    assert named == CONSUMERS, found


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_mypy_names_all_that_do_not_know_a_new_field_of_a_table(cache: Path, table: str) -> None:
    last, consumers = TABLES[table]
    found = errors(cache, table, last, f"{last}    one_more: int\n", consumers)
    assert {file for file, _ in found} == consumers, found


def test_there_are_no_other_consumers() -> None:
    """Code that distinguishes kinds of conditions by ``match`` must be listed: mypy checks that it is exhaustive."""
    case = re.compile(rf"^ +case .*\b({'|'.join(NAMES)})\(", re.MULTILINE)
    files = [path for top in ("enforcer", "dossim", "tests/support") for path in (ROOT / top).rglob("*.py")]
    assert {str(path.relative_to(ROOT)) for path in files if case.search(path.read_text())} == CONSUMERS
