"""mypy names every consumer of the closed union of conditions when it gets a member."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
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
    "enforcer/emergency/effect.py",  # which packets of a network it matches
    "enforcer/export/select.py",  # whether it lists sources
    "dossim/predict/compiled.py",  # the rows of the engine
    "dossim/lint/boxes.py",
    "tests/support/entries.py",
}


# The classes into which consumers sort conditions and packets: the last field, the error that one more causes, and the
# code that must handle it.
TABLES = {
    "dossim/lint/boxes.py": ("    readability: int\n", r'.* in call to "Masks"', {"dossim/lint/boxes.py"}),
}


def errors(
    directory: Path, cache: Path, changes: Mapping[str, tuple[str, str]], files: Iterable[str]
) -> list[tuple[str, str]]:
    """(file, error) that mypy reports for the files if in each changed file the old text is replaced by the new one."""
    shadows: list[str] = []
    for changed, (old, new) in changes.items():
        text = (ROOT / changed).read_text()
        assert text.count(old) == 1
        more = directory / changed.replace("/", "-")
        more.write_text(text.replace(old, new))
        shadows += ["--shadow-file", changed, str(more)]
    command = [sys.executable, "-m", "mypy", *shadows, "--cache-dir", str(cache), *sorted(files)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return re.findall(r"^(\S+?):\d+: error: (.*)", found.stdout, re.MULTILINE)


@pytest.mark.slow
def test_mypy_names_all_that_do_not_know_a_new_condition_or_field(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """All in one run. Its cache is not the developer's, who would have to wait for what was checked as changed here."""
    cache = pytestconfig.cache.mkdir("mypy") if pytestconfig.cache else tmp_path
    rows = {CONDITIONS: (r'Argument 1 .* has incompatible type "OneMore"', CONSUMERS)}
    rows |= {file: (error, consumers) for file, (_, error, consumers) in TABLES.items()}
    changes = {CONDITIONS: (UNION, ONE_MORE)}
    changes |= {file: (last, f"{last}    one_more: int\n") for file, (last, _, _) in TABLES.items()}
    found = errors(tmp_path, cache, changes, set[str]().union(*(consumers for _, consumers in rows.values())))
    named = {file: {at for at, error in found if re.match(expected, error)} for file, (expected, _) in rows.items()}
    assert named == {file: consumers for file, (_, consumers) in rows.items()}, found
    assert [error for _, error in found if not any(re.match(expected, error) for expected, _ in rows.values())] == []


def test_there_are_no_other_consumers() -> None:
    """Code that distinguishes kinds of conditions by ``match`` must be listed: mypy checks that it is exhaustive."""
    case = re.compile(rf"^ +case .*\b({'|'.join(NAMES)})\(", re.MULTILINE)
    files = [path for top in ("enforcer", "dossim", "tests/support") for path in (ROOT / top).rglob("*.py")]
    assert {str(path.relative_to(ROOT)) for path in files if case.search(path.read_text())} == CONSUMERS
