"""The mounts of this process (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

# Another machine or process may change files of these without this kernel knowing.
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "virtiofs", "fuse")
# On these, only through this kernel.
_LOCAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "overlay", "tmpfs", "ramfs")
_OCTAL = re.compile(r"\\([0-7]{3})")


def is_remote(device: int) -> bool:
    """Whether another machine or process serves the file system with this ``st_dev``; True if that is unknown."""
    try:
        return _kind(device).partition(".")[0] in _REMOTE
    except (OSError, IndexError):
        return True


def is_local(device: int) -> bool:
    """Whether only this kernel changes the file system with this ``st_dev``; False if that is unknown."""
    try:
        return _kind(device) in _LOCAL
    except (OSError, IndexError):
        return False


def _kind(device: int) -> str:
    wanted = f"{os.major(device)}:{os.minor(device)}"
    return next((kind for where, _, kind in _mounts() if where == wanted), "")


def mount_points() -> frozenset[str]:
    """The paths where anything is mounted. Raises OSError."""
    return frozenset(path for _, path, _ in _mounts())


def _mounts() -> Iterator[tuple[str, str, str]]:
    """Device (``8:1``), mount point and file system of each."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            before, _, after = line.partition(" - ")
            words = before.split(" ")
            yield words[2], _OCTAL.sub(lambda found: chr(int(found[1], 8)), words[4]), after.split(" ")[0]
