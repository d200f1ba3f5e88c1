"""Where things are pinned, and whether they stay there."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from enforcer.directories import UntrustedDirectoryError, check_tree
from enforcer.kernel.bpffs import PIN_ROOT
from enforcer.kernel.netns import current_inode

_NAMED_NAMESPACES = Path("/run/netns")


def default_pin_root() -> Path:
    """A directory for the calling thread's network namespace: interfaces of different namespaces share names."""
    return PIN_ROOT / f"netns-{current_inode()}"


def remove_if_empty(pin_root: Path) -> None:
    """Remove the directory above the default pin roots once no namespace has one."""
    if pin_root.parent == PIN_ROOT:
        with suppress(OSError):  # it holds another namespace's, or is not there
            PIN_ROOT.rmdir()


def why_untrusted(pin_root: Path) -> str:
    """Why nothing may be pinned there; "" when it may, or the directory is not there yet."""
    try:
        check_tree(pin_root)
    except UntrustedDirectoryError as error:
        return f"no XDP: {error}"
    return ""


def pins_are_fleeting() -> str:
    """Why what is pinned goes with this process; "" when it stays.

    ``ip netns exec`` gives its child a mount namespace with a /sys of its own, named like the network namespace
    (iproute2 ``lib/namespace.c``); the BPF file system mounted in there ends with it, and its links detach.
    """
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, mount_point, kind = line.split(" ")[:3]
        if (mount_point, kind) == ("/sys", "sysfs") and (_NAMED_NAMESPACES / source).exists():
            return (
                f"'ip netns exec {source}' hides the BPF file system: XDP programs are detached when the last process "
                f"in there ends, and raw alone is left; use 'nsenter --net={_NAMED_NAMESPACES / source}' instead"
            )
    return ""
