"""A minimal Debian of each release, as it is today with its security updates: what images are built on, and what
packages are tested in. Made once by debootstrap, kept in ``.packages/``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.package.deb import PACKAGING, ROOT, Refused, output
from tools.package.releases import Release

CACHE = ROOT / ".packages"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
SECURITY_MIRROR = "http://deb.debian.org/debian-security"
# What changes a tree.
MADE_OF = (PACKAGING / "deb/control", Path(__file__), Path(__file__).with_name("releases.py"))
# dpkg syncs every file to disk: not for a tree that is made again when it is lost.
NO_SYNC = "force-unsafe-io\n"


class Tree:
    """The root directory of a system."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def command(self, *words: str, network: Path | None = None) -> list[str]:
        """The command that runs another within the tree, with the kernel's file systems of the host, which are gone
        with it. ``network``: a network namespace to enter.
        """
        enter = ["nsenter", f"--net={network}"] if network else []
        mounts = 'mount -t proc proc "$0/proc" && mount --rbind /sys "$0/sys" && mount --rbind /dev "$0/dev"'
        return [*enter, "unshare", "--mount", "sh", "-c", f'{mounts} && exec chroot "$0" "$@"', str(self.path), *words]

    def run(self, *words: str, network: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = environment_of(**variables)
        return subprocess.run(
            self.command(*words, network=network), capture_output=True, text=True, check=False, env=environment
        )

    def must(self, *words: str, network: Path | None = None) -> str:
        """What the command prints. Raises Refused, with all that it said, if it fails."""
        done = self.run(*words, network=network)
        if done.returncode:
            raise Refused(
                f"'{' '.join(words)}' ended with {done.returncode} in {self.path}:\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def install(self, *packages: str, options: Sequence[str] = ()) -> str:
        return self.must("apt-get", "install", "-y", "-q", "--no-install-recommends", *options, *packages)


def environment_of(**variables: str) -> dict[str, str]:
    """Of a service of a fresh system, and nothing of this one's."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **variables}


def unpack(release: Release, package: Path, target: Path) -> Tree:
    """A fresh tree, with all in apt's cache that ``package`` (of this release) needs. Raises Refused."""
    base = base_of(release, package)
    target.mkdir(parents=True)
    subprocess.run(["tar", "-C", str(target), "-xf", str(base)], check=True)
    shutil.copy("/etc/resolv.conf", target / "etc/resolv.conf")
    return Tree(target)


def base_of(release: Release, package: Path) -> Path:
    """The tar archive of a tree, made if it is not there."""
    if os.geteuid() != 0:
        raise Refused("debootstrap, and a chroot, need root")
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in MADE_OF)).hexdigest()[:12]
    archive = CACHE / f"{release.name}-{wanted}.tar"
    if archive.exists():
        return archive
    CACHE.mkdir(exist_ok=True)
    made = archive.with_suffix(f".{os.getpid()}")
    try:
        with in_memory() as scratch:
            tree = Tree(scratch / release.name)
            _bootstrap(release, tree, package)
            subprocess.run(["tar", "-C", str(tree.path), "--numeric-owner", "-cf", str(made), "."], check=True)
        for old in CACHE.glob(f"{release.name}-*.tar"):
            old.unlink()
        made.rename(archive)
    finally:
        made.unlink(missing_ok=True)
    return archive


@contextmanager
def in_memory() -> Iterator[Path]:
    """A directory on a file system in memory, for a tree or two (half a gigabyte each). dpkg syncs each file, and a
    disk takes its time for that.
    """
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4g,mode=0755", "enforcer-package", scratch], check=True)
        try:
            yield Path(scratch)
        finally:
            subprocess.run(["umount", "--lazy", scratch], check=True)


@contextmanager
def writable_copy(tree: Tree) -> Iterator[Tree]:
    """A tree with the same content; what is changed in it is kept apart, and gone at the end."""
    with in_memory() as scratch:
        for name in ("upper", "work", "tree"):
            (scratch / name).mkdir()
        layers = f"lowerdir={tree.path},upperdir={scratch / 'upper'},workdir={scratch / 'work'}"
        words = ["mount", "-t", "overlay", "-o", layers, "enforcer-package", str(scratch / "tree")]
        subprocess.run(words, check=True)
        try:
            yield Tree(scratch / "tree")
        finally:
            subprocess.run(["umount", "--lazy", str(scratch / "tree")], check=True)


def _bootstrap(release: Release, tree: Tree, package: Path) -> None:
    words = ["debootstrap", "--variant=minbase", release.name, str(tree.path), mirror()]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"debootstrap of {release.name} from {mirror()} failed:\n{done.stdout[-2000:]}{done.stderr}")
    sources = [
        (mirror(), release.name),
        (mirror(), f"{release.name}-updates"),
        (SECURITY_MIRROR, f"{release.name}-security"),
    ]
    text = "".join(f"deb {site} {suite} main\n" for site, suite in sources)
    (tree.path / "etc/apt/sources.list").write_text(text)
    (tree.path / "etc/dpkg/dpkg.cfg.d/no-sync").write_text(NO_SYNC)
    shutil.copy("/etc/resolv.conf", tree.path / "etc/resolv.conf")
    tree.must("apt-get", "update", "-q")
    tree.must("apt-get", "dist-upgrade", "-y", "-q")
    tree.must("apt-get", "clean")
    (tree.path / "root" / package.name).write_bytes(package.read_bytes())
    tree.install(f"/root/{package.name}", options=["--download-only"])
    (tree.path / "root" / package.name).unlink()
    if release.extras:
        tree.install(*release.extras, options=["--download-only"])


def mirror() -> str:
    """Debian's mirror that this host uses."""
    sites = output("apt-get", "indextargets", "--format", "$(SITE)", "Origin: Debian", "Label: Debian").splitlines()
    return sites[0] if sites else DEFAULT_MIRROR
