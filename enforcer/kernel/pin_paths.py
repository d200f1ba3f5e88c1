"""Where BPF objects are pinned, and whether the pins outlive this process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from enforcer.kernel.bpf.bpffs import PIN_ROOT
from enforcer.kernel.netns import current_inode

_NAMED_NAMESPACES = Path("/run/netns")


def default_pin_root() -> Path:
    """The directory of the calling thread's network namespace: interfaces of different namespaces share names."""
    return PIN_ROOT / f"netns-{current_inode()}"


def remove_if_empty(pin_root: Path) -> None:
    """Remove the parent of the default pin roots when no namespace has one."""
    if pin_root.parent == PIN_ROOT:
        with suppress(OSError):  # it has another namespace's pins, or does not exist
            PIN_ROOT.rmdir()


def ephemeral_bpffs(pin_root: Path) -> str:
    """A warning if the BPF file system is ephemeral, so that pins end with this process; "" if it is not, as far as
    known.

    A BPF file system and its pins live as long as it is mounted somewhere. ``ip netns exec`` gives its child a mount
    namespace with its own /sys, named like the network namespace (iproute2 ``lib/namespace.c``); services and
    containers have mount namespaces too. What is mounted there ends with the namespace, and its links detach.
    """
    mounts = _mounts("self")
    for mount in mounts:
        if (mount.point, mount.kind) == ("/sys", "sysfs") and (_NAMED_NAMESPACES / mount.source).exists():
            return (
                f"'ip netns exec {mount.source}' hides the host's BPF file system: XDP programs are detached when the "
                f"last "
                f"process there ends, and only raw remains; use 'nsenter --net={_NAMED_NAMESPACES / mount.source}' "
                "instead"
            )
    above = [mount for mount in mounts if mount.kind == "bpf" and Path(mount.point) in (pin_root, *pin_root.parents)]
    if not above or not _is_private(above[-1], mounts):
        return ""
    return (
        f"the BPF file system on {above[-1].point} is mounted only in this mount namespace: XDP programs are detached "
        "when the last process there ends, and only raw remains; mount it on the host ('mount -t bpf bpf "
        f"{above[-1].point}', as systemd does at boot)"
    )


@dataclass(frozen=True)
class _Mount:
    """A line of /proc/PID/mountinfo. ``is_slave``: what is mounted there on the host appears here too."""

    device: str
    point: str
    kind: str
    source: str
    is_slave: bool


def _mounts(process: str) -> list[_Mount]:
    found = []
    for line in Path(f"/proc/{process}/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        _, _, device, _, point, _, *tags = before.split(" ")
        kind, source, *_ = after.split(" ")
        found.append(_Mount(device, point, kind, source, any(tag.startswith("master:") for tag in tags)))
    return found


def _is_private(mount: _Mount, mounts: Sequence[_Mount]) -> bool:
    """Whether the first process lacks this mount. Without the privilege to read its mounts (as in a service): whether
    every other mount comes from the host.
    """
    try:
        return all(other.device != mount.device for other in _mounts("1"))
    except OSError:
        return not mount.is_slave and any(other.point == "/" and other.is_slave for other in mounts)
