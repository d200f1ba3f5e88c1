"""Which files of a directory are scenarios. Imports nothing that building packets needs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from enforcer.model.errors import UsageError
from enforcer.system.files import SCENARIO_SUFFIXES


def scenario_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The scenario files among files and directories, those of directories in order of name.

    Raises UsageError for a path that does not exist or cannot be read, or when there is none at all.
    """
    return [file for file, _ in rooted_scenarios(paths)]


def rooted_scenarios(paths: Iterable[str | os.PathLike[str]]) -> list[tuple[Path, Path | None]]:
    """The scenario files as :func:`scenario_files` has them, each with the directory that was searched for it."""
    given = [Path(path) for path in paths]
    found: list[tuple[Path, Path | None]] = []
    for path in given:
        if not path.exists():
            raise UsageError(f"{path}: no such file or directory")
        if path.is_dir():
            found.extend((item, path) for item in files_below(path) if item.name.endswith(SCENARIO_SUFFIXES))
        else:
            found.append((path, None))
    if not found:
        raise UsageError(f"no *{SCENARIO_SUFFIXES[0]} files in {', '.join(map(str, given))}")
    return found


def files_below(folder: Path) -> list[Path]:
    """All files of a directory at any depth, in order of name. Raises UsageError where one cannot be read."""

    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename}: cannot be read: {error.strerror}")

    return sorted(Path(where, name) for where, _, names in os.walk(folder, onerror=refuse) for name in names)
