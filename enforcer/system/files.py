"""Finds and opens the files below a path. What cannot be read is a fault, never treated as empty.

``os.walk`` and ``Path.is_dir`` treat an unreadable directory as empty. For a deny list that would lift it, so each
directory entry is examined here and each error is recorded.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

SUFFIXES = (".yaml", ".yml", ".json")
SCENARIO_SUFFIXES = (".scenario.yaml", ".scenario.yml")

FILE_MAX_BYTES = 64 << 20  # a GlobalNetworkSet of two million CIDRs has 40 MB
FOLDERS_MAX = 10_000
SPLIT = "split it into several files"

_CHUNK_BYTES = 1 << 20
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFDIR: "a directory",
}

Identity = tuple[int, int, int, int, int]


class UnreadableError(Exception):
    """A file that cannot be used in its present state; the message says why."""


@dataclass
class Tree:
    """What is below a path: ``files`` to read, in order, the ``folders`` they are in, and what could not be read.

    ``others`` are files with other suffixes; they are not read. ``faults`` are pairs of a path and a message: the
    content at or below such a path is unknown. ``devices`` maps a folder to its file system (``st_dev``).
    """

    files: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    devices: dict[str, int] = field(default_factory=dict)

    def mount_points(self) -> set[str]:
        """The folders on another file system than their parent."""
        return {path for path, device in self.devices.items() if device != self._device_above(path)}

    def _device_above(self, path: str) -> int:
        return self.devices.get(os.path.dirname(path), self.devices[path])


def find(given: str) -> Tree:
    """The files of a directory at any depth, or the file itself.

    Hidden names and scenario files are skipped. Symbolic links are followed, also to directories, as Kubernetes mounts
    a ConfigMap with such links. Each directory is read once, so that a loop ends.
    """
    tree = Tree()
    try:
        status = os.stat(given)
    except OSError:
        tree.files.append(given)  # opening it reports the error
        return tree
    if not stat.S_ISDIR(status.st_mode):
        tree.files.append(given)
        return tree
    seen: set[tuple[int, int]] = set()
    to_read = [given]
    while to_read:
        folder = to_read.pop()
        if _is_new(folder, seen, tree):
            to_read += reversed(list(_entries(folder, tree)))
        if len(seen) > FOLDERS_MAX:
            tree.faults.append((given, f"more than {FOLDERS_MAX} directories; does a symbolic link lead out of it?"))
            return tree
    return tree


def may_exist(path: str | os.PathLike[str]) -> bool:
    """Whether it exists, or that cannot be known: then reading it reports the error."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def identity_of(path: str) -> Identity:
    """A value that differs after any change of a file or directory. Raises OSError.

    It includes ctime because, unlike mtime, it cannot be set back.
    """
    return identity(os.stat(path))


def identity(status: os.stat_result) -> Identity:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def read(path: str, *, limit_bytes: int = FILE_MAX_BYTES, instead: str = SPLIT) -> bytes:
    """The content of a regular file. Raises OSError, or UnreadableError for other files and files that are changing.

    Does not block on a FIFO or a device, and uses no more memory than the limit. ``instead`` is the advice printed for
    a larger file.
    """
    _require_regular(
        os.stat(path), limit_bytes, instead
    )  # before opening: open(2) alone has side effects on some devices
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        before = os.fstat(descriptor)
        _require_regular(before, limit_bytes, instead)
        content = _content(descriptor, limit_bytes, instead)
        if identity(before) != identity(os.fstat(descriptor)):
            raise UnreadableError("changed while it was read; replace files with rename(2), which is atomic")
        return content
    finally:
        os.close(descriptor)


def read_text(path: str, *, limit_bytes: int = FILE_MAX_BYTES, instead: str = SPLIT) -> str:
    """The content as text, with or without byte order mark. Raises only UnreadableError."""
    try:
        return read(path, limit_bytes=limit_bytes, instead=instead).decode("utf-8-sig")
    except OSError as error:
        raise UnreadableError(cannot_read(error)) from error
    except UnicodeDecodeError as error:
        raise UnreadableError("not text: it is not UTF-8") from error
    except ValueError as error:  # a NUL in the name
        raise UnreadableError(f"cannot be read: {error}") from error


def _content(descriptor: int, limit_bytes: int, instead: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := os.read(descriptor, _CHUNK_BYTES):
        parts.append(part)
        size += len(part)
        require_size(size, limit_bytes, instead)
    return b"".join(parts)


def _require_regular(status: os.stat_result, limit_bytes: int, instead: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        found = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise UnreadableError(f"not a regular file but {found}")
    require_size(status.st_size, limit_bytes, instead)


def require_size(size_bytes: int, limit_bytes: int = FILE_MAX_BYTES, instead: str = SPLIT) -> None:
    """Raises UnreadableError for more than the limit."""
    if size_bytes > limit_bytes:
        raise UnreadableError(f"larger than {limit_bytes >> 20} MiB; {instead}")


def _is_new(folder: str, seen: set[tuple[int, int]], tree: Tree) -> bool:
    try:
        status = os.stat(folder)
    except OSError as error:
        tree.faults.append((folder, cannot_read(error)))
        return False
    key = (status.st_dev, status.st_ino)
    if key in seen:
        return False
    seen.add(key)
    tree.devices[folder] = status.st_dev
    return True


def _entries(folder: str, tree: Tree) -> Iterator[str]:
    """Add the files of one directory; yield its subdirectories."""
    tree.folders.append(folder)
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        return  # removed since its name was read
    except OSError as error:
        tree.faults.append((folder, cannot_read(error)))
        return
    for entry in entries:
        if entry.name.startswith("."):  # a mounted ConfigMap holds its files twice, once below "..data"
            continue
        try:
            is_folder = stat.S_ISDIR(entry.stat().st_mode)
        except OSError as error:
            if not _is_gone(entry, error):
                tree.faults.append((entry.path, cannot_read(error)))
            continue
        if is_folder:
            yield entry.path
        elif not entry.name.endswith(SUFFIXES):
            tree.others.append(entry.path)
        elif not entry.name.endswith(SCENARIO_SUFFIXES):
            tree.files.append(entry.path)


def _is_gone(entry: os.DirEntry[str], error: OSError) -> bool:
    """Whether an entry was removed meanwhile. A dangling link is a fault instead: it may have led to a directory."""
    return error.errno == errno.ENOENT and not os.path.lexists(entry.path)


def cannot_read(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"
