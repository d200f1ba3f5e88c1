"""Kernel packages of other Debian releases, fetched by apt with this host's mirror, proxy and keys.

Each release has its own list of sources, package lists and cache below the project; those of the system are only read.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_CONFIGURATION = """
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "{folder}/lists";
Dir::Cache "{folder}";
APT::Sandbox::User "root";
Acquire::Languages "none";
"""


@dataclass(frozen=True)
class Release:
    """A Debian release whose kernel is booted: its archive and suite, and the name of the kernel package."""

    name: str
    archive: str
    suite: str
    package: str


@dataclass(frozen=True)
class Source:
    """This host's mirror of Debian: the URL above its archives, and the ``signed-by`` option of its sources list."""

    above: str
    signed_by: str


def own_source(targets: str | None = None) -> Source:
    """The host's first source of Debian itself, as ``apt-get indextargets`` has it."""
    said = targets if targets is not None else _output({}, "apt-get", "indextargets")
    for block in said.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", block, re.MULTILINE))
        address = fields.get("Repo-URI", "").rstrip("/")
        if fields.get("Origin") == "Debian" and address.rpartition("/")[2] in ("debian", "debian-security"):
            return Source(address.rpartition("/")[0], _signed_by(fields.get("Sourcesentry", "")))
    raise SystemExit("apt has no lists of Debian here: run apt-get update on a Debian with a mirror in its sources")


def _signed_by(entry: str) -> str:
    """The keys that the sources entry (``FILE:NUMBER``) names, else Debian's keys, else those that apt trusts."""
    file, _, number = entry.rpartition(":")
    if file and Path(file).exists():
        text = re.sub(r"^#.*\n", "", Path(file).read_text(), flags=re.MULTILINE)
        parts = re.split(r"\n\s*\n", text.strip()) if file.endswith(".sources") else Path(file).read_text().splitlines()
        part = parts[int(number) - 1] if int(number) <= len(parts) else ""
        if found := re.search(r"signed-by(?::\s*|=)(/[^\s\]]+)", part, re.IGNORECASE):
            return found[1]
    return _KEYRING if Path(_KEYRING).exists() else ""


def unpacked(release: Release, cache: Path) -> Path:
    """A directory with the files of the release's newest kernel; fetched again only if there is a newer one."""
    folder = cache / "apt" / release.suite
    environment = _prepare(release, folder)
    _run(environment, "apt-get", "-qq", "update")
    names = _output(environment, "apt-cache", "pkgnames", "linux-image-").split()
    found = [name for name in names if re.fullmatch(release.package, name)]
    if not found:
        raise SystemExit(f"{release.suite} of {release.archive} has no package {release.package}")
    newest = max(found, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    version = re.search(r"^Version: (\S+)", _output(environment, "apt-cache", "show", newest), re.MULTILINE)
    assert version
    target = cache / f"{newest}_{version[1]}"
    if not (target / "boot").is_dir():
        _fetch(environment, [newest, *_parts(environment, newest)], target)
    return target


def _prepare(release: Release, folder: Path) -> Mapping[str, str]:
    """The environment in which apt uses only this release."""
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    source = own_source()
    option = f"[signed-by={source.signed_by}] " if source.signed_by else ""
    (folder / "sources.list").write_text(f"deb {option}{source.above}/{release.archive} {release.suite} main\n")
    (folder / "apt.conf").write_text(_CONFIGURATION.format(folder=folder))
    return {"APT_CONFIG": str(folder / "apt.conf")}


def _parts(environment: Mapping[str, str], package: str) -> list[str]:
    """Newer kernels are a metapackage of two: the image and the modules."""
    said = _output(environment, "apt-cache", "depends", package)
    return re.findall(r"Depends: (linux-(?:base|binary|modules)-[0-9]\S*)", said)


def _fetch(environment: Mapping[str, str], names: list[str], target: Path) -> None:
    scratch = target.with_suffix(".part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    _run(environment, "apt-get", "-qq", "download", *names, folder=scratch)
    for package in list(scratch.glob("*.deb")):
        _run({}, "dpkg-deb", "-x", str(package), str(scratch))
        package.unlink()
    scratch.replace(target)


def _run(environment: Mapping[str, str], *words: str, folder: Path | None = None) -> None:
    done = subprocess.run(words, env={**os.environ, **environment}, cwd=folder, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words[:3])} failed with {done.returncode}")


def _output(environment: Mapping[str, str], *words: str) -> str:
    return subprocess.run(words, env={**os.environ, **environment}, check=True, capture_output=True, text=True).stdout
