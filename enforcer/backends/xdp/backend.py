"""XdpBackend: a ModeDriver that uses BPF links, maps and pins.

It acts in the network namespace of the calling thread and keeps nothing open: the programs of a killed agent stay
attached, and the next agent continues from the pins. Interfaces share only the address tables, so a refused interface
does not affect the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from enforcer.backends.base import ApplyResult, EntryCount, Holding, Setup
from enforcer.backends.xdp import status
from enforcer.backends.xdp.converge import Computed, XdpSettings, converge
from enforcer.backends.xdp.state import generation
from enforcer.backends.xdp.state.layout import Pins, TablePins, all_pins, version_of
from enforcer.backends.xdp.state.read import Installed, entry_counts, read_all, read_installed
from enforcer.backends.xdp.state.watch import XdpWatch
from enforcer.kernel.bpf.bpffs import MOUNT_POINT, PIN_ROOT
from enforcer.kernel.bpf.conn import BpfConn
from enforcer.kernel.bpf.libbpf_conn import LIBBPF
from enforcer.kernel.bpf.toolchain import require
from enforcer.kernel.netns import current_inode
from enforcer.kernel.pin_paths import ephemeral_bpffs, remove_if_empty
from enforcer.kernel.rtnetlink import InterfaceState
from enforcer.model.errors import HostError, KernelError, PrivilegeError
from enforcer.model.facts import HostRules, Probe
from enforcer.model.vocabulary import STAGE_OF_MODE, Answer, Backend, Stage, Toolchain
from enforcer.planning.plan import Plan
from enforcer.system import directories


@dataclass(frozen=True)
class XdpBackend:
    """Enforces plans in XDP. :class:`~enforcer.backends.base.ModeDriver` documents the methods.

    Network namespaces that have interfaces of the same name need different pin roots. ``ipv6`` False: IPv6 packets
    pass, as in raw (``ipv6Support: false``). ``toolchain``: what compiles the program. ``bpf``: the kernel,
    or a fake of it.
    """

    pin_root: Path = PIN_ROOT
    ipv6: bool = True
    toolchain: Toolchain = Toolchain.LIBBPF
    bpf: BpfConn = LIBBPF
    _computed: Computed = field(default_factory=Computed, init=False, repr=False, compare=False)

    name = Backend.XDP
    stage = Stage.NIC_OFFLOAD
    watched = "bpf"

    @classmethod
    def of(cls, setup: Setup) -> XdpBackend:
        return cls(setup.pin_root, setup.felix.ipv6_support, setup.toolchain)

    def probe(self) -> Probe:
        """Whether the toolchain is available. :mod:`enforcer.kernel.probe` probes the interfaces."""
        try:
            require(self.toolchain)
        except (KernelError, PrivilegeError):
            raise
        except HostError as error:
            return Probe(Answer.NO, str(error))
        return Probe(Answer.YES)

    def serves(self, plan: Plan) -> bool:
        return any(item.mode is not None and item.xdp_entries for item in plan.interfaces)

    def check(self, plan: Plan) -> None:
        """Refuses nothing: an entry that XDP cannot hold is left to raw."""

    def apply(self, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        """Makes XDP enforce its part of this plan. Detaches from no interface: :meth:`release` does.

        Raises PrivilegeError without the capabilities, UntrustedDirectoryError if other users can change the pins,
        KernelError if the host has run out of descriptors, memory or a writable BPF file system. Interfaces that the
        kernel refuses are in the result.
        """
        with _bpffs_errors():
            return self._apply(plan, dry_run=dry_run)

    def _apply(self, plan: Plan, *, dry_run: bool) -> ApplyResult:
        directories.check_tree(self.pin_root)
        plans = [item for item in plan.interfaces if item.mode is not None and item.xdp_entries]
        changes = self._make_room(dry_run=dry_run) if plans else []
        states = self.bpf.interfaces()
        changes += self._follow_names(states, dry_run=dry_run)
        settings = XdpSettings(self.ipv6, self.toolchain, dry_run)
        result = converge(self.bpf, self.pin_root, plans, states, settings, self._computed)
        if not dry_run:
            self._tidy()
        return ApplyResult((*changes, *result.changes), result.refused, result.foreign, result.ranges)

    def release(self, plan: Plan, *, dry_run: bool = False) -> list[str]:
        """Detach from interfaces without XDP in this plan. Returns one sentence for each interface."""
        keep = {item.interface for item in plan.interfaces if item.mode is not None and item.xdp_entries}
        with _bpffs_errors():
            directories.check_tree(self.pin_root)
            changes = self._release(keep=keep, dry_run=dry_run)
            if changes and not dry_run:
                self._tidy()
        return changes

    def warnings(self, plan: Plan, rules: HostRules) -> Iterator[str]:
        """Warns if the pins would disappear with this process."""
        if any(item.mode for item in plan.interfaces) and (why := ephemeral_bpffs(self.pin_root)):
            yield why

    def counters(self) -> tuple[EntryCount, ...]:
        """What each entry dropped on each interface since it was installed there; policy changes do not reset it.

        Raises UntrustedDirectoryError if other users can change the pins; so do ``interfaces``, ``status`` and
        ``detach``.
        """
        directories.check_tree(self.pin_root)
        return tuple(
            count
            for pins, installed in read_all(self.bpf, self.pin_root)
            if installed.manifest.namespace == current_inode()
            for count in entry_counts(pins, installed)
        )

    def interfaces(self) -> dict[str, Stage]:
        return {item.interface: STAGE_OF_MODE[item.mode] for item in self.attached()}

    def status(self) -> dict[str, Holding]:
        called = {item.index: item.name for item in self.bpf.interfaces()}
        return {item.interface: status.holding(self.bpf, self.pin_root, item, called) for item in self.attached()}

    def attached(self) -> tuple[Installed, ...]:
        """The links that attach our programs to interfaces of this namespace."""
        directories.check_tree(self.pin_root)
        here = current_inode()
        found = (installed for _, installed in read_all(self.bpf, self.pin_root))
        return tuple(item for item in found if item.is_attached and item.manifest.namespace == here)

    def programs(self) -> frozenset[int]:
        """The ids of the programs of our links, in all namespaces; none if other users can change the pins."""
        try:
            directories.check_tree(self.pin_root)
        except HostError:
            return frozenset()
        return frozenset(item.link.prog_id for _, item in read_all(self.bpf, self.pin_root) if item.link is not None)

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        """Removes everything of ours from these interfaces, or from all of this namespace and deleted interfaces."""
        with _bpffs_errors():
            directories.check_tree(self.pin_root)
            changes = tuple(self._release(only=interfaces))
            self._tidy()
        remove_if_empty(self.pin_root)
        return changes

    def watch(self) -> XdpWatch:
        return XdpWatch(self.bpf, self.pin_root)

    def _make_room(self, *, dry_run: bool) -> list[str]:
        """Mount the BPF file system if needed. Raises HostError if the pin root is not on one."""
        if MOUNT_POINT not in self.pin_root.parents or self.bpf.is_bpffs(MOUNT_POINT):
            there = next(path for path in (self.pin_root, *self.pin_root.absolute().parents) if path.exists())
            if not self.bpf.is_bpffs(there):
                raise HostError(
                    f"{self.pin_root}: not on a BPF file system; pins have to be below one, such as {MOUNT_POINT}"
                )
            return []
        if not dry_run:
            self.bpf.ensure_bpffs()
        return [f"mounted the BPF file system on {MOUNT_POINT}"]

    def _follow_names(self, states: Iterable[InterfaceState], *, dry_run: bool) -> list[str]:
        """Rename the pins of renamed interfaces; their programs stay attached."""
        called = {state.index: state.name for state in states}
        changes = []
        for pins, installed in list(read_all(self.bpf, self.pin_root)):
            name = called.get(installed.link.ifindex) if installed.link else None
            if name in (None, pins.interface) or installed.manifest.namespace != current_inode():
                continue
            changes.append(f"{pins.interface}: renamed to {name}")
            if not dry_run:
                target = Pins.of(self.bpf, self.pin_root, str(name))
                generation.remove(target)
                pins.directory.rename(target.directory)
        return changes

    def _release(
        self, *, keep: Collection[str] = (), only: Collection[str] | None = None, dry_run: bool = False
    ) -> list[str]:
        """Remove the pins of this namespace and of deleted interfaces, except those in ``keep``."""
        changes = []
        for pins in all_pins(self.bpf, self.pin_root):
            if pins.interface in keep or (only is not None and pins.interface not in only):
                continue
            installed = read_installed(pins)
            if installed and installed.is_attached and installed.manifest.namespace != current_inode():
                continue
            if not dry_run:
                generation.remove(pins)
            gone = "" if installed and installed.is_attached else " (what was left of it)"
            changes.append(f"{pins.interface}: detached{gone}")
        return changes

    def _tidy(self) -> None:
        """Remove address tables that no interface reads, and empty directories."""
        here = current_inode()
        if not any(installed.manifest.namespace == here for _, installed in read_all(self.bpf, self.pin_root)):
            directories.remove_tree(TablePins.of(self.bpf, self.pin_root, here).directory)
        version = version_of(self.pin_root)
        for path in (version / "interfaces", version / "tables", version, self.pin_root):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


@contextmanager
def _bpffs_errors() -> Iterator[None]:
    """Maps errors of the BPF file system (it may be read-only) to KernelError."""
    try:
        yield
    except OSError as error:
        raise KernelError(
            f"{error.filename or 'the BPF file system'}: cannot be changed", number=error.errno or 0
        ) from error
