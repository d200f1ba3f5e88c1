"""Nothing is executed at start: no child process, and nothing from ``$PATH`` or the current directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import DEADLINE_S, NODE, documents

pytestmark = pytest.mark.needs_root

# Python's audit events report each child before it starts (PEP 578); the kernel's own helpers are not our children.
WATCHED = """
import os, sys
def seen(event, arguments):
    if event in {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}:
        os.write(2, f"CHILD {event} {arguments}\\n".encode())
sys.addaudithook(seen)
from MODULE import main
main(sys.argv[1:])
"""
TOOLS = ("gcc", "cc", "ld", "clang", "ldconfig", "modprobe", "ip", "iptables", "nft", "ethtool", "uname", "sh")


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A directory of decoys that a search finds first: each tool leaves a mark when run, each library is invalid."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for name in TOOLS:
        (folder / name).write_text(f"#!/bin/sh\necho {name} >>{folder}/executed\n")
        (folder / name).chmod(0o755)
    (folder / "no-library").write_text("not an ELF file")
    for name in ("xtables", "ip4tc", "ip6tc", "xtwrapper", "libip4tc.so.2", "libbpf.so.1", "libc"):
        (folder / name).symlink_to("no-library")
    return folder


def watched(pair: NetnsPair, trap: Path, *words: str, module: str = "enforcer.cli.main") -> subprocess.Popen[str]:
    """A command in the host's namespace that reports what it starts; decoys are in its directory and first in PATH."""
    script = WATCHED.replace("MODULE", module)
    return subprocess.Popen(
        [_nsenter(), f"--net=/run/netns/{pair.host_name}", sys.executable, "-c", script, *words],
        env={**os.environ, "PATH": f"{trap}:{os.environ['PATH']}", "STATE_DIRECTORY": f"{trap}/state"},
        cwd=trap,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _nsenter() -> Path:
    return next(path for path in (Path("/usr/bin/nsenter"), Path("/bin/nsenter")) if path.exists())


@pytest.mark.parametrize("raw", ["iptables", "nftables"])
def test_no_command_starts_a_child(netns_pair: NetnsPair, pin_root: Path, tmp_path: Path, trap: Path, raw: str) -> None:
    file = tmp_path / "dos.yaml"
    file.write_text(documents())
    pins = ["--pin-root", str(pin_root)]
    looking = [["probe"], ["status", *pins], ["counters", *pins]] if raw == "iptables" else []
    commands = [
        ["apply", "-f", str(file), "--node", NODE, "--raw-backend", raw, *pins],
        *looking,
        ["detach", *pins],
    ]
    for words in commands:
        process = watched(netns_pair, trap, *words)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, ""), words
    assert not (trap / "executed").exists()


def test_the_agent_starts_no_child(netns_pair: NetnsPair, pin_root: Path, tmp_path: Path, trap: Path) -> None:
    store = tmp_path / "policy"
    store.mkdir()
    (store / "dos.yaml").write_text(documents())
    words = ["run", "-f", str(store), "--node", NODE, "--pin-root", str(pin_root), "--detach-on-exit"]
    process = watched(netns_pair, trap, *words)
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "policy applied" in line:
            process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=DEADLINE_S) == 0
    assert any("policy applied" in line for line in lines), lines
    assert not [line for line in lines if line.startswith("CHILD")]
    assert not (trap / "executed").exists()


def test_a_drills_iptables_are_imported_without_a_compiler(netns_pair: NetnsPair, trap: Path) -> None:
    """python-iptables looks for its libraries with gcc, ld and ldconfig, and in the current directory."""
    script = "from dossim.lab.python_iptables import python_iptables as get; get().Table('filter').refresh()"
    words = [sys.executable, "-c", WATCHED.replace("from MODULE import main\nmain(sys.argv[1:])", script)]
    done = subprocess.run(
        [_nsenter(), f"--net=/run/netns/{netns_pair.host_name}", *words],
        env={**os.environ, "PATH": f"{trap}:{os.environ['PATH']}"},
        cwd=trap,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not (trap / "executed").exists()
