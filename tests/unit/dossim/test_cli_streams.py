"""stdout and stderr that are full, closed, unread or of another encoding: one message, and the right exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HOW_TO = str(ROOT / "scenarios" / "policies" / "how-to.yaml")

pytestmark = pytest.mark.slow


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """``DOSSIM`` in the command is replaced by ours; the exit code is that of the first command of a pipe."""
    return subprocess.run(
        ["bash", "-c", f"{command.replace('DOSSIM', f'{sys.executable} -m dossim.cli')}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT,
        check=False,
    )


@pytest.mark.parametrize("form", ["text", "json", "mermaid"])
def test_a_full_stdout_is_said_and_is_no_bug(form: str) -> None:
    done = shell(f"DOSSIM plan -p {HOW_TO} --format {form} 2>&1 >/dev/full")
    assert done.returncode == 3
    assert done.stdout.splitlines()[-1] == b"error: the output cannot be written: No space left on device"


@pytest.mark.parametrize("where", ["2>/dev/full", "2> >(true)"], ids=["full", "without reader"])
def test_progress_that_nobody_sees_ends_nothing(where: str) -> None:
    capture = "tests/counterexamples/fragment-dropped-before-it-overlaps.pcap"
    done = shell(f"DOSSIM predict {capture} -p {HOW_TO} --progress {where}")
    assert (done.returncode, b"predicted only" in done.stdout) == (0, True)


def test_a_closed_stdout_is_no_fault() -> None:
    done = shell(f"DOSSIM plan -p {HOW_TO} >&-")
    assert (done.returncode, b"error" in done.stderr) == (0, False)


def test_errors_that_cannot_be_printed_have_their_exit_code() -> None:
    assert shell("DOSSIM validate /dev/null >/dev/full").returncode == 3
    assert shell("DOSSIM lint /dev/null 2>/dev/full").returncode == 2
    assert shell("DOSSIM lint /dev/null 2>&-").returncode == 2


@pytest.mark.parametrize("command", ["plan -p -", "validate -", "lint -", "selector --batch"])
def test_a_closed_stdin_is_bad_input(command: str) -> None:
    done = shell(f"DOSSIM {command} 2>&1 <&-")
    assert done.returncode == 2
    assert b"closed" in done.stdout
    assert b"bug" not in done.stdout


def test_a_reader_that_goes_away_is_no_bug() -> None:
    done = shell("DOSSIM predict --help | true")
    assert done.returncode in (0, 1)
    assert done.stderr == b""


def test_names_that_a_locale_cannot_say_end_no_command(tmp_path: Path) -> None:
    path = tmp_path / "é☃.yaml"
    path.write_bytes(Path(HOW_TO).read_bytes())
    command = f"DOSSIM explain -p {path} 'IP(src=\"203.0.113.9\")/TCP(dport=80)'"
    done = shell(command, PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 0
    assert rb"\u2603.yaml" in done.stdout


def test_json_lines_are_utf_8_whatever_the_locale() -> None:
    line = r"""{"selector": "a == 'é'", "labels": {"a": "é"}}"""
    done = subprocess.run(
        [sys.executable, "-m", "dossim.cli", "selector", "--batch"],
        input=f"{line}\n".encode(),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii:strict"},
        check=False,
    )
    assert (done.returncode, b'"match": true' in done.stdout, "é".encode() in done.stdout) == (0, True, True)
