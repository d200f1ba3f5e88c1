"""Directories that only this user can change, for data that root reads back or removes.

A directory is trusted when this user owns it, nobody else can write to it, and nobody else can replace it: each parent
belongs to this user or root, and is writable by others only with the sticky bit, like /tmp. Paths are resolved with
descriptors, one component at a time, and links of other users are not followed. So what was checked cannot be exchanged
afterwards (path_resolution(7), openat(2)).
"""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from enforcer.model.errors import HostError, KernelError

_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_LINKS = 40  # as many as the kernel follows (MAXSYMLINKS)
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE = 0o700
_WALKS = 10  # through a path that others shorten and we make


class UnusableDirectoryError(HostError):
    """The path is not a directory, or not a trusted one."""


class UntrustedDirectoryError(UnusableDirectoryError):
    """Another user can change the directory's content, or replace the directory."""


def is_there(path: Path) -> bool:
    """Whether the directory exists. Raises UntrustedDirectoryError if it, or a parent, is not trusted."""
    try:
        with _opened(path, make=None):
            return True
    except FileNotFoundError:
        return False


def make(path: Path, mode: int = _PRIVATE) -> None:
    """Create the directory and its parents if missing. Raises UntrustedDirectoryError, KernelError."""
    with opened(path, mode):
        pass


@contextmanager
def opened(path: Path, mode: int = _PRIVATE) -> Iterator[int]:
    """A descriptor (O_PATH) of the directory, created if missing. Raises UntrustedDirectoryError, KernelError."""
    with _opened(path, make=mode) as descriptor:
        yield descriptor


def check_tree(path: Path) -> bool:
    """Whether the directory exists. Raises UntrustedDirectoryError when anything in it is a link or another user's."""
    if not is_there(path):
        return False
    for folder, names, files, descriptor in os.fwalk(path, follow_symlinks=False):
        for name in (*names, *files):
            with suppress(FileNotFoundError):  # gone meanwhile
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                _check_inside(f"{folder}/{name}", status)
    return True


def remove_tree(path: Path) -> None:
    """Remove a directory and its content, if it exists. Links are removed, never followed."""
    with suppress(FileNotFoundError):
        shutil.rmtree(path)


@contextmanager
def _opened(path: Path, make: int | None) -> Iterator[int]:
    here = _open(path, make)
    try:
        yield here
    finally:
        os.close(here)


def _open(path: Path, make: int | None) -> int:
    for _ in range(_WALKS - 1 if make is not None else 0):
        with suppress(FileNotFoundError):  # another process removed a parent meanwhile, because it was empty
            return _walk(path, make)
    return _walk(path, make)


def _walk(path: Path, make: int | None) -> int:
    todo = [*reversed(path.absolute().parts[1:])]
    here, at, links = os.open("/", _STEP | os.O_DIRECTORY), "/", 0
    try:
        while todo:
            _check_above(at, os.fstat(here))
            name = todo.pop()
            below = _step(here, os.path.join(at, name), name, make)
            status = os.fstat(below)
            if stat.S_ISLNK(status.st_mode):
                links += 1
                target = _target(below, os.path.join(at, name), status, links)
                os.close(below)
                todo += reversed(target.parts[1:] if target.is_absolute() else target.parts)
                below, name = (os.open("/", _STEP), "/") if target.is_absolute() else (os.dup(here), "")
                status = os.fstat(below)
            elif not stat.S_ISDIR(status.st_mode):
                os.close(below)
                raise UnusableDirectoryError(f"{os.path.join(at, name)}: not a directory")
            os.close(here)
            here, at = below, os.path.join(at, name) if name else at
        _check_last(at, os.fstat(here))
    except BaseException:
        os.close(here)
        raise
    return here


def _step(here: int, path: str, name: str, make: int | None) -> int:
    try:
        return _open_below(here, name, make)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KernelError(
            f"{path}: cannot be {'opened' if make is None else 'made or opened'}", number=error.errno or 0
        ) from error


def _open_below(here: int, name: str, make: int | None) -> int:
    try:
        return os.open(name, _STEP, dir_fd=here)
    except FileNotFoundError:
        if make is None:
            raise
    with suppress(FileExistsError):
        os.mkdir(name, make, dir_fd=here)
    return os.open(name, _STEP, dir_fd=here)


def _target(link: int, path: str, status: os.stat_result, links: int) -> Path:
    if links > _LINKS:
        raise KernelError(f"{path}: cannot be opened", number=errno.ELOOP)
    if not _is_trusted(status):
        raise UntrustedDirectoryError(f"{path}: a link owned by {_owner(status)}; not followed")
    return Path(os.readlink("", dir_fd=link))


def _check_above(path: str, status: os.stat_result) -> None:
    others = status.st_mode & _WRITABLE and not status.st_mode & stat.S_ISVTX
    if others or not _is_trusted(status):
        raise UntrustedDirectoryError(
            f"{path}: owned by {_owner(status)}, mode {stat.S_IMODE(status.st_mode):04o}: others can replace what is "
            f"below it; use a directory that only {_name(os.geteuid())} can change, as well as all its parents"
        )


def _check_last(path: str, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or status.st_mode & _WRITABLE:
        raise UntrustedDirectoryError(
            f"{path}: owned by {_owner(status)}, mode {stat.S_IMODE(status.st_mode):04o}: others can change its "
            f"content; it must be owned by {_name(os.geteuid())} and writable by nobody else (0755 or 0700)"
        )


def _check_inside(path: str, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise UntrustedDirectoryError(
            f"{path}: a link owned by {_owner(status)}; remove it, the enforcer creates no links here"
        )
    if stat.S_ISDIR(status.st_mode):
        _check_last(path, status)
    elif status.st_uid != os.geteuid():
        raise UntrustedDirectoryError(
            f"{path}: owned by {_owner(status)}; remove it, everything here must be owned by {_name(os.geteuid())}"
        )


def _is_trusted(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid())


def _owner(status: os.stat_result) -> str:
    return _name(status.st_uid)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
