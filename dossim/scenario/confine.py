"""Which files a scenario may name: those below its own folder, and below folders that the user allows.

Scenarios come with pull requests. A path in one, or a symbolic link, must not read files of the machine that runs it,
nor show their content in an error message.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from enforcer.system import files
from enforcer.system.files import SUFFIXES

ALLOW_PATH = "--allow-path"
FILE_MAX_BYTES = 4 << 20  # of a scenario file; inline resources are meant to be few

_ENTRIES_MAX = 10_000
_INSTEAD = "a scenario names its captures and policy rather than holding them"


class Outside(Exception):
    """A path that the scenario may not name; the message states what is expected."""


@dataclass(frozen=True)
class Confinement:
    """``roots`` are resolved paths of folders; everything below them may be read."""

    roots: tuple[str, ...]

    @classmethod
    def of(cls, scenario: Path, *, root: Path | None = None, allow: Iterable[Path] = ()) -> Confinement:
        """For a scenario file: its folder, ``root`` if the file is below it, and the folders in ``allow``.

        ``root`` is the folder that the user named to be searched for scenarios; never the whole file system.
        """
        folder = os.path.realpath(scenario.parent)
        roots = [folder, *(os.path.realpath(path) for path in allow)]
        if root is not None:
            real = os.path.realpath(root)
            if real != os.path.dirname(real) and _is_below(folder, real):
                roots.append(real)
        return cls(tuple(roots))

    @classmethod
    def below(cls, folders: Iterable[Path]) -> Confinement:
        """These folders only."""
        return cls(tuple(os.path.realpath(folder) for folder in folders))

    def require(self, path: Path) -> None:
        """Raises Outside for a path that leads elsewhere after following symbolic links."""
        real = os.path.realpath(path)
        if not any(_is_below(real, root) for root in self.roots):
            raise Outside(
                f"{path}: is outside {self.roots[0]}, where it may be read from; "
                f"{ALLOW_PATH} {os.path.dirname(real)} would allow it"
            )

    def require_resources(self, path: Path) -> None:
        """As :meth:`require`, for a file or folder of resources and everything below it. Raises Outside."""
        for number, item in enumerate(_resource_files(path)):
            if number > _ENTRIES_MAX:
                raise Outside(f"{path}: more than {_ENTRIES_MAX:,} files and folders; name the files")
            self.require(item)
        real = os.path.realpath(path)
        if not os.path.isdir(real) and not real.endswith(SUFFIXES):
            raise Outside(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}, or a folder of such files")


def read_text(path: Path, most: int = FILE_MAX_BYTES) -> str:
    """The text of a regular file. Raises :class:`enforcer.system.files.UnreadableError`."""
    return files.read_text(str(path), limit_bytes=most, instead=_INSTEAD)


def _resource_files(path: Path) -> Iterator[Path]:
    """The path, and what is below a folder: each folder, and each file that would be read as resources."""
    yield path
    seen: set[str] = set()
    to_read = [path] if path.is_dir() else []
    while to_read:
        folder = to_read.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        for entry in _entries(folder):
            if entry.is_dir():
                yield entry
                to_read.append(entry)
            elif entry.name.endswith(SUFFIXES):
                yield entry


def _entries(folder: Path) -> Sequence[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return ()  # reading the policy reports why


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(os.path.join(root, ""))
