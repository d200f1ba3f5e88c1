"""``enforcer_VERSION_ARCH.deb``: the enforcer alone, with the packages it needs in a virtual environment of its own.

Debian's own Python packages are older than what pyproject.toml asks for, so they are bundled, as locked in
requirements/package.txt. uv selects the wheels of the other release's Python without having it, so no chroot is needed.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import enforcer
from enforcer.cli.main import main as command
from tools.package.manpages import bash_completion, write_pages
from tools.package.releases import Release

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
LOCK = ROOT / "requirements" / "package.txt"
HOME = Path("usr/lib/enforcer")
PROGRAMS = ("xdp_untracked", "xdp_watching", "xdp_offload", "device_look")
# glibc of Debian 12 is 2.36; the wheels are of manylinux_2_28 or older.
PLATFORMS = {"amd64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}
# Of the bundled packages: what only their own tests, compilers and type checkers read.
UNUSED = ("tests", "_*_tests.*.so", "*.pyi", "include", "*.a")
NO_ADDRESS = "dossim@localhost.localdomain"
LAUNCHER = """\
#!/usr/lib/enforcer/bin/python3 -I
import sys

from enforcer.cli.main import main

sys.argv[0] = "enforcer"
main(prog_name="enforcer")
"""


class Refused(Exception):
    """What was asked for cannot be built; the text says why, and what would help."""


@dataclass(frozen=True)
class Build:
    """``when_s``: the time stamp of every file, so that the same tree gives the same package."""

    release: Release
    version: str
    architecture: str
    when_s: int

    @property
    def debian_version(self) -> str:
        upstream = re.sub(r"(a|b|rc)(?=[0-9])", r"~\1", self.version)  # before the release, in dpkg's order too
        return f"{upstream}+deb{self.release.number}"

    @property
    def file_name(self) -> str:
        return f"enforcer_{self.debian_version}_{self.architecture}.deb"


def build_of(release: Release, version: str | None = None) -> Build:
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is not None and not given.isdecimal():
        raise Refused(f"SOURCE_DATE_EPOCH: expected seconds since 1970, found {given!r}")
    when = given or output("git", "-C", str(ROOT), "log", "-1", "--format=%ct")
    architecture = output("dpkg", "--print-architecture")
    if architecture not in PLATFORMS:
        raise Refused(f"no package for {architecture}: the Python packages have wheels for {' and '.join(PLATFORMS)}")
    return Build(release, version or enforcer.__version__, architecture, int(when))


def build_deb(build: Build, wheel: Path, folder: Path, *, compress: str = "xz") -> Path:
    """The package, written into ``folder``. ``wheel``: this project's. ``compress``: xz, or none, which is quick."""
    stage = folder / f"stage-{build.release.name}"
    shutil.rmtree(stage, ignore_errors=True)
    try:
        _fill(stage, build, wheel)
        package = folder / build.file_name
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(build.when_s)}
        words = ["dpkg-deb", "--root-owner-group", f"-Z{compress}", "-z3", "--build", str(stage), str(package)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=environment)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return package


def build_wheel(folder: Path) -> Path:
    """The wheel of this tree: both commands. Raises Refused if the BPF programs are not in it."""
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # modules that are gone would be taken from an earlier build
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        words = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            scratch,
            ".",
        ]
        subprocess.run(words, check=True, cwd=ROOT)
        (made,) = Path(scratch).iterdir()
        wheel = made.rename(folder / made.name)
    with zipfile.ZipFile(wheel) as content:
        missing = [name for name in PROGRAMS if f"enforcer/_bpf/{name}.bpf.o" not in content.namelist()]
    if missing:
        raise Refused(f"BPF programs that are not compiled: {', '.join(missing)}; install clang, then './run setup'")
    return wheel


def _fill(stage: Path, build: Build, wheel: Path) -> None:
    _venv(stage / HOME, build, wheel)
    _commands(stage, build)
    _units(stage)
    _documents(stage, build)
    (stage / "etc/enforcer").mkdir(parents=True)
    _copy(PACKAGING / "deb/enforcer.default", stage / "etc/default/enforcer")
    _control(stage, build)
    for path in stage.rglob("*"):
        if not path.is_symlink():
            path.chmod(_mode(path, stage))
            os.utime(path, (build.when_s, build.when_s))


def _mode(path: Path, stage: Path) -> int:
    scripts = {"DEBIAN/postinst", "DEBIAN/prerm", "DEBIAN/postrm", "usr/lib/enforcer/bin/enforcer"}
    return 0o755 if path.is_dir() or str(path.relative_to(stage)) in scripts else 0o644


