"""The Debian releases that a package is built for. Each has one Python, and the venv in a package is for one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

OS_RELEASE = Path("/etc/os-release")


@dataclass(frozen=True)
class Release:
    """``number``: VERSION_ID of os-release(5). ``python``: the version of its package ``python3``.
    ``extras``: packages that its trees have in apt's cache for tests.
    """

    number: int
    name: str
    python: str
    extras: tuple[str, ...] = ()

    @property
    def next_python(self) -> str:
        major, _, minor = self.python.partition(".")
        return f"{major}.{int(minor) + 1}"


RELEASES = (Release(12, "bookworm", "3.11", ("systemd",)), Release(13, "trixie", "3.13", ("systemd", "kubectl")))


def this_host() -> Release | None:
    """The release of this host; None if it is none of RELEASES."""
    found = re.search(r'^VERSION_CODENAME="?(\w+)', OS_RELEASE.read_text(), re.MULTILINE)
    return next((each for each in RELEASES if found and each.name == found[1]), None)
