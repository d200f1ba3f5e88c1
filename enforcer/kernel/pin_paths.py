"""Where things are pinned, and whether they stay there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from enforcer.kernel.bpf.bpffs import PIN_ROOT
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


def pins_are_fleeting(pin_root: Path) -> str:
    """Why what is pinned goes with this process; "" when it stays, as far as can be seen from here.

    A BPF file system lives as long as it is mounted somewhere, and with it its pins. ``ip netns exec`` gives its child
    a mount namespace with a /sys of its own, named like the network namespace (iproute2 ``lib/namespace.c``); services
    and containers have one too. What is mounted in there ends with it, and its links detach.
    """
    mounts = _mounts("self")
    for mount in mounts:
        if (mount.point, mount.kind) == ("/sys", "sysfs") and (_NAMED_NAMESPACES / mount.source).exists():
            return (
                f"'ip netns exec {mount.source}' hides the BPF file system: XDP programs are detached when the last "
                f"process in there ends, and raw alone is left; use 'nsenter --net={_NAMED_NAMESPACES / mount.source}' "
                "instead"
            )
    above = [mount for mount in mounts if mount.kind == "bpf" and Path(mount.point) in (pin_root, *pin_root.parents)]
    if not above or not _is_private(above[-1], mounts):
        return ""
    return (
        f"the BPF file system on {above[-1].point} is mounted in this mount namespace alone: XDP programs are detached "
        "when the last process in there ends, and raw alone is left; mount it on the host ('mount -t bpf bpf "
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
    """Whether the first process does not have what is mounted here. Without the privilege to look at it (a service has
    none): whether everything comes from the host but this.
    """
    try:
        return all(other.device != mount.device for other in _mounts("1"))
    except OSError:
        return not mount.is_slave and any(other.point == "/" and other.is_slave for other in mounts)