def _venv(home: Path, build: Build, wheel: Path) -> None:
    python = build.release.python
    packages = home / f"lib/python{python}/site-packages"
    words = [
        *(str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--no-deps", "--require-hashes"),
        *("--only-binary", ":all:", "--link-mode", "copy", "--python", sys.executable, "--python-version", python),
        *("--python-platform", PLATFORMS[build.architecture], "--target", str(packages), "--requirement", str(LOCK)),
    ]
    subprocess.run(words, check=True)
    with zipfile.ZipFile(wheel) as content:
        content.extractall(packages, [name for name in content.namelist() if name.startswith("enforcer/")])
    (packages / "enforcer/__init__.py").write_text(_with_version(packages, build.version))
    for name in ("bin", ".lock"):
        _remove(packages / name)
    for pattern in UNUSED:
        for path in packages.rglob(pattern):
            if path.relative_to(packages).parts[0] != "enforcer":
                _remove(path)
    bin_folder = home / "bin"
    bin_folder.mkdir()
    (bin_folder / "python3").symlink_to(f"../../../bin/python{python}")
    (bin_folder / "enforcer").write_text(LAUNCHER)
    (home / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\n")


def _with_version(packages: Path, version: str) -> str:
    text = (packages / "enforcer/__init__.py").read_text()
    return re.sub(r'^__version__ = ".*"$', f'__version__ = "{version}"', text, flags=re.MULTILINE)


def _commands(stage: Path, build: Build) -> None:
    (stage / "usr/bin").mkdir(parents=True)
    (stage / "usr/bin/enforcer").symlink_to("../lib/enforcer/bin/enforcer")
    pages = stage / "usr/share/man/man8"
    pages.mkdir(parents=True)
    command.name = "enforcer"
    for page in write_pages(command, pages, version=build.version, when_s=build.when_s):
        _compress(page)
    completion = stage / "usr/share/bash-completion/completions/enforcer"
    completion.parent.mkdir(parents=True)
    completion.write_text(bash_completion(command, "enforcer"))


def _units(stage: Path) -> None:
    folder = stage / "usr/lib/systemd/system"
    folder.mkdir(parents=True)
    for name in ("enforcer.service", "enforcer-feed.service", "enforcer-feed.timer"):
        (folder / name).write_text((PACKAGING / name).read_text().replace("/usr/local/bin/", "/usr/bin/"))


def _documents(stage: Path, build: Build) -> None:
    documents = stage / "usr/share/doc/enforcer"
    _copy(PACKAGING / "deb/copyright", documents / "copyright")
    _copy(PACKAGING / "deb/lintian-overrides", stage / "usr/share/lintian/overrides/enforcer")
    _copy(PACKAGING / "deb/policy.yaml", documents / "examples/policy.yaml")
    for name in ("dashboard.json", "alerts.yaml"):
        _copy(PACKAGING / "monitoring" / name, documents / "examples/monitoring" / name)
    (documents / "changelog").write_text(_changelog(build))
    _compress(documents / "changelog")
    _copy(ROOT / "CHANGELOG.md", documents / "CHANGELOG.md")
    _compress(documents / "CHANGELOG.md")


def _changelog(build: Build) -> str:
    """As deb-changelog(5) has it; what changed is in CHANGELOG.md."""
    when = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(build.when_s))
    return (
        f"enforcer ({build.debian_version}) {build.release.name}; urgency=medium\n\n"
        f"  * Version {build.version}: see CHANGELOG.md.gz.\n\n -- {_maintainer()}  {when}\n"
    )


def _maintainer() -> str:
    """Who builds it, as for Debian's own tools."""
    name, address = os.environ.get("DEBFULLNAME", "The dossim authors"), os.environ.get("DEBEMAIL", NO_ADDRESS)
    return f"{name} <{address}>"


def _control(stage: Path, build: Build) -> None:
    folder = stage / "DEBIAN"
    files = sorted(path for path in stage.rglob("*") if path.is_file() and not path.is_symlink())
    kib = sum(-(-path.stat().st_size // 1024) for path in files)
    folder.mkdir()
    values = {
        "VERSION": build.debian_version,
        "ARCHITECTURE": build.architecture,
        "SIZE": str(kib),
        "MAINTAINER": _maintainer(),
        "PYTHON": build.release.python,
        "NEXT_PYTHON": build.release.next_python,
    }
    for name in ("control", "postinst", "prerm", "postrm"):
        text = (PACKAGING / "deb" / name).read_text()
        (folder / name).write_text(re.sub(r"@(\w+)@", lambda found: values[found[1]], text))
    named = [path.relative_to(stage) for path in files]
    (folder / "conffiles").write_text("".join(f"/{path}\n" for path in named if path.parts[0] == "etc"))
    sums = [
        f"{hashlib.md5((stage / path).read_bytes()).hexdigest()}  {path}\n" for path in named if path.parts[0] != "etc"
    ]
    (folder / "md5sums").write_text("".join(sums))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _compress(path: Path) -> None:
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
    path.unlink()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def output(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
