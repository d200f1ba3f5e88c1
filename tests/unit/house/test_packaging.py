"""Built packages: their licences and tag, and locks that agree with pyproject.toml."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import sysconfig
from email.message import Message
from email.parser import Parser
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[3]
_BUILD = "import sys; from setuptools import build_meta as b; print(b.prepare_metadata_for_build_wheel(sys.argv[1]))"
# What setup.py would name a wheel, without building one.
_TAG = """
from distutils.core import run_setup
command = run_setup("setup.py", ["--quiet"], stop_after="init").get_command_obj("bdist_wheel")
command.ensure_finalized()
print("-".join(command.get_tag()))
"""
_PLATFORM = sysconfig.get_platform().replace("-", "_").replace(".", "_")

LOCKS = {
    "enforcer": {""},
    "etcd": {"", "etcd"},
    "package": {"", "etcd", "metrics"},
    "sim": {"", "sim"},
    "dev": {"", "sim", "etcd", "metrics", "dask", "test", "check"},
    "bench": {"", "sim", "bench"},
}
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .dist-info of a wheel of this tree: made by the first of the processes that run tests, for all of them."""
    folder = tmp_path_factory.getbasetemp() / "metadata"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            making = tmp_path_factory.mktemp("making")
            words = [sys.executable, "-c", _BUILD, str(making)]
            subprocess.run(words, cwd=ROOT, capture_output=True, check=True)
            making.rename(folder)
    (found,) = folder.glob("*.dist-info")
    return found


@pytest.fixture(scope="session")
def metadata(built: Path) -> Message:
    return Parser().parsestr((built / "METADATA").read_text())


def test_a_wheel_carries_both_licences(built: Path, metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0 AND (Apache-2.0 OR GPL-2.0-only)"
    for name in ("LICENSE", "bpf/COPYING.GPL-2.0"):
        assert (built / "licenses" / name).read_bytes() == (ROOT / name).read_bytes()


def test_every_bpf_source_is_under_a_licence_of_the_wheel() -> None:
    sources = [*ROOT.glob("bpf/*.c"), *ROOT.glob("bpf/include/*.h")]
    assert sources
    for source in sources:
        assert "SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)" in source.read_text().splitlines()[0]


def test_every_source_of_the_engine_is_under_the_licence_of_the_rest() -> None:
    sources = [*ROOT.glob("engine/*.c"), *ROOT.glob("engine/*.h")]
    assert sources
    for source in sources:
        assert "SPDX-License-Identifier: Apache-2.0" in source.read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("compilers", "tag"),
    [
        pytest.param(["gcc", "make"], f"py3-none-{_PLATFORM}", id="with the engine: this platform, every Python"),
        pytest.param([], "py3-none-any", id="no compiler, no engine: any platform"),
    ],
)
def test_for_whom_a_wheel_is(compilers: list[str], tag: str, tmp_path: Path) -> None:
    for name in compilers:
        (tmp_path / name).symlink_to("/bin/true")
    done = subprocess.run(
        [sys.executable, "-c", _TAG],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == tag


def test_a_source_distribution_has_what_is_compiled_and_not_the_result(tmp_path: Path) -> None:
    words = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    listed = set((tmp_path / "dossim.egg-info" / "SOURCES.txt").read_text().splitlines())
    needed = {str(path.relative_to(ROOT)) for top in ("bpf", "engine") for path in (ROOT / top).rglob("*.[ch]")}
    assert needed | {"bpf/Makefile", "engine/Makefile"} <= listed
    assert not [name for name in listed if name.endswith(".so")]


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("python", PYTHONS)
def test_a_lock_has_what_is_required(metadata: Message, lock: str, python: str) -> None:
    """With a version that satisfies it, on every Python; ``./run lock`` rewrites the locks."""
    pins = locked(lock, python)
    for line in metadata.get_all("Requires-Dist", []):
        item = Requirement(line)
        if any(not item.marker or item.marker.evaluate(environment(python, extra)) for extra in LOCKS[lock]):
            assert Version(pins[canonicalize_name(item.name)]) in item.specifier, line


def test_the_enforcer_is_locked_without_the_simulator(metadata: Message) -> None:
    pins = locked("enforcer", "3.11")
    simulator = {Requirement(line).name for line in metadata.get_all("Requires-Dist", []) if 'extra == "sim"' in line}
    assert simulator
    assert not simulator & pins.keys()


@pytest.mark.parametrize("python", PYTHONS)
def test_a_package_has_one_version_in_all_locks(python: str) -> None:
    everything = locked("dev", python)
    for lock in LOCKS:
        pins = locked(lock, python)
        assert {name: everything.get(name, pin) for name, pin in pins.items()} == pins


@pytest.mark.parametrize("lock", [*LOCKS, "build"])
def test_everything_locked_has_hashes(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    entries = re.findall(r"^[\w.-]+==.*(?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)*", text, re.MULTILINE)
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


def locked(lock: str, python: str) -> dict[str, str]:
    """The version of each package that a lock has for one Python version."""
    found: dict[str, str] = {}
    for item in _entries(lock):
        if item.marker and not item.marker.evaluate(environment(python)):
            continue
        assert item.name not in found, f"{lock}: two versions of {item.name} on Python {python}"
        found[canonicalize_name(item.name)] = str(item.specifier).removeprefix("==")
    return found


@cache
def _entries(lock: str) -> list[Requirement]:
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text().splitlines()
    return [Requirement(line.removesuffix("\\")) for line in lines if not line.startswith(("#", " "))]


def environment(python: str, extra: str = "") -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "extra": extra,
    }
