"""``./run package``: everything that is installed, in ``dist/``."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tools.package.deb import ROOT, Refused, build_deb, build_of, build_wheel
from tools.package.image import build_image
from tools.package.releases import RELEASES

DIST = ROOT / "dist"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="./run package", description=__doc__)
    parser.add_argument("--version", type=version, help="of the packages; default: that of enforcer/__init__.py")
    parser.add_argument("--release", action="append", choices=[each.name for each in RELEASES], help="default: all")
    parser.add_argument("--no-image", action="store_true", help="packages alone, for which root is not needed")
    parser.add_argument("--output", type=Path, default=DIST, help="directory; default: dist/")
    parser.add_argument("--test", action="store_true", help="install and use all of it in fresh systems; needs root")
    parser.add_argument("pytest", nargs="*", metavar="-- ARGS", help="with --test: for pytest")
    given = parser.parse_args(words)
    if given.test and given.release:
        parser.error("--test needs the packages of all releases: leave out --release")
    if given.test and given.version:
        parser.error("--test needs the version of the tree: leave out --version")
    if given.pytest and not given.test:
        parser.error(f"arguments for pytest without --test: {' '.join(given.pytest)}")
    if given.test and given.no_image:
        parser.error("--test needs the image: leave out --no-image")
    if os.geteuid() != 0 and not given.no_image:
        parser.error("the image needs root (debootstrap, chroot); without: --no-image")
    try:
        given.output.mkdir(parents=True, exist_ok=True)
        wheel = build_wheel(given.output)
        print(wheel)
        for release in RELEASES:
            if not given.release or release.name in given.release:
                build = build_of(release, given.version)
                package = build_deb(build, wheel, given.output)
                print(package, flush=True)
                if release == RELEASES[-1] and not given.no_image:
                    print(build_image(build, package, given.output), flush=True)
        if given.test:
            _test(given.output, given.pytest)
    except Refused as error:
        sys.exit(f"./run package: {error}")
    except OSError as error:
        sys.exit(f"./run package: {error.filename}: {error.strerror}")
    except subprocess.CalledProcessError as error:  # it has said why
        sys.exit(f"./run package: {error.cmd[0]} ended with {error.returncode}")


def _test(built: Path, more: Sequence[str]) -> NoReturn:
    """Becomes pytest."""
    words = [sys.executable, "-m", "pytest", "-q", "tests/package", *more]
    environment = {**os.environ, "PACKAGES": str(built.resolve())}
    os.chdir(ROOT)
    sys.stdout.flush()
    os.execve(sys.executable, words, environment)


def version(text: str) -> str:
    """One that Python's and Debian's rules both allow."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"expected a version such as 1.2.3, found {text!r}")
    return text


if __name__ == "__main__":
    main()
