"""``enforcer_VERSION_ARCH.oci.tar``: an image of the enforcer, made of the newest release's package. buildah needs no
registry and, as root, no daemon.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.package.base import Tree, in_memory, unpack
from tools.package.deb import Build, Refused

# Not of a running enforcer: documents but the licences, what apt and dpkg keep, other languages.
UNUSED = (
    *("usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/bash-completion", "usr/share/lintian"),
    *("var/cache/apt", "var/lib/apt/lists", "var/cache/debconf", "var/log", "root/*", "tmp/*"),
    *("etc/dpkg/dpkg.cfg.d/no-sync", "etc/resolv.conf", "etc/hostname"),
)


class Buildah:
    """buildah with a store of its own. It changes nothing of the host's containers."""

    def __init__(self, store: Path) -> None:
        self._words = ["buildah", "--root", str(store / "store"), "--runroot", str(store / "run")]
        self._words += ["--storage-driver", "vfs"]

    def __call__(self, *words: str) -> str:
        """What it prints. Raises Refused, with what it said, if it fails."""
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        done = subprocess.run([*self._words, *words], capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise Refused(f"'buildah {' '.join(words)}' ended with {done.returncode}:\n{done.stderr}")
        return done.stdout.strip()


def image_name(build: Build) -> str:
    return f"enforcer_{build.version}_{build.architecture}.oci.tar"


def build_image(build: Build, package: Path, folder: Path) -> Path:
    """The image, written into ``folder``. ``package``: of ``build``. Raises Refused."""
    image = folder / image_name(build)
    with in_memory() as scratch:
        tree = unpack(build.release, package, scratch / "tree")
        shutil.copy(package, tree.path / "root")
        tree.install(f"/root/{package.name}")
        _reduce(tree)
        buildah = Buildah(scratch)
        container = buildah("from", "scratch")
        buildah("add", "--quiet", container, str(tree.path), "/")
        config = {
            "--entrypoint": json.dumps(["/usr/bin/enforcer"]),
            "--cmd": "--help",
            "--env": "LANG=C.UTF-8",
            "--stop-signal": "SIGTERM",
        }
        labels = {"title": "enforcer", "version": build.version, "licenses": "Apache-2.0"}
        words = [word for option in config.items() for word in option]
        words += [
            word for key, value in labels.items() for word in ("--label", f"org.opencontainers.image.{key}={value}")
        ]
        buildah("config", *words, container)
        image.unlink(missing_ok=True)
        name = f"oci-archive:{image}:enforcer:{build.version}"
        buildah("commit", "--quiet", "--format", "oci", "--timestamp", str(build.when_s), container, name)
    return image


@contextmanager
def unpacked(image: Path) -> Iterator[tuple[Tree, list[str]]]:
    """The root file system of an image, and its entry point."""
    with in_memory() as scratch:
        buildah = Buildah(scratch)
        container = buildah("from", f"oci-archive:{image}")
        config = json.loads(buildah("inspect", container))["OCIv1"]["config"]
        yield Tree(Path(buildah("mount", container))), config["Entrypoint"]
        buildah("umount", container)


def _reduce(tree: Tree) -> None:
    for path in (found for pattern in UNUSED for found in tree.path.glob(pattern)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for path in tree.path.glob("usr/share/doc/*/*"):
        if path.name != "copyright":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
